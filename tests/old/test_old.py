"""Files that an earlier version made are read, verified, resumed and used; `make.py` says how they were made."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"

from tutelage.cli import main
from tutelage.evaluation.evidence import Evidence
from tutelage.export import load_student
from tutelage.recipe_file import load_recipe

HERE = Path(__file__).parent
VERSIONS = sorted(path.name for path in HERE.iterdir() if (path / "rows.csv").is_file())


@pytest.fixture(params=VERSIONS)
def old(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = shutil.copytree(HERE / request.param, tmp_path / "old")
    monkeypatch.chdir(folder)
    return folder


def distilled(name: str, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    """Runs the recipe in the folder of its earlier run; what the terminal shows."""
    status = main(["distill", f"{name}.yaml", "--out", f"runs/{name}", *more])
    shown = capsys.readouterr()
    assert status in (0, 1, 3), shown.err
    return shown.err


@pytest.mark.parametrize("name", ["module", "hugging_face", "table"])
def test_a_bundle_is_verified_and_its_page_is_made_again(
    old: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = old / "runs" / name / "bundle"
    assert main(["evaluate", str(bundle)]) in (0, 1, 3)
    assert "all agree" in "".join(capsys.readouterr())
    assert main(["report", str(bundle)]) == 0


@pytest.mark.parametrize("name", ["module", "hugging_face", "table"])
def test_the_student_of_a_bundle_answers_as_its_evidence_says(old: Path, name: str) -> None:
    bundle = old / "runs" / name / "bundle"
    student = load_student(str(bundle), source="bundle").eval()
    evidence = Evidence.read(bundle / "evidence.parquet")
    data = load_recipe(f"{name}.yaml").data.load(
        "bert" if name == "hugging_face" else None, values={"": name == "table"}
    )
    batch = data.batch(np.asarray(evidence.rows), np.zeros(len(evidence.rows), dtype=np.int64))
    with torch.no_grad():
        found = student(**batch.inputs) if isinstance(batch.inputs, dict) else student(batch.inputs)
    found = getattr(found, "logits", found).numpy()
    expected = np.asarray(evidence.outputs["student"])
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["cached", "lazy"])
def test_a_cache_is_believed_and_nothing_is_asked_again(
    old: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in Path(f"answers-{name}").rglob("*.arrow")}
    assert before
    assert f"answers-{name}: nothing to label" in distilled(name, capsys)
    assert {path: path.read_bytes() for path in before} == before


def test_a_ledger_answers_without_its_server(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    distilled("chat", capsys)


def test_a_run_that_was_killed_goes_on(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = distilled("killed", capsys, "--training.checkpoint_seconds", "30")
    assert "goes on from the checkpoint of step" in shown
    assert main(["evaluate", "runs/killed/bundle"]) in (0, 1, 3)
