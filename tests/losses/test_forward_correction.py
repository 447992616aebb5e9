from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loss_case import Array, Case, Numbers, Plain
from scipy.special import log_softmax, logsumexp

from tutelage.errors import SignalError
from tutelage.forms import TopK
from tutelage.losses.forward_correction import ForwardCorrection
from tutelage.signals import Batch, Signals

MATRIX = [
    [0.7, 0.2, 0.1, 0.0, 0.0],
    [0, 1, 0, 0, 0],
    [0.05, 0.05, 0.8, 0.05, 0.05],
    [0, 0, 0, 0.5, 0.5],
    [0.25, 0, 0, 0.25, 0.5],
]


def softmax(x: Array) -> Array:
    return np.exp(log_softmax(x, axis=-1))


def symmetric(rate: float, classes: int) -> Array:
    return np.full((classes, classes), rate / (classes - 1)) * (1 - np.eye(classes)) + np.eye(classes) * (1 - rate)


def corrected(s: Array, t: Array, transition: Array) -> Array:
    """Written as in the paper, the loss of `Tᵀ q`, class by class; by scipy on the log scale."""
    log_q = log_softmax(s, axis=-1)
    noisy = [logsumexp(log_q, axis=-1, b=transition[:, said]) for said in range(len(transition))]
    return -(softmax(t) * np.stack(noisy, -1)).sum(-1)


def golden(n: Numbers, transition: Array) -> Array:
    return corrected(n.student["output"], n.teacher["output"], np.array(transition))


def entropy_as_drawn() -> Array:
    drawn = np.random.default_rng(0).normal(size=(4, 5))
    return corrected(drawn, drawn, np.eye(5))


def pixels(n: Numbers) -> Array:
    s, t = (np.moveaxis(side["output"], 1, -1) for side in (n.student, n.teacher))
    return corrected(s, t, symmetric(0.3, 3)).mean((1, 2))


CASES = {
    "rate": Case(
        lambda: ForwardCorrection(0.2), {"output": (5,)}, {"output": (5,)}, lambda n: golden(n, symmetric(0.2, 5))
    ),
    "no noise": Case(
        lambda: ForwardCorrection(0.0),
        {"output": (5,)},
        {"output": (5,)},
        lambda n: golden(n, np.eye(5)),
        floor=entropy_as_drawn(),
    ),
    "matrix": Case(
        lambda: ForwardCorrection(transition=MATRIX), {"output": (5,)}, {"output": (5,)}, lambda n: golden(n, MATRIX)
    ),
    "tokens": Case(
        lambda: ForwardCorrection(0.1),
        {"output": (3, 5)},
        {"output": (3, 5)},
        lambda n: golden(n, symmetric(0.1, 5)),
        tokens=3,
    ),
    "pixels": Case(lambda: ForwardCorrection(0.3, axis=1), {"output": (3, 2, 4)}, {"output": (3, 2, 4)}, pixels),
}


def plain(student, teacher, labels, loss):
    stray = 0.2 / 999
    noisy = F.softmax(student["output"], 1) * (1 - 0.2 - stray) + stray
    return -(F.softmax(teacher["output"], 1) * noisy.log()).sum(1).mean()


PLAIN = {
    "1000 classes": Plain(lambda: ForwardCorrection(0.2), {"output": (1000,)}, {"output": (1000,)}, plain, samples=512)
}


def batch(size: int) -> Batch:
    return Batch(inputs=torch.empty(size, 0), rows=torch.arange(size), views=torch.zeros(size, dtype=torch.long))


@pytest.mark.parametrize("arguments", [{"noise_rate": 0.2}, {"transition": MATRIX}])
def test_a_label_alone_gives_the_paper_s_loss_of_that_label(arguments) -> None:
    s, labels = torch.randn(6, 5, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 4, 0])
    transition = np.array(arguments.get("transition", symmetric(0.2, 5)))
    value = ForwardCorrection(**arguments)(Signals(output=s), Signals(top=TopK.of_labels(labels, 5)), batch(6))
    noisy = softmax(s.numpy()) @ transition
    np.testing.assert_allclose(value, -np.log(noisy[np.arange(6), labels]), rtol=1e-6)


def test_the_matrix_is_read_by_rows_of_true_classes_and_not_turned() -> None:
    s = torch.tensor([[10.0, -10.0]])
    loss = ForwardCorrection(transition=[[0.9, 0.1], [0.6, 0.4]])
    value = loss(Signals(output=s), Signals(top=TopK.of_labels(torch.tensor([1]), 2)), batch(1))
    assert value.item() == pytest.approx(-np.log(0.1), rel=1e-4)  # turned, it would be -log 0.6


def test_the_minimum_is_the_distribution_without_the_noise() -> None:
    """Plain cross-entropy would end at the noisy one, and correction in the wrong direction at neither."""
    clean = torch.tensor([[0.7, 0.2, 0.1]], dtype=torch.float64)
    noisy = clean @ torch.tensor(symmetric(0.3, 3))
    for rate, pulls in ((0.3, False), (0.0, True), (0.2, True)):
        s = clean.log().requires_grad_(True)
        value = ForwardCorrection(rate)(Signals(output=s), Signals(output=noisy.log()), batch(1))
        (gradient,) = torch.autograd.grad(value.sum(), s)
        assert (gradient.abs().max() > 1e-3) == pulls
        assert pulls or gradient.abs().max() < 1e-12


@pytest.mark.parametrize(
    "arguments", [{"noise_rate": 0.2}, {"noise_rate": 0.0}, {"transition": [[0.9, 0.1], [0.0, 1.0]]}]
)
def test_finite_for_a_student_that_is_sure_of_another_class(arguments) -> None:
    """The logarithm of a probability that underflowed would be -inf, and its gradient NaN."""
    s = torch.tensor([[-1e4, 1e4]], requires_grad=True)
    value = ForwardCorrection(**arguments)(
        Signals(output=s), Signals(top=TopK.of_labels(torch.tensor([0]), 2)), batch(1)
    )
    value.sum().backward()
    assert torch.isfinite(value).all() and torch.isfinite(s.grad).all()
    if arguments.get("noise_rate") != 0.2:
        torch.testing.assert_close(s.grad, torch.tensor([[-1.0, 1.0]]))


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"noise_rate": 0.1, "transition": MATRIX},
        {"noise_rate": 1.0},
        {"noise_rate": float("nan")},
        {"transition": [[1.0]]},
        {"transition": [[0.5, 0.5]]},
        {"transition": [[0.9, 0.2], [0.1, 0.9]]},
        {"transition": [[1.2, -0.2], [0.1, 0.9]]},
        {"transition": [[0.0, 1.0], [0.1, 0.9]]},
    ],
)
def test_impossible_arguments_are_refused(arguments) -> None:
    with pytest.raises(ValueError, match="must"):
        ForwardCorrection(**arguments)


def test_noise_that_does_not_fit_the_classes_is_refused_before_training() -> None:
    signals = Signals(output=torch.randn(4, 3))
    with pytest.raises(SignalError, match="one for each class"):
        ForwardCorrection(transition=MATRIX).prepare(signals, signals, batch(4))
    with pytest.raises(SignalError, match=r"below 0\.667"):
        ForwardCorrection(0.7).prepare(signals, signals, batch(4))
