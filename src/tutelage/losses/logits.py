"""Logits: what the losses on the outputs of both models share beyond positions and masks."""

from __future__ import annotations

import math

from torch import Tensor

from tutelage.errors import SignalError
from tutelage.losses.base import Loss, require_same_shape
from tutelage.losses.reduce import class_last, visible, widen
from tutelage.signals import Batch

__all__ = ["paired_logits", "require_not_negative", "require_positive", "require_wraps_outputs"]


def paired_logits(
    loss: str, student: Tensor, teacher: Tensor, axis: int, batch: Batch, *, classes: int = 2
) -> tuple[Tensor, Tensor]:
    """Both outputs with the classes last: in float32 or wider, padding set to 0, the teacher's without a gradient.

    Raises:
        SignalError: The shapes differ, `axis` can't be the class axis, or there are fewer than `classes` classes.
    """
    require_same_shape(loss, student, teacher, where="outputs", mend="give both as many classes")
    s, t = (visible(class_last(output, axis), batch) for output in widen(student, teacher))
    if s.shape[-1] < classes:
        raise SignalError(
            f"{loss} on outputs",
            expected=f"{classes} classes or more",
            found=f"{s.shape[-1]}: shape {tuple(student.shape)}",
            harm="a softmax over one class is always 1, so nothing would be learnt",
            mend='for one logit a class use KLDivergence with `outputs: "sigmoid"`, for values use Regression',
        )
    return s, t


def require_positive(name: str, value: float) -> None:
    """Raises a `ValueError` when a hyper-parameter is not a positive finite number."""
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be positive, found {value}")


def require_not_negative(name: str, value: float) -> None:
    """Raises a `ValueError` when a hyper-parameter is negative or not finite."""
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be 0 or more, found {value}")


def require_wraps_outputs(wrapper: str, loss: Loss, axis: int) -> None:
    """Raises a `ValueError` when a wrapper that changes the outputs of both models can't do so for this loss."""
    name = type(loss).__name__
    if not (loss.needs.student.output and loss.needs.teacher.output):
        raise ValueError(f"loss must be one that compares the outputs of both models for {wrapper}, found {name}")
    if getattr(loss, "axis", axis) != axis:
        raise ValueError(f"axis must be that of the {name} within, {getattr(loss, 'axis', axis)}, found {axis}")
