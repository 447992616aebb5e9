"""A gate on a metric, judged by the confidence interval of what it demands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from tutelage.evaluation.metrics import CONSTANT, describe
from tutelage.evaluation.results import Estimate, MetricResult
from tutelage.governance.constant import is_met_by_constant, is_shown_better
from tutelage.governance.decisions import undecided
from tutelage.governance.outcome import HARDLY, GateResult, Kind, approximately, decide
from tutelage.governance.policy import Gate

__all__ = ["judge_gate", "metric_amount", "metric_change", "metric_title", "metric_value", "rows_to_decide"]


@dataclass(frozen=True)
class Demand:
    """A gate in terms of numbers: `subject >= threshold`, or `<=`."""

    threshold: float
    at_least: bool
    subject: str

    @property
    def formula(self) -> str:
        """The demand, as a policy's reader writes it."""
        return f"{self.subject} {'>=' if self.at_least else '<='} {self.threshold:g}"


def judge_gate(
    gate: Gate, metric: MetricResult | None, policy: Sequence[Gate] = (), metrics: Sequence[MetricResult] = ()
) -> GateResult:
    """Judges one gate.

    Without evidence it is INCONCLUSIVE, and so it is where it would pass by an unreliable interval, or by decisions
    that are no better than a constant answer's.

    Args:
        gate: Checked before (`check_gates`).
        metric: The metric that the gate names, or None when it was not measured.
        policy: All gates.
        metrics: All that were measured.
    """
    higher_is_better = _higher_is_better(gate, metric)
    demand = _demand(gate, higher_is_better)
    estimate = _evidence(gate, metric)
    if metric is None or estimate is None:
        about = describe(gate.metric)
        kind: Kind = metric.kind if metric is not None else about.kind if about is not None else "quality"
        return GateResult(
            name=gate.metric,
            kind=kind,
            requirement=demand.formula,
            outcome="INCONCLUSIVE",
            threshold=demand.threshold,
            explanation=_missing(gate, metric),
            unit=metric.unit if metric is not None else about.unit if about is not None else "",
        )
    outcome = decide(estimate.low, estimate.high, demand.threshold, at_least=demand.at_least)
    more, advice = (None, "") if outcome != "INCONCLUSIVE" else _advice(gate, metric, estimate, demand)
    if estimate.reservation and outcome != "FAIL":
        outcome, advice = "INCONCLUSIVE", f"{advice}{_reserved(estimate)}"
    if outcome == "PASS" and (why := undecided(gate, metric, policy, metrics)):
        outcome, advice = "INCONCLUSIVE", why
    warning = _constant_warning(gate, metric)
    return GateResult(
        name=gate.metric,
        kind=metric.kind,
        requirement=f"{demand.formula} ({metric.confidence:.0%} interval)",
        outcome=outcome,
        value=estimate.value,
        low=estimate.low,
        high=estimate.high,
        threshold=demand.threshold,
        explanation=f"{_finding(gate, metric, estimate)}: {outcome}.{f' {warning}' if warning else ''}{advice}",
        more_samples=more,
        unit=metric.unit,
        warning=warning,
    )


def rows_to_decide(deviation: float, distance: float, confidence: float, *, group_size: float = 1.0) -> int:
    """The least number of rows whose interval is shorter, to each side, than the distance to the threshold.

    `n > (z · sd / distance)²`. With no deviation at all, of a share, the interval reaches 3 / n, or 3 / groups.

    Args:
        deviation: Standard deviation of a row's value.
        distance: Between the estimate and the threshold, above 0.
        confidence: Coverage of the interval.
        group_size: Rows a group, where rows come in groups.
    """
    if deviation == 0:
        return math.ceil(3 / distance * group_size - 1e-9)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    return math.floor((z * deviation / distance) ** 2) + 1


def _higher_is_better(gate: Gate, metric: MetricResult | None) -> bool:
    if metric is not None:
        return metric.higher_is_better
    about = describe(gate.metric)
    return about is None or about.higher_is_better


def _demand(gate: Gate, higher_is_better: bool) -> Demand:
    if gate.margin is not None:
        # Not -0.0: it would be printed so.
        threshold = 0.0 - gate.margin if higher_is_better else gate.margin
        return Demand(threshold, higher_is_better, "student - teacher")
    if gate.at_least is not None:
        return Demand(gate.at_least, True, "student")
    assert gate.at_most is not None, "check_gates demands exactly one criterion"
    return Demand(gate.at_most, False, "student")


def _evidence(gate: Gate, metric: MetricResult | None) -> Estimate | None:
    if metric is None:
        return None
    estimate = metric.differences.get("student - teacher") if gate.margin is not None else metric.models.get("student")
    if estimate is None or not all(map(math.isfinite, (estimate.value, estimate.low, estimate.high))):
        return None
    return estimate


def _missing(gate: Gate, metric: MetricResult | None) -> str:
    if metric is None:
        return (
            f"The policy demands something of `{gate.metric}`, but it was not measured or is undefined on this data: "
            "INCONCLUSIVE. Missing evidence blocks."
        )
    whose = "difference from the teacher" if gate.margin is not None else "value"
    return f"The student's {whose} in {metric_title(metric)} is missing or not a finite number: INCONCLUSIVE."


def _finding(gate: Gate, metric: MetricResult, estimate: Estimate) -> str:
    """What was found and what is allowed, in words."""
    confidence = f"{metric.confidence:.0%} interval"
    title = metric_title(metric)
    if gate.margin is None:
        limit = gate.at_least if gate.at_least is not None else gate.at_most
        word = "at least" if gate.at_least is not None else "at most"
        value, low, high, bound = (
            metric_value(x, metric.unit) for x in (estimate.value, estimate.low, estimate.high, limit or 0.0)
        )
        constant = metric.models.get(CONSTANT)
        beside = f"; best constant answer {metric_value(constant.value, metric.unit)}" if constant else ""
        found = f"The student's {title} is {value} ({confidence} {low} to {high}{beside})"
        return f"{found}; the policy demands {word} {bound}"
    low, high = (metric_change(x, metric.unit) for x in (estimate.low, estimate.high))
    size = metric_amount(abs(estimate.value), metric.unit)
    side = "above" if estimate.value > 0 else "below"
    compared = f"{size} {side} the teacher's" if estimate.value else "equal to the teacher's"
    wrong_side = "below" if metric.higher_is_better else "above"
    allowed = (
        f"allows {metric_amount(gate.margin, metric.unit)} {wrong_side}" if gate.margin else "allows nothing worse"
    )
    return f"The student's {title} is {compared} ({confidence} {low} to {high}); the policy {allowed}"


def _constant_warning(gate: Gate, metric: MetricResult) -> str:
    """A sentence on a gate that an answer which looks at no input meets too."""
    if not is_met_by_constant(gate, metric):
        return ""
    value = metric_value(metric.models[CONSTANT].value, metric.unit)
    better = "" if is_shown_better(metric) else ", and the student is not shown to be better"
    return f"The best constant answer, which looks at no input, has {value} and meets this too{better}."


def _advice(gate: Gate, metric: MetricResult, estimate: Estimate, demand: Demand) -> tuple[int | None, str]:
    """How many more samples would decide, and the sentences that say so."""
    distance = abs(estimate.value - demand.threshold)
    met = (estimate.value >= demand.threshold) == demand.at_least
    would = f"{_instead(gate, metric)} would"
    if distance < 1e-12:
        return None, (
            " The estimate is exactly at the limit: no number of samples would decide while it stays there, but "
            f"{would}."
        )
    side = f"{'inside' if met else 'outside'} the limit"
    # The side that would have to be shorter: intervals of skewed values are longer to one side.
    half = estimate.value - estimate.low if met == demand.at_least else estimate.high - estimate.value
    deviation = _row_deviation(gate, metric, estimate, half)
    if deviation is None:
        narrower = half / distance
        if narrower**2 > HARDLY:
            return None, f" The estimate is {side}, but so near to it that more rows will hardly decide it; {would}."
        return None, (
            f" The estimate is {side}, but its interval would have to be {narrower:.2g} times as narrow to show it; how"
            " many more samples that takes can't be told for this metric."
        )
    size = metric.n / metric.groups if metric.groups else 1.0
    rows = rows_to_decide(deviation, distance, metric.confidence, group_size=size)
    if deviation > 0:  # with few events the interval that judges is wider than the textbook's, and skewed
        rows = max(rows, math.ceil(metric.n * (half / distance) ** 2))
    more = max(rows - metric.n, 1)
    samples = f"{approximately(more)} more sample{'' if more == 1 else 's'}"
    grouped = f" in {metric.groups:,} groups; further groups of this size" if metric.groups else ""
    if more > HARDLY * metric.n:
        return more, (
            f" The estimate is {side}, but so near to it that more rows will hardly decide it: it would take {samples} "
            f"(now {metric.n:,}{grouped}); {would}."
        )
    return (
        more,
        f" The estimate is {side}; {samples} would decide, if it stays where it is (now {metric.n:,}{grouped}).",
    )


def _instead(gate: Gate, metric: MetricResult) -> str:
    """What decides a gate that more rows don't."""
    closer = gate.margin is not None or metric.kind == "fidelity"
    student = "a student closer to the teacher" if closer else "a better student"
    return f"{'a wider margin' if gate.margin is not None else 'a limit further from it'} or {student}"


def _reserved(estimate: Estimate) -> str:
    """Why an interval that may lie inside the limit shows nothing, and what would."""
    return (
        f" The interval can't be relied on towards the limit: {estimate.reservation}. More samples would tell, or a "
        "gate on a metric that few rows don't decide, such as a share of rows."
    )


def _row_deviation(gate: Gate, metric: MetricResult, estimate: Estimate, half: float) -> float | None:
    """The standard deviation of a row's contribution to what the gate looks at; None when it is no mean over rows."""
    if metric.sd_difference is None:
        return None
    if gate.margin is not None or metric.kind == "fidelity":
        return metric.sd_difference
    if metric.unit == "%" and estimate.value in (0, 1):
        return 0.0
    # The record holds the deviation of the difference only; that of the student's value is read off its interval.
    z = NormalDist().inv_cdf(0.5 + metric.confidence / 2)
    return half * math.sqrt(metric.n) / z


def metric_title(metric: MetricResult) -> str:
    """A metric's title within a sentence."""
    first, second = metric.title[:1], metric.title[1:2]
    return metric.title if second.isupper() or not second.islower() else first.lower() + metric.title[1:]


def metric_value(x: float, unit: str) -> str:
    """A metric's value: shares in per cent."""
    return f"{100 * x:.2f}%" if unit == "%" else f"{x:.4g}"


def metric_amount(x: float, unit: str) -> str:
    """The size of a difference: of shares in points."""
    return f"{100 * x:.2f} points" if unit == "%" else f"{x:.4g}"


def metric_change(x: float, unit: str) -> str:
    """A difference with its sign: of shares in points."""
    return f"{100 * x:+.2f}" if unit == "%" else f"{x:+.4g}"
