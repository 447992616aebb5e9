"""The untrained student is stored, loaded and exported as the trained one will be: what fails then is found now."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import nn

from tutelage.errors import ModelError, RecipeError
from tutelage.export import OnnxModel, export_onnx
from tutelage.export.inputs import dynamic_axes
from tutelage.recipe import Recipe
from tutelage.signals import call, output_of
from tutelage.storage import note_on_storage, store_student
from tutelage.students import CutStudent
from tutelage.transfer import TransferSet

__all__ = ["check_export", "check_storage", "check_weights"]


def check_weights(student: nn.Module, before: set[str]) -> None:
    """Refuses a student whose forward pass makes weights.

    Args:
        student: It has been called.
        before: The names of its weights before that.

    Raises:
        ModelError: It has weights that it did not have.
    """
    made = sorted({name for name, _ in student.named_parameters()} - before)
    if made:
        raise ModelError(
            "student.module",
            expected="a module that has all its weights before it is first called",
            found=f"one whose forward pass makes {', '.join(f'`{name}`' for name in made[:4])}",
            harm="the optimiser does not know these weights: they would stay as they are drawn",
            mend="make all layers in its __init__",
        )


def check_storage(recipe: Recipe, data: TransferSet, student: nn.Module) -> list[str]:
    """The student can be stored, and a cut one comes back from its folder with the same outputs.

    It costs writing and reading the student's weights once, in a temporary folder.

    Returns:
        A note where the bundle of another student will not say how it is built.

    Raises:
        ModelError: A cut student is another model once it is loaded; or the weights can't be stored.
    """
    module = recipe.student.deliver(student)
    training = student.training
    with tempfile.TemporaryDirectory() as folder:
        stored = store_student(recipe, data, module.eval(), Path(folder))
    student.train(training)
    if not stored["loads"] and isinstance(recipe.student.innermost.delivered, CutStudent):
        raise ModelError(
            "student",
            expected="a cut model that `load_student` and transformers build again from its config",
            found=stored["why_not"],
            harm="what leaves with the bundle would not be the student that was judged",
            mend="keep other layers (those of one kind, or a whole period of them), or give the student as a module "
            "of its own (ModuleStudent)",
        )
    return note_on_storage(stored)


def check_export(recipe: Recipe, data: TransferSet, student: nn.Module) -> None:
    """The student exports to ONNX, and ONNX Runtime runs the file on another number of rows, where the recipe has it.

    It costs one export: seconds for a small model, for a large one as long as at the end of the run.

    Raises:
        RecipeError: Naming `export.onnx`.
    """
    if not recipe.export.onnx:
        return
    module, example, three = recipe.student.deliver(student).to("cpu").eval(), data.example(4), data.example(3)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        try:
            export_onnx(module, example.inputs, path, dynamic=dynamic_axes(example))
            with torch.no_grad():
                wanted = output_of(call(module, three.inputs)).shape
            if (found := OnnxModel(path)(three.inputs).shape) != wanted:
                raise ModelError("", found=f"an output of shape {tuple(found)} in place of {tuple(wanted)}")
        except ModelError as error:
            raise RecipeError(
                "export.onnx",
                expected="a student that exports to ONNX and runs there",
                found=f"{error.key}: {error.found}" if error.key else error.found,
                harm="the run would end after its training, when the student is exported",
                mend=error.mend or "change the student's forward, or set `export.onnx: false`",
            ) from error
