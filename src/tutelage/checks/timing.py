"""A budget on time or memory can be judged: what it is on can be measured where the recipe measures."""

from __future__ import annotations

import tempfile
from pathlib import Path

from torch import nn

from tutelage.devices.latency import JUDGED_CALLS, LONGEST
from tutelage.devices.latency import Plan as Rounds
from tutelage.devices.measure import ModelForms, call_seconds
from tutelage.devices.quantiles import least_samples
from tutelage.devices.runtime import onnx_providers
from tutelage.devices.served import served_beside, timed_forms
from tutelage.devices.target import Target
from tutelage.errors import ModelError, RecipeError
from tutelage.export import export_onnx
from tutelage.export.inputs import dynamic_axes
from tutelage.governance.policy import check_timed
from tutelage.recipe import Recipe
from tutelage.transfer import TransferSet

__all__ = ["check_timing", "note_on_timing"]


def check_timing(recipe: Recipe, data: TransferSet, student: nn.Module) -> None:
    """Refuses a budget on what could not be measured after the training, with a teacher that is loaded.

    Beside a teacher of another library it is asked once as it will be timed; and where the budget names ONNX Runtime
    the teacher is exported, to see that it can be.

    Raises:
        RecipeError: Naming the key.
    """
    budget, teacher, target = recipe.budget, recipe.teacher, Target.parse(recipe.measure.device)
    timed = {name: limit for name, limit in budget.limits().items() if name != "size_mb"}
    if timed and budget.form == "onnxruntime" and not onnx_providers(target):
        raise RecipeError(
            "budget.form",
            expected=f"a runtime that runs on {target.name}",
            found="onnxruntime, which lacks the device here",
            harm=f"budget.{next(iter(timed))} could not be judged",
            mend="write budget.form: torch, or install onnxruntime-gpu",
        )
    check_timed(
        budget,
        timed_forms(teacher, target, onnx=recipe.export.onnx),
        teacher=teacher.describe(),
        device=target.name,
    )
    if budget.latency_vs_teacher is None:
        return
    module = teacher.as_module()
    if module is None:
        file = Path("model.onnx") if recipe.export.onnx else None
        batch = data.batch(data.rows("test")[: max(recipe.measure.batch_sizes)])
        forms = ModelForms(module=student, onnx=file)
        _refuse(served_beside(teacher, forms, batch=batch, encode=data.encode, target=target).notes, teacher.describe())
    elif budget.form == "onnxruntime":
        example = data.example(4)
        with tempfile.TemporaryDirectory() as folder:
            try:
                export_onnx(module, example.inputs, Path(folder) / "teacher.onnx", dynamic=dynamic_axes(example))
            except ModelError as error:
                raise RecipeError(
                    "budget.form",
                    expected="a runtime in which the teacher can be timed",
                    found=f"onnxruntime; the teacher does not export to ONNX: {error.found}",
                    harm="budget.latency_vs_teacher could not be judged",
                    mend="write budget.form: torch, or auto",
                ) from error


def _refuse(notes: tuple[str, ...], teacher: str) -> None:
    if notes:
        raise RecipeError(
            "budget.latency_vs_teacher",
            expected="a teacher that can be timed as it is asked",
            found=f"{teacher}: {'; '.join(notes)}",
            harm="this budget could not be judged",
            mend="remove budget.latency_vs_teacher; budget.latency_p95_ms limits the student's own latency",
        )


def note_on_timing(recipe: Recipe, data: TransferSet, student: nn.Module) -> list[str]:
    """What is known before training of a budget on a percentile that measuring has no time for."""
    budget, measure = recipe.budget, recipe.measure
    if budget.latency_p95_ms is None:
        return []
    target = Target.parse(measure.device)
    seconds = call_seconds(student, data.example(budget.batch).inputs, budget.batch, target)
    parts = len(set(measure.batch_sizes)) * (2 if recipe.export.onnx else 1)
    plan = Rounds.within(
        measure.seconds / parts, {"student": seconds}, rounds=measure.rounds, judged={"student": JUDGED_CALLS}
    )
    calls, least = plan.rounds * plan.calls["student"], least_samples(0.95)
    if calls >= least:
        return []
    return [
        f"budget.latency_p95_ms: a call of the student takes about {seconds:.2g} s (PyTorch, {target.name}, batch "
        f"{budget.batch}), so at most {calls} calls will be timed; an upper limit of a 95th percentile takes {least} "
        "independent ones, so the gate can fail and not pass; raise measure.seconds to about "
        f"{JUDGED_CALLS * seconds * parts / LONGEST:.0f}"
    ]
