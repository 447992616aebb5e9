from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loss_case import Array, Case, Numbers, Plain, batch_of, prepared, signals_of

from tutelage.errors import SignalError
from tutelage.losses.inter_channel_correlation import InterChannelCorrelation, inter_channel_correlation

PAIRS = {"a.0": "b.1"}


def projected(n: Numbers) -> Array:
    """[B, C, H, W], tokens being places of a map of width 1."""
    x, weight = maps(n.student["a.0"], n.mask), n.trained.get("projectors.a/0.weight")
    if weight is None:
        return x
    return np.einsum("bchw,dc->bdhw", x, weight.reshape(len(weight), -1))


def maps(x: Array, mask: Array | None) -> Array:
    if x.ndim == 4:
        return x
    x = x if mask is None else x * mask[..., None]
    return x.transpose(0, 2, 1)[..., None]


def correlation(f: Array) -> Array:
    """Of one sample, [C, h, w]."""
    return np.array([[(a * b).sum() for b in f] for a in f])


def paper_cell(s: Array, t: Array) -> float:
    return float(((correlation(s) - correlation(t)) ** 2).sum()) / len(s) ** 2


def official_cell(s: Array, t: Array) -> float:
    s, t = (g / np.sqrt((g**2).sum(1, keepdims=True)) for g in (correlation(s), correlation(t)))
    return float(((s - t) ** 2).sum()) / len(s)


def golden(n: Numbers, cell, grid: int = 1) -> Array:
    def parts(f: Array) -> list[Array]:
        return [part for band in np.split(f, grid, axis=1) for part in np.split(band, grid, axis=2)]

    s, t = projected(n), maps(n.teacher["b.1"], n.mask)
    samples = [list(zip(parts(a), parts(b), strict=True)) for a, b in zip(s, t, strict=True)]
    return np.array([np.mean([cell(*both) for both in sample]) for sample in samples])


def official(n: Numbers) -> Array:
    return golden(n, official_cell)


def paper(n: Numbers) -> Array:
    return golden(n, paper_cell)


CASES = {
    "official": Case(lambda: InterChannelCorrelation(PAIRS), {"a.0": (2, 2, 2)}, {"b.1": (3, 2, 2)}, official),
    "official, other size": Case(
        lambda: InterChannelCorrelation(PAIRS), {"a.0": (3, 2, 3)}, {"b.1": (3, 4, 4)}, official
    ),
    "official, same shape": Case(
        lambda: InterChannelCorrelation(PAIRS), {"a.0": (3, 2, 2)}, {"b.1": (3, 2, 2)}, official, floor=0.0
    ),
    "paper": Case(
        lambda: InterChannelCorrelation(PAIRS, variant="paper"), {"a.0": (2, 2, 2)}, {"b.1": (3, 2, 2)}, paper
    ),
    "paper, same shape": Case(
        lambda: InterChannelCorrelation(PAIRS, variant="paper"),
        {"a.0": (3, 2, 2)},
        {"b.1": (3, 2, 2)},
        paper,
        floor=0.0,
    ),
    "grid": Case(
        lambda: InterChannelCorrelation(PAIRS, grid=2),
        {"a.0": (2, 4, 2)},
        {"b.1": (3, 2, 4)},
        lambda n: golden(n, official_cell, 2),
    ),
    "grid, paper": Case(
        lambda: InterChannelCorrelation(PAIRS, variant="paper", grid=2),
        {"a.0": (3, 2, 4)},
        {"b.1": (3, 2, 4)},
        lambda n: golden(n, paper_cell, 2),
        floor=0.0,
    ),
    "tokens": Case(lambda: InterChannelCorrelation(PAIRS), {"a.0": (3, 2)}, {"b.1": (3, 4)}, official, tokens=3),
    "tokens, paper": Case(
        lambda: InterChannelCorrelation(PAIRS, variant="paper"), {"a.0": (3, 4)}, {"b.1": (3, 4)}, paper, tokens=3
    ),
}


def plain(s: torch.Tensor, t: torch.Tensor, *, grid: int = 1) -> torch.Tensor:
    def correlations(x: torch.Tensor) -> torch.Tensor:
        B, C, H, W = x.shape
        if grid > 1:
            x = x.view(B, C, grid, H // grid, grid, W // grid).permute(0, 2, 4, 1, 3, 5)
        f = x.reshape(B * grid**2, C, -1)
        return F.normalize(torch.bmm(f, f.transpose(1, 2)), dim=2)

    difference = correlations(s) - correlations(t)
    return difference.square().sum() / (len(difference) * difference.shape[1])


PLAIN = {
    "official": Plain(
        lambda: InterChannelCorrelation(PAIRS),
        {"a.0": (64, 16, 16)},
        {"b.1": (128, 16, 16)},
        lambda s, t, labels, loss: plain(loss.projectors["a/0"](s["a.0"]), t["b.1"]),
        samples=16,
    ),
    "grid": Plain(
        lambda: InterChannelCorrelation(PAIRS, grid=4),
        {"a.0": (64, 32, 32)},
        {"b.1": (64, 32, 32)},
        lambda s, t, labels, loss: plain(s["a.0"], t["b.1"], grid=4),
        samples=16,
    ),
}


def test_rows_of_the_correlations_are_normalised_not_the_whole_matrix() -> None:
    s = torch.tensor([[[[3.0]], [[4.0]]]])
    t = torch.tensor([[[[1.0]], [[0.0]]]])
    # G_s has two rows along (3, 4), G_t one along (1, 0) and one that is 0.
    expected = ((0.6 - 1) ** 2 + 0.8**2 + 1) / 2
    assert inter_channel_correlation(s, t, "official").item() == pytest.approx(expected)


def test_correlations_are_of_channels_not_of_samples_or_places() -> None:
    """Places may be permuted in all channels alike, channels may not."""
    s, t = torch.randn(2, 3, 2, 2, dtype=torch.float64), torch.randn(2, 3, 2, 2, dtype=torch.float64)
    value = inter_channel_correlation(s, t, "paper")
    torch.testing.assert_close(inter_channel_correlation(s.flip(2), t, "paper"), value)
    assert not torch.allclose(inter_channel_correlation(s.flip(1), t, "paper"), value)


def test_a_silent_channel_gets_no_huge_gradient() -> None:
    s = torch.randn(2, 3, 2, 2)
    s[:, 1] = 0
    s.requires_grad_()
    inter_channel_correlation(s, torch.randn(2, 3, 2, 2), "official").sum().backward()
    assert s.grad.abs().max() < 10


@pytest.mark.parametrize(
    ("make", "student", "teacher", "message"),
    [
        (lambda: InterChannelCorrelation(PAIRS, variant="paper"), (3, 2, 2), (3, 4, 4), "more places"),
        (lambda: InterChannelCorrelation(PAIRS, grid=2), (3, 2, 3), (3, 2, 2), "multiples of `grid`"),
        (lambda: InterChannelCorrelation(PAIRS, grid=2), (4, 3), (4, 3), "leave out `grid`"),
        (lambda: InterChannelCorrelation(PAIRS), (3,), (3,), "before the pooling"),
        (lambda: InterChannelCorrelation(PAIRS), (3, 2, 2), (4, 3), r"layer `a\.0`"),
    ],
)
def test_layers_that_do_not_fit_are_refused_by_name(make, student, teacher, message: str) -> None:
    case = Case(make, {"a.0": student}, {"b.1": teacher}, official)
    with pytest.raises(SignalError, match=message):
        prepared(case, case.draw())


def test_models_of_other_widths_are_refused_once_the_projector_is_made() -> None:
    loss = prepared(CASES["official"], CASES["official"].draw())
    numbers = Case(lambda: loss, {"a.0": (4, 2, 2)}, {"b.1": (3, 2, 2)}, official).draw()
    with pytest.raises(SignalError, match="forget"):
        loss.prepare(
            signals_of(numbers.student, torch.float64), signals_of(numbers.teacher, torch.float64), batch_of(numbers)
        )


@pytest.mark.parametrize("arguments", [{"grid": 0}, {"variant": "offical"}])
def test_impossible_arguments_are_refused(arguments) -> None:
    with pytest.raises(ValueError, match="must be"):
        InterChannelCorrelation(PAIRS, **arguments)
