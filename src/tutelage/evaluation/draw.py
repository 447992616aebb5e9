"""Random draws that come out the same on every machine and with every version of numpy.

numpy keeps the stream of a bit generator fixed but not what its `Generator` makes of it; a verifier elsewhere must draw
the same resamples. So integers are made from the bits here.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tutelage.evaluation.evidence import Floats

__all__ = ["bootstrap_counts", "integers", "shuffled"]

CELLS = 4_000_000
"""Numbers in one piece of the matrix of counts: 32 MB."""


def integers(bits: np.random.PCG64, n: int, size: int) -> NDArray[np.int64]:
    """`size` integers from 0 to n - 1, for n far below 2³²: `floor(n · u / 2³²)` of 32 random bits `u`."""
    raw = bits.random_raw((size + 1) // 2)
    halves = np.concatenate([raw >> np.uint64(32), raw & np.uint64(0xFFFFFFFF)])[:size]
    halves *= np.uint64(n)
    halves >>= np.uint64(32)
    return halves.view(np.int64)


def shuffled(n: int, *, seed: int) -> NDArray[np.int64]:
    """The numbers 0 to n - 1 in a random order."""
    return np.argsort(np.random.PCG64(seed).random_raw(n), kind="stable")


def bootstrap_counts(n: int, resamples: int, *, seed: int, width: int | None = None) -> Iterator[Floats]:
    """How often each of `n` rows is drawn in each of `resamples` resamples of `n` rows, in pieces `[r, n]`.

    Args:
        n: Rows.
        resamples: How many resamples in all.
        seed: The same seed and `n` give the same resamples.
        width: Numbers a resample that the caller works with, when more than `n`: the pieces get smaller.
    """
    bits = np.random.PCG64([seed, n])
    piece = max(1, CELLS // max(n, width or n))
    for start in range(0, resamples, piece):
        r = min(piece, resamples - start)
        drawn = np.concatenate([integers(bits, n, n) for _ in range(r)])
        drawn += np.repeat(np.arange(r) * n, n)
        yield np.bincount(drawn, minlength=r * n).reshape(r, n).astype(np.float64)
