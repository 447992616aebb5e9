"""A run that is killed and started again ends with the weights of one that was not, bit for bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small import dev_loss, job

from tutelage.errors import CheckpointError, RunError
from tutelage.training import Training
from tutelage.training.checkpoint import latest_step, load_checkpoint
from tutelage.training.loop import EvaluationRecord, Fit, StepRecord, fit

HERE = Path(__file__).parent
STEPS = 40
SETTINGS = {
    "steps": STEPS,
    "batch_size": 8,
    "micro_batches": 2,
    "learning_rate": 0.02,
    "checkpoint_seconds": 0.0,
    "evaluate_every": 9,
    "log_every": 3,
}


def killable(folder: Path, **changes: Any) -> Fit:
    """A run with dropout, evaluations and a checkpoint after each step."""
    choice = {"evaluate": dev_loss, "select": "distance", "higher_is_better": False}
    return job(folder, Training(**SETTINGS), steps=STEPS, dropout=0.3, **choice, **changes)


def start(folder: Path, pause: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(HERE / "killed_run.py"), str(folder), str(pause)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]), "OMP_NUM_THREADS": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def test_a_run_killed_at_five_random_moments_ends_with_the_same_bits(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    whole = killable(tmp_path / "whole")
    list(fit(whole))
    moments = random.Random(11)
    folder, steps_seen = tmp_path / "killed", []
    for _ in range(5):
        process = start(folder, 0.03)
        began = latest_step(folder) or 0
        while (latest_step(folder) or 0) <= began and process.poll() is None:
            time.sleep(0.01)
        time.sleep(moments.random() * 0.25)
        process.send_signal(signal.SIGKILL)
        process.wait()
        steps_seen.append(latest_step(folder))
    assert steps_seen[0] is not None and steps_seen[0] < STEPS, steps_seen
    process = start(folder, 0.0)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    expected, found = load_file(whole.best_path), load_file(folder / "best.safetensors")
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name
    assert json.loads((folder / "done.json").read_text()) == json.loads(whole.done_path.read_text())


def test_records_of_a_resumed_run_that_repeat_or_skip_steps_are_caught(tmp_path: Path) -> None:
    training = Training(**SETTINGS)
    whole = list(fit(job(tmp_path / "whole", training, steps=STEPS)))
    run = fit(job(tmp_path / "cut", training, steps=STEPS))
    before = [next(run) for _ in range(5)]
    run.close()
    resumed_at = latest_step(tmp_path / "cut")
    after = list(fit(job(tmp_path / "cut", training, steps=STEPS)))
    kept = [r for r in before if r.step <= (resumed_at or 0)] + after
    assert [r.step for r in kept] == [r.step for r in whole]
    last, expected = kept[-1], whole[-1]
    assert isinstance(last, StepRecord) and isinstance(expected, StepRecord)
    assert last.loss == pytest.approx(expected.loss, abs=0)


def test_keeping_the_last_weights_instead_of_the_best_is_caught(tmp_path: Path) -> None:
    values = iter([3.0, 1.0, 2.0, 5.0])
    kept: list[dict[str, torch.Tensor]] = []

    def evaluate(module: torch.nn.Module) -> dict[str, float]:
        kept.append({name: value.clone() for name, value in module.state_dict().items()})
        return {"error": next(values)}

    training = Training(steps=8, batch_size=8, evaluate_every=2)
    run = job(tmp_path, training, steps=8, evaluate=evaluate, select="error", higher_is_better=False)
    records = [r for r in fit(run) if isinstance(r, EvaluationRecord)]
    assert [r.best for r in records] == [True, True, False, False]
    for name, value in run.student.state_dict().items():
        assert torch.equal(value, kept[1][name])


def test_patience_stops_after_that_many_evaluations_without_gain(tmp_path: Path) -> None:
    values = iter([1.0, 2.0, 1.5, 1.9, 3.0])
    training = Training(steps=50, batch_size=8, evaluate_every=5, patience=2)
    run = job(tmp_path, training, steps=50, evaluate=lambda _: {"score": next(values)}, select="score")
    records = [r for r in fit(run) if isinstance(r, EvaluationRecord)]
    assert [r.step for r in records] == [5, 10, 15, 20]


def test_weights_that_are_not_finite_stop_the_run_and_never_reach_a_checkpoint(tmp_path: Path) -> None:
    training = Training(steps=40, batch_size=8, log_every=1, checkpoint_seconds=0.0)
    run = job(tmp_path, training, steps=40)
    records = fit(run)
    for record in records:
        if record.step == 4:
            with torch.no_grad():
                run.student[0].weight.fill_(float("nan"))
            break
    with pytest.raises(RunError, match=r"became NaN or infinite near step [45]"):
        list(records)
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert all(bool(torch.isfinite(value).all()) for value in loaded[0].values())


def test_a_damaged_checkpoint_is_named_and_not_used(tmp_path: Path) -> None:
    training = Training(steps=6, batch_size=8, checkpoint_seconds=0.0, log_every=1)
    run = fit(job(tmp_path, training, steps=6))
    for _ in range(4):
        next(run)
    run.close()
    for file in tmp_path.glob("step-*/tensors.safetensors"):
        file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(CheckpointError, match="step-0000"):
        list(fit(job(tmp_path, training, steps=6)))
