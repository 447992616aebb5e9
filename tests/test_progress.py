"""What a log is told of a training: lines, and not too many."""

from __future__ import annotations

import pytest

from tutelage import stages
from tutelage.training.loop import EvaluationRecord, StepRecord


def step(number: int) -> StepRecord:
    return StepRecord(
        step=number, steps=100, loss=0.5, terms={}, learning_rate=0.1, gradient_norm=None, samples_per_second=64.0
    )


def test_a_log_gets_a_line_for_each_evaluation_and_one_in_thirty_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 10.0, 20.0, 31.0, 31.0, 40.0, 40.0, 60.0, 60.0])
    monkeypatch.setattr(stages.time, "monotonic", lambda: next(clock))
    evaluation = EvaluationRecord(step=40, steps=100, development={"nll": 1.0, "accuracy": 0.75}, best=True)
    records = [step(10), step(20), step(30), evaluation, step(50)]
    assert list(stages._told(iter(records), "student (seed 0)", "accuracy")) == records
    assert capsys.readouterr().err.splitlines() == [
        "tutelage: student (seed 0): step 30 of 100, loss 0.5, 64 rows/s",
        "tutelage: student (seed 0): step 40 of 100, dev accuracy 0.7500",
    ]
