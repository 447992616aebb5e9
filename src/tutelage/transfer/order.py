"""In which order rows are trained on and evaluated: random access by step, so a resumed run needs no state."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tutelage.errors import DataError, RecipeError
from tutelage.transfer.views import Views

__all__ = ["Order", "by_length", "in_original_order"]

Array = np.ndarray[Any, Any]

_POOL = 50
"""Batches in a pool within which rows are sorted by length."""


class Order:
    """The rows and views of each training step, a function of the step alone.

    Each epoch is a new permutation, drawn by `numpy.random.default_rng([seed, stream, epoch])`; the rows at its end
    that don't fill a batch wait for the next epoch. If there are fewer rows than a batch has, all of them are one
    batch. With lengths, an epoch's rows are sorted by length within pools of 50 batches, cut into batches, and the
    batches are shuffled: little padding, at hardly less randomness.

    With `labelled_share`, each batch has `round(labelled_share * batch_size)` rows (at least 1) of a stream of
    labelled rows, with epochs of its own, before rows of the unlabelled stream, whose epochs are those of the run.

    Args:
        rows: `[N]` training rows.
        batch_size: Rows in a batch.
        seed: Another seed draws another order.
        lengths: `[N]` tokens of each of `rows`, or None.
        labelled: Those of `rows` that have a label; needed with `labelled_share`.
        labelled_share: Share of each batch that is labelled, in (0, 1], or None: as they come.
        views: What numbers the views of a row by epoch, or None: view 0, the row as it is.

    Raises:
        DataError: No rows, or, with `labelled_share`, no labelled or no unlabelled ones.
        RecipeError: A batch size below 1 or a share outside (0, 1].
    """

    def __init__(
        self,
        rows: Array,
        batch_size: int,
        *,
        seed: int,
        lengths: Array | None = None,
        labelled: Array | None = None,
        labelled_share: float | None = None,
        views: Views | None = None,
    ) -> None:
        if batch_size < 1:
            raise RecipeError("batch_size", expected="at least 1", found=str(batch_size))
        rows = np.asarray(rows, dtype=np.int64)
        self._extra: _Stream | None = None
        if labelled_share is not None:
            known = np.asarray([] if labelled is None else labelled, dtype=np.int64)
            share = _labelled_rows(labelled_share, batch_size)
            is_known = np.isin(rows, known)
            _refuse_one_sided(int(is_known.sum()), len(rows), labelled_share, all_labelled=share == batch_size)
            if share < batch_size:
                self._extra = _Stream(rows[is_known], share, (seed, 1), views=views, endless=True)
                batch_size -= share
                is_known = ~is_known
            rows = rows[is_known]
            lengths = None if lengths is None else np.asarray(lengths)[is_known]
        if not len(rows):
            raise DataError("training rows", expected="at least one", found="none")
        self._main = _Stream(rows, batch_size, (seed, 0), lengths=lengths, views=views)

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        return self._main.steps

    def batch(self, step: int) -> tuple[Array, Array]:
        """Row numbers and view numbers, `[B]` int64 each, of a step (from 0), in any order of calls."""
        rows, views = self._main.batch(step)
        if self._extra is None:
            return rows, views
        known, known_views = self._extra.batch(step)
        return np.concatenate([known, rows]), np.concatenate([known_views, views])


def _labelled_rows(share: float, batch_size: int) -> int:
    if not 0 < share <= 1:
        raise RecipeError("data.labelled_share", expected="a share above 0, up to 1", found=str(share))
    return max(1, round(share * batch_size))


def _refuse_one_sided(known: int, total: int, share: float, *, all_labelled: bool) -> None:
    if known == 0 or (known == total and not all_labelled):
        which = "labelled" if known == 0 else "unlabelled"
        raise DataError(
            "data.labelled_share",
            expected=f"labelled and unlabelled training rows to mix at {share}",
            found=f"no {which} ones among {total:,}",
            mend="set data.labelled_share to null"
            + ("" if known == 0 else ", or keep fewer labels with data.labelled"),
        )


class _Stream:
    """One endless sequence of permutations of some rows, cut into batches.

    `endless` streams cross the border of their epochs within a batch, so that few rows can fill large batches; others
    leave out the rest of an epoch.
    """

    def __init__(
        self,
        rows: Array,
        size: int,
        key: tuple[int, int],
        *,
        lengths: Array | None = None,
        views: Views | None = None,
        endless: bool = False,
    ) -> None:
        self.rows, self.size, self.key, self.lengths, self.views = rows, size, key, lengths, views
        self.endless = endless
        if not endless:
            self.size = min(size, len(rows))
        self.steps = len(rows) // self.size
        self.epoch: Callable[[int], Array] = functools.lru_cache(maxsize=2)(self._epoch)

    def _epoch(self, epoch: int) -> Array:
        """Positions in `rows`, in the order of one epoch."""
        generator = np.random.default_rng([*self.key, epoch])
        order: Array = generator.permutation(len(self.rows))
        if self.endless:
            return order
        order = order[: self.steps * self.size]
        if self.lengths is None:
            return order
        pool = _POOL * self.size
        parts = [order[at : at + pool] for at in range(0, len(order), pool)]
        sorted_parts = [part[np.argsort(self.lengths[part], kind="stable")] for part in parts]
        batches = np.concatenate(sorted_parts).reshape(self.steps, self.size)
        return generator.permutation(batches).reshape(-1)

    def batch(self, step: int) -> tuple[Array, Array]:
        if self.endless:
            epochs, places = np.divmod(np.arange(step * self.size, (step + 1) * self.size), len(self.rows))
        else:
            epoch, within = divmod(step, self.steps)
            places = np.arange(within * self.size, (within + 1) * self.size)
            epochs = np.full(self.size, epoch)
        rows, views = np.empty(self.size, dtype=np.int64), np.zeros(self.size, dtype=np.int64)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            rows[here] = self.rows[self.epoch(epoch)[places[here]]]
            views[here] = 0 if self.views is None else self.views.number(epoch)
        return rows, views


def by_length(count: int, batch_size: int, lengths: Array | None = None) -> Iterator[Array]:
    """Positions 0 to `count` in batches, the longest first: little padding, and memory runs out at once or never."""
    order = np.arange(count) if lengths is None else np.argsort(-lengths, kind="stable")
    for start in range(0, count, batch_size):
        yield order[start : start + batch_size]


def in_original_order(parts: Iterable[tuple[Array, Tensor]]) -> Tensor:
    """Results of batches, `(positions, [B, ...])`, as one tensor in the order of the positions."""
    pairs = list(parts)
    joined = torch.cat([result for _, result in pairs])
    positions = torch.from_numpy(np.concatenate([position for position, _ in pairs])).to(joined.device)
    result = torch.empty_like(joined)
    result[positions] = joined
    return result
