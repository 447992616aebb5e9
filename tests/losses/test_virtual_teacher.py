from __future__ import annotations

import class_labels
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from class_labels import by_pixel, by_position
from loss_case import Array, Case, Numbers, Plain, batch_of, prepared, signals_of
from scipy.special import log_softmax, softmax
from torch import Tensor

from tutelage.errors import SignalError
from tutelage.losses.virtual_teacher import VirtualTeacher
from tutelage.signals import Signals


def by_hand(C: int, y: int, a: float) -> Array:
    p = np.full(C, (1 - a) / (C - 1))
    p[y] = a
    return p


def paper(s: Array, t: Array, y: int, a: float = 0.9, T: float = 20.0) -> float:
    p = by_hand(len(s), y, a) ** (1 / T)
    p /= p.sum()
    return float((p * (np.log(p) - log_softmax(s / T))).sum())


def official(s: Array, t: Array, y: int, a: float = 0.99, T: float = 20.0) -> float:
    p = softmax(by_hand(len(s), y, a) / T)
    return float((p * (np.log(p) - log_softmax(s))).mean())


def golden(n: Numbers, value=official) -> Array:
    return by_position(value, n.student["output"], n.student["output"], n.labels)


CASES = {
    "official": Case(VirtualTeacher, {"output": (4,)}, {}, golden, labels=class_labels.of_rows),
    "paper": Case(
        lambda: VirtualTeacher(0.9, variant="paper"),
        {"output": (4,)},
        {},
        lambda n: golden(n, paper),
        labels=class_labels.of_rows,
    ),
    "tokens": Case(
        VirtualTeacher,
        {"output": (3, 4)},
        {},
        golden,
        tokens=3,
        labels=class_labels.of_tokens,
        counts=class_labels.token_counts,
    ),
    "pixels": Case(
        lambda: VirtualTeacher(0.9, variant="paper", axis=1),
        {"output": (4, 2, 2)},
        {},
        lambda n: by_pixel(paper, n),
        labels=class_labels.of_pixels,
        counts=class_labels.pixel_counts,
    ),
}


def plain(student: dict[str, Tensor], teacher: dict[str, Tensor], labels: Tensor, loss: VirtualTeacher) -> Tensor:
    s = student["output"]
    p = torch.full_like(s, 0.01 / (s.shape[1] - 1)).scatter_(1, labels[:, None], 0.99)
    return F.kl_div(s.log_softmax(1), (p / 20.0).softmax(1), reduction="none").mean()


PLAIN = {
    "1000 classes": Plain(
        VirtualTeacher,
        {"output": (1000,)},
        {},
        plain,
        labels=lambda rng, B: rng.integers(0, 1000, size=B),
        samples=512,
    )
}


def test_the_divergence_is_zero_where_the_student_is_the_virtual_teacher() -> None:
    """A wrong entropy, or a student that is not softened while the teacher is, would leave something."""
    labels = np.array([0, 3, 2, 1])
    outputs = np.stack([np.log(by_hand(4, y, 0.9)) for y in labels])
    numbers = Numbers({"output": outputs}, {}, np.ones(4), None, labels, np.ones(4, bool))
    student = signals_of(numbers.student, torch.float64, grad=True)
    values = VirtualTeacher(0.9, 20.0, variant="paper")(student, Signals(), batch_of(numbers))
    values.sum().backward()
    torch.testing.assert_close(values, torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(student.output.grad, torch.zeros(4, 4, dtype=torch.float64), rtol=0, atol=1e-12)


def test_it_asks_for_no_teacher() -> None:
    assert not VirtualTeacher().needs.teacher
    assert VirtualTeacher().needs.labels


@pytest.mark.parametrize("correct", [0.2, 0.25])
def test_a_virtual_teacher_that_prefers_other_classes_is_refused(correct: float) -> None:
    case = Case(lambda: VirtualTeacher(correct), {"output": (4,)}, {}, golden, labels=class_labels.of_rows)
    with pytest.raises(SignalError, match="1/4"):
        prepared(case, case.draw())


def test_one_class_is_refused() -> None:
    """The rest of the probability would be divided by zero."""
    case = Case(VirtualTeacher, {"output": (1,)}, {}, golden, labels=lambda rng, B: np.zeros(B, int))
    with pytest.raises(SignalError, match="2 classes or more"):
        prepared(case, case.draw())


@pytest.mark.parametrize("arguments", [{"correct": 1.0}, {"correct": 0.0}, {"temperature": 0.0}, {"variant": "own"}])
def test_impossible_arguments_are_refused(arguments) -> None:
    with pytest.raises(ValueError, match="must be"):
        VirtualTeacher(**arguments)
