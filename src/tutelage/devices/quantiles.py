"""Confidence limits of a percentile from order statistics, for samples that come in rounds.

Of `n` independent samples, `j` lie at or below the true `p`-quantile with the binomial probability of `(n, p)`: the
`k`-th smallest is an upper limit with the confidence that fewer than `k` do. No distribution is assumed, and where even
the largest sample is no upper limit there is none: one of 97.5% for a 95th percentile takes `0.95^n <= 0.025`, 72
samples. Between two order statistics of independent samples the limit is interpolated, so that its confidence is not
more than was asked for.

Samples of one round are alike, so `n` is an effective number: all samples over their design effect, which is the larger
of two. One is counted: how much more the share of samples beyond the quantile varies between rounds than that of
independent ones would. Of a few slow samples in a few rounds that is told badly, and too small where no slow round came
up; so the other is inferred from all samples: the share of the variance of their logarithms that lies between rounds,
taken to the tail as for normal ones. What the larger has beyond 1 is multiplied by `(t / z)²`, for the few rounds that
it is estimated from. A slowness that no round showed is in neither: of what befalls a tenth of all rounds, 10 rounds
show nothing with a probability of 0.9^10 = 35%, and 40 with one of 1%.

Sources: Nyblom 1992, "Note on interpolated order statistics" (Hettmansperger and Sheather 1986 for the median);
Woodruff 1952, "Confidence intervals for medians and other position measures"; Korn and Graubard 1998, "Confidence
intervals for proportions with small expected number of positive counts".
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from tutelage.sampling import design_effect, t_quantile

__all__ = ["CONFIDENCE", "Interval", "effective_samples", "least_samples", "quantile_interval", "samples_to_decide"]

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
TAIL = 0.5 + CONFIDENCE / 2
"""The confidence of each of the two limits."""
NORMAL = NormalDist()
Z = NORMAL.inv_cdf(TAIL)
EFFECTS = [NORMAL.inv_cdf((i + 0.5) / 100) for i in range(100)]
"""Values that lie as those of a standard normal variable do."""
TINY = 1e-6
"""In the unit of the samples: of durations that a clock could not tell from 0, the logarithm is that of so much."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate and its 95% interval; an end is None where the samples are too few to set a limit there."""

    value: float
    low: float | None
    high: float | None


def quantile_interval(rounds: Sequence[Sequence[float]], p: float) -> Interval:
    """The `p`-quantile of all samples (linear interpolation) and its 95% interval.

    Args:
        rounds: `[round][sample]`; rounds of one sample each are independent samples.
        p: Between 0 and 1.
    """
    samples = np.sort(np.concatenate([np.asarray(samples, dtype=np.float64) for samples in rounds]))
    value = float(np.quantile(samples, p))
    effective = int(effective_samples(rounds, p) + 1e-9)
    low_place, high_place = _places(effective, p)
    if low_place is not None and effective < len(samples):  # few effective ones, each many samples wide
        low_place = math.floor(low_place)
    low, high = (
        None if place is None else _at(samples, place * len(samples) / effective) for place in (low_place, high_place)
    )
    # The estimate interpolates otherwise than the limits: it must not lie outside them.
    return Interval(
        value=value, low=None if low is None else min(low, value), high=None if high is None else max(high, value)
    )


def effective_samples(rounds: Sequence[Sequence[float]], p: float) -> float:
    """How many independent samples tell as much about the `p`-quantile as these in rounds."""
    sizes = [len(samples) for samples in rounds]
    count = sum(sizes)
    if max(sizes) == 1:
        return count
    if len(rounds) < 3:
        return 1.0  # how rounds differ, two can't say
    samples = np.concatenate([np.asarray(samples, dtype=np.float64) for samples in rounds])
    groups = np.repeat(np.arange(len(rounds)), sizes)
    beyond = (samples > np.quantile(samples, p)).astype(np.float64)
    inferred = 1 + (count / len(rounds) - 1) * _beyond_together(_between_rounds(samples, groups, sizes), p)
    few = (t_quantile(TAIL, len(rounds) - 1) / Z) ** 2
    return count / (1 + (max(design_effect(beyond, groups), inferred) - 1) * few)


def least_samples(p: float) -> int:
    """The least number of independent samples of which the largest is an upper limit: `p^n <= 0.025`, 72 for 0.95."""
    return math.ceil(math.log(1 - TAIL) / math.log(p))


def samples_to_decide(rounds: Sequence[Sequence[float]], p: float, limit: float) -> int | None:
    """How many more samples like these would show on which side of a limit the `p`-quantile lies.

    The share `s` of samples up to the limit differs from `p` by more than `z · √(p (1 - p) / n)` for
    `n > z² p (1 - p) / (s - p)²` independent ones; where all are, it takes `least_samples`.

    Returns:
        None where the estimate lies at the limit: no number would do while it stays there.
    """
    count = sum(map(len, rounds))
    share = sum(sample <= limit for samples in rounds for sample in samples) / count
    if abs(share - p) < 1e-12:
        return None
    independent = least_samples(p) if share == 1 else Z * Z * p * (1 - p) / (share - p) ** 2
    return max(1, math.ceil(independent * count / effective_samples(rounds, p)) - count)


def _at(samples: Floats, place: float) -> float:
    """The sample at a place from 1, between two of them in proportion."""
    return float(np.interp(place, np.arange(1, len(samples) + 1), samples))


@functools.lru_cache(maxsize=4096)
def _places(count: int, p: float) -> tuple[float | None, float | None]:
    """The places of both limits among `count` independent samples in order, from 1; None where there is none."""
    # At place k stands the probability that the k-th smallest lies beyond the quantile: fewer than k do not.
    beyond = _binomial(count, p)
    low = high = None
    lowest = np.flatnonzero(1 - beyond[1:] >= TAIL) + 1
    if len(lowest):
        low = _between(int(lowest[-1]), beyond, 1 - TAIL, p)
    highest = np.flatnonzero(beyond[1:] >= TAIL) + 1
    if len(highest):
        high = _between(int(highest[0]) - 1, beyond, TAIL, p)
    return low, high


def _binomial(count: int, p: float) -> Floats:
    """`P(fewer than k of count)` for each `k` from 0 to `count`, of events of probability `p`."""
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, count + 1)))])
    events = np.arange(count)
    terms = logs[count] - logs[events] - logs[count - events] + events * math.log(p) + (count - events) * math.log1p(-p)
    return np.concatenate([[0.0], np.cumsum(np.exp(terms))])


def _between(place: int, beyond: Floats, wanted: float, p: float) -> float:
    """The place between one and the next at which a limit has the wanted confidence (Nyblom 1992)."""
    count = len(beyond) - 1
    if place in (0, count):
        return max(1.0, float(place))
    here, there = float(beyond[place]), float(beyond[place + 1])
    gained = max(wanted - here, 1e-300)
    return place + 1 / (1 + place * (1 - p) * (there - wanted) / ((count - place) * p * gained))


def _between_rounds(samples: Floats, groups: NDArray[np.int64], sizes: Sequence[int]) -> float:
    """The share of the variance of the samples' logarithms that lies between rounds (one-way analysis of variance)."""
    logs = np.log(np.maximum(samples, TINY))
    counts = np.asarray(sizes, dtype=np.float64)
    means = np.bincount(groups, weights=logs) / counts
    within = float(((logs - means[groups]) ** 2).sum()) / max(1, len(logs) - len(counts))
    between = float((counts * (means - logs.mean()) ** 2).sum()) / (len(counts) - 1)
    size = (len(logs) - float((counts**2).sum()) / len(logs)) / (len(counts) - 1)
    both = between + (size - 1) * within
    return max(0.0, (between - within) / both) if both > 0 else 0.0


def _beyond_together(shared: float, p: float) -> float:
    """The correlation of two normal values' being beyond their `p`-quantile, when they correlate by `shared`.

    `Var Φ((√ρ a - z_p) / √(1 - ρ)) / (p (1 - p))` over the effect `a` that they have in common.
    """
    if not 0 < shared < 1:
        return float(shared >= 1)
    z, root, scale = NORMAL.inv_cdf(p), math.sqrt(shared), math.sqrt(2 * (1 - shared))
    shares = [0.5 * math.erfc((z - root * effect) / scale) for effect in EFFECTS]
    return float(np.var(shares)) / (p * (1 - p))
