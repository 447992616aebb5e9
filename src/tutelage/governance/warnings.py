"""What a verdict is to be read with: the same student without its teacher, or a constant answer, is better."""

from __future__ import annotations

from collections.abc import Sequence

from tutelage.evaluation.benefit import against_constant
from tutelage.evaluation.metrics import CONSTANT
from tutelage.evaluation.results import Estimate, MetricResult
from tutelage.governance.policy import Gate
from tutelage.governance.requirement import metric_amount, metric_change, metric_title, metric_value

__all__ = ["constant_ahead", "overtaken", "warnings_on"]

AGAINST = "student - baseline"


def warnings_on(metrics: Sequence[MetricResult], policy: Sequence[Gate]) -> list[str]:
    """A sentence for each metric on which the baseline is shown to be better than the student.

    Looked at are the metrics that the policy judges and the first quality metric of the test split, which a policy may
    leave out: with agreement alone, a student can agree with a teacher that is wrong everywhere.

    Args:
        metrics: Of every evaluation set, the task's main metric first.
        policy: The gates.
    """
    gated = {gate.metric for gate in policy}
    main = next((metric.name for metric in metrics if metric.kind == "quality" and metric.set == "test"), None)
    return [
        _sentence(metric, difference)
        for metric in metrics
        if (metric.name in gated or metric.name == main) and (difference := _worse_by(metric, 0.0)) is not None
    ]


def overtaken(metrics: Sequence[MetricResult], policy: Sequence[Gate]) -> list[str]:
    """Why gates with a margin decide nothing: the baseline is better than the student by more than the margin.

    A margin below the teacher is a measure only while the teacher is one. That a new treatment is not worse than the
    usual one shows nothing where the usual one is worse than none (in trials of non-inferiority: assay sensitivity).
    So a student that, with its whole interval, is further below the same student without the teacher than the policy
    lets it be below the teacher can't pass by the teacher's being as bad.

    Args:
        metrics: Of every evaluation set.
        policy: The gates.
    """
    by_name = {metric.name: metric for metric in metrics}
    return [
        f"The same student trained without the teacher is better in {metric_title(metric)} by more than the "
        f"{metric_amount(gate.margin, metric.unit)} that the policy allows below the teacher "
        f"({_interval(metric, difference)}), so the teacher is no measure of the student: INCONCLUSIVE."
        for gate in policy
        if gate.margin is not None
        and (metric := by_name.get(gate.metric)) is not None
        and (difference := _worse_by(metric, gate.margin)) is not None
    ]


def constant_ahead(metrics: Sequence[MetricResult], policy: Sequence[Gate]) -> list[str]:
    """A sentence for each metric in which the best constant answer is shown to be better than the student.

    Looked at are the metrics that the policy judges, and the first quality metric of the test split unless the student
    is shown to be better than a constant answer in a quality metric that the policy judges.

    Args:
        metrics: Of every evaluation set, the task's main metric first.
        policy: The gates.
    """
    gated = {gate.metric for gate in policy}
    quality = [metric for metric in metrics if metric.kind == "quality"]
    looked = [metric for metric in metrics if metric.name in gated]
    if not any(metric.name in gated and against_constant(metric) == "better" for metric in quality):
        looked += [metric for metric in quality if metric.set == "test" and metric.name not in gated][:1]
    return [
        f"The best constant answer, which looks at no input, is better than the student: {metric_title(metric)} "
        + ", ".join(f"{metric_value(metric.models[x].value, metric.unit)} ({x})" for x in (CONSTANT, "student"))
        + "."
        for metric in looked
        if against_constant(metric) == "worse"
    ]


def _worse_by(metric: MetricResult, margin: float) -> Estimate | None:
    """The student's difference from the baseline, if its whole interval is worse by more than `margin`."""
    difference = metric.differences.get(AGAINST)
    if difference is None:
        return None
    worse = difference.high < -margin if metric.higher_is_better else difference.low > margin
    return difference if worse else None


def _sentence(metric: MetricResult, difference: Estimate) -> str:
    student, baseline = (metric_value(metric.models[model].value, metric.unit) for model in ("student", "baseline"))
    return (
        f"The same student trained without the teacher is better: {metric_title(metric)} {baseline}, with the teacher "
        f"{student} ({_interval(metric, difference)})."
    )


def _interval(metric: MetricResult, difference: Estimate) -> str:
    low, high = (metric_change(end, metric.unit) for end in (difference.low, difference.high))
    points = " points" if metric.unit == "%" else ""
    return f"{metric.confidence:.0%} interval of the difference {low} to {high}{points}"
