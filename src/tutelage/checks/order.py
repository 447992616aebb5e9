"""Columns of outputs against columns of labels: which output is which label's, judged by rows that have both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Fit", "assignment", "columns_of", "find_order", "midranks"]

Array = np.ndarray[Any, Any]
SURE = 4.0
"""Standard errors that a difference has to be from zero: in tens of thousands of sound teachers one is suspected."""

LITTLE = 0.1
"""The separation of a teacher that knows little and is yet of use: an area under the ROC curve of 0.55."""


@dataclass(frozen=True)
class Fit:
    """How well outputs go with labels, in their order and in the order that fits best.

    Attributes:
        order: `[K]`: the output that goes best with each label; the label's own number where no other fits better.
        own: `[K]`: correlation of each label with the output of its number.
        best: `[K]`: correlation of each label with the output in `order`.
        gain: By how many standard errors `order` is better than the given one, on rows that it was not found on.
        slack: Standard error of a correlation on so many rows, were there none.
    """

    order: Array
    own: Array
    best: Array
    gain: float
    slack: float

    @property
    def moved(self) -> Array:
        """The labels whose output stands elsewhere."""
        return np.flatnonzero(self.order != np.arange(len(self.order)))

    @property
    def better(self) -> bool:
        """Whether another order fits surely better."""
        return bool(len(self.moved)) and self.gain >= SURE

    @property
    def permuted(self) -> bool:
        """Whether another order fits surely better, and outputs say nothing of the labels that it moves.

        A teacher that often takes one class for another still goes with both of them: that is no other order. Nor is
        that of outputs which go against their own labels more than with any other: their sign is turned.
        """
        moved = self.moved
        if not self.better:
            return False
        own, best = float(self.own[moved].mean()), float(self.best[moved].mean())
        return own <= best / 5 and best >= -0.9 * own

    @property
    def turned(self) -> Array:
        """The labels whose own output surely falls where it should rise."""
        return np.flatnonzero(self.own < -SURE * self.slack)

    @property
    def informed(self) -> bool:
        """Whether the outputs, on the whole, go with the labels of their numbers."""
        varied = self.own[self.own != 0]
        return bool(len(varied) and varied.mean() > 2 * self.slack / np.sqrt(len(varied)))

    def useless(self, perfect: Array) -> bool:
        """Whether outputs surely go with their labels less than those of a teacher that knows little.

        The upper limit of their mean separation (`2 AUC - 1`; of values, of their correlation) is below `LITTLE`.

        Args:
            perfect: `[K]`: the correlation that perfect outputs would have.
        """
        varied = self.own != 0
        if not varied.any():
            return True
        separation = self.own[varied] / perfect[varied]
        error = self.slack * float(np.sqrt(np.mean(perfect[varied] ** -2.0) / varied.sum()))
        return bool(separation.mean() + 2 * error < LITTLE)


def find_order(labels: Array, outputs: Array) -> Fit:
    """Which output goes with which label.

    Correlations `R = UᵀV / n` of standardised columns are assigned one to one, so that their sum is the greatest. The
    order that is found on every other row is tried on those between and the other way round: the search among `K!`
    orders then favours none of them. So each half has to have rows of each class.

    Args:
        labels: `[n, K]`: numbers, or 0 and 1.
        outputs: `[n, M]`, `M >= K`: scores; those of labels come first.
    """
    n, count = labels.shape
    correlation = _standard(labels).T @ _standard(outputs) / n
    order = _kept_where_equal(correlation)
    halves = [np.arange(0, n, 2), np.arange(1, n, 2)]
    gains = []
    for found_on, tried_on in (halves, halves[::-1]):
        u, v = _standard(labels[found_on]), _standard(outputs[found_on])
        tried = _kept_where_equal(u.T @ v / len(found_on))
        u, v = _standard(labels[tried_on]), _standard(outputs[tried_on])
        gains.append((u * (v[:, tried] - v[:, :count])).sum(1))
    gain = np.concatenate(gains)
    deviation = max(float(gain.std(ddof=1)), 1.0)  # answers that are all alike are not infinitely sure
    places = np.arange(count)
    return Fit(
        order=order,
        own=correlation[places, places],
        best=correlation[places, order],
        gain=float(gain.mean() / (deviation / np.sqrt(n))),
        slack=1 / np.sqrt(n),
    )


def columns_of(classes: Array, chosen: Array) -> Array:
    """`[n, K]`: 1 where a row is of a class, for the chosen classes."""
    columns: Array = (classes[:, None] == chosen[None]).astype(np.float64)
    return columns


def midranks(columns: Array) -> Array:
    """The rank of each number in its column `[n, K]`, the mean rank where some are equal."""
    ranks = np.empty(columns.shape)
    for k, column in enumerate(columns.T):
        _, place, count = np.unique(column, return_inverse=True, return_counts=True)
        ranks[:, k] = (np.cumsum(count) - (count - 1) / 2)[place]
    return ranks


def assignment(worth: Array) -> Array:
    """The column of each row, each column at most once, with the greatest sum of `worth`, `[K, M]` with `K <= M`.

    Rows are added one by one, each along the cheapest path of changes to those before (Kuhn 1955, Munkres 1957), with
    prices of rows and columns that keep all reduced costs at 0 or above: `O(K² M)`.
    """
    cost = -np.asarray(worth, np.float64)
    rows, columns = cost.shape
    row_price, column_price = np.zeros(rows), np.zeros(columns)
    taken_by = np.full(columns, -1)
    for row in range(rows):
        distance = np.full(columns, np.inf)
        came_from = np.full(columns, -1)
        done = np.zeros(columns, bool)
        at, at_row, walked = -1, row, 0.0
        while at < 0 or taken_by[at] >= 0:
            at_row = row if at < 0 else taken_by[at]
            reached = walked + cost[at_row] - row_price[at_row] - column_price
            nearer = ~done & (reached < distance)
            distance[nearer], came_from[nearer] = reached[nearer], at
            at = int(np.where(done, np.inf, distance).argmin())
            walked = float(distance[at])
            done[at] = True
        settled = done & (np.arange(columns) != at)
        row_price[row] += walked
        row_price[taken_by[settled]] += walked - distance[settled]
        column_price[settled] -= walked - distance[settled]
        while at >= 0:  # each along the path gives its column to the one before
            before = came_from[at]
            taken_by[at] = row if before < 0 else taken_by[before]
            at = before
    found: Array = np.empty(rows, np.int64)
    found[taken_by[taken_by >= 0]] = np.flatnonzero(taken_by >= 0)
    return found


def _kept_where_equal(correlation: Array) -> Array:
    """The best assignment; of several as good as each other, the one that moves the fewest."""
    count = len(correlation)
    preferred = correlation.copy()
    preferred[np.arange(count), np.arange(count)] += 1e-9
    return assignment(preferred)


def _standard(columns: Array) -> Array:
    """Columns of mean 0 and variance 1; those that do not vary stay at 0."""
    centred = columns - columns.mean(0)
    deviation = centred.std(0)
    standard: Array = np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > 1e-12)
    return standard
