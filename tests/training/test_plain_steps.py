"""Parts of losses that take plain gradient steps: how far they move is what the method says, under any optimiser."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax
from small import BATCH, InTurn, adversary, job, network, table

from tutelage.losses import CurriculumTemperature
from tutelage.signals import Signals
from tutelage.teachers import ModuleTeacher
from tutelage.training import Training
from tutelage.training.loop import Fit, StepRecord, fit

STEPS = 12
SETTINGS: dict[str, Any] = {"batch_size": BATCH, "learning_rate": 1e-3, "warmup": 0.25, "log_every": 1}


def sure() -> torch.nn.Module:
    """A teacher with large logits: of small ones no temperature is much better than another."""
    module = network(2)
    with torch.no_grad():
        module[3].weight.mul_(10)
    return module


def trained(folder: Path, loss: CurriculumTemperature, steps: int = STEPS, **settings: Any) -> Fit:
    teacher = ModuleTeacher(sure())
    teacher.load(torch.device("cpu"))
    return job(folder, Training(steps=steps, **(SETTINGS | settings)), steps=steps, losses=[loss], teacher=teacher)


def objective(student: torch.nn.Module, value: float, rows: np.ndarray) -> float:
    """`τ² KL` at `τ = 1 + 3 σ(v)`, the mean over the rows, in float64."""
    x = table()[0][torch.as_tensor(rows)]
    with torch.no_grad():
        s, t = (model(x).double().numpy() for model in (student, sure()))
    temperature = 1 + 3 * expit(value)
    log_q, log_p = log_softmax(s / temperature, axis=1), log_softmax(t / temperature, axis=1)
    return float((np.exp(log_p) * (log_p - log_q)).sum(1).mean() * temperature**2)


@pytest.mark.parametrize("settings", [{}, {"micro_batches": 3}, {"optimizer": "sgd"}, {"clip_norm": 1e-3}])
def test_each_step_of_the_temperature_is_the_gradient_times_rate_and_strength(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    """AdamW would move it by its learning rate, whatever the gradient; a clipped norm would hold it back."""
    loss = adversary(strength=3.0, weight=0.5)
    run = trained(tmp_path, loss, **settings)
    training, order, before = run.training, InTurn(BATCH), loss.value.item()
    for record in fit_with_student(run):
        step, student = record.step - 1, record.student
        rate = 0.4 * training.rate(step, STEPS) / training.learning_rate
        strength = 3.0 * (1 - math.cos(math.pi * min(step / STEPS / 0.5, 1.0))) / 2
        rows, _ = order.batch(step)
        slope = (objective(student, before + 1e-4, rows) - objective(student, before - 1e-4, rows)) / 2e-4
        moved = record.value - before
        assert moved == pytest.approx(rate * strength * 0.5 * slope, rel=1e-3, abs=1e-6)
        assert (moved != 0) == (step > 0)
        before = record.value


class Seen:
    """The student before a step, and the temperature's value after it."""

    def __init__(self, step: int, student: torch.nn.Module, value: float) -> None:
        self.step, self.student, self.value = step, student, value


def fit_with_student(run: Fit) -> Any:
    student = network(1, hidden=12)
    student.load_state_dict(run.student.state_dict())
    for record in fit(run):
        if isinstance(record, StepRecord):
            yield Seen(record.step, student, run.losses[0].value.item())  # type: ignore[arg-type]
            student.load_state_dict(run.student.state_dict())


def test_a_thousand_times_the_strength_moves_the_temperature_a_thousand_times_as_far(tmp_path: Path) -> None:
    moved = []
    for strength in (1e-2, 10.0):
        loss = adversary(strength=strength, learning_rate=0.003)
        start = loss.value.item()
        list(fit(trained(tmp_path / str(strength), loss)))
        moved.append(loss.value.item() - start)
    assert moved[1] / moved[0] == pytest.approx(1000, rel=0.05)


def test_a_strong_adversary_takes_nothing_from_the_students_share_of_the_clipped_norm(tmp_path: Path) -> None:
    weights = []
    for strength in (0.0, 1e4):
        run = trained(tmp_path / str(strength), adversary(strength=strength, rise=1e-6, learning_rate=1e-12), 4)
        norms = [r.gradient_norm for r in fit(run) if isinstance(r, StepRecord)]
        weights.append([*norms, *(float(p.sum()) for p in run.student.parameters())])
    assert weights[0] == pytest.approx(weights[1], rel=1e-6)


def test_a_run_that_goes_on_from_a_checkpoint_ends_with_the_same_temperature(tmp_path: Path) -> None:
    always = {"checkpoint_seconds": 0.0}
    whole, cut, again = adversary(), adversary(), adversary()
    expected = trained(tmp_path / "whole", whole, **always)
    list(fit(expected))
    records = fit(trained(tmp_path / "cut", cut, **always))
    for _ in range(7):
        next(records)
    records.close()
    run = trained(tmp_path / "cut", again, **always)
    assert again.value.item() == 1.0
    list(fit(run))
    assert whole.value.item() != 1.0
    assert torch.equal(again.value, whole.value)
    for name, tensor in expected.student.state_dict().items():
        assert torch.equal(run.student.state_dict()[name], tensor)


def test_what_predicts_a_temperature_for_each_sample_takes_plain_steps_too(tmp_path: Path) -> None:
    moved = []
    for strength in (1e-2, 10.0):
        loss = adversary(strength=strength, temperature="instance", hidden=3, learning_rate=0.0003)
        run = trained(tmp_path / str(strength), loss)
        batch = run.make_batch(np.arange(4), np.zeros(4, dtype=int))
        torch.manual_seed(0)
        loss.prepare(*prepared_on(batch), batch)
        start = [p.detach().clone() for p in loss.predictor.parameters()]  # type: ignore[union-attr]
        list(fit(run))
        ends = loss.predictor.parameters()  # type: ignore[union-attr]
        moved.append(sum(float((a - b).square().sum()) for a, b in zip(start, ends, strict=True)) ** 0.5)
    assert moved[1] / moved[0] == pytest.approx(1000, rel=0.05)


def prepared_on(batch: Any) -> tuple[Any, Any]:
    with torch.no_grad():
        return Signals(output=network(1, hidden=12)(batch.inputs)), Signals(output=sure()(batch.inputs))
