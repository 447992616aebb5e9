"""Percentiles of latencies, and the ratio of two models, with their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from tutelage.devices.cost import Cost, Latency, ModelCost
from tutelage.devices.quantiles import Interval, quantile_interval

__all__ = ["latency_of", "ratio_of", "ratios_of", "recomputed"]


def latency_of(form: str, batch: int, samples_ms: Sequence[Sequence[float]], cpu_ms: Sequence[float] = ()) -> Latency:
    """Percentiles (linear interpolation) of all samples, and the 95% interval of the 95th (`quantile_interval`).

    Args:
        form: The runtime.
        batch: Rows in a call.
        samples_ms: `[round][call]`, milliseconds.
        cpu_ms: `[round]`, CPU time of a call.
    """
    kept = [[round(float(sample), 6) for sample in calls] for calls in samples_ms]  # what is stored is what is judged
    p50, p99 = np.percentile(np.concatenate(kept), [50, 99])
    p95 = quantile_interval(kept, 0.95)
    return Latency(
        form=form,
        batch=batch,
        p50_ms=float(p50),
        p95_ms=p95.value,
        p95_low_ms=p95.low,
        p95_high_ms=p95.high,
        p99_ms=float(p99),
        samples_ms=kept,
        cpu_ms=[round(float(each), 6) for each in cpu_ms],
    )


def ratio_of(numerator_ms: Sequence[Sequence[float]], denominator_ms: Sequence[Sequence[float]]) -> Interval:
    """The median over rounds of `median(numerator) / median(denominator)`, with its 95% interval from order statistics.

    The two were timed in the same rounds: what slowed one round slowed both, and cancels. The interval of a median
    takes 6 rounds.
    """
    ratios = [[float(np.median(a) / np.median(b))] for a, b in zip(numerator_ms, denominator_ms, strict=True)]
    return quantile_interval(ratios, 0.5)


def ratios_of(models: Mapping[str, ModelCost]) -> tuple[dict[str, Interval], dict[str, Interval]]:
    """The student's latency, and its CPU time, as a share of the teacher's, by `form/batch`."""
    by_wall, by_cpu = {}, {}
    if {"student", "teacher"} <= models.keys():
        theirs = {(x.form, x.batch): x for x in models["teacher"].latencies}
        for ours in models["student"].latencies:
            beside, key = theirs.get((ours.form, ours.batch)), f"{ours.form}/{ours.batch}"
            if beside is None or len(beside.samples_ms) != len(ours.samples_ms):
                continue
            by_wall[key] = ratio_of(ours.samples_ms, beside.samples_ms)
            if ours.cpu_ms and all(beside.cpu_ms):
                by_cpu[key] = ratio_of([[x] for x in ours.cpu_ms], [[x] for x in beside.cpu_ms])
    return by_wall, by_cpu


def recomputed(cost: Cost) -> Cost:
    """The same cost with all percentiles, ratios and intervals made anew of the samples; what has none is left out."""
    models = {name: replace(model, latencies=_timed(model.latencies)) for name, model in cost.models.items()}
    ratios, cpu_ratios = ratios_of(models)
    return replace(cost, models=models, ratios=ratios, cpu_ratios=cpu_ratios)


def _timed(latencies: Sequence[Latency]) -> list[Latency]:
    return [latency_of(x.form, x.batch, x.samples_ms, x.cpu_ms) for x in latencies if _is_timed(x.samples_ms)]


def _is_timed(samples_ms: Sequence[Sequence[float]]) -> bool:
    return bool(samples_ms) and all(calls and all(map(math.isfinite, calls)) for calls in samples_ms)
