"""Rows that a teacher has left unanswered: they teach nothing, whatever the student says of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tutelage.forms import TopK
from tutelage.losses import ForwardCorrection, KLDivergence, SoftCrossEntropy
from tutelage.signals import Batch, Signals
from tutelage.teachers.black_box import top_of_answers, top_of_probabilities

LOSSES = [KLDivergence(1.0), SoftCrossEntropy(1.0), ForwardCorrection(0.2)]


def batch(count: int) -> Batch:
    return Batch(inputs=torch.empty(count, 0), rows=torch.arange(count), views=torch.zeros(count, dtype=torch.long))


def by_hand(loss: object, s: np.ndarray, p: np.ndarray) -> np.ndarray:
    """In float64, of a distribution in which each class is named or has nothing."""
    q = np.exp(s - s.max(1, keepdims=True))
    q /= q.sum(1, keepdims=True)
    if isinstance(loss, ForwardCorrection):
        q = q * 0.8 + (1 - q) * 0.2 / (p.shape[1] - 1)
    entropy = np.where(p > 0, p * np.log(np.maximum(p, 1e-300)), 0.0).sum(1)
    cross = -(p * np.log(q)).sum(1)
    return cross + entropy if isinstance(loss, KLDivergence) else cross


def gradient_by_hand(loss: object, s: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Central differences of the sum over the rows."""
    found = np.zeros_like(s)
    for place in np.ndindex(*s.shape):
        step = np.zeros_like(s)
        step[place] = 1e-5
        found[place] = (by_hand(loss, s + step, p) - by_hand(loss, s - step, p)).sum() / 2e-5
    return found


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("classes", [2, 5])
def test_a_silent_row_adds_exactly_nothing_to_loss_and_gradient_and_changes_no_other_row(
    loss: torch.nn.Module, classes: int
) -> None:
    random = np.random.default_rng(classes)
    p = random.dirichlet(np.ones(classes), size=6)
    p[4] = 0
    p[4, 1] = 1  # a label alone
    answered = np.array([True, False, True, True, True, False])
    s = random.normal(size=(6, classes)) * 3
    s[5] = [1e4, *[-1e4] * (classes - 1)]
    student = torch.tensor(s, dtype=torch.float64, requires_grad=True)
    top = top_of_probabilities(torch.tensor(p, dtype=torch.float64), torch.tensor(answered))
    assert top.silent.tolist() == (~answered).tolist()
    values = loss(Signals(output=student), Signals(top=top), batch(6))
    values.sum().backward()
    expected = by_hand(loss, s[answered], p[answered])
    np.testing.assert_allclose(values.detach().numpy()[answered], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        student.grad.numpy()[answered], gradient_by_hand(loss, s[answered], p[answered]), rtol=1e-4, atol=1e-6
    )
    assert values.detach()[~torch.tensor(answered)].tolist() == [0.0, 0.0]
    assert student.grad[~torch.tensor(answered)].abs().max() == 0


def test_a_batch_without_any_answer_is_silent_and_not_an_error() -> None:
    for top in (top_of_answers([[], []], 3), top_of_probabilities(torch.rand(2, 3), torch.tensor([False, False]))):
        assert top.silent.all()
        student = torch.randn(2, 3, requires_grad=True)
        KLDivergence(1.0)(Signals(output=student), Signals(top=top), batch(2)).sum().backward()
        assert (student.grad == 0).all()


def test_a_silent_row_prefers_no_class_when_it_is_spread_out() -> None:
    top = top_of_answers([[2, 2, 0], []], 4)
    torch.testing.assert_close(top.dense().exp()[0], torch.tensor([1 / 3, 0.0, 2 / 3, 0.0]))
    torch.testing.assert_close(top.dense().exp()[1], torch.full((4,), 0.25))


def test_a_named_class_whose_share_is_small_is_not_silent() -> None:
    top = TopK.of_probabilities(torch.tensor([[1e-30, 0.0]]), torch.tensor([[1, 0]]), 3)
    assert top.silent.tolist() == [False]
