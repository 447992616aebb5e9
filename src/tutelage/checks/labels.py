"""Labels against what the task means by them, and against the widths of the models' outputs."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch

from tutelage.checks.class_names import check_class_names
from tutelage.errors import DataError, SignalError
from tutelage.recipe import Recipe
from tutelage.signals import Signals
from tutelage.transfer import TransferSet

__all__ = ["check_kind", "check_labels"]

MANY = 100
"""Different labels above which most must have a second row to be classes."""


def check_kind(recipe: Recipe, data: TransferSet) -> None:
    """Labels are classes or values as the task says: looked at before a teacher is fitted on them.

    Raises:
        DataError: They are of the other kind, or so many classes that they can't be classes.
    """
    if data.labels is None or not data.labelled.any():
        return
    if recipe.task == "regression" and data.labels.dtype.kind == "i":
        raise DataError(
            "labels",
            expected="values, for task regression",
            found=f"{type(recipe.data.source).__name__} gives classes: {', '.join(data.classes[:8])}",
            harm="the number of a class is no value",
            mend="give float32 labels, or change the task",
        )
    if recipe.task != "classification":
        return
    if data.labels.dtype.kind != "i" or data.labels.ndim != 1:
        raise DataError(
            "labels",
            expected="one class a row, for task classification",
            found=f"numbers of type {data.labels.dtype}, shape {data.labels.shape}",
            mend="give class numbers or names, or change the task",
        )
    rows = data.labels[data.labelled]
    different = len(np.unique(rows))
    if different > MANY and different > len(rows) / 2:
        raise DataError(
            "labels",
            expected="classes, most of which have several rows",
            found=f"{different:,} different labels in {len(rows):,} rows",
            harm="nothing can be learnt of a class from one row, and models would need as many outputs",
            mend="if these are values to be predicted, write task: regression; if they name rows, give another label",
        )


def check_labels(recipe: Recipe, data: TransferSet, teacher: Signals, student: Signals) -> None:
    """Labels are what the task means by them, in every row, and outputs are as wide as they say."""
    outputs = {"teacher": teacher.dense(), "student": student.dense()}
    if recipe.task in ("classification", "multilabel"):
        for name, output in outputs.items():
            if output.dim() != 2 or (recipe.task == "classification" and output.shape[1] < 2):
                raise SignalError(
                    f"{name}: output",
                    expected=f"one answer a row, as the evaluation of task {recipe.task} handles it: logits [B, C]",
                    found=f"shape {tuple(output.shape)}",
                    mend="let the module's forward give one row of logits for each row of the data"
                    + (
                        "; a teacher's one number a row may be the probability of the second of two classes: "
                        "`gives: probabilities`"
                        if name == "teacher" and recipe.task == "classification" and output.numel() == len(output)
                        else ""
                    ),
                )
    if data.labels is None or not data.labelled.any():
        _check_names(recipe, data, outputs)
        return
    if recipe.task == "classification":
        _check_classes(recipe, data, outputs)
    elif recipe.task == "multilabel":
        _check_on_or_off(data, outputs)


def _check_classes(recipe: Recipe, data: TransferSet, outputs: dict[str, torch.Tensor]) -> None:
    assert data.labels is not None
    check_class_names(recipe.teacher.classes, data.classes)
    labels = data.labels[data.labelled]
    highest = int(labels.max())
    for name, output in outputs.items():
        width = output.shape[1]
        if width <= highest or (data.classes and width != len(data.classes)):
            classes = len(data.classes) or highest + 1
            raise SignalError(
                f"{name}: output",
                expected=f"logits of {classes} classes: (2, {classes})",
                found=f"shape {tuple(output.shape)}",
                mend=_as_names(labels, width, data) or f"give the {name} {classes} outputs, or another data.source",
            )
    if int(labels.min()) < 0:
        raise DataError(
            "labels", expected="class numbers from 0", found=str(int(labels.min())), mend="number them from 0"
        )


def _as_names(labels: np.ndarray[Any, Any], width: int, data: TransferSet) -> str:
    """What may be meant where a model has as many outputs as there are different whole numbers, or these have gaps."""
    numbers = np.unique(labels).tolist()
    if list(data.classes) != [str(i) for i in range(len(data.classes))]:
        return ""
    named = json.dumps([str(n) for n in numbers[:40]])
    if len(numbers) != width:
        names = f"if the numbers are names, write data.source.classes: {named}, for models of {len(numbers)} outputs"
        return f"{names}; if not, give the model an output for each" if 2 * len(numbers) <= numbers[-1] + 1 else ""
    if numbers == list(range(1, width + 1)):
        return f"do the labels begin at 1? Outputs are counted from 0: write data.source.classes: {named}"
    return f"if the numbers are names, write data.source.classes: {named}; if not, give the model an output for each"


def _check_names(recipe: Recipe, data: TransferSet, outputs: dict[str, torch.Tensor]) -> None:
    """Names of classes that stand for outputs without labels are as many as those."""
    count = len(data.classes)
    if recipe.task == "classification":
        check_class_names(recipe.teacher.classes, data.classes)
    for name, output in outputs.items():
        if recipe.task in ("classification", "multilabel") and count and output.shape[1] != count:
            raise SignalError(
                f"{name}: output",
                expected=f"logits of the {count} classes that data.source names: (2, {count})",
                found=f"shape {tuple(output.shape)}",
                mend=f"name the classes of all outputs, or give the {name} {count} outputs",
            )


def _check_on_or_off(data: TransferSet, outputs: dict[str, torch.Tensor]) -> None:
    assert data.labels is not None
    labels = data.labels[data.labelled]
    wrong = ~np.isin(labels, (0, 1))
    if wrong.any():
        row = int(np.flatnonzero(data.labelled)[np.argwhere(wrong)[0][0]])
        raise DataError(
            "labels",
            expected="0 or 1 for each label, for task multilabel",
            found=f"{labels[wrong][0]:g} in row {row}",
            mend="give a column of 0 and 1 for each label",
        )
    for name, output in outputs.items():
        if tuple(output.shape[1:]) != labels.shape[1:]:
            raise SignalError(
                f"{name}: output",
                expected=f"a logit for each label: labels have the shape {data.labels.shape}",
                found=f"shape {tuple(output.shape)}",
                mend=f"give the {name} as many outputs as there are labels a row",
            )
