"""Cross-entropy with hard labels: the supervised term of classification."""

from __future__ import annotations

import math
from typing import Any, ClassVar, cast

import torch
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
from tutelage.losses.reduce import class_last
from tutelage.losses.rows import clear_, differentiable_once
from tutelage.signals import Batch, Request, Signals

__all__ = ["CrossEntropy", "cross_entropy"]

_LOG2_E = 1 / math.log(2)


def cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0, axis: int = -1) -> Tensor:
    """`-Σ_c y_c · log softmax(s)_c` over an axis: `[..., C]` and indices `[...]` -> `[...]`; 0 at label -100.

    `y_c` is `1 - ε + ε/C` at the label and `ε/C` elsewhere, with `ε` the label smoothing.
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    values = _CrossEntropy.apply(wide, labels, label_smoothing, axis)  # type: ignore[no-untyped-call]
    return cast("Tensor", values)


class _CrossEntropy(torch.autograd.Function):
    """Its gradient `softmax(s) - y` in one tensor; what stands at ignored positions, NaN too, does not reach it."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, smoothing: float, axis: int) -> Tensor:
        counted, at_label = labels != IGNORED, labels.clamp(min=0).unsqueeze(axis)
        highest = logits.amax(axis, keepdim=True)
        powers = (logits - highest).mul_(_LOG2_E).exp2_()  # a power of 2 takes half the time of one of e
        total = powers.sum(axis, keepdim=True)
        ctx.smoothing, ctx.axis = smoothing, axis
        # The highest logit is taken off before the sum is added: beside 1e4 its logarithm would be rounded away.
        values = highest - logits.gather(axis, at_label)
        if smoothing:
            values = (1 - smoothing) * values + smoothing * (highest - logits.mean(axis, keepdim=True))
        values = values.add_(total.log()).squeeze(axis)
        result = torch.where(counted, values, 0.0)
        ctx.save_for_backward(result, powers, total, counted, at_label)
        return result

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        _, powers, total, counted, at_label = ctx.saved_tensors
        gradient = gradient.unsqueeze(ctx.axis)
        slope = powers * (gradient / total)
        if ctx.smoothing:
            slope.sub_(gradient * (ctx.smoothing / powers.shape[ctx.axis]))
        slope.scatter_add_(ctx.axis, at_label, (ctx.smoothing - 1) * gradient)
        return clear_(slope, counted, ctx.axis), None, None, None


class CrossEntropy(Loss):
    """`-Σ_c y_c · log softmax(s)_c` against hard labels; `y_c = 1 - ε + ε/C` at the label and `ε/C` elsewhere.

    Only rows that have a label count, so a half-labelled transfer set needs no second loop. Positions with label -100
    don't count either, nor do masked tokens. Labels belong to the position they stand at: nothing is shifted.

    Shapes: outputs `[B, C]` and labels `[B]` -> `[B]`; outputs `[B, L, C]` and labels `[B, L]` -> `[B, L]`; outputs
    `[B, C, H, W]` (with `axis=1`) and labels `[B, H, W]` -> `[B]`, the mean over the pixels that count.

    When to use it: beside a distillation term where labels are good; alone it trains the baseline. Label smoothing
    takes from the teacher's soft targets what they add, so leave it at 0 beside them.

    Cost: negligible.

    Source: the maximum likelihood of a softmax; label smoothing as in Szegedy et al., "Rethinking the Inception
    Architecture for Computer Vision", 2016.

    Args:
        label_smoothing: `ε`, the share of the target that is spread over all classes; 0 or more and below 1.
        axis: The class axis of the student's output; to be given for `[B, C, H, W]`.
        weight: Factor of this term in the total.

    Raises:
        ValueError: `label_smoothing` is out of its range.
    """

    supervised: ClassVar[bool] = True
    leaves_free: ClassVar[frozenset[str]] = frozenset({"shift"})

    def __init__(self, label_smoothing: float = 0.0, *, axis: int = -1, weight: Weight = 1.0) -> None:
        super().__init__(weight=weight)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be 0 or more and below 1, found {label_smoothing}")
        self.label_smoothing = label_smoothing
        self.axis = axis

    @property
    def needs(self) -> Needs:
        """The student's output and labels."""
        return Needs(student=Request(output=True), labels=True)

    def prepare(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        """Checks the labels of the traced batch against the number of classes.

        Raises:
            SignalError: Labels are not class indices, are out of range, or there is only one class.
        """
        assert student.output is not None
        require_classes("CrossEntropy", batch, class_last(student.output, self.axis).shape[-1])
        super().prepare(student, teacher, batch)

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
        """`[B]`, or `[B, L]` for labels `[B, L]`."""
        assert student.output is not None
        targets = class_targets("CrossEntropy", batch)
        require_labelled_positions("CrossEntropy", class_last(student.output, self.axis).shape[:-1], targets)
        return mean_of_counted(cross_entropy(student.output, targets, self.label_smoothing, self.axis), targets)

    def counts(self, batch: Batch) -> Tensor:
        """The weight of the row where there is a label, 0 elsewhere: `[B]`, or `[B, L]` for labels `[B, L]`."""
        return count_positions(class_targets("CrossEntropy", batch), batch)
