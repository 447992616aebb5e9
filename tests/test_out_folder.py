"""What `--out` may be: a run never deletes what it did not make, and says so before it computes anything."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import tutelage as tt
from tutelage.cli import main
from tutelage.errors import DataError, RecipeError
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


def test_a_damaged_bundle_of_ours_is_made_again_and_a_whole_one_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    recipe = tt.Recipe(
        name="small",
        task="classification",
        data=tt.Data(source=tt.Arrays(np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32))),
        teacher=tt.ModuleTeacher(torch.nn.Linear(4, 3)),
        student=tt.ModuleStudent(lambda: torch.nn.Linear(4, 3)),
        losses=[tt.losses.KLDivergence()],
        training=tt.Training(steps=3, batch_size=800),
        export=tt.Export(onnx=False),
        measure=tt.Measure(seconds=0.5, rounds=2),
    )
    bundle = tt.distill(recipe, tmp_path).bundle
    shown = capsys.readouterr().err
    assert "\r" not in shown and "student (seed 0): step 3 of 3, dev " in shown  # this is no terminal
    assert "batch_size 800 is more than the" in shown
    (bundle / "verdict.json").unlink()
    assert (tt.distill(recipe, tmp_path, progress=False).bundle / "verdict.json").exists()
    made = (bundle / "verdict.json").stat().st_mtime_ns
    tt.distill(recipe, tmp_path, progress=False)
    assert (bundle / "verdict.json").stat().st_mtime_ns == made
    trained = (tmp_path / "work" / "student-0" / "done.json").stat().st_mtime_ns
    page = bundle / "report.html"
    edited, whole = page.read_text().replace("<h1", "<h1 data-forged"), page.read_text()
    page.write_text(edited)
    with pytest.raises(DataError, match="not the page that was written"):  # a complete run is not believed unread
        tt.distill(recipe, tmp_path, progress=False)
    page.write_text(whole)
    judged_anew = dataclasses.replace(recipe, budget=tt.Budget(size_mb=3))
    for mine in (bundle / "notes.txt", bundle / "deep" / "notes.txt"):
        mine.parent.mkdir(exist_ok=True)
        mine.write_text("mine")
        for asked in (recipe, judged_anew):
            with pytest.raises(RecipeError, match="notes"):
                tt.distill(asked, tmp_path, progress=False)
        assert mine.read_text() == "mine"
        mine.unlink()
    (bundle / "deep").rmdir()
    mine = tmp_path / "work" / "student-0" / "notes.txt"
    mine.write_text("mine")
    with pytest.raises(RecipeError, match="student-0/notes"):
        tt.distill(recipe, tmp_path, fresh=True, progress=False)
    hidden = [tmp_path / name for name in (".work", ".removed-bundle", ".removed-work", "work/bundle")]
    for folder in hidden:
        folder.mkdir(exist_ok=True)
        (folder / "thesis.txt").write_text("mine")
    tt.distill(judged_anew, tmp_path, progress=False)
    assert (tmp_path / "work" / "student-0" / "done.json").stat().st_mtime_ns == trained
    assert mine.exists() and all((folder / "thesis.txt").exists() for folder in hidden)
    mine.unlink()
    for folder in hidden[:0:-1]:
        shutil.rmtree(folder)
    tt.distill(recipe, tmp_path, fresh=True, progress=False)
    assert (bundle / "verdict.json").stat().st_mtime_ns > made
    assert (hidden[0] / "thesis.txt").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", ".work", "bundle", "work"]


def listed(folder: Path, *names: str) -> None:
    """A bundle's folder with a record of these files, and the files."""
    for name in ("verdict.json", *names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    record = {"files": dict.fromkeys(["verdict.json", *names], "")}
    (folder / "provenance.json").write_text(json.dumps(record))


def test_a_file_that_comes_into_the_old_bundle_while_the_new_one_is_made_is_kept(tmp_path: Path) -> None:
    workspace, made = Workspace(tmp_path), tmp_path / "made"
    listed(workspace.bundle, "1_Pooling/config.json", "model.onnx")
    listed(made, "model.onnx")
    (tmp_path / "bundle-kept-1").mkdir()
    (workspace.bundle / "1_Pooling" / "notes.txt").write_text("mine")
    workspace.install(made)
    kept = tmp_path / "bundle-kept-2"
    assert [path.relative_to(kept).as_posix() for path in sorted(kept.rglob("*.*"))] == ["1_Pooling/notes.txt"]
    assert sorted(path.name for path in workspace.bundle.iterdir()) == ["model.onnx", "provenance.json", "verdict.json"]


def test_a_record_that_names_files_elsewhere_deletes_none_of_them(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    (tmp_path / "thesis.txt").write_text("mine")
    listed(workspace.bundle)
    names = ["verdict.json", "../thesis.txt", str(tmp_path / "thesis.txt")]
    (workspace.bundle / "provenance.json").write_text(json.dumps({"files": dict.fromkeys(names, "")}))
    workspace.clear()
    assert (tmp_path / "thesis.txt").exists() and not workspace.bundle.exists()


@pytest.mark.parametrize("left", [("identity.json", "recipe.yaml"), ("identity.json",)])
def test_a_removal_that_was_killed_is_ended_and_not_taken_for_a_folder_of_the_users(
    left: tuple[str, ...], tmp_path: Path
) -> None:
    workspace = Workspace(tmp_path)
    workspace.claim("recipe", {"data": "1"})
    for name in {"identity.json", "recipe.yaml"} - set(left):
        (workspace.work / name).unlink()
    workspace.check(fresh=True)
    workspace.clear()
    assert not workspace.work.exists()
    workspace.claim("another", {"data": "2"})
    assert (workspace.work / "recipe.yaml").read_text() == "another"
