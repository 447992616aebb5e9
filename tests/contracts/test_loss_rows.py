"""Which rows count: padding, rows that teach nothing, batches in pieces, and batches too small to say anything."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from loss_case import (
    Array,
    Case,
    Numbers,
    batch_of,
    gradient_of,
    objective,
    prepared,
    signals_of,
    tensors_of,
    with_trained,
)
from loss_contract import CASES, cases, part, per_sample

from tutelage.errors import SignalError
from tutelage.forms import TopK
from tutelage.losses import ContrastiveRepresentation, Loss, MaskedGenerative, Routed
from tutelage.losses.counted import Counted
from tutelage.signals import Batch, Signals

READS_ROW_NUMBERS = (ContrastiveRepresentation, MaskedGenerative)
"""Losses in which a row's number matters: their formulas are written for the rows 0, 1, 2 and so on."""


def grown(numbers: Numbers, tokens: int, extra: int) -> Numbers:
    """Sequences with `extra` more tokens of padding, in which garbage stands."""

    def pad(array: Array) -> Array:
        return np.concatenate([array, np.full((len(array), extra, *array.shape[2:]), 1e4)], 1)

    assert numbers.mask is not None
    labels = numbers.labels
    if labels is not None:
        labels = np.concatenate([labels, np.full((len(labels), extra), 10**6)], 1)
    return replace(
        numbers,
        student={name: pad(array) for name, array in numbers.student.items() if array.shape[1] == tokens},
        teacher={name: pad(array) for name, array in numbers.teacher.items() if array.shape[1] == tokens},
        mask=np.concatenate([numbers.mask, np.zeros((len(numbers.mask), extra), bool)], 1),
        labels=labels,
    )


@cases(lambda case: case.tokens is not None)
@pytest.mark.parametrize("garbage", [1e4, float("nan")])
def test_masked_garbage_changes_nothing(case: Case, garbage: float) -> None:
    numbers = case.draw()
    loss = prepared(case, numbers)
    batch, results = batch_of(numbers), []
    assert numbers.mask is not None
    assert not numbers.mask.all()
    for fill in (None, garbage):
        student, teacher = signals_of(numbers.student, torch.float64), signals_of(numbers.teacher, torch.float64)
        for tensor in (*tensors_of(student).values(), *tensors_of(teacher).values()):
            if fill is not None:
                tensor[~torch.tensor(numbers.mask)] = fill
        for tensor in tensors_of(student).values():
            tensor.requires_grad_()
        total = objective(loss, student, teacher, batch)
        total.backward()
        gradients = [gradient_of(tensor) for tensor in tensors_of(student).values()]
        assert all((gradient[~torch.tensor(numbers.mask)] == 0).all() for gradient in gradients)
        results.append([total.detach(), *gradients, *(p.grad.clone() for p in loss.parameters())])
        loss.zero_grad()
    for clean, dirty in zip(*results, strict=True):
        torch.testing.assert_close(dirty, clean, rtol=0, atol=0)


@cases(lambda case: case.tokens is not None)
def test_longer_padding_changes_nothing(case: Case) -> None:
    numbers = case.draw()
    assert case.tokens is not None
    loss = prepared(case, numbers)
    longer = grown(numbers, case.tokens, 3)
    totals = [
        objective(loss, signals_of(n.student, torch.float64), signals_of(n.teacher, torch.float64), batch_of(n))
        for n in (numbers, longer)
    ]
    torch.testing.assert_close(totals[1], totals[0], rtol=1e-12, atol=1e-12)


@cases(per_sample)
def test_the_value_of_a_sample_is_the_same_in_any_batch(case: Case) -> None:
    numbers = case.draw()
    loss = prepared(case, numbers)

    def run(n: Numbers) -> torch.Tensor:
        return loss(signals_of(n.student, torch.float64), signals_of(n.teacher, torch.float64), batch_of(n))

    whole = run(numbers)
    parts = torch.cat([run(part(numbers, slice(start, stop))) for start, stop in ((0, 1), (1, 2), (2, 4))])
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-12)
    counts = [loss.counts(batch_of(part(numbers, slice(i, i + 1)))) for i in range(case.samples)]
    torch.testing.assert_close(torch.cat(counts), loss.counts(batch_of(numbers)))


@cases(lambda case: not per_sample(case))
def test_a_loss_that_says_it_compares_samples_does(case: Case) -> None:
    numbers = case.draw()
    loss = prepared(case, numbers)

    def run(n: Numbers) -> torch.Tensor:
        return loss(signals_of(n.student, torch.float64), signals_of(n.teacher, torch.float64), batch_of(n))

    halves = torch.cat([run(part(numbers, slice(0, 2))), run(part(numbers, slice(2, 4)))])
    assert not torch.allclose(halves, run(numbers))


def gradients(loss: Loss, student: Signals, total: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of the student's signals and of the loss's trained parts, by name."""
    loss.zero_grad()
    total.backward()
    found = {name: gradient_of(tensor) for name, tensor in tensors_of(student).items()}
    return found | {f"trained {name}": gradient_of(value).clone() for name, value in loss.named_parameters()}


def as_trained(loss: Loss, student: Signals, teacher: Signals, batch: Batch) -> torch.Tensor:
    """The mean as the training step forms it: the loss is shown the rows that count."""
    counted = Counted.of(loss, batch, teacher)
    return counted.sum(loss, student, teacher, batch) / counted.counts.sum()


def with_garbage(signals: Signals, row: int, garbage: float) -> Signals:
    def spoil(tensor: torch.Tensor) -> torch.Tensor:
        spoilt = tensor.detach().clone()
        spoilt[row] = garbage
        return spoilt.requires_grad_(tensor.requires_grad)

    return signals.map(spoil)


def without_a_label(numbers: Numbers) -> Numbers | None:
    return numbers if numbers.labelled is not None else None  # as every case is drawn


def of_no_weight(numbers: Numbers) -> Numbers:
    labelled = None if numbers.labelled is None else np.ones_like(numbers.labelled)
    return replace(
        numbers, weights=np.where(np.arange(len(numbers.weights)) == 1, 0.0, numbers.weights), labelled=labelled
    )


def without_a_token(numbers: Numbers) -> Numbers | None:
    if numbers.mask is None:
        return None
    labelled = None if numbers.labelled is None else np.ones_like(numbers.labelled)
    return replace(numbers, mask=numbers.mask * (np.arange(len(numbers.mask)) != 1)[:, None], labelled=labelled)


@cases()
def test_a_row_that_does_not_count_might_as_well_not_be_there(case: Case) -> None:
    """As a neighbour it would change what others are compared with; 0 times what stands in it may be NaN."""
    drawn = case.draw()
    for reason in (without_a_label, of_no_weight, without_a_token):
        numbers = reason(drawn)
        if numbers is not None:
            assert_not_there(case, drawn, numbers)


def assert_not_there(case: Case, drawn: Numbers, numbers: Numbers) -> None:
    """Row 1 of `numbers`, which does not count, changes nothing of the other rows."""
    loss, others = prepared(case, drawn), [0, 2, 3]
    student, teacher = signals_of(numbers.student, torch.float64, grad=True), signals_of(numbers.teacher, torch.float64)
    student, teacher = with_garbage(student, 1, float("nan")), with_garbage(teacher, 1, float("nan"))
    total = as_trained(loss, student, teacher, batch_of(numbers))
    found = gradients(loss, student, total)

    rest = part(numbers, others)
    batch = replace(batch_of(rest), rows=torch.tensor(others))
    alone = signals_of(rest.student, torch.float64, grad=True)
    expected = as_trained(loss, alone, signals_of(rest.teacher, torch.float64), batch)
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=0)
    for name, gradient in gradients(loss, alone, expected).items():
        if name.startswith("trained"):
            torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12)
        else:
            torch.testing.assert_close(found[name][others], gradient, rtol=1e-9, atol=1e-12)
            assert (found[name][1] == 0).all()
    if not isinstance(loss, READS_ROW_NUMBERS):
        assert float(expected.detach()) == pytest.approx(case.total(with_trained(rest, loss)), rel=1e-9)


@cases(lambda case: case.labels is not None)
@pytest.mark.parametrize("garbage", [float("nan"), float("inf")])
def test_nan_in_an_unlabelled_row_reaches_no_gradient_of_a_loss_that_is_called_by_itself(
    case: Case, garbage: float
) -> None:
    numbers = case.draw()
    loss, batch = prepared(case, numbers), batch_of(numbers)
    student, teacher = signals_of(numbers.student, torch.float64, grad=True), signals_of(numbers.teacher, torch.float64)
    clean = gradients(loss, student, objective(loss, student, teacher, batch))
    student, teacher = with_garbage(student, 1, garbage), with_garbage(teacher, 1, garbage)
    dirty = gradients(loss, student, objective(loss, student, teacher, batch))
    for name, gradient in clean.items():
        torch.testing.assert_close(dirty[name], gradient, rtol=0, atol=0)
        assert name.startswith("trained") or (gradient[1] == 0).all()


@cases(lambda case: case.labels is not None)
def test_nan_in_an_unlabelled_row_is_no_reason_to_refuse_the_models(case: Case) -> None:
    numbers = case.draw()
    for arrays in (numbers.student, numbers.teacher):
        for array in arrays.values():
            array[1] = np.nan
    prepared(case, numbers)


@cases(lambda case: case.make().takes_top_k and "output" in case.teacher)
@pytest.mark.parametrize("garbage", [None, float("nan")])
def test_a_row_that_the_teacher_leaves_unanswered_might_as_well_not_be_there(case: Case, garbage: float | None) -> None:
    """In the count, it would make the others' share smaller."""
    numbers = case.draw()
    loss, others = prepared(case, numbers), [0, 2, 3]
    inner = loss.loss if isinstance(loss, Routed) else loss
    dense = torch.tensor(numbers.teacher["output"]).movedim(inner.axis, -1)
    top = TopK.of(dense, dense.shape[-1], (1.0, inner.temperature))
    top.logits[1], top.tails[1] = -torch.inf, 0.0
    assert top.silent.reshape(case.samples, -1).all(1).tolist() == [False, True, False, False]
    student, batch = signals_of(numbers.student, torch.float64, grad=True), batch_of(numbers)
    if garbage is not None:
        student = with_garbage(student, 1, garbage)
    total = as_trained(loss, student, Signals(top=top), batch)
    found = gradients(loss, student, total)["output"]
    rest = part(numbers, others)
    assert float(total.detach()) == pytest.approx(case.total(with_trained(rest, loss)), rel=1e-9)
    assert (found[1] == 0).all()
    alone = signals_of(rest.student, torch.float64, grad=True)
    expected = as_trained(loss, alone, signals_of(rest.teacher, torch.float64), batch_of(rest))
    torch.testing.assert_close(found[others], gradients(loss, alone, expected)["output"], rtol=1e-9, atol=1e-12)


@cases(lambda case: not per_sample(case))
@pytest.mark.parametrize("of", ["student", "teacher", "both"])
def test_copies_in_a_batch_are_compared_as_the_formula_says(case: Case, of: str) -> None:
    """A row that is there twice lies at distance 0 from itself: it is a pair like any other."""
    numbers = case.draw()
    for side in ("student", "teacher") if of == "both" else (of,):
        for array in getattr(numbers, side).values():
            array[1] = array[0]
    if numbers.mask is not None:
        numbers.mask[1] = numbers.mask[0]
    loss = prepared(case, numbers)
    student, teacher = signals_of(numbers.student, torch.float64, grad=True), signals_of(numbers.teacher, torch.float64)
    total = objective(loss, student, teacher, batch_of(numbers))
    assert float(total.detach()) == pytest.approx(case.total(with_trained(numbers, loss)), rel=1e-9)
    assert all(torch.isfinite(gradient).all() for gradient in gradients(loss, student, total).values())


def says(loss: Loss, numbers: Numbers, rows: int) -> bool:
    """Whether anything is learnt from the first so many rows."""
    few = part(numbers, slice(0, rows))
    student, teacher = signals_of(few.student, torch.float64, grad=True), signals_of(few.teacher, torch.float64)
    total = objective(loss, student, teacher, batch_of(few))
    return any(float(gradient.abs().max()) > 1e-9 for gradient in gradients(loss, student, total).values())


WITHOUT_SLOPE = CASES["ContrastiveRepresentation-of one number"]
"""Unit vectors of one number have no slope, however many there are."""


def test_unit_vectors_of_one_number_have_no_slope() -> None:
    numbers = WITHOUT_SLOPE.draw()
    assert not says(prepared(WITHOUT_SLOPE, numbers), numbers, WITHOUT_SLOPE.samples)


@cases(lambda case: case is not WITHOUT_SLOPE)
def test_the_plan_refuses_pieces_of_fewer_rows_than_a_loss_learns_from(case: Case) -> None:
    """The plan looks at `fewest_rows`: pieces below it would be trained on by a loss that says nothing."""
    numbers = case.draw()
    loss = prepared(case, numbers)
    assert says(loss, numbers, loss.fewest_rows)
    for rows in range(1, loss.fewest_rows):
        try:
            told = says(loss, numbers, rows)
        except SignalError:
            continue
        assert not told or says(loss, numbers, 1), "it says something of fewer rows, and not by a part for each row"
    if loss.fewest_rows == 1:
        prepared(replace(case, samples=1), part(numbers, slice(0, 1)))
