"""Which rows of a batch a loss is shown: those that teach it something.

A row without a label (of a loss that needs one), without an answer of the teacher, without a token or with the weight 0
teaches nothing. It is left out before the loss is computed, not afterwards: so what the models say of it, NaN too,
reaches neither value nor gradient, and a loss that compares rows does not compare the others with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from tutelage.losses.base import Loss
from tutelage.signals import Batch, Request, Signals

__all__ = ["Counted", "is_empty", "is_silent", "silences"]


def silences(teacher: Signals, request: Request) -> Iterator[Tensor]:
    """Where the teacher, or one of several that are heard, has given no answer: `[B]` or `[B, L]` bool for each."""
    if request.output and (silent := teacher.silent) is not None:
        yield silent
    for name, wanted in request.members.items():
        yield from silences(teacher.members[name], wanted)


def is_silent(teacher: Signals, request: Request, batch: Batch) -> Tensor:
    """Rows to which no answer was given by a teacher that the request asks for its output: `[B]` bool."""
    found = torch.zeros(len(batch), dtype=torch.bool, device=batch.rows.device)
    for silent in silences(teacher, request):
        found |= silent.reshape(len(batch), -1).all(1).to(found.device)
    return found


def is_empty(batch: Batch) -> Tensor:
    """Rows without a token: `[B]` bool."""
    return torch.zeros_like(batch.rows, dtype=torch.bool) if batch.mask is None else ~batch.mask.any(1)


@dataclass(frozen=True)
class Counted:
    """How much each value of a loss counts, and which rows the loss is shown.

    Attributes:
        counts: What `Loss.counts` gives, `[B]` or `[B, L]`, and 0 where a row teaches nothing. Of fewer rows than the
            loss can learn from none counts.
        rows: The places of the rows that are shown, `[n]`; None for all.
    """

    counts: Tensor
    rows: Tensor | None

    @classmethod
    def of(cls, loss: Loss, batch: Batch, teacher: Signals | None = None) -> Self:
        """Reads the batch and, where it gives few classes or labels, what the teacher has not answered.

        Args:
            loss: Prepared.
            batch: On the CPU, if no accelerator is to be waited for.
            teacher: What it says; None for one that answers every row.
        """
        counts = loss.counts(batch)
        lost = is_empty(batch)
        if teacher is not None:
            for unanswered in silences(teacher, loss.needs.teacher):
                silent = unanswered.to(counts.device)
                if silent.shape == counts.shape:  # tokens, each by itself
                    counts = counts.masked_fill(silent, 0)
                lost = lost | silent.reshape(len(batch), -1).all(1)
        counts = counts.masked_fill(lost.view(-1, *[1] * (counts.dim() - 1)), 0)
        shown = (counts > 0).reshape(len(batch), -1).any(1)
        if int(shown.sum()) < loss.fewest_rows:
            counts, shown = torch.zeros_like(counts), torch.zeros_like(shown)
        return cls(counts, None if bool(shown.all()) else shown.nonzero()[:, 0])

    def to(self, device: torch.device) -> Self:
        """The same on `device`."""
        rows = None if self.rows is None else self.rows.to(device, non_blocking=True)
        return replace(self, counts=self.counts.to(device, non_blocking=True), rows=rows)

    def sum(self, loss: Loss, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
        """`Σ c_i · v_i` over the values of the loss: a scalar, 0 where nothing counts."""
        student, teacher = student.only(loss.needs.student), teacher.only(loss.needs.teacher)
        counts = self.counts
        if (rows := self.rows) is not None:

            def shown(tensor: Tensor) -> Tensor:
                return tensor.index_select(0, rows)

            student, teacher, counts = student.map(shown), teacher.map(shown), shown(counts)
            batch = replace(batch, inputs=batch.rows, raw=None).map(shown)  # no loss reads the inputs
            if not len(rows):
                given = [*student.features.values(), *(() if student.output is None else (student.output,))]
                return torch.stack([signal.sum().to(counts.dtype) for signal in given]).sum()
        # where, not times: a token that does not count may be anything, NaN too.
        return (torch.where(counts > 0, loss(student, teacher, batch), 0.0) * counts).sum()
