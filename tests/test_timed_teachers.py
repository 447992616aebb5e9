"""A teacher that is no torch module, through the whole road: timed, judged and told of."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from torch import nn

import tutelage as tt
from tutelage.governance.licence import Licence
from tutelage.report import write_report
from tutelage.teachers import Cached, FunctionTeacher, OnnxTeacher, Teacher

sys.path.insert(0, str(Path(__file__).parent / "teachers"))

from graphs import BIAS, WEIGHT, write_linear

INPUTS = np.random.default_rng(3).normal(size=(300, 5)).astype(np.float32)
calls: list[int] = []


def counted(columns: dict[str, np.ndarray]) -> np.ndarray:
    matrix = np.concatenate([cells.reshape(len(cells), -1) for cells in columns.values()], axis=1)
    calls.append(len(matrix))
    return matrix @ WEIGHT + BIAS


def run(teacher: Teacher, folder: Path, **budget: float) -> Path:
    recipe = tt.Recipe(
        name="timed",
        task="classification",
        data=tt.Data(source=tt.Arrays(INPUTS, (INPUTS @ WEIGHT + BIAS).argmax(1))),
        teacher=teacher,
        student=tt.ModuleStudent(lambda: nn.Linear(5, 3)),
        losses=[tt.losses.KLDivergence()],
        training=tt.Training(steps=10, batch_size=32),
        measure=tt.Measure(seconds=0.3, rounds=2, batch_sizes=[1, 6]),
        baseline=False,
        budget=tt.Budget(**budget),
        licences={"teacher": Licence(use="allowed", basis="own work", date="2026-11-24")},
    )
    return tt.distill(recipe, folder, progress=False).bundle


@pytest.mark.parametrize("kind", ["onnx", "function", "lazy"])
def test_a_run_compares_the_teacher_in_the_form_that_fits_or_says_that_it_did_not(kind: str, tmp_path: Path) -> None:
    """Catches a measurement that never reaches the bundle, and a paid function that is asked more than its rows."""
    graph = write_linear(tmp_path / "t.onnx", batch=4)
    function = FunctionTeacher("test_timed_teachers:counted", "logits", reads="raw")
    teachers: dict[str, Teacher] = {
        "onnx": OnnxTeacher(str(graph), output="logits"),
        "function": function,
        "lazy": Cached(function, str(tmp_path / "answers"), lazy=True),
    }
    calls.clear()
    bundle = run(teachers[kind], tmp_path / "run", **({} if kind == "lazy" else {"latency_vs_teacher": 1e6}))
    cost, verdict = (json.loads((bundle / name).read_text()) for name in ("cost.json", "verdict.json"))
    page = write_report(bundle).read_text()
    if kind == "lazy":
        assert "teacher" not in cost["models"] and "The teacher was not timed" in page
        assert len(calls) < 50  # each row once, and what the plan looks at
        return
    form = {"onnx": "onnxruntime", "function": "from raw columns"}[kind]
    assert set(cost["ratios"]) == {f"{form}/1", f"{form}/6"}
    (gate,) = (gate for gate in verdict["gates"] if gate["name"] == "latency_vs_teacher")
    assert gate["outcome"] == "PASS" and f"(batch 1, {form})" in gate["explanation"]
    assert cost["models"]["teacher"]["size_bytes"] == (graph.stat().st_size if kind == "onnx" else None)
    assert "as fast" in page
    assert kind == "onnx" or len(calls) > 50
