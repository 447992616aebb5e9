from __future__ import annotations

import pytest
import torch
from loss_case import Array, Case, Numbers, batch_of, signals_of

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


def test_values_against_a_column_are_not_broadcast() -> None:
    numbers = Case(LogitMSE, {"output": (1,)}, {"output": ()}, squares).draw()
    with pytest.raises(SignalError, match="broadcasting"):
        LogitMSE().prepare(
            signals_of(numbers.student, torch.float64), signals_of(numbers.teacher, torch.float64), batch_of(numbers)
        )
