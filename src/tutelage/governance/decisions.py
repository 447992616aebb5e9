"""Gates on decisions that a constant answer meets: what they need besides, to say anything of the student's decisions.

A student that says no to all labels, and yet puts its scores in the right order, agrees with the teacher in 99% of rare
labels. That it ranks well is no evidence of its decisions.
"""

from __future__ import annotations

from collections.abc import Sequence

from tutelage.evaluation.benefit import standing
from tutelage.evaluation.metrics import CONSTANT, describe
from tutelage.evaluation.results import MetricResult
from tutelage.governance.constant import is_met_by_constant
from tutelage.governance.policy import Gate

__all__ = ["undecided"]

EVIDENCE = (
    "f1_to_teacher", "balanced_agreement", "micro_f1", "balanced_accuracy", "jaccard_to_teacher", "jaccard",
    "agreement", "accuracy", "exact_match",
)  # fmt: skip
"""Metrics of decisions in which guesses are no better than the best constant answer; the most telling first."""
KEPT = 0.5
"""Share of the teacher's lead over a constant answer that a student's decisions have to keep to be evidence."""


def undecided(gate: Gate, metric: MetricResult, policy: Sequence[Gate], metrics: Sequence[MetricResult]) -> str:
    """Why a gate on decisions shows nothing: a constant answer meets it, and the student decides little better.

    In one metric of decisions the student has to be shown to be better than the best constant answer, by at least half
    of what the teacher is (as a margin in a trial of non-inferiority is to keep at least half of what the old treatment
    does beyond none); or another gate on decisions, which a constant does not meet, says what is enough. It is not
    asked where the teacher's own decisions are not told from a constant's: there is nothing in them to be learnt.

    Args:
        gate: The gate.
        metric: What it judges.
        policy: All gates.
        metrics: Of every evaluation set.

    Returns:
        Sentences for people; empty where the gate shows something, or is none on decisions.
    """
    by_name = {x.name: x for x in metrics if CONSTANT in x.models}
    if not _is_on_decisions(gate) or not is_met_by_constant(gate, metric):
        return ""
    _, _, on = gate.metric.partition(":")
    for other in policy:
        judged = by_name.get(other.metric)
        same = other.metric.partition(":")[2] == on and _is_on_decisions(other)
        if same and judged is not None and not is_met_by_constant(other, judged):
            return ""
    looked = [by_name[full] for x in EVIDENCE if (full := f"{x}:{on}" if on else x) in by_name]
    telling = [x for x in looked if _lead(x) is not None]
    kept = {x.name: share for x in telling if (share := _kept(x)) is not None}
    if not telling or any(share >= KEPT for share in kept.values()):
        return ""
    found = (
        f"better by at most {max(kept.values()):.0%} of what the teacher's are ({max(kept, key=lambda x: kept[x])})"
        if kept
        else f"not shown to be better in {', '.join(x.name for x in looked)}"
    )
    advice = next((f" Gate on {x.name} as well: it has little of that." for x in telling if x.name != gate.metric), "")
    return f" The student's decisions are {found}, and that it ranks well is no evidence of them.{advice}"


def _is_on_decisions(gate: Gate) -> bool:
    about = describe(gate.metric)
    return about is not None and about.decisions


def _lead(metric: MetricResult) -> float | None:
    """By how much the teacher's decisions are better than a constant's, if they are told from them.

    Agreement of the teacher with itself is the best there is.
    """
    constant = metric.models[CONSTANT]
    if metric.kind == "fidelity":
        return 1 - constant.value if constant.high < 1 else None
    apart = metric.differences.get(f"teacher - {CONSTANT}")
    return apart.value if apart is not None and apart.low > 0 else None


def _kept(metric: MetricResult) -> float | None:
    """How much of the teacher's lead over a constant answer the student has, where it is shown to have some."""
    lead = _lead(metric)
    if lead is None or standing(metric, CONSTANT) != "better":
        return None
    return metric.differences[f"student - {CONSTANT}"].value / lead
