"""Targets of a regression in standard units: which models learn so, by which mean and deviation, and when not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from tutelage.errors import within
from tutelage.losses import Loss
from tutelage.losses.layer_pairs import PairedLoss
from tutelage.losses.wrapped import innermost
from tutelage.parts import build_student, head_taught_by
from tutelage.probe import ask_teacher, run_student
from tutelage.recipe import Recipe
from tutelage.signals import Request
from tutelage.standardized import Standardized, unwrapped
from tutelage.students import StandardizedStudent, Student
from tutelage.teachers import Teacher
from tutelage.teachers.stand_in import remote_teachers
from tutelage.teachers.torch_teacher import TorchTeacher
from tutelage.transfer import TransferSet

__all__ = ["with_standard_targets"]

Array = np.ndarray[Any, Any]

LOOKED_AT = 256
"""Training rows on which a model is asked whether it knows the unit, and on which targets without labels are seen."""
NEAR_MEAN, NEAR_STD = 1.0, 3.0
"""Targets with a mean up to 1 and a deviation from 1/3 to 3 stay as they are: outputs that begin near 0 are there."""
KNOWS = 0.1
"""The share of the targets' variance that a model explains before its training, above which it knows their unit."""


@dataclass(frozen=True)
class Targets:
    """What a regression is to say, as far as it is known before the run.

    Attributes:
        rows: Up to `LOOKED_AT` training rows.
        values: Their targets, `[n, K]` float64.
        mean: Of each target, over all that are known.
        std: The standard deviation of each; 1 of one that is constant.
        source: Where they are from.
    """

    rows: Array
    values: Array
    mean: list[float]
    std: list[float]
    source: str

    @classmethod
    def of(cls, rows: Array, targets: Array, source: str) -> Targets:
        """Targets `[N]` or `[N, K]` of rows `[N]`."""
        if targets.ndim > 2:
            return cls(rows[:0], targets[:0], [], [], source)
        values = targets.reshape(len(targets), -1).astype(np.float64)
        mean, std = values.mean(0), values.std(0)
        std = np.where(std <= 1e-6 * np.abs(mean) + np.finfo(np.float32).tiny, 1.0, std)
        mean, std = ([float(f"{number:.7g}") for number in numbers] for numbers in (mean, std))  # they are to be read
        return cls(rows[:LOOKED_AT], values[:LOOKED_AT], mean, std, source)

    @classmethod
    def of_labels(cls, data: TransferSet) -> Targets | None:
        """The labels of the training rows, if there are any."""
        rows = data.labelled_rows
        if data.labels is None or not len(rows):
            return None
        return cls.of(rows, data.labels[rows], f"of {len(rows):,} training labels")

    @property
    def is_near(self) -> bool:
        """Whether outputs that begin near 0, with a deviation near 1, are there already."""
        std = np.array(self.std)
        return bool(np.all((np.abs(self.mean) <= NEAR_MEAN) & (std <= NEAR_STD) & (std >= 1 / NEAR_STD)))

    @property
    def have_places(self) -> bool:
        """Whether they are maps or sequences, `[B, ..., K]`, whose values have no column of their own."""
        return not self.mean

    @torch.no_grad()
    def known_to(self, module: nn.Module, data: TransferSet, device: torch.device, name: str) -> bool:
        """Whether a module explains some of their variance before it is trained; also where shapes do not fit."""
        training = module.training
        with within(name):
            said = run_student(module, data.batch(self.rows).to(device), Request(output=True)).dense()
        module.train(training)
        outputs = said.double().cpu().numpy().reshape(len(self.rows), -1)
        if outputs.shape != self.values.shape:  # the plan refuses it further on
            return True
        share = 1 - np.square(outputs - self.values).mean(0) / np.square(self.std)
        return bool(share.mean() > KNOWS)

    def __str__(self) -> str:
        return f"{_listed(self.mean, self.std)} ({self.source})"


def _listed(mean: Sequence[float], std: Sequence[float]) -> str:
    pairs = [f"mean {m:,.6g}, deviation {s:,.6g}" for m, s in zip(mean, std, strict=True)]
    more = f"; and {len(pairs) - 6} more" if len(pairs) > 6 else ""
    return "; ".join(pairs[:6]) + more


def with_standard_targets(
    recipe: Recipe, data: TransferSet, taught: TransferSet | None, device: torch.device
) -> tuple[Recipe, list[str]]:
    """The recipe with students that learn standardised targets where those ask for it, and what was done.

    The modules of a teacher that is trained in the run are standardised in place. A model whose outputs are in the unit
    already (cut from a teacher, or trained before) stays as it is, and so does every model where a loss compares
    outputs as something else than values, for their unit is a part of what it compares.

    Args:
        recipe: The recipe, its teachers loaded.
        data: The transfer set.
        taught: The rows that the teacher is trained on, if it is.
        device: Where the models are run.
    """
    if recipe.task != "regression":
        return recipe, []
    notes = _standardise_teacher(recipe, taught, device)
    given = [recipe.student, *(assistant.student for assistant in recipe.assistants)]
    targets = _targets_of(recipe, data, device)
    if targets is None:
        note = "targets are not standardised: without labels their scale is not known before the teacher is asked"
        return recipe, [*notes, note]
    if targets.is_near or targets.have_places:
        return recipe, notes
    if reason := _against(recipe):
        return recipe, [*notes, f"targets are not standardised ({targets}): {reason}"]
    students = [_standardised(student, recipe, data, targets, device) for student in given]
    notes += [_note_on(student, targets) for student in students]
    assistants = [
        replace(assistant, student=student) for assistant, student in zip(recipe.assistants, students[1:], strict=True)
    ]
    return replace(recipe, student=students[0], assistants=assistants), list(dict.fromkeys(notes))


def _note_on(student: Student, targets: Targets) -> str:
    if not isinstance(student, StandardizedStudent):
        kind = type(student).__name__
        return f"targets are not standardised ({targets}): {kind} gives their unit before its training"
    known = (student.mean, student.std) == (targets.mean, targets.std)
    source = f" ({targets.source})" if known else ""
    numbers = _listed(student.mean, student.std)
    return f"targets are standardised inside the student, whose outputs have their unit: {numbers}{source}"


def _targets_of(recipe: Recipe, data: TransferSet, device: torch.device) -> Targets | None:
    """The targets that are known: the training labels or, without any, the teacher's answers to some rows."""
    if found := Targets.of_labels(data):
        return found
    if remote_teachers(recipe.teacher):
        return None
    rows = data.rows("train")[:LOOKED_AT]
    signals = ask_teacher(recipe.teacher, data.batch(rows).to(device), Request(output=True))
    said = signals.dense().float().cpu().numpy()
    if (silent := signals.silent) is not None:
        heard = ~silent.reshape(len(rows), -1).all(1).cpu().numpy()
        rows, said = rows[heard], said[heard]
    return None if not len(rows) else Targets.of(rows, said, f"of the teacher's answers to {len(rows):,} training rows")


def _against(recipe: Recipe) -> str:
    """Why outputs can't be brought to standard units under these losses, or an empty text."""
    if recipe.heads:
        return "the student has heads of other tasks"
    for key, loss in recipe.terms().items():
        if _reads_outputs(loss) and not loss.compares_values:
            return f"{key} ({type(loss).__name__}) compares more than each value with its target"
    return ""


def _reads_outputs(loss: Loss) -> bool:
    """Whether a loss looks at outputs or labels; one between pairs of layers, which may still be open, does not."""
    needs = loss.needs
    reads = needs.student.output or needs.teacher.output or needs.labels or not needs.student.features
    return reads and not isinstance(innermost(loss), PairedLoss)


def _standardised(
    student: Student, recipe: Recipe, data: TransferSet, targets: Targets, device: torch.device
) -> Student:
    """The student as it learns: in standard units, unless its outputs are in the unit anyway."""
    if isinstance(student, StandardizedStudent):
        return student
    if student.outputs_in_unit:
        module = recipe.teacher.module  # the head may work in the teacher's standard units
        return StandardizedStudent(student, module.mean, module.std) if isinstance(module, Standardized) else student
    module = build_student(replace(recipe, student=student), recipe.seeds[0], device)
    if targets.known_to(module, data, device, "student"):
        return student
    return StandardizedStudent(student, targets.mean, targets.std)


def _standardise_teacher(recipe: Recipe, taught: TransferSet | None, device: torch.device) -> list[str]:
    """Puts the modules that the run trains on targets of another scale into standard units; says so."""
    targets = None if taught is None else Targets.of_labels(taught)
    if taught is None or targets is None or targets.is_near:
        return []
    names = {id(module): name for name, module in recipe.teacher.modules.items()}
    notes = []
    for teacher in _torch_teachers(recipe.teacher):
        module = teacher.module
        if module is None or id(module) not in names or head_taught_by(recipe, names[id(module)]) is not None:
            continue
        inner = unwrapped(module)
        if inner is not module or not targets.known_to(inner, taught, device, "teacher"):
            teacher.standardise(targets.mean, targets.std)
            notes.append(f"targets are standardised inside the teacher that is trained: {targets}")
    return list(dict.fromkeys(notes))


def _torch_teachers(teacher: Teacher) -> Iterator[TorchTeacher]:
    """The teachers with a module of their own that a teacher is or is made of."""
    if isinstance(teacher, TorchTeacher):
        yield teacher
    for inner in teacher.inner.values():
        yield from _torch_teachers(inner)
