"""Labels for the losses on logits that know the target class, what counts with them, and signals held fixed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from loss_case import Array, Numbers
from numpy.typing import NDArray

CLASSES = 4


def of_rows(rng: np.random.Generator, B: int) -> NDArray:
    return rng.integers(0, CLASSES, size=B)


def of_tokens(rng: np.random.Generator, B: int) -> NDArray:
    """Three tokens; the first of the first row does not count."""
    labels = rng.integers(0, CLASSES, size=(B, 3))
    labels[0, 0] = -100
    return labels


def of_pixels(rng: np.random.Generator, B: int) -> NDArray:
    """Maps of 2x2; two pixels of the first row do not count, nor does the third row."""
    labels = rng.integers(0, CLASSES, size=(B, 2, 2))
    labels[0, 0], labels[2] = -100, -100
    return labels


def token_counts(n: Numbers) -> Array:
    assert n.labels is not None and n.labelled is not None and n.mask is not None
    return (n.labels != -100) * n.mask * n.labelled[:, None] * n.weights[:, None]


def pixel_counts(n: Numbers) -> Array:
    assert n.labels is not None and n.labelled is not None
    return (n.labels >= 0).any((1, 2)) * n.labelled * n.weights


def by_position(
    value: Callable[[Array, Array, int], float], student: Array, teacher: Array, labels: NDArray | None
) -> Array:
    """`value(s, t, y)` of each position, one after another: `[..., C]` -> `[...]`; 0 where the label is -100."""
    assert labels is not None
    values = np.zeros(labels.shape)
    for index in np.ndindex(*labels.shape):
        if 0 <= labels[index] < student.shape[-1]:
            values[index] = value(student[index], teacher[index], labels[index])
    return values


def by_pixel(value: Callable[[Array, Array, int], float], n: Numbers) -> Array:
    """The mean over the pixels that count, of outputs `[B, C, H, W]`."""
    assert n.labels is not None
    s = np.moveaxis(n.student["output"], 1, -1)
    t = np.moveaxis(n.teacher.get("output", n.student["output"]), 1, -1)
    values = by_position(value, s, t, n.labels)
    return np.array([v[y >= 0].mean() if (y >= 0).any() else 0.0 for v, y in zip(values, n.labels, strict=True)])


def held(output: Array) -> Array:
    """The student's output as `Case.draw` draws it, where `output` is that but for a step of a finite difference.

    A golden formula reads this where the loss passes no gradient.
    """
    drawn = np.random.default_rng(0).normal(size=output.shape)
    return drawn if np.abs(output - drawn).max() < 1e-4 else output
