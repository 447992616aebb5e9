from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loss_case import Array, Case, Numbers, Plain, batch_of, prepared, signals_of

from tutelage.errors import SignalError
from tutelage.losses.cross_entropy import CrossEntropy, cross_entropy
from tutelage.signals import Signals


def nll(logits: Array, labels: Array, smoothing: float = 0.0) -> Array:
    """`[..., C]` and indices `[...]`, one position after another."""
    C = logits.shape[-1]
    values = np.zeros(labels.shape)
    for index in np.ndindex(*labels.shape):
        if labels[index] < 0:
            continue
        row = logits[index]
        log_q = row - row.max() - np.log(np.exp(row - row.max()).sum())
        target = np.full(C, smoothing / C)
        target[labels[index]] += 1 - smoothing
        values[index] = -(target * log_q).sum()
    return values


def token_labels(rng: np.random.Generator, B: int) -> Array:
    labels = rng.integers(0, 5, size=(B, 3))
    labels[0] = [-100, 4, 2]
    return labels


def token_counts(n: Numbers) -> Array:
    assert n.labels is not None and n.labelled is not None and n.mask is not None
    return (n.labels != -100) * n.mask * n.labelled[:, None] * n.weights[:, None]


def pixel_labels(rng: np.random.Generator, B: int) -> Array:
    labels = rng.integers(0, 3, size=(B, 2, 2))
    labels[0, 0], labels[2] = -100, -100
    return labels


def pixel_golden(n: Numbers) -> Array:
    values = nll(np.moveaxis(n.student["output"], 1, -1), n.labels)
    return np.array([v[y >= 0].mean() if (y >= 0).any() else 0.0 for v, y in zip(values, n.labels, strict=True)])


def pixel_counts(n: Numbers) -> Array:
    assert n.labels is not None and n.labelled is not None
    return (n.labels >= 0).any((1, 2)) * n.labelled * n.weights


CASES = {
    "classes": Case(
        CrossEntropy,
        {"output": (5,)},
        {},
        lambda n: nll(n.student["output"], n.labels),
        labels=lambda rng, B: rng.integers(0, 5, size=B),
    ),
    "smoothed": Case(
        lambda: CrossEntropy(0.1),
        {"output": (5,)},
        {},
        lambda n: nll(n.student["output"], n.labels, 0.1),
        labels=lambda rng, B: rng.integers(0, 5, size=B),
    ),
    "tokens": Case(
        CrossEntropy,
        {"output": (3, 5)},
        {},
        lambda n: nll(n.student["output"], n.labels),
        tokens=3,
        labels=token_labels,
        counts=token_counts,
    ),
    "pixels": Case(
        lambda: CrossEntropy(axis=1),
        {"output": (3, 2, 2)},
        {},
        pixel_golden,
        labels=pixel_labels,
        counts=pixel_counts,
    ),
}


def drawn(classes: int, *positions: int):
    return lambda rng, B: rng.integers(0, classes, size=(B, *positions))


PLAIN = {
    "classes": Plain(
        CrossEntropy,
        {"output": (1000,)},
        {},
        lambda s, t, labels, loss: F.cross_entropy(s["output"], labels),
        labels=drawn(1000),
        samples=512,
    ),
    "smoothed": Plain(
        lambda: CrossEntropy(0.1),
        {"output": (1000,)},
        {},
        lambda s, t, labels, loss: F.cross_entropy(s["output"], labels, label_smoothing=0.1),
        labels=drawn(1000),
        samples=512,
    ),
    "tokens": Plain(
        CrossEntropy,
        {"output": (64, 16000)},
        {},
        lambda s, t, labels, loss: F.cross_entropy(s["output"].flatten(0, 1), labels.flatten()),
        labels=drawn(16000, 64),
        tokens=64,
        samples=4,
    ),
    "pixels": Plain(
        lambda: CrossEntropy(axis=1),
        {"output": (21, 128, 128)},
        {},
        lambda s, t, labels, loss: F.cross_entropy(s["output"], labels),
        labels=drawn(21, 128, 128),
        samples=4,
    ),
}


def test_what_stands_in_rows_without_a_label_is_never_read() -> None:
    """A label of 10**6 in such a row would be an index out of range."""
    numbers = CASES["classes"].draw()
    numbers.labels[1] = 10**6
    loss = prepared(CASES["classes"], numbers)
    student = signals_of(numbers.student, torch.float64)
    batch = batch_of(numbers)
    values = loss(student, Signals(), batch)
    assert values[1] == 0
    assert loss.counts(batch)[1] == 0


def test_positions_that_count_are_known_and_nothing_is_shifted() -> None:
    numbers = CASES["tokens"].draw()
    batch = batch_of(numbers)
    assert (prepared(CASES["tokens"], numbers).counts(batch)[0] > 0).tolist() == [False, True, True]


def test_tokens_without_a_mask_count_by_their_labels() -> None:
    case = Case(CrossEntropy, {"output": (3, 5)}, {}, CASES["tokens"].golden, labels=token_labels)
    numbers = case.draw()
    counts = prepared(case, numbers).counts(batch_of(numbers))
    assert (counts > 0).tolist() == [[False, True, True], [False] * 3, [True] * 3, [True] * 3]


def test_nan_at_an_ignored_position_stays_out_of_the_gradient() -> None:
    numbers = CASES["tokens"].draw()
    loss = prepared(CASES["tokens"], numbers)
    student = signals_of(numbers.student, torch.float64)
    assert student.output is not None
    student.output[0, 0] = float("nan")
    student.output.requires_grad_()
    values = loss(student, Signals(), batch_of(numbers))
    (values * loss.counts(batch_of(numbers))).sum().backward()
    assert torch.isfinite(student.output.grad).all()


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        ([0, 0, 5, 1], 5, "from 0 to 4"),
        ([0, 0, -1, 1], 5, "from -1"),
        ([0.0, 1.0, 0.5, 1.0], 5, "float"),
        ([0, 0, 0, 0], 1, "BinaryCrossEntropy"),
        ([[0], [0], [1], [1]], 5, "one label for each"),
    ],
)
def test_labels_that_do_not_fit_are_refused_before_training(labels, classes: int, message: str) -> None:
    numbers = CASES["classes"].draw()
    numbers = Numbers(
        {"output": numbers.student["output"][:, :classes]},
        {},
        numbers.weights,
        None,
        np.array(labels),
        numbers.labelled,
    )
    with pytest.raises(SignalError, match=message):
        CrossEntropy().prepare(signals_of(numbers.student, torch.float64), Signals(), batch_of(numbers))


def test_smoothing_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="label_smoothing"):
        CrossEntropy(1.0)


def test_a_small_loss_is_not_rounded_away_beside_large_logits() -> None:
    """log Σ e^s - s_y as written is 0 here: float32 has steps of 0.001 at 10000."""
    logits = torch.tensor([[10000.0, 9990.0]], requires_grad=True)
    value = cross_entropy(logits, torch.tensor([0]))
    value.sum().backward()
    torch.testing.assert_close(value, torch.tensor([4.5398899e-05]), rtol=1e-2, atol=0)
    torch.testing.assert_close(logits.grad, torch.tensor([[-4.5397869e-05, 4.5397869e-05]]), rtol=1e-2, atol=0)
