"""What a forecast makes of teachers that are slow, or asked once for all trainings; and what it asks of them."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tutelage as tt
from tutelage import timed_teachers
from tutelage.checks import memory
from tutelage.doctor import describe_plan
from tutelage.labelling import fill
from tutelage.signals import Batch, Request, Signals
from tutelage.teachers import Cached, ModuleTeacher, Teacher
from tutelage.teachers.stand_in import Sampled

INPUTS = np.random.default_rng(2).normal(size=(300, 5)).astype(np.float32)
PAUSE = 0.006


class Slow(nn.Module):
    """A teacher that takes the same time for each row; it counts them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.rows, self.pause = nn.Linear(5, 3), 0, PAUSE

    def forward(self, x: Tensor) -> Tensor:
        self.rows += len(x)
        time.sleep(self.pause * len(x))
        return self.linear(x)


def recipe(teacher: Teacher, **changes: Any) -> tt.Recipe:
    settings: dict[str, Any] = {
        "name": "slow",
        "task": "classification",
        "data": tt.Data(source=tt.Arrays(INPUTS)),
        "teacher": teacher,
        "student": tt.ModuleStudent(lambda: nn.Linear(5, 3)),
        "losses": [tt.losses.KLDivergence()],
        "training": tt.Training(steps=10, batch_size=64),
    }
    return tt.Recipe(**(settings | changes))


def planned(module: Slow, teacher: Teacher) -> Any:
    module.pause = 0.0
    plan = tt.make_plan(recipe(teacher))
    module.pause, module.rows = PAUSE, 0
    return plan


def test_a_cached_teacher_is_no_part_of_a_step_and_hardly_asked(tmp_path: Path) -> None:
    """Catches a forecast in which it is asked again in every step, and every seed."""
    module = Slow()
    plan = planned(module, Cached(ModuleTeacher(module), str(tmp_path / "cache")))
    forecast = plan.forecast(2)
    of_live = 64 * PAUSE
    assert forecast.step_seconds < of_live / 2  # 0.38 s, were it asked
    assert forecast.evaluation_seconds < PAUSE * len(INPUTS) / 2
    assert module.rows <= 4 * 2 * 4 and forecast.teacher_row_seconds == 0
    module.rows = 0
    said = describe_plan(plan, with_forecast=False)
    missing = int(re.search(r"cache .*?([\d,]+) missing", said)[1])  # type: ignore[index]
    assert missing > 250
    told = float(re.search(r"MB, about (\d+) s to answer", said)[1])  # type: ignore[index]
    assert missing * PAUSE * 0.5 - 1 <= told < missing * PAUSE * 6 + 2  # on a busy machine
    assert "a kill loses" not in said


def test_what_a_kill_of_a_long_labelling_loses_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fill, "LOSS", 0.3)
    module = Slow()
    plan = planned(module, Cached(ModuleTeacher(module), str(tmp_path / "cache"), shard_rows=100))
    said = describe_plan(plan, with_forecast=False)
    assert re.search(r"a kill loses up to \d+ s of that, less with a smaller shard_rows", said)


def test_a_slow_teacher_is_asked_about_few_rows_and_reckoned_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches minutes of asking for a forecast, and a forecast that leaves out what was not waited for."""
    monkeypatch.setattr(timed_teachers, "PATIENCE", 1.0)
    monkeypatch.setattr(timed_teachers, "LONGEST", 0.5)
    module = Slow()
    plan = planned(module, ModuleTeacher(module))
    forecast = plan.forecast(2)
    assert module.rows <= 1 + 16 + 2 * 4 * 3
    assert forecast.teacher_row_seconds >= PAUSE
    assert forecast.step_seconds >= 64 * PAUSE and forecast.student_seconds >= 10 * 64 * PAUSE
    rows = 2 * len(plan.data.rows("development")) + len(plan.data.rows("test"))
    assert forecast.evaluation_seconds >= PAUSE * (rows - len(plan.data.rows("development")))
    assert 0.5 < forecast.teacher_share <= 1
    assert "reckoned from a few rows: it takes 0.0" in describe_plan(plan)


def test_a_fast_teacher_is_timed_as_it_is_asked() -> None:
    module = Slow()
    module.pause = 0.0
    plan = tt.make_plan(recipe(ModuleTeacher(module)))
    module.rows = 0
    assert plan.forecast(2).teacher_row_seconds == 0 and module.rows > 4 * 64


class OfTokens(Teacher):
    """Answers `[B, L, 2]` of whatever length the batch has."""

    def load(self, device: torch.device) -> None: ...

    def check(self, request: Request) -> None: ...

    def fingerprint(self) -> str:
        return ""

    def ask(self, batch: Batch, request: Request) -> Signals:
        assert isinstance(batch.inputs, Tensor)
        return Signals(features={"x": batch.inputs.float()[..., None].repeat(1, 1, 2)})


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_a_sampled_teacher_gives_signals_of_the_shape_of_each_batch(rows: int) -> None:
    """Catches a stand-in whose tokens are as many as in the first rows of the data."""
    at = torch.arange(rows)
    batch = Batch(inputs=torch.arange(rows * 7).reshape(rows, 7), rows=at, views=at * 0)
    sampled = Sampled(OfTokens())
    said = sampled.ask(batch, Request(features=frozenset({"x"}))).features["x"]
    assert said.shape == (rows, 7, 2) and sampled.seconds > 0
    assert torch.equal(said[rows - 1], OfTokens().ask(batch, Request()).features["x"][(rows - 1) % 2])


class Large(nn.Linear):
    """Takes 6 MB for each row while it answers."""

    def forward(self, x: Tensor) -> Tensor:
        held = torch.ones(len(x), 1_500_000)
        return super().forward(x) + 0 * held[:, :3]


def test_the_memory_of_a_question_is_told_before_many_rows_are_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a run that the system ends when the first question about 128 rows is asked."""
    monkeypatch.setattr(memory, "free_bytes", lambda: 500_000_000)
    plan = tt.make_plan(recipe(ModuleTeacher(Large(5, 3))))
    assert plan.question is not None and plan.question.rows == 128
    assert plan.question.row_bytes == pytest.approx(6e6, rel=0.2)
    (note,) = [note for note in plan.notes if "`chunk: 32`" in note]  # half of what is free takes 41 rows
    assert re.search(r"about 128 rows takes the teacher about 0\.[6-9] GB \([5-7] MB a row.*; 0\.5 GB are free", note)
    assert f"  memory    {plan.question}" in describe_plan(plan, with_forecast=False)
    plan = tt.make_plan(recipe(ModuleTeacher(Large(5, 3)), chunk=20))
    assert plan.question is not None and plan.question.rows == 20 and not any("chunk" in note for note in plan.notes)
    training = tt.Training(steps=2, batch_size=200)  # the teacher is asked about a whole batch
    plan = tt.make_plan(recipe(ModuleTeacher(Large(5, 3)), training=training))
    assert plan.question is not None and plan.question.rows == 200
    assert tt.make_plan(recipe(ModuleTeacher(nn.Linear(5, 3)))).question is None


def test_a_lazy_teacher_is_not_woken_to_measure_its_memory(tmp_path: Path) -> None:
    module = Slow()
    module.pause = 0.0
    made = recipe(Cached(ModuleTeacher(module), str(tmp_path / "cache"), lazy=True))
    plan = tt.make_plan(made)
    module.rows = 0
    assert memory.question_memory(made, plan.data, plan.device, 128) is None and module.rows == 0
