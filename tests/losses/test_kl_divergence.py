from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loss_case import Array, Case, Numbers, Plain

from tutelage.errors import SignalError
from tutelage.losses.kl_divergence import KLDivergence, bernoulli_kl, softmax_kl
from tutelage.signals import Batch, Signals


def log_softmax(x: Array, axis: int) -> Array:
    x = x - x.max(axis, keepdims=True)
    return x - np.log(np.exp(x).sum(axis, keepdims=True))


def kl(numbers: Numbers, temperature: float, axis: int = -1) -> Array:
    q, p = (log_softmax(side["output"] / temperature, axis) for side in (numbers.student, numbers.teacher))
    return temperature**2 * (np.exp(p) * (p - q)).sum(axis)


def bernoulli(numbers: Numbers, temperature: float) -> Array:
    s, t = numbers.student["output"] / temperature, numbers.teacher["output"] / temperature
    total = np.zeros(len(s))
    for sign in (1, -1):
        log_p, log_q = -np.logaddexp(0, -sign * t), -np.logaddexp(0, -sign * s)
        total = total + (np.exp(log_p) * (log_p - log_q)).sum(-1)
    return temperature**2 * total


CASES = {
    "softmax": Case(lambda: KLDivergence(3.0), {"output": (5,)}, {"output": (5,)}, lambda n: kl(n, 3.0), floor=0.0),
    "sigmoid": Case(
        lambda: KLDivergence(2.0, outputs="sigmoid"),
        {"output": (5,)},
        {"output": (5,)},
        lambda n: bernoulli(n, 2.0),
        floor=0.0,
    ),
    "tokens": Case(
        lambda: KLDivergence(2.0),
        {"output": (3, 5)},
        {"output": (3, 5)},
        lambda n: kl(n, 2.0),
        tokens=3,
        floor=0.0,
    ),
    "pixels": Case(
        lambda: KLDivergence(1.0, axis=1),
        {"output": (3, 2, 4)},
        {"output": (3, 2, 4)},
        lambda n: kl(n, 1.0, axis=1).mean((1, 2)),
        floor=0.0,
    ),
}


def plain_kl(s: torch.Tensor, t: torch.Tensor, temperature: float, axis: int = -1) -> torch.Tensor:
    """`[..., C]` -> the sum over classes and positions."""
    log_q, log_p = F.log_softmax(s / temperature, axis), F.log_softmax(t / temperature, axis)
    return F.kl_div(log_q, log_p, reduction="sum", log_target=True) * temperature**2


def plain_bernoulli(s: torch.Tensor, t: torch.Tensor, temperature: float) -> torch.Tensor:
    """The cross-entropy less the teacher's own entropy."""
    s, t = s / temperature, t / temperature
    p = torch.sigmoid(t)
    cross = F.binary_cross_entropy_with_logits(s, p, reduction="sum")
    return (cross - F.binary_cross_entropy_with_logits(t, p, reduction="sum")) * temperature**2


PLAIN = {
    "softmax": Plain(
        lambda: KLDivergence(4.0),
        {"output": (1000,)},
        {"output": (1000,)},
        lambda s, t, labels, loss: plain_kl(s["output"], t["output"], 4.0) / 512,
        samples=512,
    ),
    "sigmoid": Plain(
        lambda: KLDivergence(2.0, outputs="sigmoid"),
        {"output": (1000,)},
        {"output": (1000,)},
        lambda s, t, labels, loss: plain_bernoulli(s["output"], t["output"], 2.0) / 256,
        samples=256,
    ),
    "tokens": Plain(
        lambda: KLDivergence(2.0),
        {"output": (64, 8000)},
        {"output": (64, 8000)},
        lambda s, t, labels, loss: plain_kl(s["output"], t["output"], 2.0) / (4 * 64),
        tokens=64,
        samples=4,
    ),
    "pixels": Plain(
        lambda: KLDivergence(1.0, axis=1),
        {"output": (21, 128, 128)},
        {"output": (21, 128, 128)},
        lambda s, t, labels, loss: plain_kl(s["output"], t["output"], 1.0, axis=1) / (4 * 128 * 128),
        samples=4,
    ),
}


def batch(size: int) -> Batch:
    return Batch(inputs=torch.empty(size, 0), rows=torch.arange(size), views=torch.zeros(size, dtype=torch.long))


def test_gradient_keeps_its_size_at_a_high_temperature() -> None:
    """T² missing or twice: the gradient at T = 1000 must be that of the squared error of centred logits, / C."""
    s, t = torch.randn(4, 5, dtype=torch.float64, requires_grad=True), torch.randn(4, 5, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(softmax_kl(s, t, 1000.0).sum(), s)
    difference = (s - t).detach()
    expected = (difference - difference.mean(1, keepdim=True)) / 5
    torch.testing.assert_close(gradient, expected, rtol=1e-2, atol=1e-3)


def test_bernoulli_does_not_lose_the_improbable_side_in_float32() -> None:
    """1 - σ(t) rounds to 0 from t = 17 on, and the divergence is then many times too large."""
    s, t = torch.tensor([[19.0]]), torch.tensor([[20.0]])
    exact = bernoulli_kl(s.double(), t.double(), 1.0)
    torch.testing.assert_close(bernoulli_kl(s, t, 1.0).double(), exact, rtol=1e-4, atol=0)


@pytest.mark.parametrize("divergence", [softmax_kl, bernoulli_kl])
def test_exact_where_a_sure_teacher_meets_a_student_sure_of_the_opposite(divergence) -> None:
    s, t = torch.tensor([[-1e4, 1e4]], requires_grad=True), torch.tensor([[1e4, -1e4]])
    value = divergence(s, t, 1.0)
    value.backward()
    assert value.item() == 2e4
    torch.testing.assert_close(s.grad, torch.tensor([[-1.0, 1.0]]))


@pytest.mark.parametrize(
    ("shape", "axis", "harm"),
    [
        ((4, 3, 8, 8), -1, "columns"),
        ((4,), -1, "after the first"),
        ((4, 3), 0, "after the first"),
        ((4, 3), 2, "axis 2"),
    ],
)
def test_softmax_over_the_wrong_axis_is_refused(shape: tuple[int, ...], axis: int, harm: str) -> None:
    signals = Signals(output=torch.randn(shape))
    with pytest.raises(SignalError, match=harm):
        KLDivergence(axis=axis).prepare(signals, signals, batch(4))


def test_softmax_over_one_class_is_refused_because_it_is_always_zero() -> None:
    signals = Signals(output=torch.randn(4, 1))
    with pytest.raises(SignalError, match="sigmoid"):
        KLDivergence().prepare(signals, signals, batch(4))


def test_another_number_of_classes_is_refused_with_both_shapes() -> None:
    with pytest.raises(SignalError, match=r"\(4, 3\)[\s\S]*\(4, 5\)"):
        KLDivergence().prepare(Signals(output=torch.randn(4, 5)), Signals(output=torch.randn(4, 3)), batch(4))


@pytest.mark.parametrize("arguments", [{"temperature": 0.0}, {"temperature": float("nan")}, {"outputs": "softmx"}])
def test_impossible_arguments_are_refused(arguments) -> None:
    with pytest.raises(ValueError, match="must be"):
        KLDivergence(**arguments)
