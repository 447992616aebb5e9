"""What becomes of slopes: second derivatives are right or refused, and where a formula has no slope none is made up."""

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
from loss_contract import cases

from tutelage.losses import Loss


def second_slope(case: Case, numbers: Numbers, along: dict[str, Array], step: float = 2e-5) -> float:
    """`dᵀ H d` of the golden objective, from its values alone."""

    def value(size: float) -> float:
        moved = {name: array + size * along[name] for name, array in numbers.student.items()}
        return case.total(replace(numbers, student=moved))

    return (value(step) - 2 * value(0.0) + value(-step)) / step**2


@cases()
def test_second_derivatives_are_right_or_refused(case: Case) -> None:
    """A backward pass that autograd can't follow gives a Hessian of 0, or a part of it, and nothing shows it."""
    numbers = case.draw()
    loss, batch = prepared(case, numbers), batch_of(numbers)
    student, teacher = signals_of(numbers.student, torch.float64, grad=True), signals_of(numbers.teacher, torch.float64)
    inputs = {name: tensor for name, tensor in tensors_of(student).items() if name not in case.detached}
    rng = np.random.default_rng(1)
    along = {name: rng.normal(size=array.shape) * (name in inputs) for name, array in numbers.student.items()}
    slopes = torch.autograd.grad(objective(loss, student, teacher, batch), list(inputs.values()), create_graph=True)
    directions = [torch.tensor(along[name]) for name in inputs]
    slope = sum((part * way).sum() for part, way in zip(slopes, directions, strict=True))
    if not slope.requires_grad:  # a line
        twice = [torch.zeros_like(way) for way in directions]
    else:
        try:
            twice = torch.autograd.grad(slope, list(inputs.values()), allow_unused=True, materialize_grads=True)
        except RuntimeError as error:
            assert "not implemented" in str(error)
            return
    found = sum(float((part * way).sum()) for part, way in zip(twice, directions, strict=True))
    expected = second_slope(case, with_trained(numbers, loss), along)
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-4)


def steepest(case: Case, numbers: Numbers, loss: Loss) -> float:
    """The largest slope of the objective by any number of the student and of the trained parts, in float32."""
    student, teacher = signals_of(numbers.student, torch.float32, grad=True), signals_of(numbers.teacher, torch.float32)
    total = objective(loss, student, teacher, batch_of(numbers, torch.float32))
    loss.zero_grad()
    total.backward()
    slopes = [gradient_of(tensor) for tensor in (*tensors_of(student).values(), *loss.parameters())]
    assert torch.isfinite(total)
    assert all(torch.isfinite(slope).all() for slope in slopes)
    return max(float(slope.abs().max()) for slope in slopes)


@cases()
def test_constant_signals_give_no_nan_and_no_huge_slope(case: Case) -> None:
    """A head that starts at zero, a dead layer, numbers equal but for rounding: a spread of 0 is divided by."""
    numbers = case.draw()
    loss = prepared(case, numbers, torch.float32)
    bound = 30 * max(steepest(case, numbers, loss), 1e-3)
    rng = np.random.default_rng(2)
    for side in ("student", "teacher"):
        for level, noise in ((0.0, 0.0), (0.3, 0.0), (0.3, 3e-8)):
            signals = getattr(numbers, side)
            flat = {name: level + noise * rng.normal(size=array.shape) for name, array in signals.items()}
            assert steepest(case, replace(numbers, **{side: flat}), loss) < bound, (side, level, noise)
