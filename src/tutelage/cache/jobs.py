"""Which answers are missing, cut into shards in an order that does not depend on what was stored before."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Job", "Keys", "jobs_of"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Keys:
    """(row, view) pairs, and the signals that are wanted of each."""

    rows: Array
    views: Array
    names: tuple[str, ...]


@dataclass(frozen=True)
class Job:
    """What one shard answers: `rows` and `views`, `[n]` each, sorted by view and then by row, and the signals.

    Rows that are known by their content, in the order in which they came, have `digests` too, `[n, 16]` uint8.
    """

    rows: Array
    views: Array
    names: tuple[str, ...]
    digests: Array | None = None

    @property
    def file(self) -> str:
        """The shard's name: a digest of what it answers, so that doing a job again writes the same file again."""
        digest = hashlib.blake2b("\0".join(self.names).encode(), digest_size=8)
        for numbers in (self.rows, self.views):
            digest.update(np.ascontiguousarray(numbers, dtype="<i8").tobytes())
        if self.digests is not None:
            digest.update(self.digests.tobytes())
        return f"answers-{digest.hexdigest()}.arrow"


def jobs_of(
    wanted: Sequence[Keys], stored: Callable[[str, Array, Array], Array], rows: int, shard_rows: int
) -> list[Job]:
    """What is wanted and not stored.

    Pairs are sorted by view and then by row (an epoch reads one view), and cut every `shard_rows`. Jobs that are done
    leave the others as they are: the same shards come out wherever the filling was interrupted.

    Args:
        wanted: The pairs.
        stored: Tells of a signal which pairs are stored.
        rows: How many rows there are.
        shard_rows: Pairs in a shard.
    """
    names = sorted({name for keys in wanted for name in keys.names})
    codes = [keys.views * rows + keys.rows for keys in wanted]
    every = np.unique(np.concatenate(codes)) if codes else np.zeros(0, dtype=np.int64)
    missing = np.zeros((len(every), len(names)), dtype=bool)
    for keys, code in zip(wanted, codes, strict=True):
        asked = np.array([names.index(name) for name in keys.names], dtype=np.int64)
        missing[np.ix_(np.searchsorted(every, code), asked)] = True
    views, numbers = np.divmod(every, rows)
    for column, name in enumerate(names):
        missing[:, column] &= ~stored(name, numbers, views)
    kinds, which = np.unique(missing, axis=0, return_inverse=True)
    jobs = []
    for kind, lacking in enumerate(kinds):
        at = np.flatnonzero(which == kind) if lacking.any() else np.zeros(0, dtype=np.int64)
        signals = tuple(name for name, lacks in zip(names, lacking, strict=True) if lacks)
        jobs += [
            Job(numbers[part], views[part], signals)
            for part in (at[start : start + shard_rows] for start in range(0, len(at), shard_rows))
        ]
    return jobs
