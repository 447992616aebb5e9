"""Two classes that changed places between teacher and labels, which labelled test rows alone show."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

import tutelage as tt
from tutelage.bundle_reading import evaluate
from tutelage.teachers import ModuleTeacher

K = 12
rng = np.random.default_rng(5)
N = 900
X = rng.normal(size=(N, 8)).astype(np.float32)
W = rng.normal(size=(8, K)).astype(np.float32)
Y = (X @ W).argmax(1)
SPLIT = np.array(["train"] * 400 + ["development"] * 100 + ["test"] * 400)
NAMES = [f"k{j:02d}" for j in range(K)]


def knows(order: list[int]) -> nn.Module:
    module = nn.Linear(8, K, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(W.T[order]))
    return module


def run(folder: Path, teacher: nn.Module, labelled: np.ndarray) -> tt.Result:
    labels = [NAMES[y] if known else None for y, known in zip(Y, labelled, strict=True)]
    recipe = tt.Recipe(
        name="swapped",
        task="classification",
        data=tt.Data(source=tt.Arrays(X, labels, split=SPLIT, classes=NAMES)),
        teacher=ModuleTeacher(teacher),
        student=tt.ModuleStudent(knows(list(range(K)))),
        losses=[tt.losses.KLDivergence()],
        training=tt.Training(steps=200, batch_size=64, learning_rate=5e-2),
        baseline=False,
        export=tt.Export(onnx=False),
        measure=tt.Measure(seconds=0.1, rounds=2, batch_sizes=[1]),
        policy=[tt.Gate("agreement", at_least=0.6)],
    )
    return tt.distill(recipe, folder, progress=False)


def swapped_order() -> list[int]:
    first, second = np.argsort(np.bincount(Y[SPLIT == "test"], minlength=K))[K // 2 - 1 : K // 2 + 1]
    order = list(range(K))
    order[first], order[second] = order[second], order[first]
    return order


def test_classes_that_changed_places_do_not_pass_where_the_test_rows_alone_show_it(tmp_path: Path) -> None:
    few = (np.arange(N) < 30) | (SPLIT == "test")
    verdict = run(tmp_path / "crossed", knows(swapped_order()), few).verdict
    assert [x.outcome for x in verdict.gates] == ["PASS"] and verdict.exit_status == 3
    assert "stand in another order" in verdict.reasons[0]
    assert evaluate(tmp_path / "crossed")[1] == []
    assert run(tmp_path / "sound", knows(list(range(K))), few).verdict.headline == "PASS"


def test_a_doubt_that_no_labelled_test_row_settles_stays_in_the_verdict(tmp_path: Path) -> None:
    torch.manual_seed(3)
    few = np.arange(N) < 60
    result = run(tmp_path / "random", nn.Linear(8, K), few)
    assert result.verdict.headline == "PASS, with a warning"
    assert "No labelled test row judges the teacher" in result.verdict.warnings[0]
    assert evaluate(tmp_path / "random")[1] == []
    found = json.loads((result.bundle / "metrics.json").read_text())
    assert found["doubts"] and set(found["doubts"]) <= set(found["notes"])
    assert run(tmp_path / "sound", knows(list(range(K))), few).verdict.headline == "PASS"


def test_with_hardly_any_label_nothing_is_doubted(tmp_path: Path) -> None:
    assert run(tmp_path / "run", knows(list(range(K))), np.arange(N) < 8).verdict.headline == "PASS"
