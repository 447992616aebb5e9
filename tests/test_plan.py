"""What the plan finds before anything is trained, beyond what the broken recipes show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import tutelage as tt
from tutelage.errors import DataError


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


def test_planning_trains_and_changes_nothing(tmp_path: Path) -> None:
    teacher = nn.Linear(4, 3)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    plan = tt.make_plan(recipe(["cat", "dog", "eel"], teacher=tt.ModuleTeacher(teacher)))
    plan.forecast()
    plan.layers()
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(not module._forward_hooks for module in teacher.modules())
