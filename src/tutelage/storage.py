"""The student's weights in a folder, with what it takes to build it again."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path
from typing import Any

from torch import nn

from tutelage.errors import ModelError
from tutelage.export import save_student
from tutelage.export.module_spec import spec_of
from tutelage.export.sources import FOLDER as SOURCES
from tutelage.recipe import Recipe
from tutelage.transfer import TransferSet

__all__ = ["note_on_storage", "store_student"]


def store_student(recipe: Recipe, data: TransferSet, student: nn.Module, folder: Path) -> dict[str, Any]:
    """Writes the weights of a student as it is delivered, and how it is built again where a bundle can say it.

    Returns:
        As `save_student`: `loads` says whether `load_student` gives the same outputs, `why_not` why it does not.
    """
    example = data.example(4).inputs
    save = functools.partial(
        save_student, student, folder, tokenizer=data.tokenizer_folder, form=data.text_form, example=example
    )
    spec, why = None, ""
    try:
        spec = spec_of(student, recipe.student.delivered.factories)
    except ModelError as error:
        why = f"{error.key}: {error.found}"
    stored = save(spec=spec)
    if stored["loads"]:
        return stored
    if spec is not None:  # it makes something else: a bundle without it says so, one with it would mislead
        why = stored["why_not"]
        shutil.rmtree(folder / SOURCES, ignore_errors=True)
        stored = save()
    if stored["layout"] == "module":
        stored["why_not"] = why
    return stored


def note_on_storage(stored: dict[str, Any]) -> list[str]:
    """What a user should know where the bundle can't say how the student is built."""
    if stored["loads"]:
        return []
    return [f"the bundle holds the student's weights, but load_student can't build it: {stored['why_not']}"]
