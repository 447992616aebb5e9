from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loss_case import Array, Case, Numbers, Plain, batch_of, prepared, signals_of

from tutelage.errors import SignalError
from tutelage.losses.binary_cross_entropy import BinaryCrossEntropy, binary_cross_entropy
from tutelage.losses.kl_divergence import bernoulli_kl
from tutelage.signals import Signals


def golden(n: Numbers) -> Array:
    s, y = n.student["output"].reshape(len(n.weights), -1), n.labels.reshape(len(n.weights), -1)
    return (y * np.logaddexp(0, -s) + (1 - y) * np.logaddexp(0, s)).sum(1)


CASES = {
    "classes": Case(
        BinaryCrossEntropy,
        {"output": (5,)},
        {},
        golden,
        labels=lambda rng, B: rng.integers(0, 2, size=(B, 5)).astype(float),
    ),
    "one logit": Case(
        BinaryCrossEntropy, {"output": (1,)}, {}, golden, labels=lambda rng, B: rng.integers(0, 2, size=B)
    ),
}

PLAIN = {
    "many classes": Plain(
        BinaryCrossEntropy,
        {"output": (5000,)},
        {},
        lambda s, t, labels, loss: F.binary_cross_entropy_with_logits(s["output"], labels, reduction="sum") / 64,
        labels=lambda rng, B: rng.integers(0, 2, size=(B, 5000)).astype(np.float32),
    ),
}


def test_is_on_the_scale_of_the_divergence_from_a_teacher_that_is_sure() -> None:
    s, y = torch.randn(4, 5, dtype=torch.float64), torch.randint(0, 2, (4, 5)).double()
    torch.testing.assert_close(binary_cross_entropy(s, y), bernoulli_kl(s, (2 * y - 1) * 1e3, 1.0))


def test_labels_of_rows_without_one_are_not_read() -> None:
    numbers = CASES["classes"].draw()
    numbers.labels[1] = np.nan
    loss = prepared(CASES["classes"], numbers)
    assert torch.isfinite(loss(signals_of(numbers.student, torch.float64), Signals(), batch_of(numbers))).all()


def test_class_indices_are_refused() -> None:
    numbers = CASES["one logit"].draw()
    numbers.labels[2] = 3
    with pytest.raises(SignalError, match="to 3"):
        prepared(CASES["one logit"], numbers)
