"""What is damaged, stale, foreign or half written is named and never read; a kill loses at most the shard in hand."""

from __future__ import annotations

import errno
import json
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import pytest
from cached_case import CPU, OUTPUT, ROWS, Wide, cached, every, fill, make_batch, module_of, same

from tutelage.cache import shards
from tutelage.errors import CacheError, RunError
from tutelage.teachers import Cached, ModuleTeacher


def filled(folder: Path, **settings: object) -> list[Path]:
    fill(cached(folder, **settings), every(views=[0]))  # type: ignore[arg-type]
    return sorted(folder.glob("answers-*.arrow"))


def refused(folder: Path, words: str, **settings: object) -> None:
    """Neither opened for training nor asked: the error comes first, and the teacher is not asked instead."""
    teachers: list[Cached] = []

    def use() -> None:
        teachers.append(cached(folder, **settings))  # type: ignore[arg-type]
        teachers[0].opened()
        teachers[0].missing(every(views=[0]))

    with pytest.raises(CacheError, match=words):
        use()
    assert not teachers or module_of(teachers[0]).asked == 0


def test_a_truncated_shard_is_named(tmp_path: Path) -> None:
    shard = filled(tmp_path)[1]
    shard.write_bytes(shard.read_bytes()[:-8])
    refused(tmp_path, f"(?s){shard.name}.*truncated")


@pytest.mark.parametrize("where", [0.02, 0.5, 0.99])
def test_a_flipped_bit_anywhere_in_a_shard_is_named(tmp_path: Path, where: float) -> None:
    shard = filled(tmp_path)[2]
    data = bytearray(shard.read_bytes())
    data[int(where * len(data))] ^= 4
    shard.write_bytes(data)
    refused(tmp_path, f"(?s){shard.name}.*damaged")


def test_a_damaged_shard_is_refused_in_the_middle_of_a_training_too(tmp_path: Path) -> None:
    shard = filled(tmp_path)[0]
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    teacher = cached(tmp_path)
    with pytest.raises(CacheError, match=shard.name):
        teacher.ask(make_batch(np.arange(5), np.zeros(5)), OUTPUT)


def test_of_a_shard_that_was_removed_the_rows_are_asked_again_and_no_others(tmp_path: Path) -> None:
    shards = filled(tmp_path, shard_rows=8)
    before, size = shards[1].read_bytes(), len(shards)
    assert size > 2
    shards[1].write_bytes(before[:-1])
    refused(tmp_path, f"(?s){shards[1].name}.*remove it: the same command", shard_rows=8)
    shards[1].unlink()
    again = cached(tmp_path, shard_rows=8)
    jobs = again.missing(every(views=[0]))
    assert again.opened().gone == [shards[1].name] and [len(job.rows) for job in jobs] == [8]
    fill(again, every(views=[0]))
    assert module_of(again).asked == 8 and shards[1].read_bytes() == before
    fresh = cached(tmp_path, shard_rows=8)
    fresh.opened()
    assert not fresh.missing(every(views=[0])) and not fresh.opened().gone


def test_a_shard_of_another_cache_under_the_name_of_ours_is_named(tmp_path: Path) -> None:
    filled(tmp_path / "a")
    filled(tmp_path / "b", teacher=ModuleTeacher(lambda: Wide(1)))
    shard = sorted((tmp_path / "a").glob("answers-*.arrow"))[0]
    shutil.copy(tmp_path / "b" / shard.name, shard)
    stranger = ModuleTeacher(lambda: Wide(1))
    stranger.load(CPU)
    refused(tmp_path / "a", f"(?s){shard.name}.*another file of its name .*{stranger.fingerprint()[:12]}")


def test_a_shard_of_another_cache_beside_ours_is_named_before_the_folder_is_filled(tmp_path: Path) -> None:
    fill(cached(tmp_path / "a"), every(views=[0]))
    fill(cached(tmp_path / "b", ModuleTeacher(lambda: Wide(1))), every(views=[1]))
    shard = sorted((tmp_path / "b").glob("answers-*.arrow"))[0]
    shutil.copy(shard, tmp_path / "a")
    with pytest.raises(CacheError, match=f"(?s){shard.name}.*another cache"):
        fill(cached(tmp_path / "a"))


def test_an_edited_manifest_is_named(tmp_path: Path) -> None:
    filled(tmp_path)
    path = tmp_path / "manifest.json"
    data = json.loads(path.read_text())
    data["teacher"] = "0" * 64
    path.write_text(json.dumps(data))
    refused(tmp_path, "(?s)manifest.json.*edited")
    path.write_text(path.read_text()[:-20])
    refused(tmp_path, "manifest.json")


def test_another_teacher_is_stale_before_training_and_unread_while_it_is_trained(tmp_path: Path) -> None:
    filled(tmp_path)
    other = cached(tmp_path, ModuleTeacher(lambda: Wide(1)))  # may be trained in the run to be the one: not refused yet
    batch = make_batch(np.arange(5), np.zeros(5))
    same(other.ask(batch, OUTPUT), other.teacher.ask(batch, OUTPUT))
    with pytest.raises(CacheError, match="stale"):
        other.opened()


def test_other_data_another_form_and_other_features_are_named(tmp_path: Path) -> None:
    filled(tmp_path)
    refused(tmp_path, "(?s)about these rows.*about others", inputs="b" * 64)
    refused(tmp_path, "(?s)output float16.*output dense", form="float16")
    refused(tmp_path, "(?s)features int8.*features float32", features="int8")


def test_a_folder_that_holds_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    refused(tmp_path, "thesis.tex")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file", "file")


def test_a_kill_loses_the_shard_in_hand_alone_and_the_same_shards_come_out(tmp_path: Path) -> None:
    whole = {path.name: path.read_bytes() for path in filled(tmp_path / "whole")}
    fill(cached(tmp_path / "cut"), every(views=[0]), stop_after=2)
    kept = {path.name for path in (tmp_path / "cut").glob("answers-*.arrow")}
    # What a kill leaves: a part of a shard under another name, and a shard that the manifest does not name yet.
    (tmp_path / "cut" / "answers-00.arrow.12345678.partial").write_bytes(b"half")
    rest = next(name for name in whole if name not in kept)
    (tmp_path / "cut" / rest).write_bytes(whole[rest])
    teacher = cached(tmp_path / "cut")
    with teacher.opened().locked():
        assert {path.name for path in (tmp_path / "cut").glob("answers-*")} == kept
    assert fill(teacher, every(views=[0])) == len(whole) - 2
    assert module_of(teacher).asked == ROWS - 2 * 16
    found = {path.name: path.read_bytes() for path in (tmp_path / "cut").iterdir() if path.suffix == ".arrow"}
    assert found == whole
    manifests = [json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("cut", "whole")]
    assert manifests[0] == manifests[1]
    assert not list((tmp_path / "cut").glob("*.partial"))


def test_a_full_disk_loses_nothing_and_the_same_call_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, written = cached(tmp_path), []
    real = shards.os.fsync

    def full(handle: int) -> None:
        written.append(handle)
        if len(written) == 9:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(shards.os, "fsync", full)
    with pytest.raises(RunError, match="No space left"):
        fill(teacher, every(views=[0]))
    assert not list(tmp_path.glob("*.partial"))
    stored = cached(tmp_path).opened().manifest.answers
    assert 0 < stored < ROWS
    again = cached(tmp_path)
    fill(again, every(views=[0]))
    assert module_of(again).asked == ROWS - stored
    assert again.opened().manifest.answers == ROWS


def test_a_folder_is_never_filled_twice_at_once(tmp_path: Path) -> None:
    teacher = cached(tmp_path)
    with teacher.opened().locked(), pytest.raises(RunError, match="another process is filling"):
        fill(cached(tmp_path))
    assert fill(teacher) > 0


def test_a_checksum_is_computed_once_a_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = filled(tmp_path)
    read: list[int] = []
    real = shards.zlib.crc32
    monkeypatch.setattr(shards.zlib, "crc32", lambda data: read.append(len(data)) or real(data))
    teacher = cached(tmp_path)
    teacher.missing(every(views=[0]))
    for _ in range(3):
        teacher.ask(make_batch(np.arange(ROWS), np.zeros(ROWS)), OUTPUT)
    assert sorted(read) == sorted(path.stat().st_size for path in paths)
