from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loss_case import Array, Case, Numbers, Plain, batch_of, signals_of

from tutelage.errors import SignalError
from tutelage.losses.logit_mse import LogitMSE


def squares(n: Numbers) -> Array:
    return (n.student["output"] - n.teacher["output"]) ** 2


CASES = {
    "logits": Case(LogitMSE, {"output": (5,)}, {"output": (5,)}, lambda n: squares(n).sum(1) / 5, floor=0.0),
    "values": Case(LogitMSE, {"output": ()}, {"output": ()}, squares, floor=0.0),
    "tokens": Case(
        LogitMSE, {"output": (3, 5)}, {"output": (3, 5)}, lambda n: squares(n).sum(2) / 5, tokens=3, floor=0.0
    ),
    "positions": Case(
        LogitMSE, {"output": (3, 5)}, {"output": (3, 5)}, lambda n: squares(n).sum((1, 2)) / 15, floor=0.0
    ),
    "pixels": Case(
        LogitMSE, {"output": (3, 2, 4)}, {"output": (3, 2, 4)}, lambda n: squares(n).sum((1, 2, 3)) / 24, floor=0.0
    ),
}

PLAIN = {
    "logits": Plain(
        LogitMSE,
        {"output": (1000,)},
        {"output": (1000,)},
        lambda s, t, labels, loss: F.mse_loss(s["output"], t["output"]),
        samples=2048,
    ),
    "tokens": Plain(
        LogitMSE,
        {"output": (64, 8000)},
        {"output": (64, 8000)},
        lambda s, t, labels, loss: F.mse_loss(s["output"], t["output"]),
        tokens=64,
        samples=4,
    ),
}


def test_values_against_a_column_are_not_broadcast() -> None:
    numbers = Case(LogitMSE, {"output": (1,)}, {"output": ()}, squares).draw()
    student, teacher = signals_of(numbers.student, torch.float64), signals_of(numbers.teacher, torch.float64)
    expected = (numbers.student["output"][:, 0] - numbers.teacher["output"]) ** 2
    np.testing.assert_allclose(LogitMSE()(student, teacher, batch_of(numbers)).numpy(), expected)
    numbers = Case(LogitMSE, {"output": (3,)}, {"output": (1,)}, squares).draw()
    with pytest.raises(SignalError, match="broadcasting"):
        LogitMSE().prepare(
            signals_of(numbers.student, torch.float64), signals_of(numbers.teacher, torch.float64), batch_of(numbers)
        )
