"""The best constant answer against the gates: what looks at no input must not pass for a student that has learnt."""

from __future__ import annotations

from collections.abc import Sequence

from tutelage.evaluation.benefit import standing
from tutelage.evaluation.metrics import CONSTANT
from tutelage.evaluation.results import MetricResult
from tutelage.governance.policy import Gate

__all__ = ["constant_reason", "constant_warnings", "is_met_by_constant", "is_shown_better"]

UNTRAINED = "untrained"
NAMED = 3
"""How many metrics a sentence proposes at most."""


def is_met_by_constant(gate: Gate, metric: MetricResult) -> bool:
    """Whether the best constant answer has, on these rows, what the gate demands of the student."""
    constant, teacher = metric.models.get(CONSTANT), metric.models.get("teacher")
    if constant is None or (gate.margin is not None and teacher is None):
        return False
    if gate.margin is not None and teacher is not None:
        behind = teacher.value - constant.value if metric.higher_is_better else constant.value - teacher.value
        return behind <= gate.margin
    if gate.at_least is not None:
        return constant.value >= gate.at_least
    return gate.at_most is not None and constant.value <= gate.at_most


def is_shown_better(metric: MetricResult) -> bool:
    """Whether the whole interval of the student's difference from the best constant answer is on the better side."""
    if CONSTANT not in metric.models:  # undefined for a constant: what has a value is none
        return not _is_as_untrained(metric)
    return standing(metric, CONSTANT) == "better"


def _is_as_untrained(metric: MetricResult) -> bool:
    """Whether a constant answer has no value, and the student is not shown to be better than before its training."""
    return CONSTANT not in metric.models and standing(metric, UNTRAINED) in ("open", "worse")


def constant_reason(metrics: Sequence[MetricResult], policy: Sequence[Gate]) -> list[str]:
    """Why gates that all pass decide nothing: a constant answer passes them, and the student is not shown to be better.

    Args:
        metrics: Of every evaluation set.
        policy: The gates.
    """
    judged = _met_by_constant(metrics, policy)
    if not judged or any(map(is_shown_better, judged)):
        return []
    undefined = [metric for metric in judged if CONSTANT not in metric.models]
    where = f" where it has a value (it has no {_listed(undefined)})" if undefined else ""
    before = ", or than before its training," if undefined else ""
    return [
        f"The best constant answer, which looks at no input, meets every gate on quality and fidelity too{where}, and "
        f"the student is not shown to be better than it{before} in {_listed(judged)}: INCONCLUSIVE.{_advice(metrics)}"
    ]


def constant_warnings(metrics: Sequence[MetricResult], policy: Sequence[Gate]) -> list[str]:
    """What gates that a constant answer passes too are to be read with, where the student is shown to be better.

    Args:
        metrics: Of every evaluation set.
        policy: The gates.
    """
    judged = _met_by_constant(metrics, policy)
    if not any(map(is_shown_better, judged)):
        return []
    return [
        f"The best constant answer, which looks at no input, meets every gate on quality and fidelity too "
        f"({_listed(judged)}): they ask less than shows what the student has learnt.{_advice(metrics)}"
    ]


def _met_by_constant(metrics: Sequence[MetricResult], policy: Sequence[Gate]) -> list[MetricResult]:
    """The metrics of the gates, once each, if the best constant answer meets all of the gates; else none."""
    by_name = {metric.name: metric for metric in metrics}
    judged = [(gate, by_name.get(gate.metric)) for gate in policy]
    met = [m for gate, m in judged if m is not None and (is_met_by_constant(gate, m) or _is_as_untrained(m))]
    return list({metric.name: metric for metric in met}.values()) if len(met) == len(judged) else []


def _advice(metrics: Sequence[MetricResult]) -> str:
    """Metrics in which the student is shown to be better than a constant answer."""
    better = [x.name for x in metrics if CONSTANT in x.models and is_shown_better(x)][:NAMED]
    return f" Such an answer is worse than the student in {', '.join(better)}: gate on one of them." if better else ""


def _listed(metrics: Sequence[MetricResult]) -> str:
    return ", ".join(metric.name for metric in metrics)
