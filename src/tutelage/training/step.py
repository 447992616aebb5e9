"""One optimiser step: the sums of the losses of a piece, divided once by the global count.

For losses `k` with weight `w_k`, values `v_k` and counts `c_k` the objective of a step is

    L = Σ_k  w_k · (Σ_i c_ki · v_ki) / (Σ_i c_ki),

with `w_k` the weight at this share of the training, and `i` over every row (or token) of every piece on every process.
The denominators depend on the batch alone, and on what the teacher has left unanswered, so they are known before the
first forward pass of the student, and the gradient is the same however the batch is split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
import torch.distributed
from torch import Tensor, nn

from tutelage.losses import Loss
from tutelage.losses.base import weight_at
from tutelage.losses.counted import Counted
from tutelage.signals import Batch, Request, Signals, call, output_of
from tutelage.standardized import Standardized
from tutelage.taps import Taps

__all__ = ["Learner", "global_scales", "needs_of", "term_names"]


def needs_of(losses: Sequence[Loss]) -> tuple[Request, Request, bool]:
    """What the losses need together: of the student, of the teacher, and whether labels."""
    student, teacher, labels = Request(), Request(), False
    for loss in losses:
        needs = loss.needs
        student, teacher, labels = student | needs.student, teacher | needs.teacher, labels or needs.labels
    return student, teacher, labels


def term_names(losses: Sequence[Loss]) -> list[str]:
    """A name for each loss in logs: its class, numbered where a class occurs twice."""
    kinds = [type(loss).__name__ for loss in losses]
    return [
        kind if kinds.count(kind) == 1 else f"{kind}.{kinds[:index].count(kind)}" for index, kind in enumerate(kinds)
    ]


class Learner(nn.Module):
    """Student and losses as one module, so that DDP sees the trained parts of both and all that the loss is made of.

    Args:
        student: The module that learns. Its taps are set here and removed by `close`.
        losses: Prepared losses.
        compiled: Whether the student runs through `torch.compile`.
    """

    def __init__(self, student: nn.Module, losses: Sequence[Loss], *, compiled: bool = False) -> None:
        super().__init__()
        request, _, _ = needs_of(losses)
        self.student = student
        self.losses = nn.ModuleList(losses)
        self._taps = Taps(student, request.features, model="student")
        # A list hides the compiled wrapper from nn.Module, so that names in the state dict stay those of the student.
        self._run: list[nn.Module] = [cast("nn.Module", torch.compile(student)) if compiled else student]
        self._every = [part for part in self.losses.modules() if isinstance(part, Loss)]  # those within wrappers too
        self._standardized = student if isinstance(student, Standardized) else None
        for loss in self._every:
            loss.units = () if self._standardized is None else tuple(self._standardized.std)
        self.at(0.0)

    def at(self, progress: float) -> None:
        """Tells the losses which share of the training is done, and takes their weights there."""
        for loss in self._every:
            loss.progress = progress
        self._weights = [weight_at(cast("Loss", term).weight, progress) for term in self.losses]

    def plain_steps(self) -> list[tuple[float, list[nn.Parameter]]]:
        """The parts of the losses, of those within wrappers too, that take plain gradient steps, with their rates."""
        return [loss.plain_steps for loss in self._every]

    def after_step(self) -> None:
        """Tells the losses that the optimiser has made its step."""
        for loss in self.losses:
            cast("Loss", loss).after_step()

    def forward(
        self, batch: Batch, teacher: Signals, scales: Tensor, counted: Sequence[Counted]
    ) -> tuple[Tensor, Tensor]:
        """The objective's share of this piece, and each loss's share, unweighted and detached, `[K]`.

        Args:
            batch: A piece of the step's batch.
            teacher: What the teacher says about it.
            scales: `1 / global count` of each loss, `[K]`, 0 where nothing counts.
            counted: What counts for each loss in this piece.
        """
        output = output_of(call(self._run[0], batch.inputs), "student")
        if self._standardized is not None:
            output, teacher, batch = in_standard_units(self._standardized, output, teacher, batch)
        student = Signals(output=output, features=self._taps.take())
        shares = [
            part.sum(cast("Loss", loss), student, teacher, batch) * scale
            for loss, scale, part in zip(self.losses, scales, counted, strict=True)
        ]
        total = sum(w * share for w, share in zip(self._weights, shares, strict=True))
        assert isinstance(total, Tensor)
        return total, torch.stack([share.detach().float() for share in shares])

    def close(self) -> None:
        """Removes the taps: the student is as it was, but trained."""
        self._taps.close()


def in_standard_units(
    module: Standardized, output: Tensor, teacher: Signals, batch: Batch
) -> tuple[Tensor, Signals, Batch]:
    """A student's output, the teacher's and the labels where the losses compare them: a target's deviation is 1."""
    if teacher.output is not None:
        teacher = replace(teacher, output=module.standard(teacher.output))
    if batch.labels is not None:
        batch = replace(batch, labels=module.standard(batch.labels))
    return module.standard(output), teacher, batch


def global_scales(pieces: Sequence[Sequence[Counted]]) -> Tensor:
    """`1 / count` of each loss over all pieces and all processes, `[K]`; 0 for a loss that counts nothing.

    Args:
        pieces: What counts in each piece, for each of the `K` losses.
    """
    of_losses = zip(*pieces, strict=True)
    counts = torch.stack([torch.stack([part.counts.sum() for part in parts]).sum() for parts in of_losses])
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(counts)
    return torch.where(counts > 0, 1.0 / counts.clamp(min=1e-12), 0.0)
