"""What equal bits depend on beside the recipe: it is noted, and a run that went on otherwise says so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import tutelage as tt
from tutelage import stages
from tutelage.training import surroundings as module
from tutelage.training.surroundings import note_on_surroundings, record_surroundings, surroundings


def quiet() -> nn.Module:
    torch.manual_seed(1)
    return nn.Linear(5, 3)


def recipe() -> tt.Recipe:
    inputs = np.random.default_rng(2).normal(size=(90, 5)).astype(np.float32)
    return tt.Recipe(
        name="threads",
        task="classification",
        data=tt.Data(source=tt.Arrays(inputs)),
        teacher=tt.ModuleTeacher(quiet),
        student=tt.ModuleStudent(quiet),
        losses=[tt.losses.KLDivergence()],
        training=tt.Training(steps=20, batch_size=16, checkpoint_seconds=0.0, log_every=3),
        measure=tt.Measure(seconds=0.2, rounds=2, batch_sizes=[1]),
        export=tt.Export(onnx=False),
    )


def test_a_resume_with_other_threads_says_that_the_promise_of_equal_bits_ends_and_the_bundle_keeps_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a third result without a word: sums over other threads are added up in another order."""
    inner, threads = stages.fit, torch.get_num_threads()

    def dies(job):  # type: ignore[no-untyped-def]
        for record in inner(job):
            yield record
            if record.step >= 9:
                raise KeyboardInterrupt

    try:
        torch.set_num_threads(1)
        monkeypatch.setattr(stages, "fit", dies)
        with pytest.raises(KeyboardInterrupt):
            tt.distill(recipe(), tmp_path / "run")
        assert "bit for bit" not in capsys.readouterr().err
        monkeypatch.setattr(stages, "fit", inner)
        torch.set_num_threads(2)
        bundle = tt.distill(recipe(), tmp_path / "run").bundle
    finally:
        torch.set_num_threads(threads)
    told = "the run went on otherwise than it began (threads 1 -> 2 from student (seed 0), step 8)"
    assert told in capsys.readouterr().err
    notes = json.loads((bundle / "metrics.json").read_text())["notes"]
    assert [note for note in notes if told in note] and "not bit for bit" in " ".join(notes)
    found = json.loads((bundle / "provenance.json").read_text())["trainings"]
    assert [(each["from"], each["threads"]) for each in found] == [
        ("student (seed 0), step 0", 1),
        ("student (seed 0), step 8", 2),
    ]
    assert told.partition(" (")[0] in (bundle / "report.html").read_text()


def test_a_run_that_goes_on_as_it_began_is_told_nothing(tmp_path: Path) -> None:
    here = surroundings()
    assert record_surroundings(tmp_path, here, "student (seed 0), step 0") == ""
    assert record_surroundings(tmp_path, here, "student (seed 0), step 9") == ""
    assert len(module.read_surroundings(tmp_path)) == 1
    for name, value in (
        ("torch", "9.9"),
        ("device", "NVIDIA H200"),
        ("processes", 2),
        ("instructions", "X"),
        ("chunk", 3),
    ):
        assert f"{name} {here[name]} -> {value} from later" in note_on_surroundings(
            [{"from": "", **here}, {"from": "later", **here, name: value}]
        )
    older = {name: value for name, value in here.items() if name != "instructions"}  # of an earlier version
    assert "instructions None ->" in note_on_surroundings([{"from": "", **older}, {"from": "now", **here}])
