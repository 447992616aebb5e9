from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loss_case import Array, Case, Numbers, Plain, prepared
from torch import Tensor

from tutelage.errors import SignalError
from tutelage.losses.logit_mse import logit_mse
from tutelage.losses.regression import Regression, pinball

SCALES = [0.5, 2.0, 10.0]


def differences(n: Numbers, scales: list[float]) -> Array:
    s, t = n.student["output"], n.teacher["output"]
    return (s.reshape(len(s), -1) - t.reshape(len(t), -1)) / np.array(scales)


def smooth(n: Numbers, beta: float, scales: list[float]) -> Array:
    d = np.abs(differences(n, scales))
    return np.where(d < beta, d**2 / (2 * beta), d - beta / 2).mean(1)


def quantiles(n: Numbers, q: list[float], scales: list[float]) -> Array:
    """`d = s - t`: above the teacher costs `1 - q`, below it `q`."""
    d = differences(n, scales)
    return np.where(d > 0, (1 - np.array(q)) * d, -np.array(q) * d).mean(1)


CASES = {
    "smooth l1": Case(Regression, {"output": (3,)}, {"output": (3,)}, lambda n: smooth(n, 1.0, [1.0] * 3), floor=0.0),
    "smooth l1 with scales": Case(
        lambda: Regression("smooth_l1", beta=0.5, scales=SCALES),
        {"output": (3,)},
        {"output": (3,)},
        lambda n: smooth(n, 0.5, SCALES),
        floor=0.0,
    ),
    "one value": Case(Regression, {"output": ()}, {"output": ()}, lambda n: smooth(n, 1.0, [1.0]), floor=0.0),
    "mse": Case(
        lambda: Regression("mse", scales=SCALES),
        {"output": (3,)},
        {"output": (3,)},
        lambda n: (differences(n, SCALES) ** 2).mean(1),
        floor=0.0,
    ),
    "quantile": Case(
        lambda: Regression("quantile", quantile=0.9),
        {"output": (3,)},
        {"output": (3,)},
        lambda n: quantiles(n, [0.9] * 3, [1.0] * 3),
        floor=0.0,
    ),
    "quantiles": Case(
        lambda: Regression("quantile", quantile=[0.1, 0.5, 0.9], scales=SCALES),
        {"output": (3,)},
        {"output": (3,)},
        lambda n: quantiles(n, [0.1, 0.5, 0.9], SCALES),
        floor=0.0,
    ),
}


def plain(student: dict[str, Tensor], teacher: dict[str, Tensor], labels: Tensor, loss: Regression) -> Tensor:
    scales = torch.arange(1.0, 513.0)
    return F.smooth_l1_loss(student["output"] / scales, teacher["output"] / scales)


def plain_quantile(student: dict[str, Tensor], teacher: dict[str, Tensor], labels: Tensor, loss: Regression) -> Tensor:
    error = teacher["output"] - student["output"]
    return torch.maximum(0.9 * error, -0.1 * error).mean()


PLAIN = {
    "smooth l1": Plain(
        lambda: Regression(scales=[float(k) for k in range(1, 513)]),
        {"output": (512,)},
        {"output": (512,)},
        plain,
        samples=2048,
    ),
    "quantile": Plain(
        lambda: Regression("quantile", quantile=0.9),
        {"output": (512,)},
        {"output": (512,)},
        plain_quantile,
        samples=2048,
    ),
}


def test_the_quantile_is_that_of_the_teachers_values_and_not_its_complement() -> None:
    """The constant that minimises it for q = 0.9 must lie above nine tenths of the values."""
    teacher = torch.arange(1.0, 102.0)
    costs = torch.stack([pinball(torch.full_like(teacher, c), teacher, 0.9).sum() for c in teacher])
    assert teacher[costs.argmin()].item() == np.quantile(teacher.numpy(), 0.9)


def test_half_of_the_absolute_error_at_the_median() -> None:
    s, t = torch.randn(9), torch.randn(9)
    torch.testing.assert_close(pinball(s, t, 0.5), (s - t).abs() / 2)


def test_without_scales_mse_is_logit_mse() -> None:
    case = Case(lambda: Regression("mse"), {"output": (3,)}, {"output": (3,)}, CASES["mse"].golden)
    numbers = case.draw()
    s, t = (torch.tensor(x["output"]) for x in (numbers.student, numbers.teacher))
    np.testing.assert_allclose((differences(numbers, [1.0] * 3) ** 2).mean(1), logit_mse(s, t).numpy())


def test_a_column_and_a_flat_output_of_one_value_are_compared_row_by_row() -> None:
    """`[B, 1]` against `[B]` would broadcast to `[B, B]`."""
    case = Case(Regression, {"output": (1,)}, {"output": ()}, CASES["one value"].golden)
    numbers = case.draw()
    values = prepared(case, numbers)
    assert values.per_token is False


@pytest.mark.parametrize(
    ("make", "shapes", "message"),
    [
        (lambda: Regression(scales=[1.0]), ((3,), (3,)), "`scales`, 1"),
        (lambda: Regression("quantile", quantile=[0.1, 0.9]), ((3,), (3,)), "`quantile`, 2"),
        (Regression, ((3,), (2,)), r"\(4, 2\)[\s\S]*\(4, 3\)"),
        (Regression, ((3, 2), (3, 2)), r"\(4, 3, 2\)"),
    ],
)
def test_outputs_that_do_not_fit_are_refused_before_training(make, shapes, message: str) -> None:
    case = Case(make, {"output": shapes[0]}, {"output": shapes[1]}, CASES["mse"].golden)
    with pytest.raises(SignalError, match=message):
        prepared(case, case.draw())


@pytest.mark.parametrize(
    "arguments",
    [{"kind": "mae"}, {"beta": 0.0}, {"quantile": 1.0}, {"quantile": [0.5, 0.0]}, {"scales": [1.0, -1.0]}],
)
def test_impossible_arguments_are_refused(arguments) -> None:
    with pytest.raises(ValueError, match="must be"):
        Regression(**arguments)
