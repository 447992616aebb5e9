"""Questions that a teacher whose answers are columns of the data can't be asked."""

from __future__ import annotations

from tutelage.errors import RecipeError
from tutelage.recipe import Recipe
from tutelage.teachers import ColumnTeacher, Teacher

__all__ = ["check_columns", "note_on_columns"]


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


def note_on_columns(recipe: Recipe) -> list[str]:
    """What is worth knowing where rows are varied and the answers are not."""
    if recipe.data.views is None or not any(map(_has_columns, recipe.teachers().values())):
        return []
    return ["data.views varies the rows, but the teacher's answers in columns are about the rows as they are"]


def _has_columns(teacher: Teacher) -> bool:
    return isinstance(teacher, ColumnTeacher) or any(map(_has_columns, teacher.inner.values()))
