"""The forms of a teacher's distribution: the same value from any that a loss takes, a refusal of the others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from loss_case import Case, batch_of, objective, prepared, signals_of
from loss_contract import CASES, LOSSES

from tutelage.errors import SignalError
from tutelage.forms import TopK
from tutelage.losses import KLDivergence, Routed, SoftCrossEntropy
from tutelage.losses.base import require_form
from tutelage.signals import Batch, Signals

TAKES = {name: case for name, case in CASES.items() if case.make().takes_top_k and "output" in case.teacher}
REFUSES = {
    name: case
    for name, case in CASES.items()
    if not case.make().takes_top_k and case.make().needs.teacher.output and "output" in case.teacher
}


def in_form(dense: Signals, k: int, temperature: float, axis: int) -> Signals:
    """The signals with the likeliest `k` classes in the place of the output."""
    assert dense.output is not None
    top = TopK.of(dense.output.movedim(axis, -1), k, (1.0, temperature))
    return Signals(top=top, features=dense.features)


def settings(case: Case) -> tuple[float, int]:
    loss = case.make()
    inner = loss.loss if isinstance(loss, Routed) else loss
    return float(inner.temperature), inner.axis


@pytest.mark.parametrize("case", TAKES.values(), ids=TAKES.keys())
def test_all_classes_named_gives_the_value_and_gradient_of_dense_logits(case: Case) -> None:
    numbers = case.draw()
    loss, batch = prepared(case, numbers), batch_of(numbers)
    temperature, axis = settings(case)
    teacher = signals_of(numbers.teacher, torch.float64)
    results = []
    for form in (teacher, in_form(teacher, 99, temperature, axis)):
        student = signals_of(numbers.student, torch.float64, grad=True)
        loss.check_finite(student, form, batch)
        total = objective(loss, student, form, batch)
        total.backward()
        results.append((total.detach(), student.output.grad))
    for dense, top in zip(*results, strict=True):
        torch.testing.assert_close(top, dense, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", REFUSES.values(), ids=REFUSES.keys())
def test_a_loss_that_needs_all_classes_refuses_a_few_before_training(case: Case) -> None:
    teacher = signals_of(case.draw().teacher, torch.float64)
    assert teacher.output is not None
    if teacher.output.dim() == 1:
        form = Signals(top=TopK.of_labels(torch.zeros(len(teacher.output), dtype=torch.long), 3))
    else:
        form = in_form(teacher, 2, 1.0, 1 if teacher.output.dim() == 4 else -1)
    with pytest.raises(SignalError, match="logits of all classes"):
        require_form(case.make(), form)


def test_some_loss_takes_the_form_and_some_do_not() -> None:
    """The two tests above would pass on no case at all."""
    assert len(TAKES) >= 6
    assert len({name.partition("-")[0] for name in REFUSES}) >= 10
    assert {name.partition("-")[0] for name in TAKES} <= set(LOSSES)


def events(logits: np.ndarray, indices: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities of the named classes and of the rest, by brute force in numpy."""
    p = np.exp(logits / temperature)
    p /= p.sum(-1, keepdims=True)
    named = np.take_along_axis(p, indices, -1)
    return np.concatenate([named, 1 - named.sum(-1, keepdims=True)], -1)


def plain_batch(size: int) -> Batch:
    return Batch(inputs=torch.empty(size, 0), rows=torch.arange(size), views=torch.zeros(size, dtype=torch.long))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_a_few_classes_give_the_divergence_with_the_rest_as_one_event(temperature: float) -> None:
    rng = np.random.default_rng(0)
    s, t = rng.normal(size=(2, 6, 9)) * 3
    top = TopK.of(torch.tensor(t), 3, (1.0, 4.0))
    order = np.argsort(-t, -1)[:, :3]
    p, q = events(t, order, temperature), events(s, order, temperature)
    signals = Signals(output=torch.tensor(s)), Signals(top=top)
    kl = KLDivergence(temperature)(*signals, plain_batch(6))
    np.testing.assert_allclose(kl, temperature**2 * (p * np.log(p / q)).sum(-1), rtol=1e-10)
    cross = SoftCrossEntropy(temperature)(*signals, plain_batch(6))
    np.testing.assert_allclose(cross, -(temperature**2) * (p * np.log(q)).sum(-1), rtol=1e-10)


def test_a_label_alone_gives_the_cross_entropy_with_it_and_finite_gradients_for_a_very_sure_student() -> None:
    s = torch.tensor([[1e4, -1e4, 0.0], [0.3, 0.1, -0.5]], requires_grad=True)
    labels = torch.tensor([1, 2])
    value = KLDivergence(1.0)(Signals(output=s), Signals(top=TopK.of_labels(labels, 3)), plain_batch(2))
    expected = torch.nn.functional.cross_entropy(s.double(), labels, reduction="none")
    torch.testing.assert_close(value, expected.float())
    value.sum().backward()
    assert torch.isfinite(s.grad).all()


def test_a_temperature_whose_tail_is_unknown_is_refused() -> None:
    top = TopK.of(torch.randn(2, 5), 2)
    with pytest.raises(SignalError, match="temperature 4"):
        KLDivergence(4.0)(Signals(output=torch.randn(2, 5)), Signals(top=top), plain_batch(2))


def test_another_number_of_classes_is_refused() -> None:
    with pytest.raises(SignalError, match=r"\(2, 5\)"):
        KLDivergence(1.0)(Signals(output=torch.randn(2, 4)), Signals(top=TopK.of(torch.randn(2, 5), 2)), plain_batch(2))


def test_unused_slots_count_neither_for_their_class_nor_for_the_rest() -> None:
    """Samples of three calls, two of one class: the third slot is not used and must not name class 0."""
    top = TopK.of_probabilities(torch.tensor([[0.0, 2 / 3, 1 / 3]]), torch.tensor([[0, 2, 3]]), 4)
    dense = top.dense().exp()
    torch.testing.assert_close(dense, torch.tensor([[0.0, 0.0, 2 / 3, 1 / 3]]))
    s = torch.tensor([[0.5, -1.0, 0.2, 0.1]])
    value = KLDivergence(1.0)(Signals(output=s), Signals(top=top), plain_batch(1))
    q = torch.softmax(s, -1)[0]
    torch.testing.assert_close(value[0], 2 / 3 * torch.log(2 / 3 / q[2]) + 1 / 3 * torch.log(1 / 3 / q[3]))


def test_a_class_in_an_unused_slot_stays_among_the_rest() -> None:
    top = TopK.of_probabilities(torch.tensor([[0.0, 0.5, 0.3]]), torch.tensor([[0, 2, 3]]), 4)
    torch.testing.assert_close(top.dense().exp(), torch.tensor([[0.1, 0.1, 0.5, 0.3]]))
    s = torch.tensor([[0.5, -1.0, 0.2, 0.1]])
    value = KLDivergence(1.0)(Signals(output=s), Signals(top=top), plain_batch(1))
    q = torch.softmax(s, -1)[0]
    expected = 0.5 * torch.log(0.5 / q[2]) + 0.3 * torch.log(0.3 / q[3]) + 0.2 * torch.log(0.2 / (q[0] + q[1]))
    torch.testing.assert_close(value[0], expected)


def test_dense_spreads_the_rest_over_the_classes_that_are_not_named() -> None:
    top = TopK.of_probabilities(torch.tensor([[0.5, 0.3]]), torch.tensor([[3, 1]]), 6)
    torch.testing.assert_close(top.dense().exp(), torch.tensor([[0.05, 0.3, 0.05, 0.5, 0.05, 0.05]]))


def test_rounded_probabilities_of_all_classes_leave_nothing_for_a_rest_that_has_no_class() -> None:
    """What rounding takes off 1 would be the mass of an event that the student can't have: an infinite loss."""
    top = TopK.of_probabilities(torch.tensor([[0.3, 0.3, 0.3]]), torch.tensor([[2, 0, 1]]), 3)
    torch.testing.assert_close(top.dense().exp(), torch.full((1, 3), 1 / 3))
    value = KLDivergence(1.0)(Signals(output=torch.zeros(1, 3)), Signals(top=top), plain_batch(1))
    torch.testing.assert_close(value, torch.zeros(1), atol=1e-6, rtol=0)
