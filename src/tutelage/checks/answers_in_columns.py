"""Questions that a teacher whose answers are columns of the data can't be asked."""

from __future__ import annotations

from typing import Any

import numpy as np

from tutelage.errors import ModelError, RecipeError
from tutelage.recipe import Recipe
from tutelage.teachers import ColumnTeacher, Ensemble, SeveralTeachers, Teacher, uncached
from tutelage.transfer import TransferSet
from tutelage.transfer.splits import SplitName

__all__ = ["check_answered", "check_columns", "note_on_columns"]

Array = np.ndarray[Any, Any]
_NEEDED: dict[SplitName, str] = {
    "train": "it would teach nothing",
    "development": "the best weights could not be told",
    "test": "the student could be compared with nobody, after all the training",
}
"""What a split without one answer would end in."""


def check_columns(recipe: Recipe) -> None:
    """Refuses evaluation texts that are no rows of the data.

    Raises:
        RecipeError: There are such texts, and the teacher's answers are columns of the data.
    """
    if recipe.similarity_sets and _has_columns(recipe.teacher):
        raise RecipeError(
            "similarity_sets",
            expected="none: the answers of a ColumnTeacher are columns of the data",
            found=", ".join(pairs.name for pairs in recipe.similarity_sets),
            harm="the teacher can't be asked about other texts, and the student would be compared with nobody",
            mend="remove similarity_sets, or take the model that the answers are from as the teacher",
        )


def check_answered(recipe: Recipe, data: TransferSet) -> None:
    """Refuses a teacher whose columns have no answer in a whole split.

    Raises:
        ModelError: There is such a split.
    """
    answered = {name: _answered(recipe.teacher, data.rows(name)) for name in _NEEDED}
    if isinstance(uncached(recipe.teacher), SeveralTeachers):
        del answered["train"]  # it may be there to judge alone, and others teach
    silent = [name for name, rows in answered.items() if not rows.any()]
    if silent:
        told = ", ".join(f"{int(rows.sum()):,} of {len(rows):,} rows of {name}" for name, rows in answered.items())
        raise ModelError(
            "teacher.columns",
            expected="answers to rows of each split",
            found=f"answers to {told}",
            harm=_NEEDED[silent[-1]],
            mend="have rows of that split answered too, or draw the splits from rows with answers (data.splits, or a "
            "column of the data named in `split`)",
        )


def _answered(teacher: Teacher, rows: Array) -> Array:
    """Which rows columns do not leave without an answer of the teacher's output, `[N]` bool."""
    teacher = uncached(teacher)
    if isinstance(teacher, ColumnTeacher):
        return teacher.answered(rows)
    if isinstance(teacher, SeveralTeachers):
        return _answered(teacher.teachers[teacher.main], rows)
    heard = np.ones(len(rows), bool)
    if isinstance(teacher, Ensemble):  # no mean without one of its members
        for member in teacher.members:
            heard &= _answered(member, rows)
    return heard


def note_on_columns(recipe: Recipe) -> list[str]:
    """What is worth knowing where rows are varied and the answers are not."""
    if recipe.data.views is None or not any(map(_has_columns, recipe.teachers().values())):
        return []
    return ["data.views varies the rows, but the teacher's answers in columns are about the rows as they are"]


def _has_columns(teacher: Teacher) -> bool:
    return isinstance(teacher, ColumnTeacher) or any(map(_has_columns, teacher.inner.values()))
