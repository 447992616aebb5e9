"""Rows that a model is likeliest to fail on: those with the longest text, the largest and the smallest numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tutelage.transfer.transfer_set import TransferSet

__all__ = ["extreme_rows", "longest_row"]

Array = np.ndarray[Any, Any]
MOST_COLUMNS = 64
"""Numbers a row up to which each is looked at by itself: more are pixels or samples of one signal."""
_CHUNK = 4096
"""Rows that are looked at together: an array may be larger than the memory."""


def used_rows(data: TransferSet) -> Array:
    """`[n]` the rows of all splits."""
    return np.sort(np.concatenate([data.rows(split) for split in ("train", "development", "test")]))


@dataclass(frozen=True)
class Longest:
    """The row with the longest text and that with the shortest, and how many tokens they have."""

    row: int
    length: int
    shortest: int
    shortest_length: int


def longest_row(data: TransferSet) -> Longest | None:
    """The longest text and the shortest of all splits; None where there are no texts."""
    rows = used_rows(data)
    lengths = data.lengths(rows)
    if lengths is None:
        return None
    most, least = int(lengths.argmax()), int(lengths.argmin())
    return Longest(int(rows[most]), int(lengths[most]), int(rows[least]), int(lengths[least]))


def extreme_rows(data: TransferSet) -> dict[int, str]:
    """The rows with the largest and the smallest of each column's numbers, and what each of them has.

    Numbers with a fraction are judged by their size, for it is large ones that overflow; token ids by the largest.
    """
    rows = used_rows(data)
    found: dict[int, str] = {}
    tokens = data.columns.tokens
    if tokens is not None and "input_ids" in tokens.flat:
        ids = tokens.flat["input_ids"]
        largest = np.maximum.reduceat(ids, tokens.offsets[:-1])[rows]
        found[int(rows[largest.argmax()])] = f"the largest token id: {largest.max()}"
    for name, array in data.columns.arrays.items():
        whole = array.dtype.kind in "iu"
        values = np.concatenate([_values(array[some]) for some in np.array_split(rows, -(-len(rows) // _CHUNK))])
        values = values if whole else np.abs(values)
        for column in values.T:
            found.setdefault(int(rows[column.argmax()]), f"the largest of `{name}`: {column.max():.6g}")
            if whole:
                found.setdefault(int(rows[column.argmin()]), f"the smallest of `{name}`: {column.min()}")
    return found


def _values(array: Array) -> Array:
    """`[n, K]` the numbers of some rows; where they are many, the largest and the smallest alone."""
    flat = array.reshape(len(array), -1)
    return flat if flat.shape[1] <= MOST_COLUMNS else np.stack([flat.max(1), flat.min(1)], axis=1)
