"""Kullback-Leibler divergence of softened outputs: Hinton's knowledge distillation."""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.errors import SignalError
from tutelage.losses.base import Loss, Needs, Weight, require_choice, require_same_shape
from tutelage.losses.events import divergence_on_events
from tutelage.losses.logits import require_positive
from tutelage.losses.reduce import class_last, mean_per_position, widen
from tutelage.losses.rows import cut_gradient, differentiable_once, token_mask
from tutelage.signals import Batch, Request, Signals

__all__ = ["KLDivergence", "bernoulli_kl", "softmax_kl"]


def softmax_kl(student: Tensor, teacher: Tensor, temperature: float, axis: int = -1) -> Tensor:
    """`T² · KL(softmax(t/T) ‖ softmax(s/T))` over an axis: `[..., C]` -> `[...]`, in float32 or wider."""
    student, teacher = widen(student, teacher)
    log_q = F.log_softmax(student / temperature, dim=axis)
    log_p = F.log_softmax(teacher / temperature, dim=axis)
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(axis) * temperature**2


def bernoulli_kl(student: Tensor, teacher: Tensor, temperature: float, axis: int = -1) -> Tensor:
    """`T² · Σ_c KL(Bernoulli(σ(t_c/T)) ‖ Bernoulli(σ(s_c/T)))` over an axis: `[..., C]` -> `[...]`."""
    student, teacher = widen(student, teacher)
    divergences = _BernoulliKL.apply(student, teacher, temperature, axis)  # type: ignore[no-untyped-call]
    return cast("Tensor", divergences) * temperature**2


class _BernoulliKL(torch.autograd.Function):
    """Summed over an axis; its gradient `σ(s) - σ(t)` is at hand, where autograd would save six tensors."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, temperature: float, axis: int) -> Tensor:
        # The divergence is the same with both signs turned. Turned so that the teacher says yes, every term is small
        # where it is sure; 1 - σ(t) is 0 from t = 17 on, and the terms then no longer cancel where s nears t.
        scale = teacher.new_full((), 1 / temperature)
        s, t = torch.copysign(scale, teacher).mul_(student), teacher.abs().mul_(scale)
        values = F.logsigmoid(t).sub_(F.logsigmoid(s))
        no, apart = t.neg().sigmoid_(), t.sub_(s)
        turn = torch.copysign(scale, teacher)
        # Only a wrapper that trains something on the teacher's side asks for the second slope: σ(t) σ(-t) (t - s).
        of_teacher = (no * (1 - no) * apart).mul_(turn) if ctx.needs_input_grad[1] else None
        result = values.sub_(apart.mul_(no)).sum(axis)
        ctx.save_for_backward(result, no.sub_(s.neg_().sigmoid_()).mul_(turn), of_teacher)
        ctx.axis = axis
        return result

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        _, slope, of_teacher = ctx.saved_tensors
        gradient = gradient.unsqueeze(ctx.axis)
        return gradient * slope, None if of_teacher is None else gradient * of_teacher, None, None


class KLDivergence(Loss):
    """`T² · KL(p ‖ q)` between the outputs of teacher `p` and student `q`, softened by a temperature `T`.

    With softmax outputs `p = softmax(t / T)`, `q = softmax(s / T)` over the class axis; with sigmoid outputs each class
    is a Bernoulli variable and the divergences of the classes are summed. The factor `T²` keeps the size of the
    gradient when `T` changes. It is zero where student and teacher agree.

    Shapes: outputs `[B, C]` -> `[B]`. Where outputs have positions (`[B, L, C]` or, with `axis=1`, `[B, C, H, W]`),
    each token is a value, `[B, L]`, if the rows have a token mask; else each sample is the mean of its positions.

    When to use it: the first choice for classifiers; the classes that the teacher confuses tell the student more than
    the label does. With few classes (2 to 4) there is little in them: add `Hint` or `SimilarityPreserving`.

    Cost: negligible beside the forward pass; three tensors of the outputs' size.

    Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015. The paper writes the
    cross-entropy; its gradient is the same, and the divergence has the floor 0.

    Args:
        temperature: `T > 0`; 1 compares the outputs as they are, 2 to 8 show what the teacher finds similar.
        axis: The class axis of the output, of student and teacher alike; to be given for `[B, C, H, W]`.
        outputs: What the logits are turned into a distribution by.
        weight: Factor of this term in the total.

    Raises:
        ValueError: `temperature` is not a positive number, or `outputs` is none of its choices.
    """

    def __init__(
        self,
        temperature: float = 4.0,
        *,
        axis: int = -1,
        outputs: Literal["softmax", "sigmoid"] = "softmax",
        weight: Weight = 1.0,
    ) -> None:
        super().__init__(weight=weight)
        require_positive("temperature", temperature)
        require_choice("outputs", outputs, ("softmax", "sigmoid"))
        self.temperature = temperature
        self.axis = axis
        self.outputs = outputs

    @property
    def takes_top_k(self) -> bool:  # type: ignore[override]
        """Where the classes are one distribution."""
        return self.outputs == "softmax"

    @property
    def leaves_free(self) -> frozenset[str]:  # type: ignore[override]
        """A softmax ignores a number added to all classes."""
        return frozenset({"shift"}) if self.outputs == "softmax" else frozenset()

    @property
    def needs(self) -> Needs:
        """Both outputs."""
        return Needs(student=Request(output=True), teacher=Request(output=True))

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
        """`[B]`, or `[B, L]` when the rows are masked sequences."""
        assert student.output is not None
        if teacher.top is not None:
            return divergence_on_events(
                "KLDivergence", student.output, teacher.top, self.axis, batch, temperature=self.temperature
            )
        assert teacher.output is not None
        require_same_shape(
            "KLDivergence", student.output, teacher.output, where="outputs", mend="give both as many classes"
        )
        s, t, axis = student.output, teacher.output, self.axis
        if class_last(s, axis).dim() <= 3:
            s, t, axis = class_last(s, axis), class_last(t, axis), -1
        if self.outputs == "softmax" and s.shape[axis] == 1:
            raise SignalError(
                "KLDivergence on outputs",
                expected="two classes or more",
                found=f"one: shape {tuple(student.output.shape)}",
                harm="a softmax over one class is always 1, so nothing would be learnt",
                mend='set `outputs: "sigmoid"` for one logit a class, or use LogitMSE for values',
            )
        divergence = softmax_kl if self.outputs == "softmax" else bernoulli_kl
        mask = token_mask(s, batch)
        values = divergence(cut_gradient(s, mask), t, self.temperature, axis)
        return mean_per_position(values if mask is None else values.masked_fill(~mask, 0), batch)
