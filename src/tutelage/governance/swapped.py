"""Classes that changed places between the teacher and the labelled test rows, and so in a student too.

Before training there may be too few labelled rows to see it, and in a share of right answers two classes among many
hardly show.
"""

from __future__ import annotations

from collections.abc import Sequence

from tutelage.evaluation.crossed import ENOUGH, crossings
from tutelage.evaluation.evidence import Evidence, PairEvidence

__all__ = ["swapped"]


def swapped(sets: Sequence[Evidence | PairEvidence]) -> tuple[list[str], list[str]]:
    """Why nothing passes with a teacher that calls classes by each other's names, and where it may do so.

    Args:
        sets: The raw evidence; the test split is looked at.

    Returns:
        A sentence for each circle of classes that surely changed places, and one for each that likely did.
    """
    sure, likely = [], []
    for evidence in sets:
        if not isinstance(evidence, Evidence) or (evidence.set, evidence.task) != ("test", "classification"):
            continue
        teacher, labels, here = evidence.outputs["teacher"], evidence.labels, evidence.labelled
        if labels is None or here is None or teacher.ndim != 2 or labels.ndim != 1 or here.sum() < ENOUGH:
            continue
        width = max(teacher.shape[1], int(labels[here].max()) + 1)
        names = [*(evidence.classes or ()), *map(str, range(len(evidence.classes or ()), width))]
        for circle in crossings(teacher[here].argmax(1), labels[here]):
            told = f"On labelled test rows the teacher names {circle.describe(names)}"
            if circle.is_sure:
                sure.append(
                    f"{told}: they stand in another order, and a student that agrees with it has them so too. Give "
                    "data.source `classes` in the order of the teacher's outputs: INCONCLUSIVE."
                )
            elif circle.is_likely:
                likely.append(f"{told}: do their names stand in another order?")
    return sure, likely
