"""Statistics of rare classes and labels: areas under curves, means over classes, F1.

An area under a curve, or a mean over classes, is no mean over rows, but near enough one: `θ + Σ_i w_i φ_i / Σ_i w_i`
with the influence `φ_i = n · ∂θ/∂w_i` of row `i` is its value where every row counts once, and follows it to first
order where rows count more or less. So one `Mean` a model serves, at the price of one sort a class, whatever the number
of classes and resamples; of the area under the ROC curve its variance is that of DeLong et al. (1988).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.evaluation.evidence import Floats
from tutelage.evaluation.metrics.base import Mean, OfMeans, Statistic

__all__ = [
    "average_precision",
    "balanced_recall",
    "f1_by_class",
    "f1_by_label",
    "macro",
    "mean_average_precision",
    "micro_f1",
    "roc_area",
    "roc_area_by_class",
]

Booleans = NDArray[np.bool_]
Part = tuple[float, Floats]
"""A value `θ` and the influence of each row on it, `[n]`, whose mean is 0."""


def macro(parts: Iterable[Part], n: int, scarcest: int, *, of_shares: bool = False) -> Statistic:
    """The mean of the values of several classes; undefined (NaN) where there is no class.

    It rests on about as many rows as the scarcest class has, times the number of classes: had all of them no error, the
    one that may hide most is the scarcest.

    Args:
        parts: Of each class.
        n: Rows.
        scarcest: Rows of the scarcest class.
        of_shares: Whether the values are shares of the rows of a class.
    """
    total, influence, count = 0.0, np.zeros(n), 0
    for value, of_rows in parts:
        total, count = total + value, count + 1
        influence += of_rows
    if not count:
        return Mean(np.full(n, np.nan))
    return Mean((total + influence) / count, events=min(n, count * scarcest), of_shares=of_shares)


def roc_area(scores: NDArray[Any], positive: Booleans) -> Part:
    """The share of pairs of a positive and a negative row in which the positive has the higher score, ties as halves.

    The Mann-Whitney statistic, the area under the ROC curve. Both kinds of rows have to occur.

    Args:
        scores: `[n]`, infinite ones too.
        positive: `[n]`.
    """
    group, positives, negatives = _tied(scores, positive)
    many, few = positives.sum(), negatives.sum()
    beaten = (np.cumsum(negatives) - negatives / 2) / few
    beating = (many - np.cumsum(positives) + positives / 2) / many
    area = float(positives @ beaten) / many
    share = many / len(scores)
    influence = np.where(positive, (beaten[group] - area) / share, (beating[group] - area) / (1 - share))
    return float(area), influence


def average_precision(scores: NDArray[Any], positive: Booleans) -> Part:
    """The mean, over the positive rows, of the precision among the rows that score as high or higher.

    `Σ_k (R_k - R_{k-1}) P_k` over the distinct scores, as scikit-learn has it. A positive row has to occur.

    Args:
        scores: `[n]`.
        positive: `[n]`.
    """
    group, positives, negatives = _tied(scores, positive)
    found, listed = (np.cumsum(counts[::-1])[::-1] for counts in (positives, positives + negatives))
    precision, total = found / listed, positives.sum()
    value = float(positives @ precision) / total
    # A row counts in the precision of every positive that does not score higher than it.
    gained, lost = np.cumsum(positives / listed), np.cumsum(positives * found / listed**2)
    influence = positive * (precision[group] + gained[group] - value) - lost[group]
    return float(value), influence * len(scores) / total


def roc_area_by_class(log_p: Floats, labels: NDArray[np.int64]) -> Statistic:
    """The mean over classes of the area of each against the rest, over the classes of some rows but not of all.

    Of two classes, both have one area.
    """
    counts = np.bincount(labels, minlength=log_p.shape[1])
    classes = np.flatnonzero((counts > 0) & (counts < len(labels)))
    if log_p.shape[1] == 2:
        classes = classes[-1:]
        with np.errstate(invalid="ignore"):
            log_p = np.repeat(log_p[:, 1:] - log_p[:, :1], 2, axis=1)  # two sure classes tie in their probabilities
    scarcest = int(np.minimum(counts, len(labels) - counts)[classes].min(initial=len(labels)))
    return macro((roc_area(log_p[:, c], labels == c) for c in classes), len(labels), scarcest)


def balanced_recall(right: Booleans, labels: NDArray[np.int64]) -> Statistic:
    """The mean, over the classes that occur, of the share of their rows that are right."""
    counts = np.bincount(labels)
    recall = np.bincount(labels, weights=right) / np.maximum(counts, 1)
    n, classes = len(labels), int(np.count_nonzero(counts))
    influence = (right - recall[labels]) * n / counts[labels]
    return macro(
        [(float(recall.sum()) / classes, influence / classes)], n, min(n, classes * _scarcest(counts)), of_shares=True
    )


def f1_by_class(chosen: NDArray[np.int64], labels: NDArray[np.int64]) -> Statistic:
    """The mean of `2 TP / (2 TP + FP + FN)` over the classes that occur in the labels, where a row has one class."""
    n, width = len(labels), int(max(chosen.max(), labels.max())) + 1
    counts = np.bincount(labels, minlength=width)
    sizes, right = counts + np.bincount(chosen, minlength=width), chosen == labels
    both, occurs = 2.0 * np.bincount(labels, weights=right, minlength=width), counts > 0
    value = np.divide(both, sizes, out=np.zeros(width), where=occurs)
    per = np.divide(n, sizes, out=np.zeros(width), where=occurs)
    classes = int(occurs.sum())
    influence = 2 * right * per[labels] - (value * per)[labels] - (value * per)[chosen]
    scarcest = min(n, classes * _scarcest(counts))
    return macro([(float(value.sum()) / classes, influence / classes)], n, scarcest, of_shares=True)


def f1_by_label(on: Booleans, truth: Booleans) -> Statistic:
    """The mean of `2 TP / (2 TP + FP + FN)` over the labels that some row has on in truth; `[n, C]` both."""
    counts = truth.sum(axis=0)

    def parts() -> Iterator[Part]:
        for label in np.flatnonzero(counts):
            said, true = on[:, label], truth[:, label]
            size, both = said.astype(float) + true, 2.0 * (said & true)
            value = both.sum() / size.sum()
            yield float(value), (both - value * size) * len(true) / size.sum()

    return macro(parts(), len(truth), _scarcest(counts), of_shares=True)


def micro_f1(on: Booleans, truth: Booleans) -> Statistic:
    """`2 TP / (2 TP + FP + FN)` over all labels of all rows, `[n, C]`; undefined where nothing is on."""
    columns = np.stack([(on & truth).sum(axis=1), (on ^ truth).sum(axis=1)], axis=1)
    some = int(truth.any(axis=1).sum())
    return OfMeans(columns, lambda means: 2 * means[:, 0] / (2 * means[:, 0] + means[:, 1]), events=some)


def mean_average_precision(scores: NDArray[Any], truth: Booleans) -> Statistic:
    """The mean of the average precision over the labels that some row has on in truth; `[n, C]` both."""
    counts = truth.sum(axis=0)
    parts = (average_precision(scores[:, label], truth[:, label]) for label in np.flatnonzero(counts))
    return macro(parts, len(truth), _scarcest(counts))


def _scarcest(counts: NDArray[np.int64]) -> int:
    return int(counts[counts > 0].min(initial=2**31))


def _tied(scores: NDArray[Any], positive: Booleans) -> tuple[NDArray[np.int64], Floats, Floats]:
    """The place of each row's score among the distinct ones, rising, and how many rows of each kind have each score."""
    group = np.unique(scores, return_inverse=True)[1].astype(np.int64)
    positives: Floats = np.bincount(group, weights=positive).astype(np.float64)
    return group, positives, np.bincount(group) - positives
