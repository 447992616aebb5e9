"""Whether distillation helped: the student against the same student without the teacher, and against a constant answer.

A student that is better than its baseline is no success while an answer that looks at no input is better than both.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tutelage.evaluation.results import Estimate, MetricResult
from tutelage.evaluation.seeds import seed_spread

__all__ = [
    "Answer",
    "Comparison",
    "Conclusion",
    "Standing",
    "against_constant",
    "compare",
    "conclude",
    "lead_metric",
    "standing",
]

Standing = Literal["better", "worse", "open"]
Answer = Literal["yes", "no", "not shown", "not measured"]
# Two-sided 95% quantiles of Student's t for 1 to 30 degrees of freedom; 1.96 is near enough beyond.
T_95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


def standing(metric: MetricResult, other: str, model: str = "student") -> Standing | None:
    """How a model is shown to stand against another: `open` where the interval of the difference has zero.

    An interval with a reservation shows nothing in the model's favour. None where there is no such difference.
    """
    difference = metric.differences.get(f"{model} - {other}")
    return None if difference is None else _standing(metric, difference)


def _standing(metric: MetricResult, *differences: Estimate) -> Standing:
    sign = 1 if metric.higher_is_better else -1
    if all(min(sign * e.low, sign * e.high) > 0 and not e.reservation for e in differences):
        return "better"
    return "worse" if all(max(sign * e.low, sign * e.high) < 0 for e in differences) else "open"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The student less another on one metric: over rows (the shipped seed) and, with two or more, over seeds."""

    metric: MetricResult
    rows: Estimate
    seeds: Estimate | None
    by_seed: list[float]

    @property
    def standing(self) -> Standing:
        """Better or worse only when every interval there is lies on one side of zero."""
        return _standing(self.metric, *(e for e in (self.rows, self.seeds) if e))


@dataclass(frozen=True, kw_only=True)
class Conclusion:
    """The answer to "does distillation help?".

    Attributes:
        answer: `yes`: better than the baseline, and not shown to be no better than a constant answer. `no`: worse than
            the baseline, or better than it and yet worse than a constant answer. `not measured`: there is no baseline
            on a metric that is judged against labels.
        lead: The comparison with the baseline that it rests on, or None.
        constant: How the student stands against the best constant answer on the lead metric, or on `metric` where
            nothing was compared; None where a constant answer has no value.
        metric: The metric of `constant`.
        also_better: Other quality metrics on which the student is shown to be better than the baseline, although the
            answer is not yes; `also_worse` those on which it is worse, although the answer is not no.
    """

    answer: Answer
    lead: Comparison | None
    constant: Standing | None
    metric: MetricResult | None
    also_better: list[MetricResult] = field(default_factory=list)
    also_worse: list[MetricResult] = field(default_factory=list)


def lead_metric(metrics: Sequence[MetricResult], kind: str, gated: Collection[str]) -> MetricResult | None:
    """The metric of `kind` that a gate judges, else the first on the test set, else the first."""
    of_kind = [metric for metric in metrics if metric.kind == kind]
    return min(of_kind, key=lambda metric: (metric.name not in gated, metric.set != "test"), default=None)


def compare(
    metrics: Sequence[MetricResult], seeds: Sequence[Mapping[str, Any]], against: str = "baseline"
) -> list[Comparison]:
    """The student's difference from `against` on every metric that has it.

    Args:
        metrics: Of every evaluation set.
        seeds: Each seed's own values, as `metrics.json` has them.
        against: `baseline` or `untrained`; only of the baseline is there a difference for each seed.
    """
    spread = seed_spread(seeds) if against == "baseline" and len(seeds) > 1 else {}
    found = []
    for metric in metrics:
        rows = metric.differences.get(f"student - {against}")
        if rows is None:
            continue
        by_seed = [
            values["student"] - values["baseline"]
            for seed in seeds
            if spread and {"student", "baseline"} <= set(values := seed.get("metrics", {}).get(metric.name, {}))
        ]
        across = spread.get(metric.name, {}).get("student - baseline")
        found.append(
            Comparison(metric=metric, rows=rows, seeds=_over_seeds(across), by_seed=by_seed if len(by_seed) > 1 else [])
        )
    return found


def conclude(
    metrics: Sequence[MetricResult], seeds: Sequence[Mapping[str, Any]], gated: Collection[str] = ()
) -> Conclusion:
    """Whether distillation helped, by the quality metric that a gate judges, else by the first of the test set.

    Fidelity is no measure of it: only the student was taught to answer as the teacher does.

    Args:
        metrics: Of every evaluation set.
        seeds: Each seed's own values, as `metrics.json` has them.
        gated: Names of the metrics that the policy judges.
    """
    found = [x for x in compare(metrics, seeds) if x.metric.kind == "quality"]
    metric = lead_metric([x.metric for x in found], "quality", gated)
    if metric is None:
        known = lead_metric(metrics, "quality", gated) or lead_metric(metrics, "fidelity", gated)
        constant = None if known is None else against_constant(known)
        return Conclusion(answer="not measured", lead=None, constant=constant, metric=known)
    lead = next(x for x in found if x.metric is metric)
    constant = against_constant(metric)
    answer: Answer = {"better": "yes", "worse": "no", "open": "not shown"}[lead.standing]  # type: ignore[assignment]
    if answer == "yes" and constant in ("worse", "open"):
        answer = "no" if constant == "worse" else "not shown"
    others = [(x.metric, x.standing) for x in found if x is not lead]
    return Conclusion(
        answer=answer,
        lead=lead,
        constant=constant,
        metric=metric,
        also_better=[x for x, stands in others if stands == "better" and lead.standing != "better"],
        also_worse=[x for x, stands in others if stands == "worse" and lead.standing != "worse"],
    )


def against_constant(metric: MetricResult, model: str = "student") -> Standing | None:
    """How a model is shown to stand against the best constant answer; None where that has no value.

    None also for a calibration error, which a constant answer can have none of and yet be of no use.
    """
    return None if metric.name.partition(":")[0] == "ece" else standing(metric, "constant", model)


def _over_seeds(spread: Mapping[str, float] | None) -> Estimate | None:
    if not spread or spread["n"] < 2:
        return None
    freedom = int(spread["n"]) - 1
    half = (T_95[freedom - 1] if freedom <= len(T_95) else 1.96) * spread["sd"] / math.sqrt(spread["n"])
    return Estimate(value=spread["mean"], low=spread["mean"] - half, high=spread["mean"] + half)
