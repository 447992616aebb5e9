from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from convolving import projected
from loss_case import Array, Case, Numbers, Plain, prepared
from resizing import interpolate, pool
from scipy.special import log_softmax

from tutelage.errors import SignalError
from tutelage.losses.channel_wise import ChannelWise
from tutelage.losses.kl_divergence import softmax_kl


def over_places(s: Array, t: Array, temperature: float) -> Array:
    """(T²/C) Σ_c Σ_i φ(t_c,i) log(φ(t_c,i) / φ(s_c,i))."""
    q, p = (log_softmax(x.reshape(*x.shape[:2], -1) / temperature, axis=-1) for x in (s, t))
    return temperature**2 * (np.exp(p) * (p - q)).sum(-1).mean(1)


def over_channels(s: Array, t: Array, temperature: float) -> Array:
    q, p = (log_softmax(x / temperature, axis=1) for x in (s, t))
    return temperature**2 * (np.exp(p) * (p - q)).sum(1).mean((1, 2))


PAIRS = {"a": "b"}
PYRAMID = {"a.0": "b.0", "a.1": "b.1", "a.2": "b.2"}


def pyramid(n: Numbers) -> Array:
    return np.mean([over_places(n.student[a], n.teacher[b], 4.0) for a, b in PYRAMID.items()], axis=0)


CASES = {
    "maps": Case(
        lambda: ChannelWise(PAIRS, 2.0),
        {"a": (3, 2, 2)},
        {"b": (3, 2, 2)},
        lambda n: over_places(n.student["a"], n.teacher["b"], 2.0),
        floor=0.0,
    ),
    "channels": Case(
        lambda: ChannelWise(PAIRS, 2.0, axis="channels"),
        {"a": (3, 2, 3)},
        {"b": (3, 2, 3)},
        lambda n: over_channels(n.student["a"], n.teacher["b"], 2.0),
        floor=0.0,
    ),
    "other width": Case(
        lambda: ChannelWise(PAIRS),
        {"a": (2, 2, 3)},
        {"b": (3, 2, 3)},
        lambda n: over_places(projected(n, "a"), n.teacher["b"], 4.0),
    ),
    "pooled": Case(
        lambda: ChannelWise(PAIRS, resize="pool", projector="always"),
        {"a": (2, 5, 3)},
        {"b": (2, 2, 2)},
        lambda n: over_places(pool(projected(n, "a"), (2, 2)), n.teacher["b"], 4.0),
    ),
    "interpolated": Case(
        lambda: ChannelWise(PAIRS, resize="interpolate", projector="never"),
        {"a": (2, 2, 2)},
        {"b": (2, 3, 4)},
        lambda n: over_places(interpolate(n.student["a"], (3, 4)), n.teacher["b"], 4.0),
    ),
    "pyramid": Case(
        lambda: ChannelWise(PYRAMID),
        {"a.0": (2, 4, 4), "a.1": (2, 2, 2), "a.2": (2, 1, 2)},
        {"b.0": (2, 4, 4), "b.1": (2, 2, 2), "b.2": (2, 1, 2)},
        pyramid,
        floor=0.0,
    ),
}


def plain(student, teacher, labels, loss):
    s = F.log_softmax(student["a"].flatten(2) / 4.0, dim=-1)
    t = F.log_softmax(teacher["b"].flatten(2) / 4.0, dim=-1)
    return F.kl_div(s, t, reduction="sum", log_target=True) * 16.0 / (s.shape[0] * s.shape[1])


PLAIN = {"maps": Plain(lambda: ChannelWise(PAIRS), {"a": (64, 28, 28)}, {"b": (64, 28, 28)}, plain, samples=16)}


def maps(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_softmax_over_the_channels_instead_of_the_places() -> None:
    """A number added to a whole channel changes nothing; one added to a place, over all channels, does."""
    case = CASES["maps"]
    numbers = case.draw()
    loss = prepared(case, numbers)
    s, t = (torch.tensor(x) for x in (numbers.student["a"], numbers.teacher["b"]))
    shift = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)[:, None, None]
    batch = torch.empty(0)
    before = loss.compare_maps("a", s, t, batch)
    torch.testing.assert_close(loss.compare_maps("a", s + shift, t, batch), before)
    assert not torch.allclose(loss.compare_maps("a", s + maps(2, 2), t, batch), before)


def test_value_does_not_grow_with_the_number_of_channels() -> None:
    """`sum` divided by B alone, or `batchmean`, multiplies with C."""
    loss = ChannelWise(PAIRS)
    s, t = maps(2, 1, 3, 3), maps(2, 1, 3, 3).flip(3)
    one = loss.compare_maps("a", s, t, torch.empty(0))
    many = loss.compare_maps("a", s.repeat(1, 8, 1, 1), t.repeat(1, 8, 1, 1), torch.empty(0))
    torch.testing.assert_close(many, one)


def test_gradient_keeps_its_size_at_a_high_temperature() -> None:
    """T² missing or twice: at T = 1000 the gradient must be that of the centred squared error, / (C · HW)."""
    s, t = maps(2, 3, 2, 2).requires_grad_(), maps(2, 3, 2, 2).flip(0)
    value = ChannelWise(PAIRS, 1000.0).compare_maps("a", s, t, torch.empty(0))
    (gradient,) = torch.autograd.grad(value.sum(), s)
    difference = (s - t).detach()
    expected = (difference - difference.mean((2, 3), keepdim=True)) / (3 * 4)
    torch.testing.assert_close(gradient, expected, rtol=1e-2, atol=1e-3)


def test_logarithm_of_a_softmax_that_rounds_to_zero_is_not_taken() -> None:
    """As the official code takes it: infinite for a map with one strong place."""
    s = torch.tensor([[[[0.0, 200.0]]]], requires_grad=True)
    value = ChannelWise(PAIRS, 1.0).compare_maps("a", s, -s.detach(), torch.empty(0))
    value.sum().backward()
    assert value.item() == pytest.approx(200.0)
    assert torch.isfinite(s.grad).all()


def test_pixel_wise_form_is_the_divergence_of_dense_logits() -> None:
    s, t = maps(2, 3, 4, 5), maps(2, 3, 4, 5).flip(0)
    expected = softmax_kl(s.movedim(1, -1), t.movedim(1, -1), 2.0).mean((1, 2))
    torch.testing.assert_close(
        ChannelWise(PAIRS, 2.0, axis="channels").compare_maps("a", s, t, torch.empty(0)), expected
    )


def test_maps_of_different_size_are_refused_unless_the_recipe_says_how() -> None:
    case = Case(lambda: ChannelWise(PAIRS), {"a": (2, 2, 2)}, {"b": (2, 4, 4)}, pyramid)
    with pytest.raises(SignalError, match="set `resize`"):
        prepared(case, case.draw())


def test_another_number_of_channels_is_refused_with_both_shapes_where_no_projector_is_wanted() -> None:
    case = Case(lambda: ChannelWise(PAIRS, projector="never"), {"a": (2, 2, 2)}, {"b": (3, 2, 2)}, pyramid)
    with pytest.raises(SignalError, match=r"layer `a`[\s\S]*\(4, 3, 2, 2\)[\s\S]*\(4, 2, 2, 2\)[\s\S]*projector"):
        prepared(case, case.draw())


def test_tokens_are_refused_by_the_names_of_both_layers() -> None:
    case = Case(lambda: ChannelWise(PAIRS), {"a": (3, 2)}, {"b": (3, 2)}, pyramid)
    with pytest.raises(SignalError, match=r"`a`[\s\S]*`b`[\s\S]*HiddenState"):
        prepared(case, case.draw())


@pytest.mark.parametrize("arguments", [{"temperature": 0.0}, {"axis": "rows"}, {"resize": "crop"}, {"projector": "no"}])
def test_impossible_arguments_are_refused(arguments) -> None:
    with pytest.raises(ValueError, match="must be"):
        ChannelWise(PAIRS, **arguments)
