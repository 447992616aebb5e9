"""Whether the seeds of a run start from weights of their own."""

from __future__ import annotations

import torch
from torch import nn

from tutelage.parts import build_student
from tutelage.recipe import Recipe
from tutelage.students import ModuleStudent
from tutelage.teachers.fingerprint import fingerprint_of

__all__ = ["note_on_starts"]


def note_on_starts(recipe: Recipe, student: nn.Module) -> list[str]:
    """A note where a module of one's own comes with the same weights for each seed.

    Args:
        recipe: The recipe.
        student: Its student for the first seed, before training.
    """
    own = isinstance(recipe.student.delivered, ModuleStudent)
    if len(recipe.seeds) < 2 or not own or not any(weight.numel() for weight in student.parameters()):
        return []
    first, second = recipe.seeds[:2]
    if fingerprint_of(build_student(recipe, second, torch.device("cpu"))) != fingerprint_of(student):
        return []
    return [
        f"the student starts from the same weights for seed {first} and seed {second}, and so does its baseline: the "
        "seeds differ by the order of rows alone. If these weights were not trained before, give student.module a "
        "class, or a function that makes a new module and sets no seed"
    ]
