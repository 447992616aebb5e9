"""What `--out` may be: a run never deletes what it did not make, and says so before it computes anything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import tutelage as tt
from tutelage.cli import main
from tutelage.errors import RecipeError
from tutelage.workspace import Workspace

RECIPE = Path(__file__).parent.parent / "recipes" / "digits.yaml"


def refused(out: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    status = main(["distill", str(RECIPE), "--out", str(out), *options])
    shown = capsys.readouterr().err
    assert status == 2, shown
    assert shown.startswith("tutelage: --out")  # nothing is said of a plan: nothing was loaded
    for word in ("expected:", "found:", "mend:"):
        assert word in shown
    return shown


@pytest.mark.parametrize("options", [(), ("--fresh",)])
@pytest.mark.parametrize("name", ["bundle", "work"])
def test_a_folder_of_the_users_is_never_deleted(
    name: str, options: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / name / "thesis.txt"
    mine.parent.mkdir()
    mine.write_text("years of work")
    assert "delete" in refused(tmp_path, capsys, *options)
    assert mine.read_text() == "years of work"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_folder_of_the_users_beside_our_work_is_not_taken_for_a_damaged_bundle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Workspace(tmp_path).claim("recipe", {})
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "mine.txt").write_text("mine")
    refused(tmp_path, capsys, "--fresh")
    assert (tmp_path / "bundle" / "mine.txt").exists() and (tmp_path / "work" / "identity.json").exists()


@pytest.mark.parametrize("below", ["", "further/down"])
def test_a_file_is_no_folder_for_a_run(below: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("text")
    refused(tmp_path / "file" / below, capsys)
    assert (tmp_path / "file").read_text() == "text"


def test_a_folder_that_cannot_be_made_is_refused_without_a_traceback(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(RecipeError, match="No space left"), Workspace(tmp_path / "new").locked():
        pass


def test_a_damaged_bundle_of_ours_is_made_again_and_a_whole_one_is_found(tmp_path: Path) -> None:
    torch.manual_seed(0)
    recipe = tt.Recipe(
        name="small",
        task="classification",
        data=tt.Data(source=tt.Arrays(np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32))),
        teacher=tt.ModuleTeacher(torch.nn.Linear(4, 3)),
        student=tt.ModuleStudent(lambda: torch.nn.Linear(4, 3)),
        losses=[tt.losses.KLDivergence()],
        training=tt.Training(steps=3, batch_size=8),
        export=tt.Export(onnx=False),
        measure=tt.Measure(seconds=0.5, rounds=2),
    )
    bundle = tt.distill(recipe, tmp_path, progress=False).bundle
    (bundle / "verdict.json").unlink()
    assert (tt.distill(recipe, tmp_path, progress=False).bundle / "verdict.json").exists()
    made = (bundle / "verdict.json").stat().st_mtime_ns
    tt.distill(recipe, tmp_path, progress=False)
    assert (bundle / "verdict.json").stat().st_mtime_ns == made
    tt.distill(recipe, tmp_path, fresh=True, progress=False)
    assert (bundle / "verdict.json").stat().st_mtime_ns > made
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "bundle", "work"]
