from __future__ import annotations

import class_labels
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from class_labels import by_position, held
from loss_case import Array, Case, Numbers, Plain
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax
from torch import Tensor

from tutelage.losses.soft_cross_entropy import softmax_cross_entropy
from tutelage.losses.weighted_soft_labels import WeightedSoftLabels, weighted_soft_labels


def share(s: Array, t: Array, y: int) -> float:
    return float(1 - np.exp(log_softmax(s)[y] / (1e-7 - log_softmax(t)[y])))


def soft(s: Array, t: Array, T: float) -> float:
    return float(-(T**2) * (softmax(t / T) * log_softmax(s / T)).sum())


def values(s: Array, t: Array, labels: NDArray | None, T: float = 4.0) -> Array:
    """The weight is read of the student as it was drawn: no gradient passes through it."""
    weights = by_position(share, held(s) if s.ndim < 4 else s, t, labels)
    return weights * by_position(lambda s, t, y: soft(s, t, T), s, t, labels)


def golden(n: Numbers) -> Array:
    return values(n.student["output"], n.teacher["output"], n.labels)


def pixels(n: Numbers) -> Array:
    assert n.labels is not None
    s, t = n.student["output"], n.teacher["output"]
    weights = by_position(share, np.moveaxis(held(s), 1, -1), np.moveaxis(t, 1, -1), n.labels)
    values = weights * by_position(
        lambda s, t, y: soft(s, t, 4.0), np.moveaxis(s, 1, -1), np.moveaxis(t, 1, -1), n.labels
    )
    return np.array([v[y >= 0].mean() if (y >= 0).any() else 0.0 for v, y in zip(values, n.labels, strict=True)])


def floor() -> Array:
    """Where both agree: nearly `1 - 1/e` of `T²` times the teacher's entropy; 0 in the row that has no label."""
    numbers = Case(WeightedSoftLabels, {"output": (4,)}, {"output": (4,)}, golden, labels=class_labels.of_rows).draw()
    s = numbers.student["output"]
    return values(s, s, numbers.labels) * numbers.labelled


CASES = {
    "classes": Case(
        WeightedSoftLabels, {"output": (4,)}, {"output": (4,)}, golden, labels=class_labels.of_rows, floor=floor()
    ),
    "tokens": Case(
        WeightedSoftLabels,
        {"output": (3, 4)},
        {"output": (3, 4)},
        golden,
        tokens=3,
        labels=class_labels.of_tokens,
        counts=class_labels.token_counts,
    ),
    "pixels": Case(
        lambda: WeightedSoftLabels(axis=1),
        {"output": (4, 2, 2)},
        {"output": (4, 2, 2)},
        pixels,
        labels=class_labels.of_pixels,
        counts=class_labels.pixel_counts,
    ),
}


def plain(student: dict[str, Tensor], teacher: dict[str, Tensor], labels: Tensor, loss: WeightedSoftLabels) -> Tensor:
    s, t = student["output"], teacher["output"]
    with torch.no_grad():
        ratio = F.cross_entropy(s, labels, reduction="none") / (F.cross_entropy(t, labels, reduction="none") + 1e-7)
        weight = 1 - torch.exp(-ratio)
    return 16.0 * (weight * F.cross_entropy(s / 4.0, (t / 4.0).softmax(1), reduction="none")).mean()


PLAIN = {
    "1000 classes": Plain(
        WeightedSoftLabels,
        {"output": (1000,)},
        {"output": (1000,)},
        plain,
        labels=lambda rng, B: rng.integers(0, 1000, size=B),
        samples=512,
    )
}


def test_the_weight_is_taken_without_a_temperature() -> None:
    """With one, a temperature of 1000 would make both cross-entropies log C and the weight 1 - 1/e."""
    s, t, labels = torch.tensor([[5.0, 0.0]]), torch.tensor([[0.0, 0.0]]), torch.tensor([0])
    found = weighted_soft_labels(s, t, labels, 1000.0) / softmax_cross_entropy(s, t, 1000.0)
    expected = 1 - np.exp(-np.log1p(np.exp(-5.0)) / np.log(2.0))
    assert found.item() == pytest.approx(expected, rel=1e-4)


def test_rows_that_the_student_knows_better_count_for_less_and_not_for_more() -> None:
    """L_S / L_T, not L_T / L_S."""
    t, labels = torch.tensor([[1.0, 0.0]]), torch.tensor([0])
    better, worse = (
        weighted_soft_labels(s, t, labels, 1.0) / softmax_cross_entropy(s, t, 1.0)
        for s in (torch.tensor([[4.0, 0.0]]), torch.tensor([[-4.0, 0.0]]))
    )
    assert better < 0.1
    assert worse > 0.99


def test_finite_where_the_teacher_is_certain_of_the_label() -> None:
    """Its cross-entropy is 0, and the ratio 0/0 or infinite."""
    s = torch.tensor([[1e4, -1e4], [-1e4, 1e4]], requires_grad=True)
    found = weighted_soft_labels(s, torch.tensor([[1e4, -1e4], [1e4, -1e4]]), torch.tensor([0, 0]), 1.0)
    found.sum().backward()
    assert found.tolist() == [0.0, 2e4]
    assert torch.isfinite(s.grad).all()


def test_a_temperature_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="temperature must be"):
        WeightedSoftLabels(0.0)
