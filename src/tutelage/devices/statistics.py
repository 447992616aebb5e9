"""Percentiles of latencies, their intervals, and the ratio of two models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tutelage.devices.cost import Latency

__all__ = ["latency_of", "ratio_of"]

RESAMPLES = 1000


def _resampled_rounds(rounds: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, rounds, size=(RESAMPLES, rounds))


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def latency_of(form: str, batch: int, samples_ms: Sequence[Sequence[float]], *, seed: int = 0) -> Latency:
    """Percentiles (linear interpolation) of all samples.

    The 95% interval of the 95th percentile resamples whole rounds, for the calls of one round are not independent.

    Args:
        form: The runtime.
        batch: Rows in a call.
        samples_ms: `[round][call]`, milliseconds.
        seed: Of the bootstrap.
    """
    rounds = [np.asarray(calls, dtype=np.float64) for calls in samples_ms]
    p50, p95, p99 = np.percentile(np.concatenate(rounds), [50, 95, 99])
    resampled = [
        np.percentile(np.concatenate([rounds[i] for i in chosen]), 95)
        for chosen in _resampled_rounds(len(rounds), seed)
    ]
    low, high = _interval(np.asarray(resampled))
    return Latency(
        form=form,
        batch=batch,
        p50_ms=float(p50),
        p95_ms=float(p95),
        p95_low_ms=low,
        p95_high_ms=high,
        p99_ms=float(p99),
        samples_ms=[[round(float(sample), 6) for sample in calls] for calls in rounds],
    )


def ratio_of(
    numerator_ms: Sequence[Sequence[float]], denominator_ms: Sequence[Sequence[float]], *, seed: int = 0
) -> dict[str, float]:
    """The median over rounds of `median(numerator) / median(denominator)`, with its 95% bootstrap interval over rounds.

    The two were timed in the same rounds: what slowed one round slowed both, and cancels.

    Returns:
        `{"value":, "low":, "high":}`.
    """
    ratios = np.asarray(
        [np.median(a) / np.median(b) for a, b in zip(numerator_ms, denominator_ms, strict=True)], dtype=np.float64
    )
    low, high = _interval(np.median(ratios[_resampled_rounds(len(ratios), seed)], axis=1))
    return {"value": float(np.median(ratios)), "low": low, "high": high}
