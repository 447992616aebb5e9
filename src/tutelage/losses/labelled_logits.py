"""Losses on logits at positions that have a class label: which positions count is as for `CrossEntropy`."""

from __future__ import annotations

import abc
from typing import ClassVar

from torch import Tensor

from tutelage.losses.base import Loss, Needs, Weight
from tutelage.losses.labels import (
    IGNORED,
    class_targets,
    count_positions,
    mean_of_counted,
    require_classes,
    require_labelled_positions,
)
from tutelage.losses.logits import paired_logits
from tutelage.losses.reduce import class_last
from tutelage.losses.rows import cut_gradient
from tutelage.signals import Batch, Request, Signals

__all__ = ["LabelledLogits"]


class LabelledLogits(Loss):
    """Base of the losses that need to know the target class of each position: `compare` says what a position costs.

    Rows without a label, positions with label -100 and masked tokens don't count. The pixels of `[B, C, H, W]` (with
    `axis=1`) that count are averaged within their sample.

    Args:
        axis: The class axis of the output, of student and teacher alike; to be given for `[B, C, H, W]`.
        weight: Factor of this term in the total.
    """

    reads_teacher: ClassVar[bool] = True
    """Whether the teacher's output is read; where it is not, `compare` gets the student's own in its place."""

    leaves_free: ClassVar[frozenset[str]] = frozenset({"shift"})

    def __init__(self, *, axis: int = -1, weight: Weight = 1.0) -> None:
        super().__init__(weight=weight)
        self.axis = axis

    @property
    def needs(self) -> Needs:
        """The outputs and labels."""
        return Needs(student=Request(output=True), teacher=Request(output=self.reads_teacher), labels=True)

    @abc.abstractmethod
    def compare(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """The loss of each position.

        Args:
            student: Its logits, `[..., C]`, in float32 or wider; anything where there is no label.
            teacher: The same of the teacher, without a gradient.
            labels: The target class, `[...]`; 0 where there is none.
        """

    def prepare(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        """Checks the labels of the traced batch against the number of classes.

        Raises:
            SignalError: Labels are not class indices or are out of range, or the outputs do not fit.
        """
        assert student.output is not None
        require_classes(type(self).__name__, batch, class_last(student.output, self.axis).shape[-1])
        super().prepare(student, teacher, batch)

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
        """`[B]`, or `[B, L]` for labels `[B, L]`."""
        assert student.output is not None
        other = teacher.output if self.reads_teacher else student.output
        assert other is not None
        s, t = paired_logits(type(self).__name__, student.output, other, self.axis, batch)
        targets = class_targets(type(self).__name__, batch)
        require_labelled_positions(type(self).__name__, s.shape[:-1], targets)
        ignored = targets == IGNORED
        # What models say where there is no label may be anything: without this, 0 · NaN would reach the gradient.
        s, t = cut_gradient(s, ~ignored), cut_gradient(t, ~ignored) if self.reads_teacher else s.detach()
        return mean_of_counted(self.compare(s, t, targets.clamp(min=0)).masked_fill(ignored, 0), targets)

    def counts(self, batch: Batch) -> Tensor:
        """The weight of the row where there is a label, 0 elsewhere: `[B]`, or `[B, L]` for labels `[B, L]`."""
        return count_positions(class_targets(type(self).__name__, batch), batch)
