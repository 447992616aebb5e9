"""The studentised bootstrap, and when even that can't be relied on.

An interval from the percentiles of resamples ends short on the long side of skewed values: a sample without its share
of large errors has a small mean and, at the same time, a small spread. The studentised bootstrap ("bootstrap-t") looks
up how far a resample's value lies from the sample's in units of the *resample's* standard error, and takes as many of
the sample's: a resample that is too low is too sure of itself, so the upper end moves out. Both its forms are taken
together, the one with two tails and the symmetric one (Hall 1988, "Theoretical comparison of bootstrap confidence
intervals"): the first is right for a skewed mean, the second for a difference in which skews cancel or do not.

What no resample can know is what the sample lacks. `unseen.py` says how far that may reach. The interval reaches the
further of both distances, and their sum where few rows make up the variance of what has no bounds (see
`effective_number`), since then the sample's own spread is known no better. And where that does not reach far beyond the
sample's own spread either, the interval makes a reservation: no interval holds for a mean without knowledge of its tail
(Bahadur and Savage 1956, "The nonexistence of certain statistical procedures in nonparametric problems").

The bounds `FEW` and `HELPED` were chosen by simulation: `benchmarks/coverage.py`; docs/intervals.md has what they give.
"""

from __future__ import annotations

import numpy as np

from tutelage.evaluation.evidence import Floats

__all__ = ["FEW", "HELPED", "effective_number", "reach_of", "rows_of_half"]

FEW = 25
"""Fewer effective rows than this, and the spread is not known well."""
HELPED = 0.5
"""Unseen rows reach at least this share of the studentised distance, or few rows make a reservation."""
NOTHING = 1e-6
"""A standard error below this share of the sample's is none: the resample is of equal rows."""


def reach_of(value: float, error: float, draws: Floats, errors: Floats, confidence: float) -> tuple[float, float]:
    """How far below and above the value the studentised interval reaches, both >= 0; infinite where no end is found.

    Args:
        value: The estimate.
        error: Its standard error.
        draws: `[R]` the statistic on each resample.
        errors: `[R]` its standard error on each.
        confidence: Coverage.
    """
    away = draws - value
    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.where(errors > NOTHING * error, away / errors, np.where(away == 0, 0.0, np.copysign(np.inf, away)))
    t = t[np.isfinite(draws)]
    if error == 0 or not len(t):
        return 0.0, 0.0
    tail = (1 - confidence) / 2
    low, high = np.quantile(t, [tail, 1 - tail], method="nearest")
    both = np.quantile(np.abs(t), confidence, method="nearest")
    return error * max(float(high), float(both)), error * max(-float(low), float(both))


def effective_number(influence: Floats) -> float:
    """How many rows make up the variance: `(Σ e²)² / Σ e⁴`: a third of normal values; of rare events, their number."""
    squares = influence**2
    return float(squares.sum() ** 2 / (squares @ squares)) if squares.any() else 0.0


def rows_of_half(influence: Floats) -> int:
    """The least number of rows whose squared influence adds up to half of all."""
    squares = np.sort(influence**2)[::-1]
    return int(np.searchsorted(np.cumsum(squares), squares.sum() / 2)) + 1
