"""Divergences over events: each class by itself or, where the teacher names a few, those and the rest together.

One core for all forms of the teacher's distribution. On the few classes of a `TopK` a divergence is that of the two
distributions in which all other classes are one: it never exceeds that over all classes (data processing inequality),
and equals it where the teacher gives the others nothing or names them all.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tutelage.errors import SignalError
from tutelage.forms import TopK
from tutelage.losses.reduce import class_last, mean_per_position, visible
from tutelage.signals import Batch

__all__ = ["cross_entropy_of_events", "divergence_on_events", "kl_of_events", "of_events"]


def of_events(student: Tensor, top: TopK, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the events for student and teacher, `[..., k + 1]` each, in float32 or wider.

    Args:
        student: Logits `[..., C]`.
        top: What the teacher says, `[..., k]` of `C` classes.
        temperature: Of both.
    """
    s = student.to(torch.promote_types(student.dtype, torch.float32)) / temperature
    log_q = torch.log_softmax(s, dim=-1)
    nothing = torch.finfo(log_q.dtype).min  # not -inf: where no class is left, the gradient would be NaN
    rest = torch.logsumexp(log_q.scatter(-1, top.indices, nothing), dim=-1, keepdim=True)
    log_q = torch.cat([log_q.gather(-1, top.indices), rest], dim=-1)
    return log_q, top.log_probabilities(temperature).detach()


def kl_of_events(log_q: Tensor, log_p: Tensor) -> Tensor:
    """`Σ_e p_e (log p_e - log q_e)` over the last axis; an event without mass adds nothing."""
    happens = log_p > -torch.inf
    return (log_p.exp() * torch.where(happens, log_p - log_q, 0.0)).sum(-1)


def cross_entropy_of_events(log_q: Tensor, log_p: Tensor) -> Tensor:
    """`-Σ_e p_e log q_e` over the last axis; an event without mass adds nothing."""
    return -(log_p.exp() * torch.where(log_p > -torch.inf, log_q, 0.0)).sum(-1)


def divergence_on_events(
    loss: str, student: Tensor, top: TopK, axis: int, batch: Batch, *, temperature: float, cross_entropy: bool = False
) -> Tensor:
    """`T²` times the divergence (or cross-entropy) on the teacher's events: `[B]`, or `[B, L]` for masked sequences.

    It is 0, and so is its gradient, where the teacher is silent.

    Raises:
        SignalError: Student and teacher differ in classes or positions, or the temperature is not one of the teacher's.
    """
    s = class_last(student, axis)
    if tuple(s.shape) != top.shape:
        raise SignalError(
            f"{loss} on outputs",
            expected=f"the teacher's positions and classes {top.shape}",
            found=f"the student's, with the classes last, {tuple(s.shape)}",
            harm="the probabilities of other classes would be compared",
            mend="give both as many classes",
        )
    log_q, log_p = of_events(visible(s, batch), top, temperature)
    values = (cross_entropy_of_events if cross_entropy else kl_of_events)(log_q, log_p).masked_fill(top.silent, 0)
    if batch.mask is not None and values.shape == batch.mask.shape:
        values = values.masked_fill(~batch.mask, 0)
    return mean_per_position(values * temperature**2, batch)
