"""What the trainings of a recipe are made of: its student, its losses against labels, its rows with labels."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from tutelage.errors import ModelError
from tutelage.losses import Loss, all_losses
from tutelage.recipe import Recipe
from tutelage.signals import Request, Signals
from tutelage.taps import find_layer, observe
from tutelage.teachers import Teacher
from tutelage.training import Training
from tutelage.training.setup import reseed
from tutelage.training.step import needs_of
from tutelage.transfer import Order, TransferSet

__all__ = [
    "baseline_losses",
    "build_student",
    "introduce",
    "labelled_order",
    "prepared",
    "supervised_loss",
    "teacher_data",
]


def build_student(recipe: Recipe, seed: int, device: torch.device) -> nn.Module:
    """The student as it is before training, the same for a seed each time."""
    reseed(seed, 0, 0)
    return recipe.student.build(recipe.teacher).to(device)


def introduce(losses: Sequence[Loss], teacher: Teacher, data: TransferSet) -> None:
    """Lends the losses the teacher's modules that they run, as they are now, and tells them how many rows there are.

    Raises:
        ModelError: The teacher has no such module.
    """
    for loss in losses:
        modules: dict[str, nn.Module] = {}
        for path in sorted(loss.borrows):
            if teacher.module is None:
                raise ModelError(
                    f"{type(loss).__name__}: `{path}` of the teacher",
                    expected="a teacher that is one torch module: the loss runs a part of it",
                    found=teacher.describe(),
                    mend="use a loss that compares outputs or features alone",
                )
            modules[path] = find_layer(teacher.module, path, model="teacher")
        loss.introduce(modules=modules, rows=len(data))


def supervised_loss(recipe: Recipe) -> Loss | None:
    """The task's loss against labels, or None where labels are no target."""
    names = {"classification": "CrossEntropy", "multilabel": "BinaryCrossEntropy", "regression": "MeanSquaredError"}
    name = names.get(recipe.task)
    return all_losses()[name]() if name else None


def baseline_losses(recipe: Recipe) -> list[Loss]:
    """What the student learns without its teacher: the recipe's own losses against labels, else the task's."""
    own = [loss for loss in recipe.losses if loss.needs.labels and not loss.needs.teacher]
    if own:
        return copy.deepcopy(own)
    loss = supervised_loss(recipe)
    return [loss] if loss is not None else []


def labelled_order(data: TransferSet, training: Training, seed: int) -> Order:
    """The order of a training on labelled rows alone."""
    rows = data.labelled_rows
    return Order(rows, training.batch_size, seed=seed, lengths=data.lengths(rows), views=data.views)


def teacher_data(recipe: Recipe, data: TransferSet) -> TransferSet:
    """The rows a teacher is trained on in the run: it is not short of the labels that are kept from the student.

    Args:
        recipe: The recipe.
        data: What the student may see; it is the answer where nothing is kept from it.
    """
    if recipe.data.labelled is None and recipe.data.limit is None:
        return data
    return replace(recipe.data, labelled=None, limit=None).load(recipe.teacher.tokenizer_folder)


def prepared(
    losses: Sequence[Loss], model: nn.Module, data: TransferSet, device: torch.device, *, name: str = "student"
) -> list[Loss]:
    """Losses against labels, prepared on what `model` says of two rows.

    Raises:
        SignalError: Output and labels do not fit.
    """
    batch = data.example(2).to(device)
    training = model.training
    with torch.no_grad():
        said = observe(model.eval(), batch.inputs, needs_of(losses)[0] | Request(output=True), model=name)
    model.train(training)
    for loss in losses:
        loss.prepare(said.only(loss.needs.student), Signals(), batch)
    return list(losses)
