from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from convolving import projected
from loss_case import Array, Case, Numbers, Plain, batch_of, prepared, signals_of
from resizing import interpolate, pool
from scipy.stats import pearsonr

from tutelage.errors import SignalError
from tutelage.losses.pearson_feature import PearsonFeature, pearson_distance


def standardised(x: Array, variant: str) -> Array:
    out = np.zeros_like(x)
    for c in range(x.shape[1]):
        channel = x[:, c]
        deviation = channel.std() if variant == "paper" else channel.std(ddof=1) + 1e-6
        out[:, c] = (channel - channel.mean()) / deviation
    return out


def distance(s: Array, t: Array, variant: str) -> Array:
    return 0.5 * ((standardised(s, variant) - standardised(t, variant)) ** 2).mean((1, 2, 3))


PAIRS = {"a": "b"}
PYRAMID = {"a.0": "b.0", "a.1": "b.1"}


def golden(variant: str):
    return lambda n: distance(n.student["a"], n.teacher["b"], variant)


def pyramid(n: Numbers) -> Array:
    return np.mean([distance(n.student[a], n.teacher[b], "official") for a, b in PYRAMID.items()], axis=0)


CASES = {
    "official": Case(lambda: PearsonFeature(PAIRS), {"a": (2, 2, 3)}, {"b": (2, 2, 3)}, golden("official"), floor=0.0),
    "paper": Case(
        lambda: PearsonFeature(PAIRS, variant="paper"),
        {"a": (2, 2, 3)},
        {"b": (2, 2, 3)},
        golden("paper"),
        floor=0.0,
    ),
    "other width": Case(
        lambda: PearsonFeature(PAIRS, variant="paper"),
        {"a": (2, 2, 2)},
        {"b": (3, 2, 2)},
        lambda n: distance(projected(n, "a"), n.teacher["b"], "paper"),
    ),
    "pooled": Case(
        lambda: PearsonFeature(PAIRS, resize="pool"),
        {"a": (2, 2, 2)},
        {"b": (2, 3, 5)},
        lambda n: distance(n.student["a"], pool(n.teacher["b"], (2, 2)), "official"),
    ),
    "interpolated": Case(
        lambda: PearsonFeature(PAIRS, resize="interpolate"),
        {"a": (2, 2, 2)},
        {"b": (2, 3, 4)},
        lambda n: distance(interpolate(n.student["a"], (3, 4)), n.teacher["b"], "official"),
    ),
    "one place": Case(
        lambda: PearsonFeature(PAIRS, variant="paper"), {"a": (2, 1, 1)}, {"b": (2, 1, 1)}, golden("paper"), floor=0.0
    ),
    "pyramid": Case(
        lambda: PearsonFeature(PYRAMID),
        {"a.0": (2, 4, 4), "a.1": (2, 2, 2)},
        {"b.0": (2, 4, 4), "b.1": (2, 2, 2)},
        pyramid,
        floor=0.0,
    ),
}


def plain(student, teacher, labels, loss):
    def normal(x):
        variance, mean = torch.var_mean(x, dim=(0, 2, 3), keepdim=True)
        return (x - mean) / (variance.sqrt() + 1e-6)

    return F.mse_loss(normal(student["a"]), normal(teacher["b"])) / 2


PLAIN = {"maps": Plain(lambda: PearsonFeature(PAIRS), {"a": (64, 28, 28)}, {"b": (64, 28, 28)}, plain, samples=16)}


def maps(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_paper_is_one_minus_the_correlation_of_scipy() -> None:
    """Statistics over the places of a sample, or over the channels, would be another correlation."""
    s, t = maps(0, 4, 3, 2, 5), maps(1, 4, 3, 2, 5)
    correlations = [pearsonr(s[:, c].reshape(-1), t[:, c].reshape(-1)).statistic for c in range(3)]
    assert pearson_distance(s, t, "paper").mean().item() == pytest.approx(1 - np.mean(correlations), rel=1e-12)


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_scale_and_mean_of_a_channel_are_free(variant) -> None:
    s, t = maps(0, 4, 3, 2, 5), maps(1, 4, 3, 2, 5)
    scale, shift = torch.tensor([0.5, 2.0, 30.0])[:, None, None], torch.tensor([1.0, 0.0, -100.0])[:, None, None]
    torch.testing.assert_close(
        pearson_distance(s * scale + shift, t, variant), pearson_distance(s, t, variant), rtol=1e-5, atol=0
    )


def test_official_is_a_share_of_the_paper_s() -> None:
    """The unbiased deviation: (M-1)/M, but for 1e-6. Were both variants the same, the ratio would be 1."""
    s, t = maps(0, 2, 3, 1, 4), maps(1, 2, 3, 1, 4)
    ratio = pearson_distance(s, t, "official") / pearson_distance(s, t, "paper")
    torch.testing.assert_close(ratio, torch.full_like(ratio, 7 / 8), rtol=1e-4, atol=0)


@pytest.mark.parametrize("variant", ["paper", "official"])
@pytest.mark.parametrize("level", [0.0, 12345.678])
def test_dead_channel_gives_neither_nan_nor_a_huge_gradient(variant, level: float) -> None:
    """A deviation of rounding alone as divisor, or of 0."""
    s, t = maps(0, 4, 3, 2, 5).float(), maps(1, 4, 3, 2, 5).float()
    s[:, 1], t[:, 2] = level, level
    s[::2, 1] = torch.nextafter(s[::2, 1], torch.tensor(torch.inf))
    s.requires_grad_()
    value = pearson_distance(s, t, variant)
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert torch.isfinite(s.grad).all()
    assert (s.grad[:, 1] == 0).all()
    assert s.grad.abs().max() < 1


def test_a_batch_of_one_place_is_refused() -> None:
    case = Case(lambda: PearsonFeature(PAIRS), {"a": (3, 1, 1)}, {"b": (3, 1, 1)}, pyramid, samples=1)
    numbers = Numbers({"a": np.ones((1, 3, 1, 1))}, {"b": np.ones((1, 3, 1, 1))}, np.ones(1))
    with pytest.raises(SignalError, match=r"layer `a`[\s\S]*larger batches"):
        case.make().prepare(
            signals_of(numbers.student, torch.float64), signals_of(numbers.teacher, torch.float64), batch_of(numbers)
        )


def test_maps_of_different_size_are_refused_unless_the_recipe_says_how() -> None:
    case = Case(lambda: PearsonFeature(PAIRS), {"a": (2, 2, 2)}, {"b": (2, 4, 4)}, pyramid)
    with pytest.raises(SignalError, match="set `resize`"):
        prepared(case, case.draw())


def test_vectors_are_refused_by_the_names_of_both_layers() -> None:
    case = Case(lambda: PearsonFeature(PAIRS), {"a": (3,)}, {"b": (3,)}, pyramid)
    with pytest.raises(SignalError, match=r"`a`[\s\S]*`b`[\s\S]*maps"):
        prepared(case, case.draw())


@pytest.mark.parametrize("arguments", [{"variant": "offical"}, {"resize": "crop"}, {"projector": "no"}])
def test_impossible_arguments_are_refused_with_the_choices(arguments) -> None:
    with pytest.raises(ValueError, match="must be one of"):
        PearsonFeature(PAIRS, **arguments)
