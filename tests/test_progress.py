"""What a log is told of a run: lines, not too many, and never silence for long."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import tutelage as tt
from tutelage import beat, pipeline, stages
from tutelage.beat import Phase
from tutelage.cli import main
from tutelage.labelling.fill import _Bar
from tutelage.training.loop import EvaluationRecord, StepRecord


def step(number: int) -> StepRecord:
    return StepRecord(
        step=number, steps=100, loss=0.5, terms={}, learning_rate=0.1, gradient_norm=None, samples_per_second=64.0
    )


def spoken(capsys: pytest.CaptureFixture[str], part: str, seconds: float = 20.0) -> str:
    """What was said, once a part of it is there."""
    said, end = "", time.monotonic() + seconds
    while part not in said and time.monotonic() < end:
        time.sleep(0.01)
        said += capsys.readouterr().err
    assert part in said, said
    return said


def test_a_log_gets_a_line_for_each_evaluation_and_one_in_thirty_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    evaluation = EvaluationRecord(step=40, steps=100, development={"nll": 1.0, "accuracy": 0.75}, best=True)
    records = [step(10), step(20), step(30), evaluation, step(50)]
    with Phase("student (seed 0)", seconds=0.2) as phase:
        told = stages._told(iter(records), "student (seed 0)", "accuracy", phase)
        passed = [next(told), next(told)]
        said = spoken(capsys, "so far")
        assert said.splitlines()[0] == "tutelage: student (seed 0): step 20 of 100, loss 0.5, 64 rows/s, 0 s so far"
        phase.seconds = 1e9
        passed += list(told)
    assert passed == records
    assert "tutelage: student (seed 0): step 40 of 100, dev accuracy 0.7500" in capsys.readouterr().err.splitlines()


def test_the_innermost_phase_alone_speaks_and_again_and_again(capsys: pytest.CaptureFixture[str]) -> None:
    """Catches silence in a phase without records, two voices at once, and a thread that outlives its phase."""
    assert beat.EVERY == 30
    before = threading.active_count()
    with Phase("outer", seconds=0.05):
        with Phase("inner", seconds=0.1) as phase:
            spoken(capsys, "tutelage: inner: under way")
            beat.at("5 of 7 rows")
            said = spoken(capsys, "tutelage: inner: 5 of 7 rows") + spoken(capsys, "tutelage: inner: 5 of 7 rows")
            assert "outer" not in said
            phase.seconds = 1e9
        spoken(capsys, "tutelage: outer: under way")
    end = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.01)
    assert threading.active_count() == before
    with Phase("off", on=False, seconds=0.01):
        time.sleep(0.05)
    assert "off" not in capsys.readouterr().err


def test_labelling_says_how_far_it_is_while_a_single_question_takes_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a line that is only written when a question comes back, and one without the time that is left."""
    monkeypatch.setattr(beat, "EVERY", 0.05)
    bar = _Bar(400, "cache", on=True)
    with bar as tell:
        spoken(capsys, "tutelage: cache: under way")  # the first question is not back
        bar.begin = time.monotonic() - 10.0
        tell(100)
        spoken(capsys, "tutelage: cache: 100 of 400 answers, 10 rows/s, about 30 s to go")


class Asleep(nn.Linear):
    """Takes its time where a test wants it to."""

    seconds = 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(self.seconds)
        return super().forward(x)


def asleep() -> nn.Module:
    torch.manual_seed(0)
    return Asleep(5, 3)


def quiet(seed: int = 1) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Linear(5, 3)


def recipe(**changes: object) -> tt.Recipe:
    inputs = np.random.default_rng(2).normal(size=(90, 5)).astype(np.float32)
    return tt.Recipe(
        name="told",
        task="classification",
        data=tt.Data(source=tt.Arrays(inputs)),
        teacher=tt.ModuleTeacher(asleep),
        student=tt.ModuleStudent(quiet),
        losses=[tt.losses.KLDivergence()],
        training=tt.Training(steps=20, batch_size=16, checkpoint_seconds=0.0, log_every=3),
        measure=tt.Measure(seconds=0.2, rounds=2, batch_sizes=[1]),
        export=tt.Export(onnx=False),
        seeds=[0, 1],
        **changes,  # type: ignore[arg-type]
    )


def test_a_resumed_run_says_where_it_goes_on_and_a_long_phase_is_not_silent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the second training, and again in the measuring: what is kept is named, and what goes on."""
    monkeypatch.setattr(beat, "EVERY", 0.05)
    made, calls = recipe(), [0]
    inner = stages.fit

    def dies(job):  # type: ignore[no-untyped-def]
        for record in inner(job):
            yield record
            calls[0] += 1
            if job.seed == 1 and record.step >= 9:
                raise KeyboardInterrupt

    monkeypatch.setattr(stages, "fit", dies)
    with pytest.raises(KeyboardInterrupt):
        tt.distill(made, tmp_path)
    monkeypatch.setattr(stages, "fit", inner)
    first = capsys.readouterr().err
    assert "going on" not in first and "goes on" not in first and "was trained before" not in first
    measure = pipeline.measure_models

    def slow(*arguments):  # type: ignore[no-untyped-def]
        time.sleep(0.5)
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "measure_models", slow)
    with pytest.raises(KeyboardInterrupt):
        tt.distill(made, tmp_path)
    second = capsys.readouterr().err
    assert f"going on with the run in {tmp_path}" in second
    assert "student (seed 0): was trained before, its weights are used" in second
    assert "student (seed 1): goes on from the checkpoint of step 8 of 20" in second
    assert second.count("measure latency, memory and size: under way") > 1
    monkeypatch.setattr(pipeline, "measure_models", measure)
    tt.distill(made, tmp_path)
    third = capsys.readouterr().err
    assert "goes on from" not in third
    assert all(f"student (seed {seed}): was trained before" in third for seed in (0, 1))
    tt.distill(made, tmp_path, progress=False)
    assert capsys.readouterr().err == ""


def test_a_command_that_waits_for_a_slow_teacher_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a doctor that asks for minutes without a word."""
    from tutelage import doctor, plan, recipe_file

    monkeypatch.setattr(recipe_file, "load_recipe", lambda *_: None)
    monkeypatch.setattr(doctor, "describe_plan", lambda *_, **__: "the plan")

    def slow(_: object) -> SimpleNamespace:
        beat.at("teacher, 32 of 200 rows")
        time.sleep(0.4)
        return SimpleNamespace(rehearse=lambda: None)

    monkeypatch.setattr(plan, "make_plan", slow)
    real = Phase.__init__

    def hasty(self: Phase, what: str, *, on: bool = True, seconds: float | None = None) -> None:
        assert seconds == 10
        real(self, what, on=on, seconds=0.05)

    monkeypatch.setattr(Phase, "__init__", hasty)
    assert main(["doctor", "any.yaml"]) == 0
    shown = capsys.readouterr()
    assert "tutelage: doctor: teacher, 32 of 200 rows" in shown.err and shown.out == "the plan\n"
