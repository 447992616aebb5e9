"""What samples know that come in groups and are not independent: how many independent ones they are worth."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

__all__ = ["design_effect", "t_quantile"]


def t_quantile(p: float, freedom: int) -> float:
    """Student's t quantile: exact for 1 and 2 degrees of freedom, else the expansion in 1/ν to the fourth order.

    Source: Abramowitz and Stegun 26.7.5; within 1% at 3 degrees of freedom and 0.1% from 6 on, for p <= 0.975.
    """
    if freedom == 1:
        return math.tan(math.pi * (p - 0.5))
    if freedom == 2:
        return (2 * p - 1) / math.sqrt(2 * p * (1 - p))
    z = NormalDist().inv_cdf(p)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return math.fsum(term / math.pow(freedom, order) for order, term in enumerate(terms))


def design_effect(values: NDArray[np.float64], groups: NDArray[np.int64]) -> float:
    """How many times as large the variance of the mean is for the grouping, at least 1.

    `G / (G - 1) · Σ_g (Σ_{i in g} (x_i - x̄))²` over `n / (n - 1) · Σ_i (x_i - x̄)²`: linearised, so that groups of
    different sizes are right too; 1 where all values are equal.

    Args:
        values: `[n]`.
        groups: `[n]` numbers from 0 of the group of each value, at least two of them.
    """
    centred = values - values.mean()
    sums = np.bincount(groups, weights=centred)
    grouped = len(sums) / (len(sums) - 1) * float(sums @ sums)
    alone = len(values) / (len(values) - 1) * float(centred @ centred)
    return max(1.0, grouped / alone) if alone > 0 else 1.0
