from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loss_case import Array, Case, Numbers, Plain, prepared

from tutelage.errors import SignalError
from tutelage.losses.correlation_congruence import (
    CorrelationCongruence,
    consecutive_errors,
    correlation_congruence,
    gaussian_kernel,
)

PAIRS = {"a": "b"}


def rows(x: Array, mask: Array | None) -> Array:
    return (x if mask is None else x * mask[..., None]).reshape(len(x), -1)


def taylor(x: Array, gamma: float, order: int) -> Array:
    x = x / np.sqrt((x**2).sum(1, keepdims=True))
    terms = [math.exp(-2 * gamma) * (2 * gamma) ** p / math.factorial(p) * (x @ x.T) ** p for p in range(order + 1)]
    return np.sum(terms, axis=0)


def golden(n: Numbers, kernel) -> Array:
    K_s, K_t = kernel(rows(n.student["a"], n.mask)), kernel(rows(n.teacher["b"], n.mask))
    return ((K_s - K_t) ** 2).sum(1) / len(K_s)


def second_order(n: Numbers) -> Array:
    return golden(n, lambda x: taylor(x, 0.4, 2))


def bilinear(n: Numbers) -> Array:
    return golden(n, lambda x: np.array([[a @ b for b in x] for a in x]))


def official(n: Numbers) -> Array:
    error = np.abs(rows(n.student["a"], n.mask) - rows(n.teacher["b"], n.mask))
    B, values = len(error), np.zeros(len(error))
    for i in range(B - 1):
        product = float(error[i] @ error[i + 1])
        values[i] += B / (B - 1) * product / 2
        values[i + 1] += B / (B - 1) * product / 2
    return values


CASES = {
    "maps": Case(lambda: CorrelationCongruence(PAIRS), {"a": (2, 2, 2)}, {"b": (3, 1, 3)}, second_order),
    "vectors": Case(lambda: CorrelationCongruence(PAIRS), {"a": (4,)}, {"b": (4,)}, second_order, floor=0.0),
    "tokens": Case(lambda: CorrelationCongruence(PAIRS), {"a": (3, 2)}, {"b": (3, 4)}, second_order, tokens=3),
    "of order 5": Case(
        lambda: CorrelationCongruence(PAIRS, gamma=1.5, order=5),
        {"a": (4,)},
        {"b": (3,)},
        lambda n: golden(n, lambda x: taylor(x, 1.5, 5)),
    ),
    "bilinear": Case(
        lambda: CorrelationCongruence(PAIRS, kernel="bilinear"), {"a": (3,)}, {"b": (3,)}, bilinear, floor=0.0
    ),
    "official": Case(
        lambda: CorrelationCongruence(PAIRS, variant="official"), {"a": (4,)}, {"b": (4,)}, official, floor=0.0
    ),
    "official, tokens": Case(
        lambda: CorrelationCongruence(PAIRS, variant="official"), {"a": (3, 2)}, {"b": (3, 2)}, official, tokens=3
    ),
}


def plain_kernel(x: torch.Tensor) -> torch.Tensor:
    unit = F.normalize(x, dim=1)
    product = 0.8 * (unit @ unit.T)
    return math.exp(-0.8) * (1 + product + product.square() / 2)


def plain_official(error: torch.Tensor) -> torch.Tensor:
    return (error[:-1] * error[1:]).sum(1).mean()


PLAIN = {
    "gaussian": Plain(
        lambda: CorrelationCongruence(PAIRS),
        {"a": (512,)},
        {"b": (2048,)},
        lambda s, t, labels, loss: F.mse_loss(plain_kernel(s["a"]), plain_kernel(t["b"])),
        samples=256,
    ),
    "official": Plain(
        lambda: CorrelationCongruence(PAIRS, variant="official"),
        {"a": (2048,)},
        {"b": (2048,)},
        lambda s, t, labels, loss: plain_official((s["a"] - t["b"]).abs()),
        samples=512,
    ),
}


def test_the_series_is_that_of_the_gaussian_of_distances() -> None:
    """exp(-γ‖x-y‖²) of unit vectors: without the division by length, the series is of another function."""
    x = F.normalize(torch.randn(5, 3, dtype=torch.float64), dim=1)
    expected = torch.exp(-0.7 * torch.cdist(x, x).square())
    torch.testing.assert_close(gaussian_kernel(x, 0.7, 20), expected)


def test_the_scale_of_the_features_does_not_matter_to_the_gaussian_kernel() -> None:
    t = torch.randn(5, 3, dtype=torch.float64)
    assert correlation_congruence(50 * t, t, "gaussian", 0.4, 2).max() < 1e-28


def test_official_has_the_mean_of_the_authors_code() -> None:
    """Its mean is over B - 1 pairs of neighbours, not over B samples."""
    s, t = torch.randn(5, 3), torch.randn(5, 3)
    products = [float((s[i] - t[i]).abs() @ (s[i + 1] - t[i + 1]).abs()) for i in range(4)]
    assert consecutive_errors(s, t).mean().item() == pytest.approx(np.mean(products), rel=1e-5)


def test_official_refuses_other_widths_by_name() -> None:
    case = Case(lambda: CorrelationCongruence(PAIRS, variant="official"), {"a": (4,)}, {"b": (3,)}, official)
    with pytest.raises(SignalError, match="layer `a`"):
        prepared(case, case.draw())


def test_a_batch_of_one_is_refused() -> None:
    case = CASES["vectors"]
    numbers = case.draw()
    one = Numbers({"a": numbers.student["a"][:1]}, {"b": numbers.teacher["b"][:1]}, np.ones(1))
    with pytest.raises(SignalError, match="batch size"):
        prepared(case, one)


@pytest.mark.parametrize("arguments", [{"gamma": 0.0}, {"order": 0}, {"kernel": "rbf"}, {"variant": "offical"}])
def test_impossible_arguments_are_refused(arguments) -> None:
    with pytest.raises(ValueError, match="must be"):
        CorrelationCongruence(PAIRS, **arguments)
