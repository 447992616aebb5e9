"""Teacher-free knowledge distillation: a teacher written down by hand, always right and never certain."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from torch import Tensor

from tutelage.errors import SignalError
from tutelage.losses.base import Weight, require_choice
from tutelage.losses.cross_entropy import cross_entropy
from tutelage.losses.labelled_logits import LabelledLogits
from tutelage.losses.logits import require_positive
from tutelage.losses.reduce import class_last
from tutelage.signals import Batch, Signals

__all__ = ["VirtualTeacher", "divergence_from_virtual_teacher"]


def divergence_from_virtual_teacher(logits: Tensor, labels: Tensor, correct: float) -> Tensor:
    """`KL(p ‖ softmax(s))`, `p` being `correct` at the label, equal elsewhere: `[..., C]`, `[...]` -> `[...]`."""
    classes = logits.shape[-1]
    other = (1 - correct) / (classes - 1)
    entropy = -correct * math.log(correct) - (classes - 1) * other * math.log(other)
    return cross_entropy(logits, labels, label_smoothing=other * classes) - entropy


class VirtualTeacher(LabelledLogits):
    """`KL(p ‖ q)` from a teacher written by hand: probability `a` for the label, the rest spread over the others.

    It needs labels and no teacher. With `d_c = a` at the label and `(1 - a)/(C - 1)` elsewhere, the variants differ in
    what is softened by the temperature, and how:

    * "paper": `p ∝ d^(1/T)` and `q = softmax(s / T)`, both softened, as with a real teacher whose logits are `log d`.
    * "official" (their `loss_kd_regularization`): `p = softmax(d / T)`, with probabilities where logits belong, and
      `q = softmax(s)`; the divergence is divided by `C`, for their `KLDivLoss` takes the mean over the classes too.
      At `T = 20` this `p` is all but uniform. What they call `multiplier` (100 for the 100 classes of
      CIFAR-100, which undoes the division) is in `weight`.

    Neither has a factor `T²`. The total of both is `(1 - α) · CrossEntropy + α · VirtualTeacher`, each a term.

    Shapes: outputs `[B, C]` and labels `[B]` -> `[B]`; outputs `[B, L, C]` and labels `[B, L]` -> `[B, L]`; outputs
    `[B, C, H, W]` (with `axis=1`) and labels `[B, H, W]` -> `[B]`, the mean over the pixels that count. Rows without a
    label, label -100 and masked tokens do not count.

    When to use it: as a baseline: what a regulariser achieves that is shaped like distillation but knows nothing. What
    a real teacher adds to it is what its knowledge is worth.

    Cost: negligible.

    Source: Yuan et al., "Revisiting Knowledge Distillation via Label Smoothing Regularization", 2020 (Tf-KD_reg).

    Args:
        correct: `a`, the probability of the right class; above 1/C and below 1.
        temperature: `T > 0`; 20 or more in the paper.
        variant: Which of the two forms above.
        axis: The class axis of the student's output; to be given for `[B, C, H, W]`.
        weight: Factor of this term in the total.

    Raises:
        ValueError: `correct` is not between 0 and 1, `temperature` is not positive, or `variant` is none of its
            choices.
    """

    reads_teacher: ClassVar[bool] = False

    def __init__(
        self,
        correct: float = 0.99,
        temperature: float = 20.0,
        *,
        variant: Literal["paper", "official"] = "official",
        axis: int = -1,
        weight: Weight = 1.0,
    ) -> None:
        super().__init__(axis=axis, weight=weight)
        if not 0 < correct < 1:
            raise ValueError(f"correct must be between 0 and 1, found {correct}")
        require_positive("temperature", temperature)
        require_choice("variant", variant, ("paper", "official"))
        self.correct = correct
        self.temperature = temperature
        self.variant = variant

    def prepare(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        """Checks `correct` against the number of classes.

        Raises:
            SignalError: The virtual teacher would find another class as probable as the label.
        """
        assert student.output is not None
        classes = class_last(student.output, self.axis).shape[-1]
        if classes > 1 and self.correct * classes <= 1:
            raise SignalError(
                "VirtualTeacher on outputs",
                expected=f"`correct` above 1/{classes}, as there are {classes} classes",
                found=f"{self.correct}",
                harm="the virtual teacher would find other classes more probable than the label",
                mend="set `correct` to 0.9 or more",
            )
        super().prepare(student, teacher, batch)

    def compare(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """The divergence of each position; `teacher` is not read."""
        classes = student.shape[-1]
        other = (1 - self.correct) / (classes - 1)
        if self.variant == "paper":
            odds = (math.log(self.correct) - math.log(other)) / self.temperature
        else:
            odds = (self.correct - other) / self.temperature
        softened = 1 / (1 + (classes - 1) * math.exp(-odds))
        if self.variant == "paper":
            return divergence_from_virtual_teacher(student / self.temperature, labels, softened)
        return divergence_from_virtual_teacher(student, labels, softened) / classes
