from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loss_case import Array, Case, Numbers, Plain, batch_of, signals_of
from scipy.special import log_softmax
from torch import Tensor

from tutelage.errors import SignalError
from tutelage.losses.kl_divergence import bernoulli_kl, softmax_kl
from tutelage.losses.soft_cross_entropy import SoftCrossEntropy, bernoulli_cross_entropy, softmax_cross_entropy
from tutelage.signals import Signals


def soft(s: Array, t: Array, temperature: float, axis: int = -1) -> Array:
    p = np.exp(log_softmax(t / temperature, axis=axis))
    return -(temperature**2) * (p * log_softmax(s / temperature, axis=axis)).sum(axis)


def golden(n: Numbers, temperature: float, axis: int = -1) -> Array:
    return soft(n.student["output"], n.teacher["output"], temperature, axis)


def bernoulli(n: Numbers, temperature: float) -> Array:
    s, t = n.student["output"] / temperature, n.teacher["output"] / temperature
    on, off = np.exp(-np.logaddexp(0, -t)), np.exp(-np.logaddexp(0, t))
    return temperature**2 * (on * np.logaddexp(0, -s) + off * np.logaddexp(0, s)).sum(-1)


def entropy_as_drawn(temperature: float, golden) -> Array:
    """The floor: `T²` times the entropy of the teacher, which says what `Case.draw` makes the student say."""
    drawn = np.random.default_rng(0).normal(size=(4, 5))
    return golden(Numbers({"output": drawn}, {"output": drawn}, np.ones(4)), temperature)


CASES = {
    "softmax": Case(
        lambda: SoftCrossEntropy(3.0),
        {"output": (5,)},
        {"output": (5,)},
        lambda n: golden(n, 3.0),
        floor=entropy_as_drawn(3.0, golden),
    ),
    "sigmoid": Case(
        lambda: SoftCrossEntropy(2.0, outputs="sigmoid"),
        {"output": (5,)},
        {"output": (5,)},
        lambda n: bernoulli(n, 2.0),
        floor=entropy_as_drawn(2.0, bernoulli),
    ),
    "tokens": Case(
        lambda: SoftCrossEntropy(2.0), {"output": (3, 5)}, {"output": (3, 5)}, lambda n: golden(n, 2.0), tokens=3
    ),
    "pixels": Case(
        lambda: SoftCrossEntropy(1.0, axis=1),
        {"output": (3, 2, 4)},
        {"output": (3, 2, 4)},
        lambda n: golden(n, 1.0, axis=1).mean((1, 2)),
    ),
}


def plain(student: dict[str, Tensor], teacher: dict[str, Tensor], labels: Tensor, loss: SoftCrossEntropy) -> Tensor:
    return F.cross_entropy(student["output"] / 4.0, F.softmax(teacher["output"] / 4.0, dim=1)) * 16.0


PLAIN = {
    "1000 classes": Plain(lambda: SoftCrossEntropy(4.0), {"output": (1000,)}, {"output": (1000,)}, plain, samples=512)
}


@pytest.mark.parametrize(
    ("cross_entropy", "divergence"), [(softmax_cross_entropy, softmax_kl), (bernoulli_cross_entropy, bernoulli_kl)]
)
def test_the_gradient_is_that_of_the_divergence_so_t_squared_is_neither_missing_nor_twice(
    cross_entropy, divergence
) -> None:
    s, t = torch.randn(4, 5, dtype=torch.float64, requires_grad=True), torch.randn(4, 5, dtype=torch.float64)
    found, expected = (torch.autograd.grad(f(s, t, 5.0).sum(), s)[0] for f in (cross_entropy, divergence))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("cross_entropy", [softmax_cross_entropy, bernoulli_cross_entropy])
def test_finite_where_a_sure_teacher_meets_a_student_sure_of_the_opposite(cross_entropy) -> None:
    """The logarithm of a softmax would be -inf."""
    s, t = torch.tensor([[-1e4, 1e4]], requires_grad=True), torch.tensor([[1e4, -1e4]])
    value = cross_entropy(s, t, 1.0)
    value.backward()
    assert value.item() == 2e4
    torch.testing.assert_close(s.grad, torch.tensor([[-1.0, 1.0]]))


def test_bad_outputs_are_refused_before_training() -> None:
    numbers = CASES["softmax"].draw()
    one = replace(numbers, student={"output": np.zeros((4, 1))}, teacher={"output": np.zeros((4, 1))})
    with pytest.raises(SignalError, match="sigmoid"):
        SoftCrossEntropy().prepare(*both(one), batch_of(one))
    other = replace(numbers, teacher={"output": np.zeros((4, 3))})
    with pytest.raises(SignalError, match=r"\(4, 3\)[\s\S]*\(4, 5\)"):
        SoftCrossEntropy().prepare(*both(other), batch_of(other))
    dense = replace(numbers, student={"output": np.zeros((4, 3, 2, 2))}, teacher={"output": np.zeros((4, 3, 2, 2))})
    with pytest.raises(SignalError, match="columns"):
        SoftCrossEntropy().prepare(*both(dense), batch_of(dense))


def both(n: Numbers) -> tuple[Signals, Signals]:
    return signals_of(n.student, torch.float64), signals_of(n.teacher, torch.float64)


@pytest.mark.parametrize("arguments", [{"temperature": 0.0}, {"temperature": float("inf")}, {"outputs": "softmx"}])
def test_impossible_arguments_are_refused(arguments) -> None:
    with pytest.raises(ValueError, match="must be"):
        SoftCrossEntropy(**arguments)
