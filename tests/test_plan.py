"""What the plan finds before anything is trained, beyond what the broken recipes show."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import tutelage as tt
from tutelage import forecast
from tutelage.errors import DataError, RecipeError
from tutelage.plan import make_plan
from tutelage.selection import higher_is_better
from tutelage.teachers import Cached, FunctionTeacher


class Named(tt.ModuleTeacher):
    """A teacher that knows the names of its classes."""

    @property
    def classes(self) -> tuple[str, ...]:
        return ("cat", "dog", "eel")


def recipe(labels: list[str], **changes: object) -> tt.Recipe:
    inputs = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    settings = {
        "name": "named",
        "task": "classification",
        "data": tt.Data(source=tt.Arrays(inputs, np.array(labels * 20), classes=labels)),
        "teacher": Named(nn.Linear(4, 3)),
        "student": tt.ModuleStudent(lambda: nn.Linear(4, 3)),
        "losses": [tt.losses.KLDivergence()],
        "training": tt.Training(steps=2, batch_size=8),
    }
    return tt.Recipe(**(settings | changes))  # type: ignore[arg-type]


def test_the_same_classes_in_another_order_are_refused() -> None:
    with pytest.raises(DataError, match="the teacher's order: cat, dog, eel"):
        tt.make_plan(recipe(["dog", "cat", "eel"]))
    assert tt.make_plan(recipe(["cat", "dog", "eel"])).select == "accuracy"


def test_classes_of_other_names_are_noted() -> None:
    assert any("same order" in note for note in tt.make_plan(recipe(["a", "b", "c"])).notes)


def test_without_labels_the_weights_are_kept_by_closeness_to_the_teacher() -> None:
    inputs = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    plan = tt.make_plan(recipe([], data=tt.Data(source=tt.Arrays(inputs))))
    assert plan.select == "agreement"
    assert not plan.has_baseline
    assert any("no baseline" in note for note in plan.notes)


def test_a_loss_that_compares_rows_is_noted_when_batches_come_in_pieces() -> None:
    losses = [tt.losses.PairwiseSimilarity()]
    training = tt.Training(steps=2, batch_size=8, micro_batches=2)
    plan = tt.make_plan(recipe(["cat", "dog", "eel"], losses=losses, training=training))
    assert any("another loss than the whole batch" in note for note in plan.notes)


@pytest.mark.parametrize(
    ("loss", "fewest"),
    [
        (tt.losses.DIST(), 3),
        (tt.losses.MultiLevelLogit(), 2),
        (tt.losses.SemanticCalibration(["0"], ["0"], 8), 2),
        (tt.losses.LogitStandardization(tt.losses.DIST(0.0)), 3),
        (tt.losses.ProbabilisticTransfer({"0": "0"}), 3),
        (tt.losses.ProbabilisticTransfer({"0": "0"}, variant="official"), 2),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, tt.losses.Loss) else "",
)
def test_pieces_of_fewer_rows_than_a_loss_learns_from_are_refused(loss: tt.losses.Loss, fewest: int) -> None:
    def plan(rows: int) -> object:
        models = {"teacher": Named(nn.Sequential(nn.Linear(4, 3))), "student": tt.ModuleStudent(one_layer)}
        training = tt.Training(steps=2, batch_size=4 * rows, micro_batches=4)
        return tt.make_plan(recipe(["cat", "dog", "eel"], losses=[loss], training=training, **models))

    with pytest.raises(RecipeError, match=rf"(?s)training\.batch_size.*at least {fewest} rows.*teaches nothing"):
        plan(fewest - 1)
    assert plan(fewest)


def one_layer() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3))


def test_one_row_of_many_tokens_or_pixels_is_enough_for_a_correlation_over_them() -> None:
    def maps() -> nn.Module:
        return nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 3, 1))

    losses = [tt.losses.PearsonFeature({"1": "1"})]
    training = tt.Training(steps=2, batch_size=2, micro_batches=2)
    models = {"teacher": Named(nn.Sequential(*maps(), nn.Flatten(), nn.Linear(12, 3)))}
    student = tt.ModuleStudent(lambda: nn.Sequential(*maps(), nn.Flatten(), nn.Linear(12, 3)))
    assert tt.make_plan(recipe(["cat", "dog", "eel"], losses=losses, training=training, student=student, **models))


def test_planning_trains_and_changes_nothing(tmp_path: Path) -> None:
    teacher = nn.Linear(4, 3)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    plan = tt.make_plan(recipe(["cat", "dog", "eel"], teacher=tt.ModuleTeacher(teacher)))
    plan.forecast()
    plan.layers()
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(not module._forward_hooks for module in teacher.modules())


class Slow(nn.Linear):
    """Takes 10 ms for a forward pass."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(0.01)
        return super().forward(x)


def test_the_forecast_times_the_whole_step(monkeypatch: pytest.MonkeyPatch) -> None:
    original = torch.optim.AdamW.step

    def slow(optimizer: torch.optim.AdamW, *arguments: object) -> object:
        time.sleep(0.05)
        return original(optimizer, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", slow)
    training = tt.Training(steps=100, batch_size=8, micro_batches=4)
    student = tt.ModuleStudent(lambda: Slow(4, 3))
    forecast = tt.make_plan(recipe(["cat", "dog", "eel"], training=training, student=student)).forecast()
    assert 0.09 < forecast.step_seconds < 0.2  # four pieces of 10 ms, and 50 ms of the optimiser


def test_the_forecast_counts_every_training_and_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    # What a step and a row take is given, so that the counts are seen to the last one.
    monkeypatch.setattr(forecast, "_step_seconds", lambda *_, teacher=None, **__: 0.02 if teacher is not None else 0.01)
    monkeypatch.setattr(forecast, "_pass_seconds", lambda *_: 0.001)
    made = recipe(
        ["cat", "dog", "eel"],
        teacher=tt.ModuleTeacher(nn.Linear(4, 3)),
        teacher_training=tt.Training(steps=50, batch_size=8, evaluate_every=10),
        training=tt.Training(steps=100, batch_size=8, evaluate_every=10),
        seeds=[0, 1],
    )
    plan = tt.make_plan(made)
    found = plan.forecast()
    assert found.student_seconds == pytest.approx(2 * 100 * 0.02)
    assert found.baseline_seconds == pytest.approx(2 * 100 * 0.01)
    assert found.teacher_seconds == pytest.approx(50 * 0.01)
    development, test = (len(plan.data.rows(split)) for split in ("development", "test"))
    students, teacher = 2 * 2 * (10 * development + test), (5 + 1) * development + test
    assert found.evaluation_seconds == pytest.approx(0.001 * (students + teacher))
    parts = (found.student_seconds, found.baseline_seconds, found.teacher_seconds, found.evaluation_seconds)
    assert found.training_seconds == pytest.approx(sum(parts))


@pytest.mark.parametrize(
    ("metric", "higher"),
    [("accuracy", True), ("agreement_teacher_wrong", False), ("rmse", False), ("kl", False), ("positive_flips", True)],
)
def test_the_direction_of_a_metric_is_that_of_the_evaluation(metric: str, higher: bool) -> None:
    assert higher_is_better(metric) is higher


def three(inputs: torch.Tensor) -> torch.Tensor:
    return inputs[:, :3]


def test_a_budget_beside_a_teacher_that_is_not_timed_is_refused_before_training_and_a_function_is_announced(
    tmp_path: Path,
) -> None:
    budget = tt.Budget(latency_vs_teacher=0.5)
    function = FunctionTeacher("test_plan:three", "logits")
    settings = {"budget": budget, "export": tt.Export(onnx=False)}
    plan = make_plan(recipe(["cat", "dog", "eel"], teacher=function, **settings))
    assert any("again and again to be timed" in note for note in plan.notes)
    lazy = Cached(function, str(tmp_path), lazy=True)
    with pytest.raises(RecipeError, match="latency_vs_teacher"):
        make_plan(recipe(["cat", "dog", "eel"], teacher=lazy, **settings))
    quiet = make_plan(recipe(["cat", "dog", "eel"], teacher=lazy, export=tt.Export(onnx=False)))
    assert not any("again and again" in note for note in quiet.notes)
    with pytest.raises(RecipeError, match=r"budget\.form"):
        make_plan(
            recipe(
                ["cat", "dog", "eel"],
                teacher=function,
                budget=tt.Budget(latency_vs_teacher=0.5, form="torch"),
                export=tt.Export(onnx=False),
            )
        )
