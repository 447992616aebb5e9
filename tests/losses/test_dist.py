from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from loss_case import Array, Case, Numbers, Plain, batch_of, prepared, signals_of
from scipy.special import expit, softmax
from torch import Tensor

from tutelage.errors import SignalError
from tutelage.losses.dist import DIST


def distance(a: Array, b: Array, floor: float = 0.0) -> float:
    """`1 - ρ` of two vectors; a constant has no correlation, `ρ = 0`."""
    a, b = a - a.mean(), b - b.mean()
    product = np.sqrt((a * a).sum() * (b * b).sum())
    return float(1 - (a * b).sum() / (product + floor)) if product > 0 else 1.0


def parts(s: Array, t: Array, floor: float) -> tuple[Array, float]:
    """Of probabilities `[N, C]`: one value a row, and one for all classes."""
    rows = np.array([distance(a, b, floor) for a, b in zip(s, t, strict=True)])
    return rows, float(np.mean([distance(a, b, floor) for a, b in zip(s.T, t.T, strict=True)]))


def golden(n: Numbers, beta: float = 1.0, gamma: float = 1.0, T: float = 1.0, *, floor: float = 0.0) -> Array:
    rows, classes = parts(*(softmax(x["output"] / T, axis=1) for x in (n.student, n.teacher)), floor)
    return T**2 * (beta * rows + gamma * classes)


def saturated(n: Numbers) -> Array:
    """With the floor: where a class is 0 in the whole batch its correlation is 0, not 0/0."""
    return golden(n, 1.0, 2.0, 3.0, floor=1e-8)


def sigmoid(n: Numbers) -> Array:
    rows, classes = parts(expit(n.student["output"]), expit(n.teacher["output"]), 1e-8)
    return rows + classes


def tokens(n: Numbers) -> Array:
    assert n.mask is not None
    s, t = (softmax(x["output"], axis=-1) for x in (n.student, n.teacher))
    rows, classes = parts(s[n.mask], t[n.mask], 0.0)
    values = np.zeros(n.mask.shape)
    values[n.mask] = rows + classes
    return values


def pixels(n: Numbers) -> Array:
    s, t = (softmax(np.moveaxis(x["output"], 1, -1), axis=-1) for x in (n.student, n.teacher))
    C = s.shape[-1]
    rows, classes = parts(s.reshape(-1, C), t.reshape(-1, C), 1e-8)
    return rows.reshape(len(s), -1).mean(1) + classes


CASES = {
    "official": Case(lambda: DIST(1.0, 2.0, 3.0), {"output": (5,)}, {"output": (5,)}, saturated),
    "paper": Case(
        lambda: DIST(2.0, 0.5, 2.0, variant="paper"),
        {"output": (3,)},
        {"output": (3,)},
        lambda n: golden(n, 2.0, 0.5, 2.0),
        floor=0.0,
    ),
    "sigmoid": Case(lambda: DIST(outputs="sigmoid"), {"output": (5,)}, {"output": (5,)}, sigmoid),
    "tokens": Case(lambda: DIST(variant="paper"), {"output": (3, 3)}, {"output": (3, 3)}, tokens, tokens=3),
    "classes alone": Case(
        lambda: DIST(0.0, 2.0, variant="paper"),
        {"output": (5,)},
        {"output": (5,)},
        lambda n: golden(n, 0.0, 2.0),
        floor=0.0,
    ),
    "pixels": Case(lambda: DIST(axis=1), {"output": (3, 2, 2)}, {"output": (3, 2, 2)}, pixels),
}


def plain(student: dict[str, Tensor], teacher: dict[str, Tensor], labels: Tensor, loss: DIST) -> Tensor:
    s, t = (student["output"] / 4.0).softmax(1), (teacher["output"] / 4.0).softmax(1)

    def rho(a: Tensor, b: Tensor) -> Tensor:
        a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
        return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-8)

    return 16.0 * (2 - rho(s, t).mean() - rho(s.T, t.T).mean())


PLAIN = {
    "1000 classes": Plain(lambda: DIST(temperature=4.0), {"output": (1000,)}, {"output": (1000,)}, plain, samples=512)
}


def test_the_parts_within_samples_and_within_classes_are_not_exchanged() -> None:
    """A student whose classes each follow the teacher's over the batch, but not within a sample."""
    t = np.random.default_rng(0).dirichlet(np.ones(3), size=6)
    offset = np.array([0.0, 0.5, -0.2])
    rows, classes = parts(t / 4 + 0.3 + offset / 2, t, 0.0)
    assert classes == pytest.approx(0, abs=1e-12)
    assert rows.min() > 1e-3
    student, teacher = ({"output": np.log(x / (1 - x))} for x in (t / 4 + 0.3 + offset / 2, t))
    numbers = Numbers(student, teacher, np.ones(6))
    for beta, gamma, expected in ((1.0, 0.0, rows), (0.0, 1.0, np.zeros(6))):
        loss = DIST(beta, gamma, variant="paper", outputs="sigmoid")
        found = loss(signals_of(student, torch.float64), signals_of(teacher, torch.float64), batch_of(numbers))
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-9)


def test_a_student_that_is_less_sure_but_in_proportion_is_not_pulled() -> None:
    """The sign: 1 - ρ, which falls as they agree; and no scale or offset is asked for."""
    t = torch.tensor([[2.0, -1.0, 0.5], [0.3, 0.2, -3.0]], dtype=torch.float64)
    p = t.sigmoid()
    student = torch.logit(0.2 + 0.5 * p)
    opposite = torch.logit(0.8 - 0.5 * p)
    numbers = Numbers({}, {}, np.ones(2))
    loss = DIST(1.0, 1.0, variant="paper", outputs="sigmoid")
    for logits, expected in ((student, 0.0), (opposite, 4.0)):
        values = loss(
            signals_of({"output": logits.numpy()}, torch.float64),
            signals_of({"output": t.numpy()}, torch.float64),
            batch_of(numbers),
        )
        np.testing.assert_allclose(values.numpy(), expected, atol=1e-9)


def test_a_class_that_is_constant_in_the_batch_gives_no_nan() -> None:
    """At ±1e4 the softmax is 0 for a class in every sample: its correlation is 0/0."""
    s = torch.tensor([[1e4, 0.0, 0.0], [1e4, 0.0, 0.0]], requires_grad=True)
    for variant in ("paper", "official"):
        signals = signals_of({"output": s.detach().numpy()}, torch.float32, grad=True)
        values = DIST(variant=variant)(signals, signals, batch_of(Numbers({}, {}, np.ones(2))))
        values.sum().backward()
        assert torch.isfinite(values).all()
        assert torch.isfinite(signals.output.grad).all()


@pytest.mark.parametrize("outputs", ["softmax", "sigmoid"])
@pytest.mark.parametrize("variant", ["paper", "official"])
@pytest.mark.parametrize("student", ["zero", "equal but for rounding", "the same in each row"])
def test_a_constant_student_has_the_value_of_no_correlation_and_is_not_torn_about(
    outputs: str, variant: str, student: str
) -> None:
    """The mean of equal numbers is not exact: what is left of them, divided by its own length, is a slope of 1e6."""
    for B, C in ((8, 7), (64, 100), (3, 1000)):
        rng = np.random.default_rng(C)
        s, t = np.zeros((B, C)), rng.normal(size=(B, C))
        if student == "equal but for rounding":
            s = 0.3 + 3e-8 * rng.normal(size=(B, C))
        elif student == "the same in each row":
            s = np.broadcast_to(rng.normal(size=C), (B, C))
        both = [signals_of({"output": x}, torch.float32, grad=x is s) for x in (s, t)]
        values = DIST(1.0, 1.0, variant=variant, outputs=outputs)(*both, batch_of(Numbers({}, {}, np.ones(B))))
        values.mean().backward()
        assert both[0].output.grad.abs().max() < 1
        if student != "the same in each row":
            np.testing.assert_allclose(values.detach().numpy(), 2.0, rtol=1e-6)
            assert (both[0].output.grad == 0).all()


def test_padding_is_in_no_correlation_over_the_batch() -> None:
    numbers = CASES["tokens"].draw()
    loss = prepared(CASES["tokens"], numbers)
    other = replace(numbers, mask=np.ones_like(numbers.mask))
    found = [
        loss(signals_of(n.student, torch.float64), signals_of(n.teacher, torch.float64), batch_of(n))[0, 0]
        for n in (numbers, other)
    ]
    assert not torch.isclose(found[0], found[1])
    assert found[0].item() == pytest.approx(tokens(numbers)[0, 0])


def test_one_sample_is_refused_before_training() -> None:
    signals = signals_of({"output": np.ones((1, 3))}, torch.float64)
    with pytest.raises(SignalError, match="two samples"):
        DIST().prepare(signals, signals, batch_of(Numbers({}, {}, np.ones(1))))


def test_another_number_of_classes_is_refused_with_both_shapes() -> None:
    student, teacher = (signals_of({"output": np.ones((4, C))}, torch.float64) for C in (5, 3))
    with pytest.raises(SignalError, match=r"\(4, 3\)[\s\S]*\(4, 5\)"):
        DIST().prepare(student, teacher, batch_of(Numbers({}, {}, np.ones(4))))


@pytest.mark.parametrize(
    "arguments",
    [{"beta": -1.0}, {"beta": 0.0, "gamma": 0.0}, {"temperature": 0.0}, {"variant": "own"}, {"outputs": "tanh"}],
)
def test_impossible_arguments_are_refused(arguments) -> None:
    with pytest.raises(ValueError, match="must be"):
        DIST(**arguments)
