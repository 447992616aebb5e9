"""The metrics of each task, computed in float64 with numpy from the raw evidence.

One file a task: it describes what it measures (`DESCRIPTIONS`) and measures it (`measure`). Nothing here uses torch
or the losses: a wrong loss must not grade itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tutelage.errors import SignalError
from tutelage.evaluation.evidence import Evidence, PairEvidence, Task
from tutelage.evaluation.metrics import classification, embedding, multilabel, regression
from tutelage.evaluation.metrics.base import CONSTANT, Change, Description, Kind, Metric

__all__ = [
    "CONSTANT",
    "Change",
    "Description",
    "Kind",
    "Metric",
    "available_metrics",
    "describe",
    "metrics_for",
    "point_values",
]

TASKS = {
    "classification": classification,
    "multilabel": multilabel,
    "regression": regression,
    "embedding": embedding,
}


def metrics_for(task: Task, evidence: Evidence | PairEvidence, *, plain_names: bool = False) -> list[Metric]:
    """Every metric that the evidence supports, for every model in it.

    On a further set the metric's name ends in `:` and the set's name (`accuracy:hans`); on `test`, or with
    `plain_names`, it doesn't.

    Raises:
        SignalError: Outputs are not finite, or do not have the shape that the task needs.
    """
    if isinstance(evidence, PairEvidence):
        _refuse_not_finite(evidence.set, {"score": evidence.score, **evidence.similarities})
        pairs = embedding.measure_pairs(evidence)
        return pairs if plain_names else [_on_set(metric, evidence.set) for metric in pairs]
    _refuse_not_finite(evidence.set, evidence.outputs, without_mass=task == "classification")
    metrics = TASKS[task].measure(evidence)
    return metrics if plain_names or evidence.set == "test" else [_on_set(metric, evidence.set) for metric in metrics]


def point_values(
    task: Task, evidence: Evidence | PairEvidence, *, plain_names: bool = False
) -> dict[str, dict[str, float]]:
    """The value of each metric for each model (other seeds' too), without intervals; undefined values are left out.

    `constant` is the best answer that is the same for every row (`CONSTANT`).

    Args:
        task: The recipe's task.
        evidence: Of any set.
        plain_names: `accuracy`, not `accuracy:development`, whatever the set is called.
    """
    values = {
        metric.about.name: {model: statistic.value() for model, statistic in metric.statistics.items()}
        for metric in metrics_for(task, evidence, plain_names=plain_names)
    }
    finite = {name: {m: v for m, v in by_model.items() if np.isfinite(v)} for name, by_model in values.items()}
    return {name: by_model for name, by_model in finite.items() if by_model}


def available_metrics(
    task: Task,
    *,
    labels: bool,
    sets: Sequence[str] = (),
    same_width: bool = True,
    several: bool = True,
    on: str = "",
) -> dict[str, Kind]:
    """Which metrics a policy may name, before anything is computed.

    Args:
        task: The recipe's task.
        labels: Whether the test split has labels.
        sets: Names of the human-similarity sets.
        same_width: Whether teacher and student give outputs of one shape.
        several: Whether they give two values or more a row.
        on: The name of a further set (or head), or empty for the test split.
    """
    ending = f":{on}" if on else ""
    names = {
        f"{about.name}{ending}": about.kind
        for about in TASKS[task].DESCRIPTIONS
        if (labels or not about.needs_labels)
        and (same_width or not about.needs_same_width)
        and (several or not about.needs_several)
    }
    return names | {f"{embedding.HUMAN.name}:{name}": embedding.HUMAN.kind for name in sets}


def describe(name: str, task: Task | None = None) -> Description | None:
    """What is known about the metric of this name (a set after `:` is ignored), or None if no task has it.

    Args:
        name: Of the metric.
        task: Whose metric it is, where it matters: several tasks have an `agreement`, of one kind and direction.
    """
    base = name.split(":", maxsplit=1)[0]
    tasks = TASKS.values() if task is None else [TASKS[task]]
    every = [about for each in tasks for about in each.DESCRIPTIONS] + [embedding.HUMAN]
    return next((about for about in every if about.name == base), None)


def _on_set(metric: Metric, name: str) -> Metric:
    about = replace(metric.about, name=f"{metric.about.name}:{name}", title=f"{metric.about.title} ({name})")
    return replace(metric, about=about)


def _refuse_not_finite(name: str, arrays: dict[str, np.ndarray], *, without_mass: bool = False) -> None:
    """Refuses NaN and infinity; `without_mass` lets the teacher's -inf pass, its classes without mass, but not all."""
    for model, array in arrays.items():
        finite = np.isfinite(array).reshape(len(array), -1)
        bad = ~finite.all(axis=1)
        if without_mass and model == "teacher":
            bad = ~(finite | np.isneginf(array).reshape(len(array), -1)).all(axis=1) | ~finite.any(axis=1)
        if bad.any():
            raise SignalError(
                f"{model} in the evidence of `{name}`",
                expected="finite numbers",
                found=f"NaN or infinity in {bad.sum()} of {len(bad)} rows",
                harm="every mean over the rows would be undefined, and a comparison with it says nothing",
            )
