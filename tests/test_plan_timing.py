"""A budget on time is refused, noted or judged by what can be measured; never found missing after a training."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import tutelage as tt
from tutelage.checks import timing
from tutelage.devices import ModelForms
from tutelage.devices.cost import Cost
from tutelage.devices.served import Timed
from tutelage.errors import RecipeError
from tutelage.plan import make_plan
from tutelage.teachers import FunctionTeacher

INPUTS = np.random.default_rng(3).normal(size=(100, 5)).astype(np.float32)
LABELS = np.random.default_rng(4).integers(0, 2, 100)  # which no network here is surely worse at than guessing


class Unexportable(nn.Module):
    """A linear model whose path depends on the values: no ONNX graph is traced of it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.linear(x)
        return out if out.sum().item() < 1e9 else out + 1


class Slow(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(0.05)
        return super().forward(x)


def unexportable() -> nn.Module:
    torch.manual_seed(0)
    return Unexportable()


def linear() -> nn.Module:
    torch.manual_seed(1)
    return nn.Linear(5, 2)


def slow() -> nn.Module:
    return Slow(5, 2)


def scores(columns: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([cells.reshape(len(cells), -1) for cells in columns.values()], axis=1)[:, :2]


def recipe(teacher: Any = unexportable, student: Callable[[], nn.Module] = linear, **budget: Any) -> tt.Recipe:
    return tt.Recipe(
        name="timing",
        task="classification",
        data=tt.Data(source=tt.Arrays(INPUTS, LABELS)),
        teacher=tt.ModuleTeacher(teacher) if callable(teacher) else teacher,
        student=tt.ModuleStudent(student),
        losses=[tt.losses.KLDivergence()],
        training=tt.Training(steps=3, batch_size=16),
        measure=tt.Measure(seconds=0.2, rounds=2, batch_sizes=[1]),
        baseline=False,
        budget=tt.Budget(**budget),
    )


def test_a_teacher_that_does_not_export_is_judged_in_torch_after_the_run_and_the_gate_says_so(tmp_path: Path) -> None:
    """Catches `latency_vs_teacher` not measured after a full run, although the ratio in torch is stored."""
    done = tt.distill(recipe(latency_vs_teacher=1e6), tmp_path / "run", progress=False)
    cost = json.loads((done.bundle / "cost.json").read_text())
    assert set(cost["ratios"]) == {"torch/1"}
    (gate,) = (gate for gate in done.verdict.gates if gate.kind == "budget")
    assert gate.outcome in ("PASS", "INCONCLUSIVE") and gate.value is not None  # a busy machine may say which
    assert "not measured in onnxruntime, so it is judged in torch" in gate.explanation
    rounds = Cost.from_dict(cost).models["student"].latencies[0].samples_ms
    assert 2 < len(rounds) <= 40  # whatever measure.rounds says; a busy machine has no time for all of them


def test_a_teacher_that_does_not_export_is_refused_before_training_where_the_budget_names_onnx_runtime() -> None:
    with pytest.raises(RecipeError, match=r"(?s)does not export to ONNX.*budget\.form: torch, or auto") as caught:
        make_plan(recipe(latency_vs_teacher=0.5, form="onnxruntime"))
    assert caught.value.key == "budget.form"
    make_plan(recipe(teacher=linear, latency_vs_teacher=0.5, form="onnxruntime"))
    make_plan(recipe(latency_p95_ms=5, form="onnxruntime"))  # the teacher's time is not judged


def test_onnx_runtime_without_the_device_is_refused_where_a_budget_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "onnx_providers", lambda target: [])
    for limit in ("latency_p95_ms", "peak_memory_mb"):
        with pytest.raises(RecipeError, match="onnxruntime, which lacks the device"):
            make_plan(recipe(form="onnxruntime", **{limit: 100}))
        make_plan(recipe(**{limit: 100}))
    make_plan(recipe(form="onnxruntime", size_mb=1))


def test_a_teacher_of_another_library_that_could_not_be_timed_is_refused_before_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    teacher = FunctionTeacher("test_plan_timing:scores", "logits", reads="raw")
    make_plan(recipe(teacher=teacher, latency_vs_teacher=0.5))

    def fails(*_: object, **__: object) -> Timed:
        return Timed(models={"student": ModelForms()}, notes=("the teacher was not timed: it needs 3 threads",))

    monkeypatch.setattr(timing, "served_beside", fails)
    with pytest.raises(RecipeError, match="it needs 3 threads") as caught:
        make_plan(recipe(teacher=teacher, latency_vs_teacher=0.5))
    assert caught.value.key == "budget.latency_vs_teacher"
    make_plan(recipe(teacher=teacher, latency_p95_ms=5))


def test_a_student_too_slow_for_a_percentile_is_told_of_before_training_with_the_time_that_it_takes() -> None:
    """Catches a budget that is found INCONCLUSIVE after a long run, for want of calls that were never planned."""
    notes = make_plan(recipe(student=slow, latency_p95_ms=5)).notes
    (note,) = (note for note in notes if "budget.latency_p95_ms" in note)
    # A tenth of a second (PyTorch and ONNX Runtime share 0.2 s) times ten is a second: some 20 calls of 50 ms.
    assert "72 independent ones" in note and "raise measure.seconds" in note
    for student, budget in ((linear, {"latency_p95_ms": 5}), (slow, {"latency_vs_teacher": 0.5})):
        assert not any("latency_p95_ms" in note for note in make_plan(recipe(student=student, **budget)).notes)
