from __future__ import annotations

from dataclasses import replace

import class_labels
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from class_labels import by_pixel, by_position
from loss_case import Array, Case, Numbers, Plain
from scipy.special import log_softmax, softmax
from torch import Tensor

from tutelage.losses.normalized_kd import NormalizedKD, normalized_kd


def position(s: Array, t: Array, y: int, gamma: float = 1.5, T: float = 2.0) -> float:
    others = np.arange(len(s)) != y
    target = -softmax(t)[y] * log_softmax(s)[y]
    return float(target - gamma * T**2 * (softmax(t[others] / T) * log_softmax(s[others] / T)).sum())


def golden(n: Numbers) -> Array:
    return by_position(position, n.student["output"], n.teacher["output"], n.labels)


class Certain(Case):
    """A case in which student and teacher are certain of the label: only there nothing pulls where both agree."""

    def draw(self, seed: int = 0) -> Numbers:
        numbers = super().draw(seed)
        assert numbers.labels is not None
        sure = 60.0 * (np.arange(class_labels.CLASSES) == numbers.labels[:, None])
        return replace(
            numbers,
            student={"output": numbers.student["output"] + sure},
            teacher={"output": numbers.teacher["output"] + sure},
        )


def make() -> NormalizedKD:
    return NormalizedKD(1.5, 2.0)


def entropy_of_the_others() -> Array:
    """The floor where both are certain of the label: `γ · T²` times the entropy of the other classes' shares."""
    n = Certain(make, {"output": (4,)}, {"output": (4,)}, golden, labels=class_labels.of_rows).draw()
    values = []
    for s, y in zip(n.student["output"], n.labels, strict=True):
        p = softmax(np.delete(s, y) / 2.0)
        values.append(-1.5 * 4.0 * (p * np.log(p)).sum())
    values[1] = 0.0  # it has no label
    return np.array(values)


CASES = {
    "classes": Case(make, {"output": (4,)}, {"output": (4,)}, golden, labels=class_labels.of_rows),
    "certain": Certain(
        make,
        {"output": (4,)},
        {"output": (4,)},
        golden,
        labels=class_labels.of_rows,
        floor=entropy_of_the_others(),
    ),
    "tokens": Case(
        make,
        {"output": (3, 4)},
        {"output": (3, 4)},
        golden,
        tokens=3,
        labels=class_labels.of_tokens,
        counts=class_labels.token_counts,
    ),
    "pixels": Case(
        lambda: NormalizedKD(1.5, 2.0, axis=1),
        {"output": (4, 2, 2)},
        {"output": (4, 2, 2)},
        lambda n: by_pixel(position, n),
        labels=class_labels.of_pixels,
        counts=class_labels.pixel_counts,
    ),
}


def plain(student: dict[str, Tensor], teacher: dict[str, Tensor], labels: Tensor, loss: NormalizedKD) -> Tensor:
    s, t, at = student["output"], teacher["output"], labels[:, None]
    target = -(t.softmax(1).gather(1, at) * s.log_softmax(1).gather(1, at)).mean()
    keep = torch.ones_like(s).scatter_(1, at, 0).bool()
    s, t = s[keep].reshape(len(s), -1), t[keep].reshape(len(t), -1)
    return target + 1.5 * F.cross_entropy(s, t.softmax(1))


PLAIN = {
    "1000 classes": Plain(
        NormalizedKD,
        {"output": (1000,)},
        {"output": (1000,)},
        plain,
        labels=lambda rng, B: rng.integers(0, 1000, size=B),
        samples=512,
    )
}


def test_the_target_is_not_among_the_other_classes() -> None:
    """An early version of the authors' code kept it there: its logit must not matter to their part."""
    s, t, labels = torch.randn(4, 5).double(), torch.randn(4, 5).double(), torch.tensor([0, 1, 2, 3])
    moved = s.scatter(1, labels[:, None], 7.0)
    others = [normalized_kd(x, t, labels, 1.0, 2.0) - normalized_kd(x, t, labels, 0.0, 2.0) for x in (s, moved)]
    torch.testing.assert_close(others[0], others[1])


def test_the_temperature_and_its_square_are_on_the_other_classes_alone() -> None:
    s, t, labels = torch.randn(4, 5).double(), torch.randn(4, 5).double(), torch.tensor([0, 1, 2, 3])
    torch.testing.assert_close(normalized_kd(s, t, labels, 0.0, 9.0), normalized_kd(s, t, labels, 0.0, 1.0))
    slope = []
    for temperature in (1e3, 2e3):
        x = s.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(normalized_kd(x, t, labels, 1.0, temperature).sum(), x)
        slope.append(gradient - torch.autograd.grad(normalized_kd(x, t, labels, 0.0, temperature).sum(), x)[0])
    torch.testing.assert_close(slope[0], slope[1], rtol=1e-2, atol=1e-3)
    assert slope[0].abs().max() > 0.05


def test_finite_for_models_that_are_certain_of_another_class() -> None:
    s, t = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True), torch.tensor([[-1e4, 1e4, 0.0]])
    value = normalized_kd(s, t, torch.tensor([1]), 1.5, 1.0)
    value.backward()
    assert value.item() == pytest.approx(position(*(x.detach().double().numpy()[0] for x in (s, t)), 1, 1.5, 1.0))
    assert torch.isfinite(s.grad).all()


@pytest.mark.parametrize("arguments", [{"gamma": -1.0}, {"temperature": 0.0}])
def test_impossible_arguments_are_refused(arguments) -> None:
    with pytest.raises(ValueError, match="must be"):
        NormalizedKD(**arguments)
