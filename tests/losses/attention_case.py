"""Attention of one sample in numpy: what the goldens of the losses between attention modules share."""

from __future__ import annotations

import numpy as np
from loss_case import Array
from numpy.typing import NDArray
from scipy.special import log_softmax

__all__ = ["log_probabilities", "sample_scores", "seen_by"]


def sample_scores(query: Array, key: Array, heads: int) -> list[Array]:
    """`QKᵀ/√d` of each head of one sample, [L, L]: head `a` is the `a`-th run of columns."""
    d = query.shape[1] // heads
    return [query[:, a * d : (a + 1) * d] @ key[:, a * d : (a + 1) * d].T / np.sqrt(d) for a in range(heads)]


def seen_by(token: int, length: int, mask: NDArray[np.bool_] | None, *, causal: bool) -> list[int]:
    """The keys that a query sees."""
    return [j for j in range(length) if (mask is None or mask[j]) and (j <= token or not causal)]


def log_probabilities(row: Array, seen: list[int]) -> Array:
    """Of one query, over the keys it sees."""
    return np.asarray(log_softmax(row[seen]))
