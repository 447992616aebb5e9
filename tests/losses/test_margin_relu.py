from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from convolving import projected
from loss_case import Array, Case, Numbers, Plain, batch_of, objective, prepared, signals_of
from resizing import interpolate, pool
from scipy.stats import norm, truncnorm
from torch import nn

from tutelage.errors import ModelError, SignalError
from tutelage.losses.margin_relu import MarginReLU, negative_mean, partial_distance

PAIRS = {"a": "b"}


def margins(n: Numbers, path: str, variant: str) -> Array:
    """By scipy's truncated normal distribution."""
    found = []
    for gamma, beta in zip(n.trained[f"borrowed/{path}.weight"], n.trained[f"borrowed/{path}.bias"], strict=True):
        rare = norm.cdf(-beta / abs(gamma)) <= 0.001
        mean = truncnorm.mean(-np.inf, -beta / abs(gamma), loc=beta, scale=abs(gamma))
        found.append(-3 * abs(gamma) if rare and variant == "official" else mean)
    return np.array(found)[:, None, None]


def partial(s: Array, t: Array, m: Array) -> Array:
    target = np.maximum(t, m)
    skipped = (s <= target) & (target <= 0)
    return np.where(skipped, 0, (target - s) ** 2).sum((1, 2, 3))


def golden(variant: str):
    return lambda n: partial(projected(n, "a"), n.teacher["b"], margins(n, "b", variant))


def norm_of(*channels: tuple[float, float]) -> nn.BatchNorm2d:
    module = nn.BatchNorm2d(len(channels))
    with torch.no_grad():
        module.weight.copy_(torch.tensor([gamma for gamma, _ in channels]))
        module.bias.copy_(torch.tensor([beta for _, beta in channels]))
    return module


def lent(*paths: str):
    """Channels that are negative often, mostly, and in 1 of 30000 cases; numbers that bf16 holds exactly."""
    return lambda: {path: norm_of((1.0, 0.25), (-0.5, -0.5), (0.25, 1.0)) for path in paths}


CASES = {
    "official": Case(
        lambda: MarginReLU(PAIRS), {"a": (2, 2, 3)}, {"b": (3, 2, 3)}, golden("official"), modules=lent("b")
    ),
    "paper": Case(
        lambda: MarginReLU(PAIRS, variant="paper"),
        {"a": (2, 2, 3)},
        {"b": (3, 2, 3)},
        golden("paper"),
        modules=lent("b"),
    ),
    "no projector": Case(
        lambda: MarginReLU(PAIRS, projector="where_widths_differ"),
        {"a": (3, 2, 2)},
        {"b": (3, 2, 2)},
        golden("official"),
        modules=lent("b"),
        floor=0.0,
    ),
    "pooled": Case(
        lambda: MarginReLU(PAIRS, resize="pool", projector="where_widths_differ"),
        {"a": (3, 2, 2)},
        {"b": (3, 5, 3)},
        lambda n: partial(n.student["a"], pool(n.teacher["b"], (2, 2)), margins(n, "b", "official")),
        modules=lent("b"),
    ),
    "interpolated": Case(
        lambda: MarginReLU(PAIRS, resize="interpolate", projector="where_widths_differ"),
        {"a": (3, 2, 2)},
        {"b": (3, 3, 4)},
        lambda n: partial(interpolate(n.student["a"], (3, 4)), n.teacher["b"], margins(n, "b", "official")),
        modules=lent("b"),
    ),
    "pyramid": Case(
        lambda: MarginReLU({"a.0": "b.0", "a.1": "b.1"}),
        {"a.0": (2, 3, 3), "a.1": (2, 2, 1)},
        {"b.0": (3, 3, 3), "b.1": (3, 2, 1)},
        lambda n: (
            sum(partial(projected(n, f"a.{i}"), n.teacher[f"b.{i}"], margins(n, f"b.{i}", "official")) for i in (0, 1))
            / 2
        ),
        modules=lent("b.0", "b.1"),
    ),
}


def standard() -> dict[str, nn.Module]:
    return {"b": nn.BatchNorm2d(64)}


def plain(student, teacher, labels, loss):
    s = loss.projectors["a"](student["a"])
    # E[x | x < 0] of a standard normal number.
    target = teacher["b"].clamp(min=-math.sqrt(2 / math.pi))
    counts = (s > target) | (target > 0)
    return ((s - target).square() * counts).sum((1, 2, 3)).mean()


PLAIN = {
    "maps": Plain(
        lambda: MarginReLU(PAIRS), {"a": (32, 28, 28)}, {"b": (64, 28, 28)}, plain, samples=16, modules=standard
    ),
}


def test_margin_is_the_mean_of_the_negative_values_of_a_sample() -> None:
    """The mean of all, of the positive ones, or a variance in the place of a deviation."""
    rng = np.random.default_rng(0)
    gamma, beta = np.array([0.5, -2.0, 1.0]), np.array([0.5, 0.3, -1.5])
    drawn = rng.normal(beta, abs(gamma), size=(1_000_000, 3))
    expected = [channel[channel < 0].mean() for channel in drawn.T]
    found = negative_mean(torch.tensor(gamma), torch.tensor(beta), "paper")
    np.testing.assert_allclose(found.numpy(), expected, rtol=5e-3)
    np.testing.assert_array_equal(negative_mean(torch.tensor(gamma), torch.tensor(beta), "official"), found)


def test_a_channel_that_is_hardly_ever_negative_has_a_margin_that_is_finite_and_not_positive() -> None:
    """φ and Φ underflow, and their quotient is 0/0: from β/γ = 38 on in float64, 13 in float32."""
    ratio = torch.tensor([3.2, 10.0, 40.0, 1000.0, 1e6, -10.0, -1e6])
    gamma = torch.full_like(ratio, 2.0)
    paper = negative_mean(gamma, 2 * ratio, "paper")
    expected = [truncnorm.mean(-np.inf, -r, loc=2 * r, scale=2) for r in (3.2, 10.0)]
    np.testing.assert_allclose(paper[:2].numpy(), expected, rtol=1e-6)
    # Far out the excess over a threshold is exponential: mean γ²/β.
    np.testing.assert_allclose(paper[2:4].numpy(), [-2 / 40, -2 / 1000], rtol=2e-3)
    assert (paper <= 0).all()
    np.testing.assert_allclose(paper[5:].numpy(), [-20, -2e6], rtol=1e-3)
    np.testing.assert_array_equal(negative_mean(gamma, 2 * ratio, "official")[:5], -6)


def test_a_channel_without_deviation_does_not_divide_by_zero() -> None:
    """Weights of 0 are common: norms at the end of residual blocks start there."""
    for variant in ("paper", "official"):
        found = negative_mean(torch.zeros(3), torch.tensor([0.5, 0.0, -0.5]), variant)
        assert found.tolist() == [0.0, 0.0, -0.5]


def test_distance_skips_what_is_off_in_both_and_nothing_else() -> None:
    t = torch.tensor([2.0, 2.0, -0.5, -0.5, -9.0, -9.0])[None, :, None, None]
    s = torch.tensor([1.0, -1.0, -0.7, 0.5, -2.0, -0.5], requires_grad=True)
    margin = torch.full((6,), -1.0)
    partial_distance(s[None, :, None, None], t, margin).sum().backward()
    # Below the target 2; far below; lower than -0.5 is as well; above it; lower than the margin is as well; above it.
    torch.testing.assert_close(s.grad, torch.tensor([-2.0, -6.0, 0.0, 2.0, 0.0, 1.0]))


def test_a_norm_without_weight_and_bias_puts_out_a_standard_normal_number() -> None:
    loss = MarginReLU(PAIRS)
    loss.introduce(modules={"b": nn.BatchNorm2d(2, affine=False)}, rows=4)
    torch.testing.assert_close(loss._margins["b"], torch.full((2,), -math.sqrt(2 / math.pi), dtype=torch.float64))


@pytest.mark.parametrize("module", [nn.Conv2d(3, 3, 1), nn.ReLU(), nn.GroupNorm(1, 3)])
def test_a_teacher_s_layer_that_is_no_batch_norm_is_refused_with_what_to_name_instead(module: nn.Module) -> None:
    with pytest.raises(ModelError, match=r"layer `b` of the teacher[\s\S]*batch norm[\s\S]*ActivationBoundary"):
        MarginReLU(PAIRS).introduce(modules={"b": module}, rows=4)


def test_neither_the_norm_nor_its_margin_is_trained_or_stored() -> None:
    """A checkpoint that holds parts of the teacher."""
    case = CASES["official"]
    loss = prepared(case, case.draw())
    assert set(loss.state_dict()) == {"projectors.a.weight", "projectors.a.bias"}


def test_a_batch_in_pieces_is_the_same_loss_and_the_same_gradient() -> None:
    """With a batch norm in the connector, as in the paper, it is not."""
    case = CASES["official"]
    numbers = case.draw()
    loss = prepared(case, numbers)
    gradients = []
    for pieces in ([slice(0, 4)], [slice(0, 1), slice(1, 4)]):
        loss.zero_grad()
        for rows in pieces:
            piece = Numbers(
                {"a": numbers.student["a"][rows]}, {"b": numbers.teacher["b"][rows]}, np.ones(len(range(4)[rows]))
            )
            student, teacher = signals_of(piece.student, torch.float64), signals_of(piece.teacher, torch.float64)
            batch = batch_of(piece)
            (objective(loss, student, teacher, batch) * len(batch)).backward()
        gradients.append(loss.projectors["a"].weight.grad.clone())
    torch.testing.assert_close(*gradients)


def test_maps_of_different_size_are_refused_unless_the_recipe_says_how() -> None:
    case = Case(lambda: MarginReLU(PAIRS), {"a": (2, 2, 2)}, {"b": (3, 4, 4)}, golden("paper"), modules=lent("b"))
    with pytest.raises(SignalError, match="set `resize`"):
        prepared(case, case.draw())


def test_tokens_are_refused_by_the_names_of_both_layers() -> None:
    case = Case(lambda: MarginReLU(PAIRS), {"a": (3, 2)}, {"b": (3, 2)}, golden("paper"), modules=lent("b"))
    with pytest.raises(SignalError, match=r"`a`[\s\S]*`b`[\s\S]*maps"):
        prepared(case, case.draw())


@pytest.mark.parametrize("arguments", [{"variant": "offical"}, {"resize": "crop"}, {"projector": "never"}])
def test_impossible_arguments_are_refused_with_the_choices(arguments) -> None:
    with pytest.raises(ValueError, match="must be one of"):
        MarginReLU(PAIRS, **arguments)
