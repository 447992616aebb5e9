"""Exactly what a run will ask is stored before it, by however many processes, and the student learns the same."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import psutil
import pytest
import torch
from label_case import recipe, shards
from torch import Tensor

import tutelage as tt
from tutelage.answers import teacher_answers
from tutelage.cli import main
from tutelage.labelling import caches_of, fill_caches
from tutelage.plan import Plan
from tutelage.signals import Batch, Request, Signals
from tutelage.stages import train_student
from tutelage.teachers import Cached
from tutelage.workspace import Workspace

STAGE = {
    "losses": [{"class_path": "Hint", "init_args": {"pairs": {"hidden": "hidden"}}}],
    "training": {"steps": 4, "batch_size": 12, "learning_rate": 1e-2},
}


def plan_of(path: Path) -> Plan:
    torch.set_num_threads(1)
    return tt.make_plan(tt.load_recipe(path))


def asked(plan: Plan) -> int:
    module = caches_of(plan.recipe)[0].teacher.module
    assert module is not None
    return int(module.asked)  # type: ignore[arg-type]


def students(plan: Plan, folder: Path) -> list[dict[str, Tensor]]:
    data = plan.data
    says = teacher_answers(plan.recipe.teacher, data, data.rows("development"), plan.device)
    workspace = Workspace(folder)
    return [train_student(plan, workspace, seed, says, progress=False).state_dict() for seed in plan.recipe.seeds]


def equal(one: list[dict[str, Tensor]], two: list[dict[str, Tensor]]) -> bool:
    return all(torch.equal(a[name], b[name]) for a, b in zip(one, two, strict=True) for name in a)


def test_exactly_the_pairs_that_will_be_asked_are_stored_for_all_seeds_and_stages(tmp_path: Path) -> None:
    plan = plan_of(recipe(tmp_path, cache={}, earlier_stages=[STAGE]))
    fill_caches(plan, progress=False)
    wanted: dict[str, set[tuple[int, int]]] = {}
    for lesson, name in zip(plan.lessons, ("features/hidden", "output"), strict=True):
        pairs = {(int(row), 0) for row in plan.data.rows("train")[:2]}
        for seed in plan.recipe.seeds:
            order = lesson.order(plan.data, seed)
            for step in range(lesson.steps):
                pairs |= set(zip(*(numbers.tolist() for numbers in order.batch(step)), strict=True))
        wanted[name] = pairs
    wanted["output"] |= {(int(row), 0) for split in ("development", "test") for row in plan.data.rows(split)}
    manifest = caches_of(plan.recipe)[0].opened().manifest
    for name, pairs in wanted.items():
        found = [shard for shard in manifest.shards.values() if name in shard.signals]
        reader = caches_of(plan.recipe)[0].opened().reader
        stored = {(int(r), int(v)) for s in found for r, v in _keys(tmp_path / "cache", manifest.shards, s, reader)}
        assert stored == pairs and sum(shard.rows for shard in found) == len(pairs)


def _keys(folder: Path, shards_: dict, shard: object, reader: object) -> list[tuple[int, int]]:
    import pyarrow as pa

    del reader
    name = next(name for name, each in shards_.items() if each is shard)
    batch = pa.ipc.open_file(str(folder / name)).get_batch(0)
    return list(zip(batch.column("row").to_pylist(), batch.column("view").to_pylist(), strict=True))


def test_a_student_of_stored_answers_has_the_weights_of_one_of_the_live_teacher_bit_for_bit(tmp_path: Path) -> None:
    (tmp_path / "live").mkdir()
    (tmp_path / "stored").mkdir()
    live = plan_of(recipe(tmp_path / "live", earlier_stages=[STAGE]))
    stored = plan_of(recipe(tmp_path / "stored", cache={}, earlier_stages=[STAGE]))
    fill_caches(stored, progress=False)
    before = asked(stored)
    expected = students(live, tmp_path / "a")
    assert equal(students(stored, tmp_path / "b"), expected)
    assert asked(stored) == before  # all of it was read
    inner = caches_of(stored.recipe)[0].teacher

    class Unaware(Cached):
        """Answers about the row as it is, whatever the student sees: what a cache without views does."""

        def ask(self, batch: Batch, request: Request) -> Signals:
            return inner.ask(stored.data.batch(batch.rows.numpy()), request)

    for lesson in stored.lessons:
        lesson.teacher = Unaware(inner, "none")
    assert not equal(students(stored, tmp_path / "c"), expected)


def test_label_says_what_is_missing_stores_it_and_then_has_nothing_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(recipe(tmp_path, cache={"form": "float16"}))
    assert main(["doctor", path, "--no-forecast"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "missing" in line)
    assert main(["label", path, "--quiet"]) == 0
    said = capsys.readouterr().out
    manifest = json.loads((tmp_path / "cache" / "manifest.json").read_text())
    missing = int(line.split(" missing")[0].split()[-1].replace(",", ""))
    assert missing == manifest["answers"] and f"{missing:,} answers" in said
    assert "output: relative error" in said
    assert main(["label", path, "--quiet"]) == 0
    assert "nothing to label" in capsys.readouterr().out
    assert main(["doctor", path, "--no-forecast"]) == 0
    shown = capsys.readouterr().out
    assert "nothing to label" in shown and "output: relative error" in shown


def test_the_room_that_doctor_foretells_is_the_room_it_takes(tmp_path: Path) -> None:
    from tutelage.labelling import describe_caches

    plan = plan_of(recipe(tmp_path, cache={}, earlier_stages=[STAGE], training={"epochs": 40, "batch_size": 12}))
    told = float(describe_caches(plan)[0].split("about ")[1].split(" MB")[0])
    (filled,) = fill_caches(plan, progress=False)
    assert told == pytest.approx(filled.bytes / 1e6, abs=0.15)


def test_labelling_is_refused_without_a_cached_teacher_and_before_the_teacher_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["label", str(recipe(tmp_path)), "--quiet"]) == 2
    assert "a cached teacher" in capsys.readouterr().err
    path = recipe(tmp_path, cache={}, teacher_training={"steps": 5})
    assert main(["label", str(path), "--quiet"]) == 2
    assert "untrained teacher" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


def test_a_teacher_trained_in_the_run_is_cached_after_it_was_trained_and_a_killed_run_goes_on(tmp_path: Path) -> None:
    short = {"measure": {"seconds": 0.1, "rounds": 1}, "export": {"onnx": False}}
    path = recipe(tmp_path, cache={}, teacher_training={"steps": 5}, **short)
    tt.distill(tt.load_recipe(path), tmp_path / "run", progress=False)
    before = shards(tmp_path / "cache")
    assert before
    (tmp_path / "run" / "work" / "student-1" / "done.json").unlink()
    (tmp_path / "run" / "bundle" / "verdict.json").unlink()
    tt.distill(tt.load_recipe(path), tmp_path / "run", progress=False)
    assert shards(tmp_path / "cache") == before


def test_processes_write_the_shards_that_one_alone_writes(tmp_path: Path) -> None:
    path = recipe(tmp_path, cache={"features": "low_rank", "rank": 2}, earlier_stages=[STAGE])
    assert main(["label", str(path), "--quiet"]) == 0
    alone = shards(tmp_path / "cache")
    (tmp_path / "cache").rename(tmp_path / "alone")
    assert main(["label", str(path), "--quiet", "--workers", "2"]) == 0
    assert shards(tmp_path / "cache") == alone and len(alone) > 3
    manifests = [(tmp_path / name / "manifest.json").read_text() for name in ("cache", "alone")]
    assert manifests[0] == manifests[1]


def test_a_worker_with_another_teacher_is_refused(tmp_path: Path) -> None:
    from tutelage.errors import CacheError
    from tutelage.labelling.pool import Origin, Worker

    path = recipe(tmp_path, cache={})
    plan = plan_of(path)
    origin = Origin.of(path, ["--teacher.teacher.module.hidden", "9"], caches_of(plan.recipe), 1)
    with pytest.raises(CacheError, match="answers of several teachers"):
        Worker(origin)


def test_the_mean_of_an_ensemble_whose_answers_are_stored_is_checked_too(tmp_path: Path) -> None:
    from tutelage.checks import check_meaning
    from tutelage.errors import RecipeError
    from tutelage.teachers import Ensemble, ModuleTeacher

    plan = plan_of(recipe(tmp_path))
    stored = Cached(Ensemble([ModuleTeacher(torch.nn.Identity)], outputs="sigmoid"), str(tmp_path / "cache"))
    with pytest.raises(RecipeError, match=r"teacher\.teacher\.outputs"):
        check_meaning(dataclasses.replace(plan.recipe, teacher=stored))


def test_a_kill_of_the_process_that_labels_leaves_no_workers() -> None:
    code = (
        "import multiprocessing, os, time\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from tutelage.labelling.pool import end_with_parent\n"
        "spawn = multiprocessing.get_context('spawn')\n"
        "pool = ProcessPoolExecutor(1, mp_context=spawn, initializer=end_with_parent)\n"
        "print(pool.submit(os.getpid).result(), flush=True)\n"
        "pool.submit(time.sleep, 120).result()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        parent.wait()
        worker.wait(20)
