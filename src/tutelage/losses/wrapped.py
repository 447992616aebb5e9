"""Wrappers: losses that change what another loss is given, and leave the comparison to it."""

from __future__ import annotations

import abc
from collections.abc import Mapping

from torch import Tensor, nn

from tutelage.losses.base import Loss, Needs, Weight
from tutelage.losses.rows import keep_rows
from tutelage.signals import Batch, Signals

__all__ = ["WrappedLoss", "innermost"]


class WrappedLoss(Loss):
    """Base of the losses that hand another loss changed signals: a wrapper says in `handed` which.

    All else is the inner loss's own: what it needs, borrows, counts and remembers, and whether it compares samples. A
    wrapper that reads other signals than its inner loss says so in `needs`; one with trained parts of its own makes
    them in `prepare`, before it calls this class's.

    Args:
        loss: The inner loss. Its own weight has to be 1: the factor of the term is the wrapper's.
        weight: Factor of this term in the total.

    Raises:
        ValueError: The inner loss has a weight of its own.
    """

    def __init__(self, loss: Loss, *, weight: Weight = 1.0) -> None:
        super().__init__(weight=weight)
        if loss.weight != 1:
            raise ValueError(
                f"weight must be given to {type(self).__name__}, which is the term of the total, "
                f"found {loss.weight} on the {type(loss).__name__} within, where it would have no effect"
            )
        self.loss = loss

    @abc.abstractmethod
    def handed(self, student: Signals, teacher: Signals, batch: Batch) -> tuple[Signals, Signals]:
        """What the inner loss is given of the student and of the teacher: the signals that it needs, changed."""

    def counted_alone(self, logits: Tensor, batch: Batch) -> Tensor:
        """Logits with 0 in rows that the inner loss does not count for want of a label.

        What stands there may be NaN, and a wrapper that changes it would bring it to the gradient.
        """
        if not self.needs.labels:
            return logits
        return keep_rows(logits.reshape(len(logits), -1), self.rows_that_count(batch)).view_as(logits)

    @property
    def per_sample(self) -> bool:  # type: ignore[override]
        """That of the inner loss."""
        return self.loss.per_sample

    @property
    def supervised(self) -> bool:  # type: ignore[override]
        """Whether the inner loss is."""
        return self.loss.supervised

    @property
    def compares_values(self) -> bool:  # type: ignore[override]
        """Whether the inner loss does."""
        return self.loss.compares_values

    @property
    def fewest_rows(self) -> int:  # type: ignore[override]
        """Those of the inner loss."""
        return self.loss.fewest_rows

    @property
    def leaves_free(self) -> frozenset[str]:  # type: ignore[override]
        """What the inner loss leaves free."""
        return self.loss.leaves_free

    @property
    def needs(self) -> Needs:
        """Those of the inner loss."""
        return self.loss.needs

    @property
    def borrows(self) -> frozenset[str]:
        """What the inner loss borrows."""
        return self.loss.borrows

    def introduce(self, *, modules: Mapping[str, nn.Module], rows: int) -> None:
        """Passes on what is lent."""
        self.rows = rows
        self.loss.introduce(modules=modules, rows=rows)

    def borrowed(self, path: str) -> nn.Module:
        """The inner loss's."""
        return self.loss.borrowed(path)

    def after_step(self) -> None:
        """Tells the inner loss."""
        self.loss.after_step()

    def prepare(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        """Checks the signals as they are, under their own names, and prepares the inner loss on those it is handed."""
        self.check_finite(student, teacher, batch)
        self.loss.prepare(*self.handed(student, teacher, batch), batch)
        super().prepare(student, teacher, batch)

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
        """What the inner loss says of the signals that it is handed."""
        value: Tensor = self.loss(*self.handed(student, teacher, batch), batch)
        return value

    def counts(self, batch: Batch) -> Tensor:
        """Those of the inner loss."""
        return self.loss.counts(batch)


def innermost(loss: Loss) -> Loss:
    """The loss that compares, within whatever wraps it."""
    while isinstance(loss, WrappedLoss):
        loss = loss.loss
    return loss
