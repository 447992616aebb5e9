"""Which rows count: padding, rows that teach nothing, batches in pieces, and batches too small to say anything."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from loss_case import Array, Case, Numbers, batch_of, gradient_of, objective, prepared, signals_of, tensors_of
from loss_contract import cases, part, per_sample


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


@cases(lambda case: case.make().fewest_rows > 1)
def test_as_many_rows_as_a_loss_asks_for_say_something(case: Case) -> None:
    fewest = case.make().fewest_rows
    numbers = part(case.draw(), slice(0, fewest))
    values = prepared(case, numbers)(
        signals_of(numbers.student, torch.float64), signals_of(numbers.teacher, torch.float64), batch_of(numbers)
    )
    assert float(values.detach().abs().sum()) > 0
