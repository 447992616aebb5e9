"""How much of what is to be said is always the same: where it is nearly all, shares of right answers say little."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tutelage.recipe import Recipe, Task
from tutelage.transfer import TransferSet

__all__ = ["MOST", "decisions", "label_notes", "note_on", "share_of_constant"]

Array = np.ndarray[Any, Any]
MOST = 0.9
"""The share from which on the most frequent answer is nearly all."""


def share_of_constant(task: Task, answers: Array) -> float:
    """The share of answers (of multilabel: of decisions on each label) that one constant answer gets right.

    Args:
        task: Of a task without classes or labels it is 0.
        answers: `[N]` classes, or `[N, C]` of 0 and 1.
    """
    if task == "classification" and len(answers):
        return float(np.bincount(answers.astype(np.int64)).max()) / len(answers)
    if task == "multilabel" and len(answers):
        on = (answers > 0.5).mean(axis=0)
        return float(np.maximum(on, 1 - on).mean())
    return 0.0


def decisions(task: Task, outputs: Array) -> Array:
    """What outputs say: of a classifier the class `[N]`, else which labels are on `[N, C]`."""
    chosen: Array = outputs.argmax(-1) if task == "classification" else outputs > 0
    return chosen


def note_on(task: Task, answers: Array, classes: Sequence[str], whose: str, *, labels: bool) -> list[str]:
    """What a user should know of answers of which a constant gets more than nine in ten right; nothing of others.

    Args:
        task: What the answers are.
        answers: `[N]` classes, or `[N, C]` of 0 and 1.
        classes: Their names, if they have any.
        whose: What the answers are, in words, with their number: `the 4,000 labelled rows`.
        labels: Whether they are labels, and not the teacher's answers.
    """
    share = share_of_constant(task, answers)
    if share <= MOST:
        return []
    if task == "multilabel":
        on = float((answers > 0.5).mean())
        better = "micro_f1 or map" if labels else "f1_to_teacher or map_to_teacher"
        return [
            f"a label is on in {on:.1%} of all decisions of {whose}: a student that always says the same is right in "
            f"{share:.1%} of them, so agreement says little; gate on {better}"
        ]
    most = int(np.bincount(answers.astype(np.int64)).argmax())
    name = f"`{classes[most]}`" if classes else str(most)
    said, better = ("accuracy and agreement say", "balanced_accuracy or auc") if labels else (
        "agreement says", "balanced_agreement or kl"
    )  # fmt: skip
    return [
        f"class {name} has {share:.1%} of {whose}: a student that always says so is right as often, "
        f"so {said} little; gate on {better}"
    ]


def label_notes(recipe: Recipe, data: TransferSet) -> list[str]:
    """What a user should know of labels that nearly all say the same: those of the task, and those of each head."""
    rows = data.labelled
    if not rows.any():
        return []
    notes = []
    if data.labels is not None:
        notes = note_on(recipe.task, data.labels[rows], data.classes, f"the {rows.sum():,} labelled rows", labels=True)
    for name, head in recipe.heads.items():
        if head.labels in data.tasks:
            labels, whose = data.tasks[head.labels], f"the {rows.sum():,} labelled rows of head `{name}`"
            notes += note_on(head.task, labels.values[rows], list(labels.classes), whose, labels=True)
    return notes
