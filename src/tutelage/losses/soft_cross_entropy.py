"""Cross-entropy with soft targets: the teacher's distribution stands where the label would."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.losses.base import Loss, Needs, Weight, require_choice
from tutelage.losses.events import divergence_on_events
from tutelage.losses.logits import paired_logits, require_positive
from tutelage.losses.reduce import mean_per_position, widen
from tutelage.signals import Batch, Request, Signals

__all__ = ["SoftCrossEntropy", "bernoulli_cross_entropy", "softmax_cross_entropy"]


def softmax_cross_entropy(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """`-T² · Σ_c p_c · log q_c` over the last axis, `p = softmax(t/T)`, `q = softmax(s/T)`: `[..., C]` -> `[...]`."""
    student, teacher = widen(student, teacher)
    p, log_q = F.softmax(teacher / temperature, dim=-1), F.log_softmax(student / temperature, dim=-1)
    return (p * log_q).sum(-1) * -(temperature**2)


def bernoulli_cross_entropy(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """`-T² · Σ_c [σ(t_c/T) · log σ(s_c/T) + σ(-t_c/T) · log σ(-s_c/T)]` over the last axis: `[..., C]` -> `[...]`."""
    student, teacher = widen(student, teacher)
    target = torch.sigmoid(teacher / temperature)
    values = F.binary_cross_entropy_with_logits(student / temperature, target, reduction="none")
    return values.sum(-1) * temperature**2


class SoftCrossEntropy(Loss):
    """`-T² · Σ_c p_c · log q_c` between the outputs of teacher `p` and student `q`, softened by a temperature `T`.

    With softmax outputs `p = softmax(t / T)`, `q = softmax(s / T)`; with sigmoid outputs each class is a Bernoulli
    variable, and the cross-entropies of the classes are summed. It is `KLDivergence` plus `T²` times the entropy of the
    teacher, and has the same gradient: where both models agree it comes to that entropy, not to 0.

    Shapes: outputs `[B, C]` -> `[B]`. Where outputs have positions (`[B, L, C]` or, with `axis=1`, `[B, C, H, W]`),
    each token is a value, `[B, L]`, if the rows have a token mask; else each sample is the mean of its positions.

    When to use it: where numbers have to compare with a framework or paper that reports the cross-entropy; else
    `KLDivergence`, whose floor of 0 shows how far the student is from its teacher.

    Cost: negligible; three tensors of the outputs' size.

    Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, which writes this form.

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
                "SoftCrossEntropy",
                student.output,
                teacher.top,
                self.axis,
                batch,
                temperature=self.temperature,
                cross_entropy=True,
            )
        assert teacher.output is not None
        softmax = self.outputs == "softmax"
        s, t = paired_logits(
            "SoftCrossEntropy", student.output, teacher.output, self.axis, batch, classes=2 if softmax else 1
        )
        values = (softmax_cross_entropy if softmax else bernoulli_cross_entropy)(s, t, self.temperature)
        return mean_per_position(values, batch)
