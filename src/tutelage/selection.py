"""The metric by which the best weights are kept: one that the losses lower, and that a constant answer fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tutelage.balance import MOST, Array, decisions, share_of_constant
from tutelage.errors import RecipeError, did_you_mean
from tutelage.evaluation.metrics import available_metrics, describe
from tutelage.losses import Loss
from tutelage.recipe import Recipe, Task
from tutelage.transfer import TransferSet

__all__ = ["Selection", "choose", "higher_is_better", "selection_of", "stated"]

BY_TASK: dict[Task, tuple[str, ...]] = {
    "classification": ("accuracy", "agreement"),
    "multilabel": ("micro_f1", "f1_to_teacher", "top1", "top1_agreement"),
    "regression": ("rmse", "rmse_to_teacher", "margin_rmse_to_teacher"),
    "embedding": ("cosine", "pair_spearman"),
}
"""What may select, in order of preference."""
TIES: dict[Task, tuple[str, ...]] = {
    "classification": ("nll", "kl"),
    "multilabel": ("nll", "kl"),
    "regression": ("rmse", "rmse_to_teacher", "margin_rmse_to_teacher"),
    "embedding": ("cosine", "pair_spearman"),
}
"""What decides between equal values, and selects where a class or label is rare: it moves when no decision does, while
the F1 of a student that has not learnt when to say yes to a rare label is chance or 0."""
UNLIKE = 3.0
"""Values of rows whose standard deviations differ by more than this factor are taken to have other units."""
FREE = {
    "shift": "a number added to all values of a row",
    "scale": "the length of a row of outputs",
    "rotation": "a rotation of all outputs",
}


@dataclass(frozen=True, kw_only=True)
class Selection:
    """How the best weights of a training are told.

    Attributes:
        metric: On the development split.
        tie: The metric that decides where it is equal; None: the later step is kept.
        why: Why it is this metric and not the task's usual one; empty where it is.
    """

    metric: str
    tie: str | None = None
    why: str = ""

    @property
    def ties(self) -> dict[str, bool]:
        """What decides where the metric is equal, and whether it is better when higher."""
        return {} if self.tie is None else {self.tie: higher_is_better(self.tie)}

    @property
    def directions(self) -> dict[str, bool]:
        """The metric and what decides ties, in order, and whether each is better when higher."""
        return {self.metric: higher_is_better(self.metric), **self.ties}

    def __str__(self) -> str:
        tied = (
            "ties go to the later step"
            if self.tie is None
            else f"ties go to the better {self.tie}, then the later step"
        )
        return f"{self.metric}; {tied}" + (f" ({self.why})" if self.why else "")


def higher_is_better(metric: str) -> bool:
    """Direction of a metric, as the evaluation describes it."""
    about = describe(metric)
    assert about is not None, f"no task has the metric {metric}"
    return about.higher_is_better


def choose(
    task: Task, losses: Sequence[Loss], known: Sequence[str], *, share: float = 0.0, spread: float = 1.0
) -> Selection:
    """The metric that shows what the losses learn.

    Losses on outputs leave something free: a softmax a number added to all classes, a margin one added to all
    candidates. A metric that what they all leave free would change is passed over. Where a constant answer is right in
    more than nine of ten decisions, the share of right ones can't tell a student that has learnt from one that has not,
    so the likelihood selects. Where the values of a row have other units, an error pooled over them is that of the
    largest, so R² selects, which is a mean over the values.

    Args:
        task: What the outputs mean.
        losses: Of the training; those that read layers alone say nothing about outputs.
        known: Names of the metrics that the development split allows.
        share: The share of the decisions on development rows in which the best constant answer is right.
        spread: How many times the least standard deviation of a value of the labels the greatest is.
    """
    usual = [name for name in BY_TASK[task] if name in known]
    if spread > UNLIKE and "r2" in known:
        usual = ["r2", *usual]
    names = [*(name for name in TIES[task] if share > MOST and name in known), *usual]
    free = _left_free(losses)
    fitting = [name for name in names if free <= _ignores(task, name)]
    metric = (fitting or usual)[0]
    if not fitting:
        why = f"no metric of task {task} shows what these losses learn: they leave free {_told(free)}"
    elif metric not in usual:
        why = f"a constant answer is right in {share:.1%} of its decisions, so {usual[0]} says little"
    elif metric == "r2":
        why = (
            f"values of a row differ {spread:,.0f}-fold in deviation: an error pooled over them is that of the largest"
        )
    elif metric != usual[0]:
        why = f"the losses leave free {_told(free - _ignores(task, usual[0]))}, which would change {usual[0]}"
    else:
        why = ""
    return Selection(metric=metric, tie=_tie(task, metric, known, free), why=why)


def stated(key: str, metric: str, task: Task, losses: Sequence[Loss], known: Sequence[str]) -> Selection:
    """The metric that the recipe names.

    Raises:
        RecipeError: The development split does not allow it.
    """
    if metric not in known:
        raise RecipeError(
            key, expected="a metric of the development split", found=metric, mend=did_you_mean(metric, known)
        )
    free = _left_free(losses)
    lost = free - _ignores(task, metric)
    why = f"as the recipe says, though the losses leave free {_told(lost)}, which would change it" if lost else ""
    return Selection(metric=metric, tie=_tie(task, metric, known, free), why=why)


def selection_of(
    recipe: Recipe,
    losses: Sequence[Loss],
    data: TransferSet,
    *,
    same_width: bool = True,
    several: bool = True,
    key: str = "",
    metric: str | None = None,
    teacher_says: Array | None = None,
) -> Selection:
    """How the weights of a training of the recipe are kept.

    Args:
        recipe: The recipe.
        losses: Of the training.
        data: The rows.
        same_width: Whether teacher and student give outputs of one shape.
        several: Whether they give two values or more a row.
        key: Where the recipe names the metric.
        metric: That metric; None to choose one.
        teacher_says: The teacher's outputs on the development split, once they are known: they stand in for labels
            where there are none.

    Raises:
        RecipeError: The development split does not allow the metric that the recipe names.
    """
    rows = data.rows("development")
    rows = rows[data.labelled[rows]]
    labels = None if data.labels is None or not len(rows) else data.labels[rows]
    known = list(available_metrics(recipe.task, labels=labels is not None, same_width=same_width, several=several))
    if metric is not None:
        return stated(key, metric, recipe.task, losses, known)
    if recipe.task == "multilabel" and labels is not None and not (labels > 0.5).any():
        # Undefined for a student that rightly says no to all.
        known = [name for name in known if name not in ("micro_f1", "top1")]
    answers = labels if labels is not None or teacher_says is None else decisions(recipe.task, teacher_says)
    share = 0.0 if answers is None else share_of_constant(recipe.task, answers)
    spread = _spread(labels) if recipe.task == "regression" and labels is not None else 1.0
    return choose(recipe.task, losses, known, share=share, spread=spread)


def _spread(labels: Array) -> float:
    """The greatest over the least standard deviation of the values of rows; 1 where one of them is constant."""
    deviations = labels.reshape(len(labels), -1).std(axis=0, dtype=np.float64)
    return float(deviations.max() / deviations.min()) if deviations.min() > 0 else 1.0


def _tie(task: Task, metric: str, known: Sequence[str], free: frozenset[str]) -> str | None:
    """What decides where the metric is equal: of its own kind if there is one, and shown to move by what is learnt."""
    names = [x for x in TIES[task] if x in known and x != metric and free <= _ignores(task, x)]
    kinds = available_metrics(task, labels=True)
    return min(names, key=lambda x: kinds[x] != kinds[metric], default=None)


def _left_free(losses: Sequence[Loss]) -> frozenset[str]:
    """What none of the losses that read outputs looks at."""
    free = [loss.leaves_free for loss in losses if loss.needs.student.output and loss.weight != 0]
    return frozenset.intersection(*free) if free else frozenset()


def _told(free: frozenset[str]) -> str:
    return " and ".join(words for name, words in FREE.items() if name in free)


def _ignores(task: Task, metric: str) -> frozenset[str]:
    about = describe(metric, task)
    return frozenset() if about is None else about.ignores
