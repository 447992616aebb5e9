"""Settings of a training: each does what its name says."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from small import job

from tutelage.errors import RunError
from tutelage.training import Training
from tutelage.training.loop import StepRecord, fit


def settings(**changes: object) -> Training:
    return Training(**({"steps": 20, "batch_size": 12, "log_every": 1, "clip_norm": None} | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_rate_rises_in_the_warm_up_and_follows_its_schedule(schedule: str, tmp_path: Path) -> None:
    training = settings(schedule=schedule, warmup=0.2, learning_rate=0.1)
    rates = [r.learning_rate for r in fit(job(tmp_path, training, steps=20)) if isinstance(r, StepRecord)]
    assert rates[:4] == pytest.approx([0.02, 0.04, 0.06, 0.08])
    expected = {
        "constant": [0.1] * 16,
        "linear": [0.1 * (1 - i / 16) for i in range(16)],
        "cosine": [0.05 * (1 + math.cos(math.pi * i / 16)) for i in range(16)],
    }
    assert rates[4:] == pytest.approx(expected[schedule])


def test_clipping_bounds_the_step_that_sgd_takes(tmp_path: Path) -> None:
    training = settings(optimizer="sgd", momentum=0.0, learning_rate=1.0, clip_norm=0.01, warmup=0.0, steps=1)
    run = job(tmp_path, training, steps=1)
    before = [p.detach().clone() for p in [*run.student.parameters(), *run.losses[2].parameters()]]
    records = list(fit(run))
    after = [*run.student.parameters(), *run.losses[2].parameters()]
    moved = math.sqrt(sum(float((a.detach() - b).square().sum()) for a, b in zip(after, before, strict=True)))
    assert moved == pytest.approx(0.01, rel=1e-3)
    assert isinstance(records[0], StepRecord)
    assert records[0].gradient_norm is not None and records[0].gradient_norm > 0.01


def test_frozen_layers_stay_as_they_are(tmp_path: Path) -> None:
    run = job(tmp_path, settings(freeze=["0"]), steps=20)
    frozen, free = run.student[0].weight.clone(), run.student[3].weight.clone()
    list(fit(run))
    assert torch.equal(run.student[0].weight, frozen)
    assert not torch.equal(run.student[3].weight, free)


def test_statistics_of_a_frozen_batch_norm_stay_as_they_are(tmp_path: Path) -> None:
    student = torch.nn.Sequential(
        torch.nn.Linear(6, 12), torch.nn.BatchNorm1d(12), torch.nn.Tanh(), torch.nn.Linear(12, 4)
    )
    run = job(tmp_path, settings(freeze=["0", "1"]), steps=20, student=student)
    list(fit(run))
    assert torch.equal(student[1].running_mean, torch.zeros(12))
    assert int(student[1].num_batches_tracked) == 0


def test_a_buffer_of_minus_infinity_is_no_sign_of_divergence(tmp_path: Path) -> None:
    run = job(tmp_path, settings(checkpoint_seconds=0.0), steps=20)
    run.student.register_buffer("mask", torch.full((2, 2), -math.inf).triu(1))
    assert len(list(fit(run))) == 20


def test_a_metric_that_is_never_defined_ends_the_run_with_its_name(tmp_path: Path) -> None:
    run = job(tmp_path, settings(), steps=20, evaluate=lambda _: {"other": 1.0}, select="correlation")
    with pytest.raises(RunError, match="`correlation` was never defined"):
        list(fit(run))


def test_weight_decay_leaves_biases_alone(tmp_path: Path) -> None:
    from tutelage.training.setup import make_optimizer
    from tutelage.training.step import Learner

    run = job(tmp_path, settings(weight_decay=0.5), steps=1)
    learner = Learner(run.student, run.losses)
    for group in make_optimizer(learner, run.training).param_groups:
        assert all((p.dim() >= 2) == (group["weight_decay"] == 0.5) for p in group["params"])


@pytest.mark.parametrize("changes", [{"precision": "bfloat16"}, {"compile": True}])
def test_mixed_precision_and_compilation_learn_the_same_thing(changes: dict[str, object], tmp_path: Path) -> None:
    plain, changed = (job(tmp_path / name, settings(**c), steps=20) for name, c in (("a", {}), ("b", changes)))
    first = [r.loss for r in fit(plain) if isinstance(r, StepRecord)]
    second = [r.loss for r in fit(changed) if isinstance(r, StepRecord)]
    assert second == pytest.approx(first, rel=0.03)
    assert {p.dtype for p in changed.student.parameters()} == {torch.float32}
    assert list(changed.student.state_dict()) == list(plain.student.state_dict())


def test_the_teacher_and_the_taps_are_left_as_they_were(tmp_path: Path) -> None:
    run = job(tmp_path, settings(), steps=20)
    assert run.teacher is not None
    before = run.teacher.fingerprint()
    list(fit(run))
    assert run.teacher.fingerprint() == before
    hooks = [m for m in run.student.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert hooks == []
    assert all(p.grad is None for p in run.teacher.module.parameters())
