"""Flipped bits and edits in what a training left: each is named, or stands for nothing."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small import dev_loss, job

from tutelage.errors import CheckpointError, RunError
from tutelage.training import Training
from tutelage.training.checkpoint import checkpoint_steps, load_checkpoint
from tutelage.training.kept import best_weights, read_done, sound_step
from tutelage.training.loop import Fit, fit
from tutelage.workspace import History, Workspace, read_lines

SETTINGS = {"steps": 12, "batch_size": 8, "checkpoint_seconds": 0.0, "evaluate_every": 3, "log_every": 2}


def run(folder: Path) -> Fit:
    choice = {"evaluate": dev_loss, "select": "distance", "higher_is_better": False}
    return job(folder, Training(**SETTINGS), steps=12, dropout=0.3, **choice)


def recorded(folder: Path, records: int | None = None) -> None:
    """Trains, with a history, up to so many records."""
    folder.mkdir(parents=True, exist_ok=True)
    history = History(folder / "history.jsonl", "student", 0, resumed_at=sound_step(folder) or 0)
    made = fit(run(folder))
    for number, record in enumerate(made):
        history.write(record)
        if number == records:
            break
    made.close()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("half") / "student-0"
    recorded(folder, 8)
    assert len(checkpoint_steps(folder)) == 2
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "student-0"
    recorded(folder)
    assert not checkpoint_steps(folder)
    return folder


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at // 8] ^= 1 << at % 8
    path.write_bytes(bytes(data))


def plain(value: object) -> object:
    """With tensors as lists, to be compared."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), value.tolist()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if key not in ("sha256", "tensors")}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def flips(path: Path, read: Callable[[], object], count: int) -> list[str]:
    """What is said of each of so many flips that was found; each other one must change nothing that is read."""
    original, right, said = path.read_bytes(), plain(read()), []
    for at in random.Random(1).sample(range(8 * len(original)), count):
        flip(path, at)
        try:
            found = read()
        except RunError as error:
            said.append(str(error))
        else:
            assert_same_known(found, right, at)
        path.write_bytes(original)
    return said


def assert_same_known(found: object, right: object, at: int) -> None:
    """All that was written is there; a flip in the name of the digest leaves one more entry, that nothing reads."""
    if isinstance(right, dict) and isinstance(found, dict):
        for key, value in right.items():
            assert_same_known(found[key], value, at)
    elif isinstance(right, list) and isinstance(found, (list, tuple)):
        assert len(right) == len(found), at
        for each, value in zip(found, right, strict=True):
            assert_same_known(each, value, at)
    else:
        assert plain(found) == right, at


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json"])
def test_200_flips_in_a_checkpoint_are_named_or_change_nothing(name: str, half: Path, tmp_path: Path) -> None:
    folder = tmp_path / "student-0"
    shutil.copytree(half, folder)
    path = folder / f"step-{checkpoint_steps(folder)[0]:08d}" / name
    said = flips(path, lambda: load_checkpoint(folder), 200)
    assert len(said) > 180 and all(name in text or str(path.parent) in text for text in said)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("best.safetensors", best_weights),
        ("done.json", read_done),
        ("history.jsonl", lambda folder: read_lines(folder / "history.jsonl")),
    ],
)
def test_200_flips_in_what_a_complete_training_left_are_named_or_change_nothing(
    name: str, read: Callable[[Path], object], whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "student-0"
    shutil.copytree(whole, folder)
    said = flips(folder / name, lambda: read(folder), 200)
    assert len(said) > 180 and all(str(folder / name) in text and "remove the folder" in text for text in said)


def test_the_checkpoint_before_a_damaged_one_is_gone_on_from_to_the_same_bits(
    half: Path, whole: Path, tmp_path: Path
) -> None:
    folder, told = tmp_path / "student-0", list[str]()
    shutil.copytree(half, folder)
    newest, before = checkpoint_steps(folder)
    flip(folder / f"step-{newest:08d}" / "tensors.safetensors", 40_000)
    assert sound_step(folder, told.append) == before
    assert len(told) == 1 and f"step-{newest:08d}" in told[0] and f"of step {before}" in told[0]
    recorded(folder)
    expected, found = load_file(whole / "best.safetensors"), load_file(folder / "best.safetensors")
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    times = {"samples_per_second", "sha256"}
    left, right = (
        [{k: v for k, v in line.items() if k not in times} for line in read_lines(each / "history.jsonl")]
        for each in (folder, whole)
    )
    assert [line["step"] for line in left] == [line["step"] for line in right]


def edit(path: Path) -> None:
    data = json.loads(path.read_text())
    data["progress"]["best_step"] = 5
    path.write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda folder: [edit(path) for path in folder.glob("step-*/state.json")], "state.json"),
        (lambda folder: flip(best := folder / "best.safetensors", 8 * best.stat().st_size - 99), "best.safetensors"),
        (lambda folder: (folder / "best.safetensors").unlink(), "best.safetensors"),
    ],
    ids=["edited states", "best weights", "no best weights"],
)
def test_a_training_without_a_sound_checkpoint_is_refused_and_says_what_to_remove(
    damage: Callable[[Path], object], named: str, half: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "student-0"
    shutil.copytree(half, folder)
    damage(folder)
    with pytest.raises(CheckpointError, match=rf"(?s){named}.*remove the folder {folder}"):
        list(fit(run(folder)))


def test_weights_of_another_training_are_not_taken_for_those_of_this_one(
    whole: Path, half: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "student-0"
    shutil.copytree(whole, folder)
    shutil.copy(half / "best.safetensors", folder / "best.safetensors")
    with pytest.raises(CheckpointError, match="not what this training ended with"):
        list(fit(run(folder)))


def test_a_dropped_line_of_a_history_is_named_and_one_cut_off_by_a_kill_is_not(half: Path, tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    lines = (half / "history.jsonl").read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:3], lines[4]]))
    with pytest.raises(CheckpointError, match=r"history.jsonl is damaged \(line 4"):
        read_lines(path)
    path.write_text("".join([*lines[:3], lines[3][:20]]))
    assert len(read_lines(path)) == 3


def test_flips_in_the_identity_of_a_run_are_named(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.claim("seed: 0\n", {"data": "a" * 64})
    path, said = workspace.work / "identity.json", 0
    original = path.read_bytes()
    for at in range(0, 8 * len(original), 7):
        flip(path, at)
        try:
            workspace.claim("seed: 0\n", {"data": "a" * 64})
        except RunError as error:
            said += "identity.json is damaged" in str(error)
        path.write_bytes(original)
    assert said > 100
