from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loss_case import Array, Case, Numbers, Plain, batch_of, prepared, signals_of
from resizing import interpolate, pool

from tutelage.errors import SignalError
from tutelage.losses.neuron_selectivity import NeuronSelectivity

PAIRS = {"a": "b"}


def discrepancy(s: Array, t: Array, kernel: str, *, degree: int = 2, offset: float = 0.0, bandwidth=None) -> Array:
    """Squared maximum mean discrepancy of each sample, kernel value by kernel value."""
    values = np.zeros(len(s))
    for b in range(len(s)):
        x, y = ([m.reshape(-1) / np.linalg.norm(m) for m in maps[b]] for maps in (s, t))
        width = bandwidth
        if width is None:
            width = np.mean([((u - v) ** 2).sum() for u in y for v in y])

        def k(u: Array, v: Array, width: float = width) -> float:
            if kernel == "linear":
                return u @ v
            if kernel == "polynomial":
                return (u @ v + offset) ** degree
            return np.exp(-((u - v) ** 2).sum() / (2 * width))

        values[b] += np.mean([[k(u, v) for u in y] for v in y])
        values[b] += np.mean([[k(u, v) for u in x] for v in x])
        values[b] -= 2 * np.mean([[k(u, v) for u in y] for v in x])
    return values


def case(make, golden, student=(2, 2, 2), teacher=(3, 2, 2), **more) -> Case:
    return Case(make, {"a": student}, {"b": teacher}, golden, **more)


def of(kernel: str, **arguments):
    return lambda n: discrepancy(n.student["a"], n.teacher["b"], kernel, **arguments)


CASES = {
    "polynomial": case(lambda: NeuronSelectivity(PAIRS), of("polynomial")),
    "polynomial, same": case(lambda: NeuronSelectivity(PAIRS), of("polynomial"), teacher=(2, 2, 2), floor=0.0),
    "polynomial, few places": case(
        lambda: NeuronSelectivity(PAIRS), of("polynomial"), student=(3, 1, 2), teacher=(4, 1, 2)
    ),
    "polynomial, few places, same": case(
        lambda: NeuronSelectivity(PAIRS), of("polynomial"), student=(3, 1, 2), teacher=(3, 1, 2), floor=0.0
    ),
    "polynomial with an offset, few places": case(
        lambda: NeuronSelectivity(PAIRS, offset=0.5),
        of("polynomial", offset=0.5),
        student=(3, 1, 2),
        teacher=(4, 1, 2),
    ),
    "cubic": case(lambda: NeuronSelectivity(PAIRS, degree=3, offset=0.5), of("polynomial", degree=3, offset=0.5)),
    "linear": case(lambda: NeuronSelectivity(PAIRS, kernel="linear"), of("linear")),
    "linear, same": case(lambda: NeuronSelectivity(PAIRS, kernel="linear"), of("linear"), teacher=(2, 2, 2), floor=0.0),
    "gaussian": case(lambda: NeuronSelectivity(PAIRS, kernel="gaussian"), of("gaussian")),
    "gaussian, same": case(
        lambda: NeuronSelectivity(PAIRS, kernel="gaussian"), of("gaussian"), teacher=(2, 2, 2), floor=0.0
    ),
    "gaussian, given bandwidth": case(
        lambda: NeuronSelectivity(PAIRS, kernel="gaussian", bandwidth=0.7), of("gaussian", bandwidth=0.7)
    ),
    "pooled": case(
        lambda: NeuronSelectivity(PAIRS, resize="pool"),
        lambda n: discrepancy(pool(n.student["a"], (2, 2)), n.teacher["b"], "polynomial"),
        student=(2, 3, 4),
    ),
    "interpolated": case(
        lambda: NeuronSelectivity(PAIRS, resize="interpolate"),
        lambda n: discrepancy(interpolate(n.student["a"], (3, 4)), n.teacher["b"], "polynomial"),
        teacher=(3, 3, 4),
    ),
    "pyramid": Case(
        lambda: NeuronSelectivity({"a.0": "b.0", "a.1": "b.1"}),
        {"a.0": (2, 3, 3), "a.1": (3, 2, 2)},
        {"b.0": (3, 3, 3), "b.1": (4, 2, 2)},
        lambda n: np.mean(
            [discrepancy(n.student[f"a.{i}"], n.teacher[f"b.{i}"], "polynomial") for i in (0, 1)], axis=0
        ),
    ),
}


def plain(student, teacher, labels, loss):
    s, t = F.normalize(student["a"].flatten(2), dim=2), F.normalize(teacher["b"].flatten(2), dim=2)
    ss, tt, ts = s @ s.mT, t @ t.mT, t @ s.mT
    return tt.square().mean() + ss.square().mean() - 2 * ts.square().mean()


def plain_gaussian(student, teacher, labels, loss):
    s, t = F.normalize(student["a"].flatten(2), dim=2), F.normalize(teacher["b"].flatten(2), dim=2)
    # Of vectors of length 1.
    ss, tt, ts = 2 - 2 * s @ s.mT, 2 - 2 * t @ t.mT, 2 - 2 * t @ s.mT
    width = 2 * tt.mean((1, 2), keepdim=True)
    return torch.exp(-tt / width).mean() + torch.exp(-ss / width).mean() - 2 * torch.exp(-ts / width).mean()


SIZES = {"student": {"a": (128, 14, 14)}, "teacher": {"b": (256, 14, 14)}, "samples": 16}
PLAIN = {
    "polynomial": Plain(lambda: NeuronSelectivity(PAIRS), expression=plain, **SIZES),
    "gaussian": Plain(lambda: NeuronSelectivity(PAIRS, kernel="gaussian"), expression=plain_gaussian, **SIZES),
}


def value_of(s: torch.Tensor, t: torch.Tensor, **arguments) -> torch.Tensor:
    return NeuronSelectivity(PAIRS, **arguments).compare_maps("a", s, t, torch.empty(0))


def maps(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kernel", ["polynomial", "linear", "gaussian"])
def test_channels_in_another_order_or_of_another_scale_are_the_same_distribution(kernel) -> None:
    """Vectors over channels in place of channels' maps, or a norm over the wrong axis."""
    s = maps(0, 2, 4, 3, 3)
    t = s[:, [2, 0, 3, 1]] * torch.tensor([1.0, 5.0, 0.1, 30.0])[:, None, None]
    torch.testing.assert_close(value_of(s, t, kernel=kernel), torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-12)
    assert (value_of(s, maps(1, 2, 4, 3, 3), kernel=kernel) > 1e-3).all()


def test_quadratic_kernel_compares_the_gram_matrices_of_the_places() -> None:
    """The identity in the paper: ‖G_S/C_S - G_T/C_T‖²_F, which knows nothing of kernels."""
    s, t = maps(0, 3, 4, 2, 3), maps(1, 3, 5, 2, 3)

    def gram(x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(2) / x.flatten(2).norm(dim=2, keepdim=True)
        return x.mT @ x / x.shape[1]

    torch.testing.assert_close(value_of(s, t), (gram(s) - gram(t)).square().sum((1, 2)))


def test_linear_kernel_compares_the_mean_channels() -> None:
    s, t = maps(0, 3, 4, 2, 3), maps(1, 3, 5, 2, 3)
    means = [(x.flatten(2) / x.flatten(2).norm(dim=2, keepdim=True)).mean(1) for x in (s, t)]
    torch.testing.assert_close(value_of(s, t, kernel="linear"), (means[0] - means[1]).square().sum(1))


@pytest.mark.parametrize("kernel", ["polynomial", "linear", "gaussian"])
def test_dead_channel_gives_no_nan(kernel) -> None:
    """A map of zeros has no direction; a teacher with one channel, or with dead ones alone, no bandwidth."""
    s, t = maps(0, 2, 3, 2, 2), torch.zeros(2, 1, 2, 2, dtype=torch.float64)
    s[:, 1] = 0
    s.requires_grad_()
    value = value_of(s, t, kernel=kernel)
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert torch.isfinite(s.grad).all()


def test_bandwidth_is_no_way_out_for_the_student() -> None:
    """Were the bandwidth to depend on the student, its gradient would differ from that with the same number given."""
    numbers = CASES["gaussian"].draw()
    one = {"student": {"a": numbers.student["a"][:1]}, "teacher": {"b": numbers.teacher["b"][:1]}}
    t = one["teacher"]["b"][0].reshape(3, -1)
    t = t / np.linalg.norm(t, axis=1, keepdims=True)
    width = float(np.mean([[((u - v) ** 2).sum() for u in t] for v in t]))
    gradients = []
    for bandwidth in (None, width):
        student = signals_of(one["student"], torch.float64, grad=True)
        loss = NeuronSelectivity(PAIRS, kernel="gaussian", bandwidth=bandwidth)
        batch = batch_of(Numbers(one["student"], one["teacher"], np.ones(1)))
        loss(student, signals_of(one["teacher"], torch.float64), batch).sum().backward()
        gradients.append(student.features["a"].grad)
    torch.testing.assert_close(*gradients)


def test_maps_of_different_size_are_refused_unless_the_recipe_says_how() -> None:
    wrong = case(lambda: NeuronSelectivity(PAIRS), of("linear"), teacher=(3, 4, 4))
    with pytest.raises(SignalError, match="set `resize`"):
        prepared(wrong, wrong.draw())


def test_tokens_are_refused_by_the_names_of_both_layers() -> None:
    wrong = case(lambda: NeuronSelectivity(PAIRS), of("linear"), student=(3, 2), teacher=(3, 2))
    with pytest.raises(SignalError, match=r"`a`[\s\S]*`b`[\s\S]*HiddenState"):
        prepared(wrong, wrong.draw())


@pytest.mark.parametrize(
    "arguments", [{"kernel": "rbf"}, {"degree": 0}, {"offset": -1.0}, {"bandwidth": 0.0}, {"resize": "crop"}]
)
def test_impossible_arguments_are_refused(arguments) -> None:
    with pytest.raises(ValueError, match="must be"):
        NeuronSelectivity(PAIRS, **arguments)
