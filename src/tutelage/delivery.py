"""The student in the forms in which it is delivered, and what they cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from tutelage.devices import Cost, ModelForms, Target, measure_cost
from tutelage.devices.served import Timed, served_beside
from tutelage.errors import ModelError
from tutelage.export import compare, export_onnx
from tutelage.export.inputs import dynamic_axes
from tutelage.governance.limits import judged_calls
from tutelage.plan import Plan
from tutelage.signals import call, output_of
from tutelage.storage import note_on_storage, store_student
from tutelage.transfer import evaluation_batches

__all__ = ["export_student", "measure_models"]


def export_student(
    plan: Plan, student: nn.Module, partial: Path, work: Path
) -> tuple[dict[str, Any], Path | None, list[str]]:
    """Writes the student in each form, compares the forms, and gives the teacher as ONNX for measuring.

    Returns:
        `export.json`, the teacher's ONNX file if it has one, and notes.
    """
    recipe, data = plan.recipe, plan.data
    example = data.example(4)
    student = student.to("cpu").eval()
    stored = store_student(recipe, data, student, partial)
    notes = note_on_storage(stored)
    export: dict[str, Any] = {"safetensors": stored, "onnx": None}
    if not recipe.export.onnx:
        return export, None, notes
    dynamic = dynamic_axes(example)
    about = export_onnx(student, example.inputs, partial / "model.onnx", dynamic=dynamic)
    batches = [batch.inputs for _, batch in evaluation_batches(data, data.rows("test"), plan.chunk)]
    with torch.no_grad():
        eager = [output_of(call(student, inputs)) for inputs in batches]
    class_axis = -1 if recipe.task == "classification" else None
    differences = compare(
        partial / "model.onnx",
        batches,
        eager,
        class_axis=class_axis,
        values=recipe.task == "regression",
        tolerance=recipe.export.tolerance,
    )
    export["onnx"] = {**about, **differences}
    teacher = recipe.teacher.as_module()
    if teacher is None:
        return export, None, notes
    try:
        export_onnx(teacher, example.inputs, work / "teacher.onnx", dynamic=dynamic)
    except ModelError as error:
        return export, None, [*notes, f"the teacher was not measured in ONNX Runtime: {error.found}"]
    return export, work / "teacher.onnx", notes


def measure_models(
    plan: Plan, student: nn.Module, student_onnx: Path | None, teacher_onnx: Path | None
) -> tuple[Cost, list[str]]:
    """Latency, memory and size of teacher and student, in turn, on rows of the test split; and notes."""
    recipe, data = plan.recipe, plan.data
    rows = data.rows("test")[: max(recipe.measure.batch_sizes)]
    batch, target = data.batch(rows), Target.parse(recipe.measure.device)
    module, forms = recipe.teacher.as_module(), ModelForms(module=student, onnx=student_onnx)
    if module is None:
        timed = served_beside(recipe.teacher, forms, batch=batch, encode=data.encode, target=target)
    else:
        timed = Timed(models={"teacher": ModelForms(module=module, onnx=teacher_onnx), "student": forms})
    cost = measure_cost(
        timed.models,
        batch.inputs,
        device=recipe.measure.device,
        batch_sizes=recipe.measure.batch_sizes,
        rounds=recipe.measure.rounds,
        seconds=recipe.measure.seconds,
        judged=judged_calls(recipe.budget),
    )
    return cost, list(timed.notes)
