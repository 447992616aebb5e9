"""Positions, masks and precision: shared by every loss so that no two of them count differently."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from tutelage.errors import SignalError
from tutelage.losses.rows import keep_rows
from tutelage.signals import Batch

__all__ = ["TeacherGradient", "class_last", "full_precision", "mean_per_position", "unit", "visible", "widen"]


class TeacherGradient:
    """A context in which `widen` leaves the teacher's side its gradient.

    For a wrapper that trains something between the teacher and the inner loss, such as a temperature. It detaches what
    the teacher itself has said.
    """

    passes: ClassVar[bool] = False

    def __enter__(self) -> None:
        TeacherGradient.passes = True

    def __exit__(self, *raised: object) -> None:
        TeacherGradient.passes = False


def widen(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float32 or, where one of them is wider, in its type; the teacher's without a gradient."""
    wide = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    return student.to(wide), (teacher if TeacherGradient.passes else teacher.detach()).to(wide)


def full_precision(tensor: Tensor) -> torch.autocast:
    """A context in which autocast does not narrow the matrix products of a loss."""
    return torch.autocast(tensor.device.type, enabled=False)


def class_last(output: Tensor, axis: int) -> Tensor:
    """Moves the class axis to the end.

    Raises:
        SignalError: The output has no such axis, it is the batch axis, or the output has four axes or more and `axis`
            is -1: dense outputs are `[B, C, H, W]` as a rule, and a softmax over columns would go unnoticed.
    """
    if not -output.dim() <= axis < output.dim() or axis % output.dim() == 0:
        raise SignalError(
            "class axis",
            expected=f"an axis of the output's shape {tuple(output.shape)} after the first, which is the batch",
            found=f"axis {axis}",
            mend="set `axis` to the axis that holds the classes",
        )
    if axis == -1 and output.dim() >= 4:
        raise SignalError(
            "class axis",
            expected=f"an explicit axis for an output of shape {tuple(output.shape)}",
            found="axis -1",
            harm="where the output is [B, C, H, W], the distribution would be over columns instead of classes",
            mend=f"set `axis` to 1, or to {output.dim() - 1} if the classes really come last",
        )
    return output.movedim(axis, -1)


def visible(signal: Tensor, batch: Batch) -> Tensor:
    """`[B, L, D]` with zeros where the token mask is False; other shapes as they are.

    What a model says about padding may be anything, NaN too: without this, `0 · NaN` would reach the gradient.
    """
    if batch.mask is None or signal.dim() != 3 or signal.shape[:2] != batch.mask.shape:
        return signal
    return keep_rows(signal, batch.mask)


def mean_per_position(values: Tensor, batch: Batch) -> Tensor:
    """Brings `[B, ...]` values to one a sample, `[B]`, or one a token, `[B, L]`, where the batch has a token mask.

    Positions without a mask (pixels) are averaged within their sample, so a larger picture does not count for more.

    Raises:
        SignalError: The values are `[B, L]` and the mask is of another length.
    """
    if values.dim() == 1 or (batch.mask is not None and values.shape == batch.mask.shape):
        return values
    if batch.mask is not None and values.dim() == 2:
        raise SignalError(
            "token mask",
            expected=f"one entry a token: {tuple(values.shape)}",
            found=f"a mask of shape {tuple(batch.mask.shape)}",
            harm="padding would be counted, or tokens left out",
            mend="give the mask that belongs to these inputs",
        )
    return values.flatten(1).mean(1)


def unit(vectors: Tensor) -> Tensor:
    """Each vector of the last axis divided by its length; one shorter than 1e-12 gives 0 and passes no gradient.

    A vector of length 0 has no direction, and the usual floor on the length would give it a gradient of 1e12.
    """
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    known = length > 1e-12
    return torch.where(known, vectors / torch.where(known, length, 1.0), 0.0)
