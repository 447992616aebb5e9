"""What the trainings of a recipe are made of: its student, its losses against labels, its rows with labels."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from tutelage.errors import ModelError, blame
from tutelage.losses import Loss, all_losses
from tutelage.losses.routed import Routed
from tutelage.recipe import Head, Recipe, Task
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
    "head_taught_by",
    "introduce",
    "labelled_order",
    "load_data",
    "prepared",
    "supervised_loss",
    "teacher_data",
    "teacher_loss",
    "with_own_teacher",
]


def build_student(recipe: Recipe, seed: int, device: torch.device, *, from_nothing: bool = False) -> nn.Module:
    """The student as it is before training, the same for a seed each time.

    Args:
        recipe: The recipe.
        seed: Of its random parts.
        device: Where it is put.
        from_nothing: Without the weights that it takes over from one that was trained before.
    """
    reseed(seed, 0, 0)
    student = recipe.student.from_nothing() if from_nothing else recipe.student
    return student.build(recipe.teacher).to(device)


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


def supervised_loss(task: Task) -> Loss | None:
    """The task's loss against labels, or None where labels are no target."""
    names = {"classification": "CrossEntropy", "multilabel": "BinaryCrossEntropy", "regression": "MeanSquaredError"}
    name = names.get(task)
    return all_losses()[name]() if name else None


def head_taught_by(recipe: Recipe, teacher: str) -> Head | None:
    """The head whose labels that one of several teachers is trained on; None for the main task's."""
    return next((head for head in recipe.heads.values() if head.teacher == teacher and head.labels is not None), None)


def teacher_loss(recipe: Recipe, teacher: str) -> Loss | None:
    """The loss by which that teacher of the recipe is trained in the run; None where labels are no target."""
    head = head_taught_by(recipe, teacher)
    if head is None:
        return supervised_loss(recipe.task)
    loss = supervised_loss(head.task)
    return None if loss is None else Routed(loss, labels=head.labels)


def baseline_losses(recipe: Recipe) -> list[Loss]:
    """What the student learns without its teacher: the recipe's own losses against labels, else the task's."""
    own = [loss for loss in recipe.losses if loss.supervised]
    if own:
        return copy.deepcopy(own)
    loss = supervised_loss(recipe.task)
    return [loss] if loss is not None else []


def labelled_order(data: TransferSet, training: Training, seed: int) -> Order:
    """The order of a training on labelled rows alone."""
    rows = data.labelled_rows
    return Order(rows, training.batch_size, seed=seed, lengths=data.lengths(rows), views=data.views)


def load_data(recipe: Recipe) -> TransferSet:
    """The transfer set of a recipe whose teachers are loaded, with labels read as what the tasks say they are.

    Raises:
        UserError: It can't be read, or not so.
    """
    tasks = {"": recipe.task, **{head.labels: head.task for head in recipe.heads.values() if head.labels is not None}}
    read = {"regression": True, "classification": False}
    values = {name: read[task] for name, task in tasks.items() if task in read}
    return recipe.data.load(recipe.teacher.tokenizer_folder, values=values)


def teacher_data(recipe: Recipe, data: TransferSet) -> TransferSet:
    """The rows a teacher is trained on in the run: it is not short of the labels that are kept from the student.

    Args:
        recipe: The recipe.
        data: What the student may see; it is the answer where nothing is kept from it.
    """
    if recipe.data.labelled is None and recipe.data.limit is None:
        return data
    return load_data(replace(recipe, data=replace(recipe.data, labelled=None, limit=None, made=[])))


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


def with_own_teacher(recipe: Recipe) -> Recipe:
    """The recipe with a copy of a teacher that the run trains: the next run of it starts where this one did.

    Raises:
        ModelError: A module of it can't be copied.
    """
    if recipe.teacher_training is None:
        return recipe
    own = copy.copy(recipe)
    try:
        own.teacher = copy.deepcopy(recipe.teacher)
    except Exception as error:  # a module of the user's may hold anything
        raise ModelError(
            "teacher",
            expected="a teacher that can be copied: the run trains a copy, and another run starts from the same one",
            found=blame(error),
            mend="give a class or function that makes the module, in the place of the module",
        ) from error
    return own
