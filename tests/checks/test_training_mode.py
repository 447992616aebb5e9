"""Models that can be evaluated and not be trained are refused in the plan, by the setting or by their part."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tutelage as tt
from tutelage.checks import check_training_mode
from tutelage.errors import SignalError


class Picky(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            raise RuntimeError("no such mode")
        return super().forward(x)


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))


def recipe(teacher: nn.Module, student: nn.Module, teacher_batch: int, batch: int = 8) -> tt.Recipe:
    x = np.random.default_rng(0).normal(size=(80, 4)).astype(np.float32)
    return tt.Recipe(
        name="modes",
        task="classification",
        data=tt.Data(source=tt.Arrays(x, x[:, :3].argmax(1))),
        teacher=tt.ModuleTeacher(teacher),
        teacher_training=tt.Training(steps=2, batch_size=teacher_batch),
        student=tt.ModuleStudent(student),
        losses=[tt.losses.KLDivergence()],
        training=tt.Training(steps=2, batch_size=batch),
    )


@pytest.mark.parametrize(
    ("made", "key"),
    [
        (lambda: recipe(normed(), nn.Linear(4, 3), 1), r"teacher_training\.batch_size"),
        (lambda: recipe(nn.Linear(4, 3), normed(), 8, 1), r"training\.batch_size"),
        (lambda: recipe(Picky(4, 3), nn.Linear(4, 3), 8), "teacher: training mode"),
        (lambda: recipe(nn.Linear(4, 3), Picky(4, 3), 8), "student: training mode"),
    ],
)
def test_what_fails_at_the_first_step_is_refused_before_it(made, key: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SignalError, match=key):
        tt.make_plan(made())


def test_the_look_changes_no_statistics_no_mode_and_no_random_state() -> None:
    student = normed().eval()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    made = recipe(nn.Linear(4, 3), nn.Linear(4, 3), 8)
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    check_training_mode(made, made.data.load(), None, student, torch.device("cpu"))
    assert torch.equal(torch.rand(3), expected) and not student.training
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
