from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loss_case import Array, Case, Numbers, Plain, batch_of, prepared, signals_of

from tutelage.errors import SignalError
from tutelage.losses.mean_squared_error import MeanSquaredError
from tutelage.signals import Signals


def golden(n: Numbers) -> Array:
    B = len(n.weights)
    return ((n.student["output"].reshape(B, -1) - n.labels.reshape(B, -1)) ** 2).sum(1) / n.labels[0].size


CASES = {
    "values": Case(MeanSquaredError, {"output": (3,)}, {}, golden, labels=lambda rng, B: rng.normal(size=(B, 3))),
    "one value": Case(MeanSquaredError, {"output": (1,)}, {}, golden, labels=lambda rng, B: rng.normal(size=B)),
    "flat": Case(MeanSquaredError, {"output": ()}, {}, golden, labels=lambda rng, B: rng.normal(size=B)),
}

PLAIN = {
    "values": Plain(
        MeanSquaredError,
        {"output": (512,)},
        {},
        lambda s, t, labels, loss: F.mse_loss(s["output"], labels),
        labels=lambda rng, B: rng.normal(size=(B, 512)).astype(np.float32),
        samples=4096,
    ),
}


def test_is_zero_where_the_student_says_the_label() -> None:
    numbers = CASES["values"].draw()
    exact = Signals(output=torch.tensor(numbers.labels))
    assert (prepared(CASES["values"], numbers)(exact, Signals(), batch_of(numbers))[[0, 2, 3]] == 0).all()


def test_column_against_row_is_not_broadcast() -> None:
    """[B, 4] against [B] with B = 4 broadcasts without a word."""
    numbers = Case(MeanSquaredError, {"output": (4,)}, {}, golden, labels=lambda rng, B: rng.normal(size=B)).draw()
    with pytest.raises(SignalError, match="broadcasting"):
        MeanSquaredError().prepare(signals_of(numbers.student, torch.float64), Signals(), batch_of(numbers))


def test_nan_as_a_label_is_refused_only_where_the_row_is_labelled() -> None:
    numbers = CASES["one value"].draw()
    numbers.labels[1] = np.nan
    prepared(CASES["one value"], numbers)
    numbers.labels[2] = np.nan
    with pytest.raises(SignalError, match="finite numbers in every labelled row"):
        prepared(CASES["one value"], numbers)


def test_a_batch_without_labels_is_refused() -> None:
    numbers = Numbers({"output": np.zeros((4, 1))}, {}, np.ones(4))
    with pytest.raises(SignalError, match="label column"):
        MeanSquaredError().prepare(signals_of(numbers.student, torch.float64), Signals(), batch_of(numbers))
