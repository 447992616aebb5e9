"""Lessons: the trainings that one student goes through in order, each with its teacher, its losses and its length."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from tutelage import checks
from tutelage.errors import within
from tutelage.losses import Loss
from tutelage.losses.base import require_form
from tutelage.parts import introduce, labelled_order
from tutelage.probe import ask_teacher
from tutelage.recipe import Recipe
from tutelage.selection import Selection
from tutelage.signals import Batch, Request, Signals
from tutelage.teachers import Teacher
from tutelage.training import Training
from tutelage.training.setup import reseed
from tutelage.training.step import needs_of
from tutelage.transfer import Order, TransferSet

__all__ = ["Lesson", "checks_of", "lessons_of", "prepare", "student_request"]


@dataclass(kw_only=True)
class Lesson:
    """One training of a student by one teacher.

    Attributes:
        key: Where the recipe describes it: empty for the main training, else `earlier_stages[0].` and so on.
        teacher: Who teaches.
        losses: Copies of the recipe's; `prepare` prepares them, and each training takes a copy.
        training: How the student is trained.
        steps: Optimiser steps.
        select: How the best weights on the development split are told; None keeps the last ones. The plan chooses it.
    """

    key: str
    teacher: Teacher
    losses: list[Loss]
    training: Training
    steps: int
    select: Selection | None = None

    def order(self, data: TransferSet, seed: int) -> Order:
        """The rows that each step sees: the labelled ones alone where no loss could learn from another."""
        return order_of(self.losses, self.training, data, seed)

    def named_losses(self) -> dict[str, Loss]:
        """The losses by their keys in the recipe, as messages name them."""
        return {f"{self.key}losses[{index}] ({type(loss).__name__})": loss for index, loss in enumerate(self.losses)}


def lessons_of(recipe: Recipe, guide: Teacher, data: TransferSet) -> list[Lesson]:
    """The earlier stages of a recipe and its main training, unprepared.

    Args:
        recipe: The recipe.
        guide: Who teaches in the main training: the recipe's teacher, or the last of its assistants.
        data: The rows.
    """
    parts = [
        (f"earlier_stages[{index}].", stage.teacher or guide, stage.losses, stage.training)
        for index, stage in enumerate(recipe.earlier_stages)
    ]
    return [
        Lesson(
            key=key,
            teacher=teacher,
            losses=copy.deepcopy(losses),
            training=training,
            steps=training.total_steps(order_of(losses, training, data, 0).steps_per_epoch),
        )
        for key, teacher, losses, training in [*parts, ("", guide, recipe.losses, recipe.training)]
    ]


def order_of(losses: Sequence[Loss], training: Training, data: TransferSet, seed: int) -> Order:
    """The order of a training by these losses."""
    if all(loss.needs.labels for loss in losses) and len(data.labelled_rows):
        return labelled_order(data, training, seed)
    return data.order(training.batch_size, seed)


def student_request(lessons: Sequence[Lesson]) -> Request:
    """What all lessons together read of the student."""
    request = Request(output=True)
    for lesson in lessons:
        request |= needs_of(lesson.losses)[0]
    return request


def checks_of(lesson: Lesson, recipe: Recipe, data: TransferSet, student: nn.Module) -> list[Callable[[], None]]:
    """What has to hold before anything is asked: layers, labels and members exist, batches can be split."""

    def check(name: str, loss: Loss) -> None:
        with within(name):
            checks.check_loss(loss, lesson.teacher, recipe, data, student)

    return [
        *(functools.partial(check, name, loss) for name, loss in lesson.named_losses().items()),
        lambda: checks.check_batches(lesson.training, data, f"{lesson.key}training"),
        lambda: checks.check_trained(student, lesson.training.freeze, f"{lesson.key}training", "student"),
    ]


def prepare(
    lesson: Lesson, student_says: Signals, batch: Batch, *, data: TransferSet, device: torch.device, seed: int
) -> None:
    """Prepares the losses of a lesson on what its teacher and the student say about a batch.

    Raises:
        RecipeError: A loss would say nothing of as few rows as a piece of a batch has.
    """
    request = needs_of(lesson.losses)[1]
    teacher_says = ask_teacher(lesson.teacher, batch, request) if request else Signals()
    reseed(seed, 0, 1)  # the losses' own trained parts start the same each time
    for name, loss in lesson.named_losses().items():
        with within(name):
            require_form(loss, teacher_says)
            introduce([loss], lesson.teacher, data)
            loss.prepare(student_says.only(loss.needs.student), teacher_says.only(loss.needs.teacher), batch)
            loss.to(device)
    checks.check_fewest_rows(lesson.training, lesson.named_losses(), data, f"{lesson.key}training")
