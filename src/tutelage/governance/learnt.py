"""Whether the labels show that student and teacher have learnt anything.

No gate can make up for it: a student can agree in every row with a teacher whose classes stand in another order, or
which was never trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from tutelage.evaluation.benefit import Standing, against_constant
from tutelage.evaluation.metrics import CONSTANT
from tutelage.evaluation.results import MetricResult
from tutelage.governance.policy import Gate
from tutelage.governance.requirement import metric_title, metric_value

__all__ = ["doubted", "not_learnt", "nothing_shown"]

GUESSED = "macro_f1"
"""A metric in which guesses are better than any constant answer: they are right on some rows of each class."""
NO_EVIDENCE = (GUESSED, "positive_flips", "agreement_teacher_wrong")
"""Metrics in which a student that has learnt nothing may be better than a constant answer."""
TELLING = 100
"""Labelled rows on which a teacher that knows anything should be shown to be better than a constant answer."""


def not_learnt(metrics: Sequence[MetricResult], policy: Sequence[Gate]) -> list[str]:
    """Why nothing passes on labelled test rows where the best constant answer is as good as a model.

    Of the student it has to be shown: it is worse in one quality metric, and in none better. A teacher that gates
    compare with is to be shown to be better in one, where there are rows enough.

    Args:
        metrics: Of every evaluation set.
        policy: The gates.
    """
    student = _standings(_quality(metrics), "student")
    reasons = []
    if _nowhere_better(student) and (worse := [m for m, stands in student if stands == "worse"]):
        reasons.append(
            f"The student is worse than the best constant answer, which looks at no input, in "
            f"{_compared(worse[0], 'student')}, and is shown to be better in no quality metric: it has not learnt what "
            "the labels mean, whatever it agrees with. See that labels and outputs mean the same: INCONCLUSIVE."
        )
    if doubt := _doubt(metrics, policy):
        first, is_worse = doubt
        if is_worse or first.n >= TELLING:
            reasons.append(f"{_not_shown(first)}, so being like it shows nothing: INCONCLUSIVE.")
    return reasons


def nothing_shown(metrics: Sequence[MetricResult]) -> list[str]:
    """Says, if so, that in no metric the student is shown to be better than the best constant answer.

    Gates may all pass by it: those of a budget, and those on a metric in which guesses are better than a constant.

    Args:
        metrics: Of every evaluation set.
    """
    telling = [metric for metric in metrics if metric.name.partition(":")[0] not in NO_EVIDENCE]
    standings = _standings(telling, "student")
    if not _nowhere_better(standings):
        return []
    first = standings[0][0]
    return [
        "The student is not shown to be better than the best constant answer, which looks at no input, in any metric "
        f"({_compared(first, 'student')}): whatever passes, nothing shows that it has learnt anything."
    ]


def doubted(metrics: Sequence[MetricResult], policy: Sequence[Gate], doubts: Sequence[str] = ()) -> list[str]:
    """Doubts in the teacher of gates that compare with it, on too few labelled test rows to withhold a verdict for.

    Where no labelled test row judges the teacher, what was found of it on other rows remains.

    Args:
        metrics: Of every evaluation set.
        policy: The gates.
        doubts: What labelled rows of other splits showed of a teacher that may know nothing.
    """
    if not _standings(_quality(metrics), "teacher"):
        told = "No labelled test row judges the teacher, so being like it may show nothing:"
        return [f"{told} {doubt}." for doubt in doubts] if _compares(metrics, policy) else []
    doubt = _doubt(metrics, policy)
    return [f"{_not_shown(doubt[0])}: so few can't tell a weak teacher from one that knows nothing."] if doubt else []


def _doubt(metrics: Sequence[MetricResult], policy: Sequence[Gate]) -> tuple[MetricResult, bool] | None:
    """A metric in which a teacher that gates compare with is not shown to be better, and whether it is worse."""
    teacher = _standings(_quality(metrics), "teacher")
    if not _compares(metrics, policy) or not _nowhere_better(teacher):
        return None
    worse = [metric for metric, stands in teacher if stands == "worse"]
    return (worse[0], True) if worse else (teacher[0][0], False)


def _compares(metrics: Sequence[MetricResult], policy: Sequence[Gate]) -> bool:
    kinds = {metric.name: metric.kind for metric in metrics}
    return any(gate.margin is not None or kinds.get(gate.metric) == "fidelity" for gate in policy)


def _not_shown(metric: MetricResult) -> str:
    return (
        f"The teacher is not shown to be better than the best constant answer in any quality metric on "
        f"{metric.n:,} labelled rows ({_compared(metric, 'teacher')})"
    )


def _quality(metrics: Sequence[MetricResult]) -> list[MetricResult]:
    return [m for m in metrics if (m.kind, m.set) == ("quality", "test") and m.name != GUESSED]


def _standings(
    metrics: Sequence[MetricResult], model: Literal["student", "teacher"]
) -> list[tuple[MetricResult, Standing]]:
    found = ((metric, against_constant(metric, model)) for metric in metrics)
    return [(metric, stands) for metric, stands in found if stands is not None]


def _nowhere_better(standings: Sequence[tuple[MetricResult, Standing]]) -> bool:
    return bool(standings) and all(stands != "better" for _, stands in standings)


def _compared(metric: MetricResult, model: str) -> str:
    values = (f"{metric_value(metric.models[x].value, metric.unit)} ({x})" for x in (model, CONSTANT))
    return f"{metric_title(metric)}: {', '.join(values)}"
