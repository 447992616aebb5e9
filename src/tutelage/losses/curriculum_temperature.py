"""Curriculum temperature: the temperature is learnt against the student, more and more as the training goes on."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from tutelage.errors import SignalError
from tutelage.losses.base import Loss, Weight, require_choice
from tutelage.losses.logits import paired_logits, require_not_negative, require_positive, require_wraps_outputs
from tutelage.losses.reduce import TeacherGradient, full_precision
from tutelage.losses.wrapped import WrappedLoss
from tutelage.signals import Batch, Signals

__all__ = ["CurriculumTemperature", "reversed_gradient"]


def reversed_gradient(value: Tensor, strength: float) -> Tensor:
    """The value as it is, with its gradient multiplied by `-strength`."""
    fixed = value.detach()
    return fixed + strength * (fixed - value)


class _Predictor(nn.Module):
    """Two linear layers from the logits of both models to one number, on the device and in the type of `like`."""

    def __init__(self, classes: int, hidden: int, like: Tensor) -> None:
        super().__init__()
        self.classes = classes
        self.first = nn.Linear(2 * classes, hidden, device=like.device, dtype=like.dtype)
        self.second = nn.Linear(hidden, 1, device=like.device, dtype=like.dtype)

    def forward(self, logits: Tensor) -> Tensor:
        """`[..., 2·C]` -> `[...]`."""
        with full_precision(logits):
            value: Tensor = self.second(self.first(logits.to(self.first.weight.dtype)).relu())
        return value.squeeze(-1).to(logits.dtype)


class CurriculumTemperature(WrappedLoss):
    """`τ² · loss(s/τ, t/τ)`, the inner loss at a temperature `τ = τ_init + τ_range · σ(v)` that learns to raise it.

    `v` is trained along with the student, on the same loss, with its gradient multiplied by `-λ`: where the student
    lowers the loss, `v` raises it. At each step `v ← v + η λ ∂L/∂v`, a plain gradient step whatever the student's
    optimiser is: AdamW divides a gradient by its own size, so that no `λ` would change how fast `v` moves. `η` follows
    the schedule of the training's learning rate, and `L` has the factor `weight`. `λ` rises along a cosine from 0 to
    `strength` while the share `rise` of the training is done, and then stays. The gradient of `v` includes that of the
    factor `τ²`, as in the authors' code.

    * "global": `v` is one number, which starts at 1 (so `τ` starts at 15.6 with the paper's settings).
    * "instance": `v` is predicted for each sample, or each token, by two linear layers with a ReLU between them from
      the logits of both models. (Pixels of a sample have one temperature, from the mean of their logits.) The gradient
      of the student does not pass through the prediction: the paper does not say, and else it would be reversed too.
      The width of the layer between is not in the paper, and the authors' repository holds the global form alone.

    Shapes: those of the inner loss, with the classes on `axis`.

    When to use it: around `KLDivergence(1.0)` or `DecoupledKD(temperature=1.0)`, in place of a search for the
    temperature. With `CrossEntropy` or another term beside it: the temperature works against this one.

    Cost: negligible beside the inner loss. One parameter; "instance" has `2·C·hidden` and twice as many multiplications
    a sample.

    Source: Li et al., "Curriculum Temperature for Knowledge Distillation", 2023.

    Args:
        loss: The inner loss, at temperature 1 and weight 1.
        temperature: Whether there is one temperature for all, or one for each sample.
        lowest: `τ_init`, the bound of `τ` below, above 0.
        span: `τ_range`, what `τ` can rise by, above 0.
        strength: What `λ` rises to, 0 or more.
        rise: The share of the training in which `λ` rises, above 0 and at most 1 (10 epochs of 240 in the paper).
        hidden: Width of the layer between, for "instance".
        learning_rate: `η` at its highest. The paper has one SGD for student and temperature, at 0.05 with a momentum of
            0.9, by which steps in one direction come to ten times as much: 0.5 here.
        axis: The class axis of the outputs, as in the inner loss; to be given for `[B, C, H, W]`.
        weight: Factor of this term in the total.

    Raises:
        ValueError: The inner loss does not compare outputs, has another `axis`, or a temperature or weight other than
            1; or an argument is out of its range or none of its choices.
    """

    def __init__(
        self,
        loss: Loss,
        *,
        temperature: Literal["global", "instance"] = "global",
        lowest: float = 1.0,
        span: float = 20.0,
        strength: float = 1.0,
        rise: float = 0.05,
        hidden: int = 128,
        learning_rate: float = 0.05,
        axis: int = -1,
        weight: Weight = 1.0,
    ) -> None:
        super().__init__(loss, weight=weight)
        require_wraps_outputs("CurriculumTemperature", loss, axis)
        if getattr(loss, "temperature", 1.0) != 1.0:
            raise ValueError(
                f"loss must have temperature 1, as CurriculumTemperature learns it, found {loss.temperature}"
            )
        require_choice("temperature", temperature, ("global", "instance"))
        require_positive("lowest", lowest)
        require_positive("span", span)
        require_not_negative("strength", strength)
        require_positive("hidden", hidden)
        require_positive("learning_rate", learning_rate)
        if not 0 < rise <= 1:
            raise ValueError(f"rise must be above 0 and at most 1, found {rise}")
        self.temperature = temperature
        self.lowest = lowest
        self.span = span
        self.strength = strength
        self.rise = rise
        self.hidden = hidden
        self.learning_rate = learning_rate
        self.axis = axis
        self.predictor: _Predictor | None = None
        self.value = nn.Parameter(torch.ones(())) if temperature == "global" else None

    @property
    def reversal(self) -> float:
        """`λ` at this point of the training."""
        return self.strength * (1 - math.cos(math.pi * min(self.progress / self.rise, 1.0))) / 2

    @property
    def plain_steps(self) -> tuple[float, list[nn.Parameter]]:
        """`v`, or what predicts it."""
        own = [self.value] if self.value is not None else []
        return self.learning_rate, own if self.predictor is None else [*self.predictor.parameters()]

    def prepare(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        """Makes what predicts the temperature, on the student's device and in float32 or wider.

        Raises:
            SignalError: The outputs do not fit, or it was made for another number of classes; or the inner loss hides
                from the temperature what it does to the teacher.
        """
        assert student.output is not None and teacher.output is not None
        logits, _ = paired_logits("CurriculumTemperature", student.output, teacher.output, self.axis, batch)
        if self.value is not None:
            self.value.data = self.value.data.to(logits.device, logits.dtype)
        else:
            self._ensure_predictor(logits)
        super().prepare(student, teacher, batch)
        self._check_inner(student, teacher, batch)

    def handed(self, student: Signals, teacher: Signals, batch: Batch) -> tuple[Signals, Signals]:
        """The outputs divided by the temperature, the features as they are."""
        return self._divided(student, teacher, batch)[1:]

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
        """The inner loss at the temperature of the moment, times its square."""
        temperature, of_student, of_teacher = self._divided(student, teacher, batch)
        with TeacherGradient():
            value: Tensor = self.loss(of_student, of_teacher, batch)
        return temperature.square() * value

    def _divided(self, student: Signals, teacher: Signals, batch: Batch) -> tuple[Tensor, Signals, Signals]:
        assert student.output is not None and teacher.output is not None
        pair = paired_logits("CurriculumTemperature", student.output, teacher.output, self.axis, batch)
        s, t = (self.counted_alone(logits, batch) for logits in pair)
        temperature = self.lowest + self.span * torch.sigmoid(
            reversed_gradient(self._value(s, t, batch), self.reversal)
        )
        divisor = temperature.reshape(temperature.shape + (1,) * (s.dim() - temperature.dim()))
        s, t = ((x / divisor).movedim(-1, self.axis) for x in (s, t))
        return (
            temperature,
            Signals(output=s, features=student.features),
            Signals(output=t, features=teacher.features),
        )

    def _check_inner(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        of_student, of_teacher = (signals.map(Tensor.detach) for signals in self.handed(student, teacher, batch))
        assert of_teacher.output is not None
        with torch.enable_grad(), TeacherGradient():
            of_teacher.output.requires_grad_()
            value = self.loss(of_student, of_teacher, batch).sum()
            reached = value.requires_grad and torch.autograd.grad(value, of_teacher.output, allow_unused=True)[0]
        if reached is None or reached is False:
            raise SignalError(
                f"CurriculumTemperature around {type(self.loss).__name__}",
                expected="a loss that brings the teacher's output to its type with `widen`",
                found="one that detaches it",
                harm="the temperature would be learnt from the student's side alone",
                mend="wrap KLDivergence or DecoupledKD, or use `widen` in the inner loss",
            )

    def _value(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """`v`: a scalar, or one a value of the inner loss."""
        if self.value is not None:
            return self.value.to(student.dtype)
        logits = torch.cat([student.detach(), teacher], -1)
        if batch.mask is None or batch.mask.shape != logits.shape[:-1]:
            logits = logits.reshape(len(logits), -1, logits.shape[-1]).mean(1)
        assert self.predictor is not None, "prepare makes it"
        predicted: Tensor = self.predictor(logits)
        return predicted

    def _ensure_predictor(self, logits: Tensor) -> None:
        classes = logits.shape[-1]
        if self.predictor is None:
            self.predictor = _Predictor(classes, self.hidden, logits)
        if self.predictor.classes != classes:
            raise SignalError(
                "predictor of CurriculumTemperature",
                expected=f"outputs of the {self.predictor.classes} classes that it was made for",
                found=f"{classes} classes",
                harm="a new predictor would forget what this one has learnt",
                mend="make a new loss for these models",
            )
