"""The whole road on digits: the bundle, what can be recomputed from it, resuming, and what is refused."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import accuracy_score, log_loss

import tutelage as tt
from tutelage.cli import main
from tutelage.errors import DataError, RecipeError, RunError, TeacherChanged
from tutelage.export import load_student
from tutelage.workspace import Workspace

RECIPE = Path(__file__).parent.parent / "recipes" / "digits.yaml"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits") / "run"
    torch.set_num_threads(1)
    assert main(["distill", str(RECIPE), "--out", str(folder), "--quiet"]) in (0, 1, 3)
    return folder


def stored(run: Path, name: str) -> dict:
    return json.loads((run / "bundle" / name).read_text())


def metric(run: Path, name: str) -> dict:
    return next(m for m in stored(run, "metrics.json")["metrics"] if m["name"] == name)


def test_bundle_holds_what_the_architecture_says(run: Path) -> None:
    expected = {
        "model.safetensors",
        "config.json",
        "model.onnx",
        "recipe.yaml",
        "evidence.parquet",
        "metrics.json",
        "verdict.json",
        "cost.json",
        "export.json",
        "history.jsonl",
        "disagreements.json",
        "provenance.json",
        "README.md",
        "report.html",
        "source",  # the module of the student's class
    }
    assert {path.name for path in (run / "bundle").iterdir()} == expected


def test_metrics_are_those_that_sklearn_computes_from_the_stored_answers(run: Path) -> None:
    table = pq.read_table(run / "bundle" / "evidence.parquet")
    labels = np.array(table["label"].to_pylist())
    for model in ("teacher", "student", "baseline"):
        logits = np.array(table[model].to_pylist(), dtype=np.float64)
        shares = np.exp(logits - logits.max(1, keepdims=True))
        shares /= shares.sum(1, keepdims=True)
        assert metric(run, "accuracy")["models"][model]["value"] == pytest.approx(
            accuracy_score(labels, logits.argmax(1))
        )
        assert metric(run, "nll")["models"][model]["value"] == pytest.approx(log_loss(labels, shares), rel=1e-6)


def test_stored_answers_are_those_of_the_shipped_files(run: Path) -> None:
    data = tt.load_recipe(RECIPE).data.load()
    rows = data.rows("test")
    inputs = data.batch(rows).inputs
    table = pq.read_table(run / "bundle" / "evidence.parquet")
    answers = np.array(table["student"].to_pylist(), dtype=np.float32)
    assert table["row"].to_pylist() == rows.tolist()
    with torch.no_grad():
        eager = load_student(run / "bundle")(inputs).numpy()
    session = onnxruntime.InferenceSession(run / "bundle" / "model.onnx")
    np.testing.assert_allclose(eager, answers, atol=1e-5)
    np.testing.assert_allclose(session.run(None, {"input": inputs.numpy()})[0], answers, atol=1e-4)


def test_student_file_holds_the_student_alone(run: Path) -> None:
    names = set(load_file(run / "bundle" / "model.safetensors"))
    assert names == {"hidden.1.weight", "hidden.1.bias", "output.weight", "output.bias"}


def test_distillation_helps_where_labels_are_few(run: Path) -> None:
    difference = metric(run, "accuracy")["differences"]["student - baseline"]
    assert difference["low"] > 0, difference


def test_evaluate_agrees_with_the_bundle_and_finds_a_changed_answer(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verdict, differences = tt.evaluate(run)
    assert differences == []
    assert verdict.verdict == stored(run, "verdict.json")["verdict"]
    copy = tmp_path / "copy"
    shutil.copytree(run / "bundle", copy)
    table = pq.read_table(copy / "evidence.parquet")
    labels = table["label"].to_pylist()
    labels[3] = (labels[3] + 1) % 10
    at = table.schema.get_field_index("label")
    table = table.set_column(at, table.schema.field(at), [type(table["label"].chunk(0)).from_pandas(np.array(labels))])
    pq.write_table(table, copy / "evidence.parquet")
    assert main(["evaluate", str(copy)]) == 1
    assert "DIFFERS      accuracy" in capsys.readouterr().out


def test_the_same_command_again_gives_the_same_result_at_once(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "bundle" / "verdict.json").stat().st_mtime_ns
    began = time.monotonic()
    status = main(["distill", str(RECIPE), "--out", str(run), "--quiet"])
    assert time.monotonic() - began < 10
    assert (run / "bundle" / "verdict.json").stat().st_mtime_ns == before
    shown = capsys.readouterr().out
    assert {0: "PASS", 1: "FAIL", 3: "INCONCLUSIVE"}[status] in shown
    assert "points of accuracy over the same student without it" in shown
    assert "Weights: 0.00364 MB" in (run / "bundle" / "README.md").read_text()


def test_a_folder_with_the_work_of_another_recipe_is_refused(run: Path) -> None:
    recipe = tt.load_recipe(RECIPE, ["--training.steps", "601"])
    with pytest.raises(RecipeError, match="steps: 601"):
        tt.distill(recipe, run, progress=False)


def test_another_policy_is_judged_on_the_trainings_that_are_there(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    weights = (copy / "bundle" / "model.safetensors").read_bytes()
    trained = (copy / "work" / "student-0" / "done.json").stat().st_mtime_ns
    recipe = tt.load_recipe(RECIPE, ["--policy", "[{metric: agreement, at_least: 0.9999}]", "--measure.seconds", "1"])
    result = tt.distill(recipe, copy, progress=False)
    assert [gate.threshold for gate in result.verdict.gates if gate.name == "agreement"] == [0.9999]
    assert (copy / "bundle" / "model.safetensors").read_bytes() == weights
    assert (copy / "work" / "student-0" / "done.json").stat().st_mtime_ns == trained


def small_recipe(hidden: int) -> tt.Recipe:
    """A recipe made in Python, of which the YAML does not show the student."""
    inputs = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    torch.manual_seed(0)
    return tt.Recipe(
        name="small",
        task="classification",
        data=tt.Data(source=tt.Arrays(inputs)),
        teacher=tt.ModuleTeacher(torch.nn.Linear(4, 3)),
        student=tt.ModuleStudent(
            lambda: torch.nn.Sequential(torch.nn.Linear(4, hidden), torch.nn.Tanh(), torch.nn.Linear(hidden, 3))
        ),
        losses=[tt.losses.KLDivergence()],
        training=tt.Training(steps=3, batch_size=8),
        export=tt.Export(onnx=False),
        measure=tt.Measure(seconds=0.5, rounds=2),
    )


def test_another_student_made_in_python_is_not_given_the_result_of_the_first(tmp_path: Path) -> None:
    tt.distill(small_recipe(4), tmp_path, progress=False)
    with pytest.raises(RecipeError, match="the student that this run began with"):
        tt.distill(small_recipe(5), tmp_path, progress=False)
    again = tt.distill(small_recipe(5), tmp_path, fresh=True, progress=False)
    assert again.bundle.exists()


def test_a_teacher_whose_weights_change_in_the_run_is_caught(tmp_path: Path) -> None:
    class Moving(tt.ModuleTeacher):
        def ask(self, batch, request):  # type: ignore[no-untyped-def]
            says = super().ask(batch, request)
            with torch.no_grad():
                next(self.module.parameters()).add_(1e-6)
            return says

    images = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    recipe = tt.Recipe(
        name="moving",
        task="classification",
        data=tt.Data(source=tt.Arrays(images)),
        teacher=Moving(torch.nn.Linear(4, 3)),
        student=tt.ModuleStudent(lambda: torch.nn.Linear(4, 3)),
        losses=[tt.losses.KLDivergence()],
        training=tt.Training(steps=3, batch_size=8),
        export=tt.Export(onnx=False),
    )
    with pytest.raises(TeacherChanged):
        tt.distill(recipe, tmp_path, progress=False)


def test_a_folder_that_is_no_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a bundle"):
        tt.evaluate(tmp_path)


def test_a_second_run_in_the_same_folder_at_the_same_time_is_refused(tmp_path: Path) -> None:
    second = Workspace(tmp_path).locked()
    with Workspace(tmp_path).locked(), pytest.raises(RunError, match="another run is at work"):
        second.__enter__()


def steps(run: Path) -> list[tuple[str, int, bool]]:
    """Which records the training curves hold: who, when, and whether of training or of evaluation."""
    lines = (json.loads(line) for line in (run / "bundle" / "history.jsonl").read_text().splitlines())
    return [(line["role"], line["step"], "development" in line) for line in lines]


def test_a_command_killed_at_five_random_moments_ends_with_the_same_bundle(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "tutelage", "distill", str(RECIPE), "--out", str(folder), "--quiet"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    moments = random.Random(5)
    for kill in range(5):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while not (folder / "work" / "identity.json").exists() and process.poll() is None:
            time.sleep(0.05)
        time.sleep(0.5 + (kill + moments.random()) * 1.2)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode in (0, 1, 3), done.stderr
    for name in ("model.safetensors", "config.json", "recipe.yaml"):
        assert (folder / "bundle" / name).read_bytes() == (run / "bundle" / name).read_bytes(), name
    assert steps(folder) == steps(run)
    assert metric(folder, "accuracy") == metric(run, "accuracy")
