from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from convolving import convolve
from loss_case import Array, Case, Numbers, Plain, batch_of, prepared, signals_of
from resizing import interpolate, pool
from scipy.stats import norm

from tutelage.errors import SignalError
from tutelage.losses.variational_information import VariationalInformation, gaussian_loss

PAIRS = {"a": "b"}


def moments(n: Numbers, path: str = "a") -> tuple[Array, Array]:
    """The predicted mean, and the variance of each channel."""
    key, x = f"gaussians.{path.replace('.', '/')}", n.student[path]
    weights = [n.trained[f"{key}.mean.{i}.weight"] for i in (0, 2, 4) if f"{key}.mean.{i}.weight" in n.trained]
    for i, weight in enumerate(weights):
        x = convolve(x, weight) if x.ndim == 4 else x @ weight.T
        x = x if i == 2 else np.maximum(x, 0)
    return x, np.logaddexp(0, n.trained[f"{key}.alpha"]) + 1e-5


def surprise(mean: Array, variance: Array, t: Array) -> Array:
    """-log q(t|s) of each number by scipy, without the constant."""
    deviation = np.sqrt(variance)[:, None, None] if t.ndim == 4 else np.sqrt(variance)
    return -norm.logpdf(t, mean, np.broadcast_to(deviation, t.shape)) - 0.5 * math.log(2 * math.pi)


def golden(n: Numbers, path: str = "a", target: str = "b") -> Array:
    return surprise(*moments(n, path), n.teacher[target])


def whole(n: Numbers) -> Array:
    return golden(n).reshape(len(n.weights), -1).sum(1)


def shrunk(n: Numbers) -> Array:
    n.student["a"], kept = pool(n.student["a"], (2, 2)), n.student["a"]
    values = golden(n).mean((1, 2, 3))
    n.student["a"] = kept
    return values


def stretched(n: Numbers) -> Array:
    n.student["a"], kept = interpolate(n.student["a"], (3, 2)), n.student["a"]
    values = golden(n).mean((1, 2, 3))
    n.student["a"] = kept
    return values


CASES = {
    "official": Case(
        lambda: VariationalInformation(PAIRS), {"a": (2, 2, 2)}, {"b": (3, 2, 2)}, lambda n: golden(n).mean((1, 2, 3))
    ),
    "paper": Case(lambda: VariationalInformation(PAIRS, variant="paper"), {"a": (2, 2, 2)}, {"b": (3, 2, 2)}, whole),
    "no network": Case(
        lambda: VariationalInformation(PAIRS, projector="where_widths_differ"),
        {"a": (3, 2, 2)},
        {"b": (3, 2, 2)},
        lambda n: golden(n).mean((1, 2, 3)),
        floor=0.5 * math.log(5.0),
    ),
    "vectors": Case(
        lambda: VariationalInformation(PAIRS, variance=0.5), {"a": (3,)}, {"b": (2,)}, lambda n: golden(n).mean(1)
    ),
    "tokens": Case(
        lambda: VariationalInformation(PAIRS), {"a": (3, 2)}, {"b": (3, 3)}, lambda n: golden(n).mean(2), tokens=3
    ),
    "tokens, paper": Case(
        lambda: VariationalInformation(PAIRS, variant="paper", projector="where_widths_differ"),
        {"a": (3, 2)},
        {"b": (3, 2)},
        lambda n: golden(n).sum(2),
        tokens=3,
        floor=math.log(5.0),
    ),
    "positions": Case(
        lambda: VariationalInformation(PAIRS), {"a": (3, 2)}, {"b": (3, 3)}, lambda n: golden(n).mean((1, 2))
    ),
    "pooled": Case(lambda: VariationalInformation(PAIRS, resize="pool"), {"a": (2, 3, 4)}, {"b": (2, 2, 2)}, shrunk),
    "interpolated": Case(
        lambda: VariationalInformation(PAIRS, resize="interpolate"), {"a": (2, 2, 1)}, {"b": (2, 3, 2)}, stretched
    ),
    "two pairs": Case(
        lambda: VariationalInformation({"a.0": "b.0", "a.1": "b.1"}),
        {"a.0": (2, 2, 2), "a.1": (3,)},
        {"b.0": (2, 2, 2), "b.1": (2,)},
        lambda n: (golden(n, "a.0", "b.0").mean((1, 2, 3)) + golden(n, "a.1", "b.1").mean(1)) / 2,
    ),
}


def plain(student, teacher, labels, loss):
    gaussian = loss.gaussians["a"]
    variance = (F.softplus(gaussian.alpha) + 1e-5)[:, None, None]
    mean = gaussian.mean(student["a"])
    return (0.5 * ((mean - teacher["b"]).square() / variance + variance.log())).mean()


PLAIN = {
    "maps": Plain(lambda: VariationalInformation(PAIRS), {"a": (32, 28, 28)}, {"b": (64, 28, 28)}, plain, samples=16),
}


def test_best_variance_is_the_mean_squared_error() -> None:
    """½ on one of the terms alone, or a deviation in the place of a variance, would put the minimum elsewhere."""
    generator = torch.Generator().manual_seed(0)
    mean, teacher = (torch.randn(50, 2, 3, 3, dtype=torch.float64, generator=generator) for _ in range(2))
    teacher[:, 1] *= 4
    variance = (mean - teacher).square().mean((0, 2, 3)).requires_grad_()
    gaussian_loss(mean, variance, teacher).mean().backward()
    torch.testing.assert_close(variance.grad, torch.zeros_like(variance), rtol=0, atol=1e-12)


def test_variance_begins_where_it_is_told_and_stays_positive() -> None:
    case = CASES["vectors"]
    loss = prepared(case, case.draw())
    torch.testing.assert_close(loss.gaussians.of("a").variance(), torch.full((2,), 0.5, dtype=torch.float64))
    with torch.no_grad():
        loss.gaussians.of("a").alpha.fill_(-1000.0)
    torch.testing.assert_close(loss.gaussians.of("a").variance(), torch.full((2,), 1e-5, dtype=torch.float64))


def test_large_alpha_does_not_overflow() -> None:
    """log(1 + exp(α)) as it is written is infinite from α = 89 on in float32."""
    case = CASES["official"]
    numbers = case.draw()
    loss = prepared(case, numbers, torch.float32)
    with torch.no_grad():
        loss.gaussians.of("a").alpha.fill_(200.0)
    value = loss(
        signals_of(numbers.student, torch.float32), signals_of(numbers.teacher, torch.float32), batch_of(numbers)
    )
    torch.testing.assert_close(value, torch.full((4,), 0.5 * math.log(200.0)), rtol=1e-2, atol=0)


def test_a_channel_that_cannot_be_predicted_counts_less() -> None:
    """The variances are of channels: the gradient of a mean is divided by its own channel's."""
    mean = torch.zeros(1, 2, 1, 1, requires_grad=True)
    gaussian_loss(mean, torch.tensor([1.0, 4.0]), torch.ones(1, 2, 1, 1)).sum().backward()
    torch.testing.assert_close(mean.grad.flatten(), torch.tensor([-1.0, -0.25]))


def test_maps_of_different_size_are_refused_unless_the_recipe_says_how() -> None:
    case = Case(lambda: VariationalInformation(PAIRS), {"a": (2, 2, 2)}, {"b": (2, 4, 4)}, whole)
    with pytest.raises(SignalError, match="set `resize`"):
        prepared(case, case.draw())


def test_maps_against_vectors_are_refused_by_name() -> None:
    case = Case(lambda: VariationalInformation(PAIRS), {"a": (2, 2, 2)}, {"b": (2,)}, whole)
    with pytest.raises(SignalError, match="layer `a`"):
        prepared(case, case.draw())


def test_sequences_of_different_length_are_refused() -> None:
    case = Case(lambda: VariationalInformation(PAIRS), {"a": (3, 4)}, {"b": (5, 4)}, whole, tokens=3)
    with pytest.raises(SignalError, match="one tokenizer"):
        prepared(case, case.draw())


@pytest.mark.parametrize("widths", [(3, 4), (4, 4), (2, 5)])
def test_models_of_other_widths_are_refused_once_the_network_is_made(widths: tuple[int, int]) -> None:
    case = Case(lambda: VariationalInformation(PAIRS), {"a": (2,)}, {"b": (4,)}, whole)
    loss = prepared(case, case.draw())
    numbers = Case(lambda: loss, {"a": widths[:1]}, {"b": widths[1:]}, whole).draw()
    with pytest.raises(SignalError, match=r"network of `a`[\s\S]*forget"):
        loss.prepare(
            signals_of(numbers.student, torch.float64), signals_of(numbers.teacher, torch.float64), batch_of(numbers)
        )


@pytest.mark.parametrize(
    "arguments", [{"variant": "offical"}, {"variance": 1e-5}, {"variance": 1e3}, {"projector": "no"}, {"resize": "x"}]
)
def test_impossible_arguments_are_refused(arguments) -> None:
    with pytest.raises(ValueError, match="must be"):
        VariationalInformation(PAIRS, **arguments)
