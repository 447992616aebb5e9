from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loss_case import Array, Case, Numbers, Plain, batch_of, signals_of
from scipy.special import log_softmax, softmax
from torch import Tensor

from tutelage.errors import SignalError
from tutelage.losses.multi_level_logit import MultiLevelLogit, levels_of, unsure_shares


def levels(s: Array, t: Array, T: float) -> tuple[Array, Array, float]:
    """Pair by pair: the divergence of each sample, its row of the samples' likeness, and the classes' likeness."""
    (B, C), q, p = s.shape, softmax(s / T, axis=1), softmax(t / T, axis=1)
    log_q, log_p = log_softmax(s / T, axis=1), log_softmax(t / T, axis=1)
    divergence = T**2 * np.array([(p[i] * (log_p[i] - log_q[i])).sum() for i in range(B)])
    rows = np.array([sum((p[i] @ p[j] - q[i] @ q[j]) ** 2 for j in range(B)) for i in range(B)])
    classes = sum((p[:, a] @ p[:, b] - q[:, a] @ q[:, b]) ** 2 for a in range(C) for b in range(C)) / C
    return divergence, rows, classes


def shares(t: Array) -> tuple[float, float]:
    """As in the authors' code: the masks, which their code multiplies a mean with."""
    p = softmax(t, axis=1)
    of_samples, of_classes = p.max(1), p.sum(0)
    return (
        (of_samples <= np.percentile(of_samples, 50)).mean(),
        (of_classes <= np.percentile(of_classes, 50)).mean(),
    )


def golden(n: Numbers, temperatures: tuple[float, ...], factors=(1.0, 1.0, 1.0), *, official: bool = True) -> Array:
    s, t = n.student["output"], n.teacher["output"]
    of_samples, of_classes = shares(t) if official else (1.0, 1.0)
    total = np.zeros(len(s))
    for T in temperatures:
        divergence, rows, classes = levels(s, t, T)
        total += of_samples * (factors[0] * divergence + factors[1] * rows) + of_classes * factors[2] * classes
    return total


DEFAULT = (2.0, 3.0, 4.0, 5.0, 6.0)
CASES = {
    "official": Case(MultiLevelLogit, {"output": (5,)}, {"output": (5,)}, lambda n: golden(n, DEFAULT), floor=0.0),
    "paper": Case(
        lambda: MultiLevelLogit([1.0, 4.0], instance_factor=0.5, batch_factor=2.0, class_factor=3.0, variant="paper"),
        {"output": (3,)},
        {"output": (3,)},
        lambda n: golden(n, (1.0, 4.0), (0.5, 2.0, 3.0), official=False),
        floor=0.0,
    ),
}


def plain(student: dict[str, Tensor], teacher: dict[str, Tensor], labels: Tensor, loss: MultiLevelLogit) -> Tensor:
    s, t = student["output"], teacher["output"]
    sure = t.softmax(1)
    samples, classes = sure.amax(1), sure.sum(0)
    of_samples = (samples <= samples.quantile(0.5)).float().mean()
    of_classes = (classes <= classes.quantile(0.5)).float().mean()
    total = torch.zeros(())
    for T in DEFAULT:
        log_q, p = F.log_softmax(s / T, dim=1), F.softmax(t / T, dim=1)
        q = log_q.exp()
        divergence = F.kl_div(log_q, p, reduction="batchmean") * T**2
        between_samples = (p @ p.T - q @ q.T).square().sum() / len(p)
        between_classes = (p.T @ p - q.T @ q).square().sum() / p.shape[1]
        total = total + of_samples * (divergence + between_samples) + of_classes * between_classes
    return total


PLAIN = {
    "100 classes": Plain(MultiLevelLogit, {"output": (100,)}, {"output": (100,)}, plain, samples=256),
}


def test_likeness_between_samples_and_between_classes_are_not_exchanged() -> None:
    """`Pᵀ P` in place of `P Pᵀ`.

    Permuting the classes of a student changes nothing between samples; permuting its samples nothing between classes.
    """
    t = torch.randn(6, 6, dtype=torch.float64)
    _, samples, classes = levels_of(t[:, [1, 0, 3, 2, 5, 4]], t, 2.0)
    assert samples.abs().max() < 1e-12
    assert classes > 1e-3
    _, samples, classes = levels_of(t[[1, 0, 3, 2, 5, 4]], t, 2.0)
    assert classes.abs() < 1e-12
    assert samples.sum() > 1e-3


def test_t_squared_is_on_the_divergence_alone() -> None:
    """The other parts do not shrink as 1/T² does."""
    s, t = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    found, (divergence, rows, classes) = levels_of(s, t, 3.0), levels(s.numpy(), t.numpy(), 3.0)
    for value, expected in zip(found, (divergence, rows, classes), strict=True):
        np.testing.assert_allclose(value.numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("size", [(4, 6), (5, 7), (8, 3)])
def test_the_shares_are_those_of_the_authors_masks(size: tuple[int, int]) -> None:
    t = torch.randn(size, dtype=torch.float64)
    np.testing.assert_allclose([share.item() for share in unsure_shares(t)], shares(t.numpy()))


def test_one_sample_and_outputs_with_positions_are_refused_before_training() -> None:
    for shape, message in (((1, 3), "two samples"), ((4, 3, 5), r"\[B, C\]")):
        signals = signals_of({"output": np.ones(shape)}, torch.float64)
        with pytest.raises(SignalError, match=message):
            MultiLevelLogit().prepare(signals, signals, batch_of(Numbers({}, {}, np.ones(shape[0]))))


@pytest.mark.parametrize(
    "arguments",
    [
        {"temperatures": []},
        {"temperatures": [4.0, 0.0]},
        {"batch_factor": -1.0},
        {"instance_factor": 0.0, "batch_factor": 0.0, "class_factor": 0.0},
        {"variant": "own"},
    ],
)
def test_impossible_arguments_are_refused(arguments) -> None:
    with pytest.raises(ValueError, match="must be"):
        MultiLevelLogit(**arguments)
