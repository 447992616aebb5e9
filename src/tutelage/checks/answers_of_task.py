"""Outputs against the task: embeddings are no logits, logits no embeddings, and answers to tokens are none to rows."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from tutelage.errors import SignalError
from tutelage.recipe import Recipe
from tutelage.signals import Signals
from tutelage.teachers import SentenceEncoder, Teacher

__all__ = ["check_kinds"]


def check_kinds(recipe: Recipe, teacher: Signals, student: Signals, module: nn.Module) -> None:
    """Both models answer what the task is about.

    Args:
        recipe: The recipe, whose teacher is loaded.
        teacher: What the teacher said of some rows.
        student: What the student said of them.
        module: The student as it is delivered.

    Raises:
        SignalError: One of them answers something else: an embedding where classes are asked for, classes where an
            embedding is, or several vectors a row.
    """
    for each in modules_of(recipe.teacher):
        _check_module("teacher", each, recipe.task)
    _check_module("student", module, recipe.task)
    for name, output in (("teacher", teacher.dense()), ("student", student.dense())):
        _check_shape(name, output, recipe.task)


def modules_of(teacher: Teacher) -> Iterator[nn.Module]:
    """The modules whose output, or a mean of outputs, is the teacher's."""
    if teacher.module is not None:
        yield teacher.module
        return
    for each in teacher.inner.values():
        yield from modules_of(each)


def _check_module(name: str, module: nn.Module, task: str) -> None:
    if task != "embedding" and isinstance(module, SentenceEncoder):
        raise SignalError(
            f"{name}: output",
            expected=f"a model with a head for task {task}",
            found=f"the embedding of a sentence encoder ({type(module.model).__name__}), without a head",
            harm="its numbers would be taken for "
            + ("values to predict" if task == "regression" else "logits of classes that there are not"),
            mend="give a folder of a ...ForSequenceClassification that was trained for it, write task: embedding, or "
            "wrap the encoder in a torch module with a head",
        )
    head = type(module).__name__ if _has_head(module) else ""
    if task == "embedding" and head:
        raise SignalError(
            f"{name}: output",
            expected="a model that gives an embedding, for task embedding",
            found=f"{head}, which gives logits",
            harm="the scores of its classes would be distilled as if they were an embedding",
            mend="state `head: embedding` to take its encoder, or write task: classification",
        )


def _has_head(module: nn.Module) -> bool:
    """Whether a module is one of transformers' with a head for a task of its own."""
    kind = type(module)
    return kind.__module__.startswith("transformers.") and "For" in kind.__name__


def _check_shape(name: str, output: Tensor, task: str) -> None:
    """Classes and labels are checked with the labels; here is what has none."""
    axes = {"embedding": ((2,), "one vector a row [B, D]"), "regression": ((1, 2), "values of a row [B] or [B, K]")}
    allowed, expected = axes.get(task, ((), ""))
    if allowed and output.dim() not in allowed:
        raise SignalError(
            f"{name}: output",
            expected=f"{expected}, for task {task}",
            found=f"shape {tuple(output.shape)}" + (": several for each row" if output.dim() > 2 else ""),
            harm="what is compared and judged would be another quantity than the task's",
            mend="let the module's forward give one answer for each row, such as the mean over its tokens",
        )
    if task == "embedding" and output.shape[1] < 2:
        raise SignalError(
            f"{name}: output",
            expected="an embedding of two numbers or more",
            found=f"shape {tuple(output.shape)}",
            harm="of one number the cosine is always 1 or -1",
            mend="write task: regression",
        )
