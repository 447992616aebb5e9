from __future__ import annotations

import numpy as np
import pytest
import torch
from convolving import projected
from loss_case import Array, Case, Numbers, Plain, batch_of, prepared
from resizing import interpolate, pool

from tutelage.errors import SignalError
from tutelage.losses.activation_boundary import ActivationBoundary, boundary_hinge


def hinges(s: Array, t: Array, margin: float) -> Array:
    """‖ρ(t) · σ(μ1 - s) + (1 - ρ(t)) · σ(μ1 + s)‖², neuron by neuron, with ρ the step function and σ the ReLU."""
    rho = (t > 0).astype(float)
    return (rho * np.maximum(margin - s, 0) + (1 - rho) * np.maximum(margin + s, 0)) ** 2


PAIRS = {"a": "b"}
TWO = {"a.0": "b", "a.1": "b"}


def golden(margin: float = 1.0):
    return lambda n: hinges(projected(n, "a"), n.teacher["b"], margin).reshape(len(n.weights), -1).sum(1)


def tokens(n: Numbers) -> Array:
    return hinges(projected(n, "a"), n.teacher["b"], 1.0).sum(2)


CASES = {
    "maps": Case(lambda: ActivationBoundary(PAIRS), {"a": (2, 2, 3)}, {"b": (3, 2, 3)}, golden()),
    "same width": Case(lambda: ActivationBoundary(PAIRS, 0.5), {"a": (3, 2, 2)}, {"b": (3, 2, 2)}, golden(0.5)),
    "a margin that all keep": Case(
        lambda: ActivationBoundary(PAIRS, 1e-5), {"a": (3, 2, 2)}, {"b": (3, 2, 2)}, golden(1e-5), floor=0.0
    ),
    "vectors": Case(lambda: ActivationBoundary(PAIRS, projector="always"), {"a": (3,)}, {"b": (3,)}, golden()),
    "tokens": Case(lambda: ActivationBoundary(PAIRS), {"a": (3, 2)}, {"b": (3, 4)}, tokens, tokens=3),
    "positions": Case(lambda: ActivationBoundary(PAIRS), {"a": (3, 2)}, {"b": (3, 4)}, lambda n: tokens(n).sum(1)),
    "pooled": Case(
        lambda: ActivationBoundary(PAIRS, resize="pool"),
        {"a": (2, 2, 2)},
        {"b": (2, 5, 3)},
        lambda n: hinges(n.student["a"], pool(n.teacher["b"], (2, 2)), 1.0).sum((1, 2, 3)),
    ),
    "interpolated": Case(
        lambda: ActivationBoundary(PAIRS, resize="interpolate"),
        {"a": (2, 2, 2)},
        {"b": (2, 3, 4)},
        lambda n: hinges(interpolate(n.student["a"], (3, 4)), n.teacher["b"], 1.0).sum((1, 2, 3)),
    ),
    "two pairs": Case(
        lambda: ActivationBoundary(TWO),
        {"a.0": (3,), "a.1": (4,)},
        {"b": (4,)},
        lambda n: sum(hinges(projected(n, a), n.teacher["b"], 1.0).sum(1) for a in TWO) / 2,
    ),
}


def plain(student, teacher, labels, loss):
    s = loss.projectors["a"](student["a"])
    return torch.where(teacher["b"] > 0, 1 - s, 1 + s).relu().square().sum((1, 2, 3)).mean()


PLAIN = {
    "maps": Plain(lambda: ActivationBoundary(PAIRS), {"a": (32, 28, 28)}, {"b": (64, 28, 28)}, plain, samples=16),
}


def test_hinge_pushes_off_the_boundary_on_the_teacher_s_side_and_no_further() -> None:
    """A sign inverted, or a margin on one side alone."""
    s = torch.tensor([[-2.0, -0.5, 0.5, 2.0]] * 2, requires_grad=True)
    t = torch.tensor([[3.0] * 4, [-3.0] * 4])
    boundary_hinge(s, t, 1.0).sum().backward()
    torch.testing.assert_close(s.grad, torch.tensor([[-6.0, -3.0, -1.0, 0.0], [0.0, 1.0, 3.0, 6.0]]))


def test_only_the_sign_of_the_teacher_counts_and_zero_is_off() -> None:
    s, t = torch.full((6, 1), 0.5), torch.tensor([3.0, -1.0, 0.0, 1e-6, -4.0, 0.0])[:, None]
    expected = torch.tensor([0.25, 2.25, 2.25, 0.25, 2.25, 2.25])
    torch.testing.assert_close(boundary_hinge(s, t, 1.0), expected)
    torch.testing.assert_close(boundary_hinge(s, t.relu() * 10, 1.0), expected)


def test_value_is_the_sum_over_neurons_so_that_the_authors_factors_apply() -> None:
    s, t = -torch.ones(2, 3, 4, 5), torch.ones(2, 3, 4, 5)
    loss = ActivationBoundary(PAIRS)
    case = Case(lambda: loss, {"a": (3, 4, 5)}, {"b": (3, 4, 5)}, golden())
    numbers = case.draw()
    value = loss.compare("a", s, t, batch_of(numbers))
    torch.testing.assert_close(value, torch.full((2,), 4.0 * 3 * 4 * 5))


def test_student_s_layer_after_its_relu_is_refused_for_it_can_learn_no_boundary() -> None:
    case = CASES["same width"]
    numbers = case.draw()
    np.maximum(numbers.student["a"], 0, out=numbers.student["a"])
    with pytest.raises(SignalError, match=r"layer `a` of the student[\s\S]*before the ReLU"):
        prepared(case, numbers)


def test_maps_of_different_size_are_refused_unless_the_recipe_says_how() -> None:
    case = Case(lambda: ActivationBoundary(PAIRS), {"a": (2, 2, 2)}, {"b": (2, 4, 4)}, golden())
    with pytest.raises(SignalError, match="set `resize`"):
        prepared(case, case.draw())


def test_maps_against_vectors_are_refused_by_name() -> None:
    case = Case(lambda: ActivationBoundary(PAIRS), {"a": (2, 2, 2)}, {"b": (2,)}, golden())
    with pytest.raises(SignalError, match="layer `a`"):
        prepared(case, case.draw())


def test_mask_of_another_length_is_refused() -> None:
    case = Case(lambda: ActivationBoundary(PAIRS), {"a": (4, 2)}, {"b": (4, 2)}, golden(), tokens=3)
    with pytest.raises(SignalError, match="token mask"):
        prepared(case, case.draw())


@pytest.mark.parametrize("arguments", [{"margin": 0.0}, {"margin": float("inf")}, {"projector": "no"}, {"resize": "x"}])
def test_impossible_arguments_are_refused(arguments) -> None:
    with pytest.raises(ValueError, match="must be"):
        ActivationBoundary(PAIRS, **arguments)
