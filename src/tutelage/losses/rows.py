"""Rows compared and left out with few passes over memory, which is what a loss on large signals costs.

A row is a vector along the last axis. `masked_fill` and the chain of `sub`, `square` and `sum` say the same with two to
three times the traffic, forward and backward. What leaves rows out may be differentiated any number of times; a squared
distance once: see `differentiable_once`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from tutelage.signals import Batch

__all__ = ["clear_", "cut_gradient", "differentiable_once", "keep_rows", "squared_distance", "token_mask"]

_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def token_mask(signal: Tensor, batch: Batch) -> Tensor | None:
    """The mask of the batch where the signal is `[B, L, D]` with one row a token, else None."""
    fits = batch.mask is not None and signal.dim() == 3 and signal.shape[:2] == batch.mask.shape
    return batch.mask if fits else None


def squared_distance(student: Tensor, teacher: Tensor, keep: Tensor | None = None) -> Tensor:
    """`Σ_d (s_d - t_d)²` over the last axis: `[..., D]` -> `[...]`; nothing flows to the teacher.

    Args:
        student: `[..., D]`.
        teacher: The same shape.
        keep: Which rows count, `[...]`: the others give 0, and 0 to the gradient, whatever stands there.
    """
    values = _SquaredDistance.apply(student, teacher, keep)  # type: ignore[no-untyped-call]
    return cast("Tensor", values)


def cut_gradient(values: Tensor, keep: Tensor | None) -> Tensor:
    """The values as they are; their gradient is 0 in rows where `keep` is False, also where NaN arrives."""
    if keep is None:
        return values
    return cast("Tensor", _CutGradient.apply(values, keep))  # type: ignore[no-untyped-call]


def keep_rows(values: Tensor, keep: Tensor) -> Tensor:
    """The rows where `keep` is True, else 0; so is their gradient. Contiguous, so that no product copies them again."""
    return cast("Tensor", _KeepRows.apply(values, keep))  # type: ignore[no-untyped-call]


def clear_(values: Tensor, keep: Tensor, axis: int = -1) -> Tensor:
    """Sets rows along an axis to 0 in place where `keep` is False. Autograd does not follow it.

    The bits are and-ed: that clears NaN too, which a factor of 0 does not, and is faster than `masked_fill_`.
    """
    bits = _BITS[values.element_size()]
    values.view(bits).bitwise_and_(-keep.unsqueeze(axis).to(bits))
    return values


def differentiable_once(backward: Callable[..., tuple[Tensor | None, ...]]) -> Callable[..., tuple[Tensor | None, ...]]:
    """The backward pass of a `Function` that keeps no more than the first derivative needs: a second one is refused.

    It would be 0, or a part of what it is: autograd does not see how the saved tensors came about. (torch's
    `once_differentiable` refuses only where the gradient that arrives depends on the inputs too.) The `Function` has to
    save its own result first: by way of it, what is refused depends on the inputs.

    Raises:
        RuntimeError: On backward through the gradient.
    """

    @functools.wraps(backward)
    def once(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        with torch.no_grad():
            slopes = backward(ctx, gradient)
        if not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return slopes
        result = ctx.saved_tensors[0]
        return tuple(None if slope is None else _Refusing.apply(slope, result) for slope in slopes)  # type: ignore[no-untyped-call]

    return once


class _Refusing(torch.autograd.Function):
    """The slope as it is, as a function of the result: who differentiates it is told that it can't be done."""

    @staticmethod
    def forward(ctx: Any, slope: Tensor, result: Tensor) -> Tensor:
        return slope.view_as(slope)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        raise RuntimeError(
            "a second derivative of this loss is not implemented (its backward pass keeps what the first one needs): "
            "compute the gradient without create_graph, or write the loss in plain torch operations"
        )


class _SquaredDistance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, keep: Tensor | None) -> Tensor:
        difference = student - teacher
        if keep is not None:
            clear_(difference, keep)
        length: Tensor = torch.linalg.vector_norm(difference, dim=-1)
        result = length.square()
        ctx.save_for_backward(result, difference)
        return result

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None]:
        _, difference = ctx.saved_tensors
        slope = difference * (2 * gradient[..., None])
        return slope, -slope if ctx.needs_input_grad[1] else None, None


class _CutGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, keep: Tensor) -> Tensor:
        ctx.save_for_backward(keep)
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (keep,) = ctx.saved_tensors
        return keep_rows(gradient, keep), None


class _KeepRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, keep: Tensor) -> Tensor:
        ctx.save_for_backward(keep)
        return clear_(values.clone(memory_format=torch.contiguous_format), keep)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (keep,) = ctx.saved_tensors
        return keep_rows(gradient, keep), None
