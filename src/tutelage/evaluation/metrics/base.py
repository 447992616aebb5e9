"""What a metric is: a description for people, and for each model a statistic of weighted rows.

A statistic is a function of how often each row is counted. With every row counted once it is the metric's value; with
the counts of a bootstrap resample it is the metric of that resample. So one matrix of counts `[R, n]` serves every
metric and every model, and the differences between models are paired.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from tutelage.evaluation.evidence import Floats

__all__ = [
    "CONSTANT",
    "SHARE",
    "Change",
    "Combine",
    "Description",
    "Difference",
    "Kind",
    "Mean",
    "Metric",
    "OfMeans",
    "RankCorrelation",
    "Statistic",
]

Kind = Literal["quality", "fidelity"]
Combine = Callable[[Floats], Floats]
"""From means of columns `[R, M]` to values `[R]`; NaN where undefined."""
Change = Literal["shift", "scale", "rotation"]
"""What can be done to outputs: a number added to all values of a row, a row times a positive number, one rotation of
all rows."""
SHARE = (0.0, 1.0)
"""Bounds of a share of rows."""
CONSTANT = "constant"
"""The name, beside those of the models, of the best answer that is the same for every row: it looks at no input."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a metric is, known before anything is computed.

    Attributes:
        name: As a policy names it.
        title: For people.
        kind: `quality` is measured against labels or human scores, `fidelity` against the teacher.
        higher_is_better: Direction.
        unit: `"%"` for shares, else `""`.
        bounds: The least and greatest value there can be.
        needs_labels: Whether rows need labels.
        needs_same_width: Whether teacher and student must give outputs of one shape.
        needs_several: Whether a row must have two values or more.
        ignores: Changes of a model's outputs that leave the metric as it is: it can't show whether a model that is
            free in them comes nearer.
        decisions: Whether it looks at decisions alone: at the class that is chosen, the labels that are on.
    """

    name: str
    title: str
    kind: Kind
    higher_is_better: bool
    unit: str = ""
    bounds: tuple[float, float] = (-np.inf, np.inf)
    needs_labels: bool = False
    needs_same_width: bool = False
    needs_several: bool = False
    ignores: frozenset[Change] = frozenset()
    decisions: bool = False


class Statistic(ABC):
    """A number computed from `n` rows, each counted some number of times.

    Attributes:
        n: Rows.
        events: How many of the rows it rests on, where few of them decide it (rows of a rare class); None: all.
        of_shares: Whether it is a mean of the shares of classes, of which those with few rows may show no error.
    """

    n: int
    events: int | None = None
    of_shares: bool = False

    @abstractmethod
    def of(self, counts: Floats) -> Floats:
        """The statistic under each of `R` weightings, `[R, n] -> [R]`; NaN where it is undefined."""

    def value(self) -> float:
        """The statistic with every row counted once."""
        return float(self.of(np.ones((1, self.n)))[0])

    def as_means(self) -> tuple[Floats, Combine] | None:
        """The statistic as a smooth function of the means of columns `[n, M]`, where it is one.

        Its standard error then follows by linearisation, and its interval is studentised; else the interval is that of
        the percentiles of the resamples.
        """
        return None


@final
class Mean(Statistic):
    """The mean of one value a row, `[n]`.

    Args:
        values: `[n]`.
        events: How many of the rows it rests on.
        of_shares: Whether it is a mean of the shares of classes.
    """

    def __init__(self, values: NDArray[Any], *, events: int | None = None, of_shares: bool = False) -> None:
        self.values: Floats = np.asarray(values, np.float64)
        self.n = len(self.values)
        self.events, self.of_shares = events, of_shares

    def of(self, counts: Floats) -> Floats:
        """The weighted means."""
        means: Floats = counts @ self.values / counts.sum(axis=1)
        return means

    def as_means(self) -> tuple[Floats, Combine]:
        """The one column itself."""
        return self.values[:, None], lambda means: means[:, 0]


@final
class OfMeans(Statistic):
    """A function of the means of several columns, `[n, M]`: a root, a ratio, a correlation.

    Args:
        columns: `[n, M]`.
        combine: From means `[R, M]` to values `[R]`; NaN where undefined.
        smooth: Whether `combine` has a gradient. Not if it takes absolute values of means that are near 0.
        events: How many of the rows it rests on.
    """

    def __init__(
        self, columns: NDArray[Any], combine: Combine, *, smooth: bool = True, events: int | None = None
    ) -> None:
        self.columns: Floats = np.asarray(columns, np.float64)
        self.combine = combine
        self.smooth = smooth
        self.n = len(self.columns)
        self.events = events

    def of(self, counts: Floats) -> Floats:
        """The function of the weighted means."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.combine(counts @ self.columns / counts.sum(axis=1, keepdims=True))

    def as_means(self) -> tuple[Floats, Combine] | None:
        """The columns and the function, if it is smooth."""
        return (self.columns, self.combine) if self.smooth else None


@final
class Difference(Statistic):
    """The difference `ours - theirs` of two statistics of the same rows."""

    def __init__(self, ours: Statistic, theirs: Statistic) -> None:
        self.ours = ours
        self.theirs = theirs
        self.n = ours.n
        self.events = min((x.events for x in (ours, theirs) if x.events is not None), default=None)
        self.of_shares = ours.of_shares

    def of(self, counts: Floats) -> Floats:
        """The differences under each weighting."""
        return self.ours.of(counts) - self.theirs.of(counts)

    def as_means(self) -> tuple[Floats, Combine] | None:
        """A function of both sides' columns, if both are smooth; one column where both are means."""
        if isinstance(self.ours, Mean) and isinstance(self.theirs, Mean):
            return Mean(self.ours.values - self.theirs.values).as_means()
        ours, theirs = self.ours.as_means(), self.theirs.as_means()
        if ours is None or theirs is None:
            return None
        (a, f), (b, g) = ours, theirs
        return np.hstack([a, b]), lambda means: f(means[:, : a.shape[1]]) - g(means[:, a.shape[1] :])


@final
class RankCorrelation(Statistic):
    """Spearman's correlation of `x` and `y`, with mid-ranks for ties.

    Counting an item `c` times gives exactly the correlation of a sample in which it occurs `c` times. When the items
    are pairs of rows, a pair counts as often as its two ends together: the product of their counts (a row drawn twice
    with one drawn three times makes six pairs). A row drawn twice is not paired with itself: that pair says nothing.
    Nor is a group of rows that is drawn twice: the pairs within it occur twice, not four times.

    Args:
        x: `[P]`.
        y: `[P]`.
        ends: Row numbers of each pair, `[P]` and `[P]`, when the items are pairs of `n` rows.
        n: The number of rows, when the items are pairs.
        groups: `[n]` the group of each row, when whole groups are drawn.
    """

    def __init__(
        self,
        x: Floats,
        y: Floats,
        *,
        ends: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
        n: int = 0,
        groups: NDArray[np.int64] | None = None,
    ) -> None:
        self.x, self.y = (_Ranks(values) for values in (x, y))
        self.ends = ends
        self.n = n if ends is not None else len(x)
        self.within: NDArray[np.int64] | None = None
        if ends is not None:
            group = np.arange(n) if groups is None else groups
            self.within = np.flatnonzero(group[ends[0]] == group[ends[1]])

    def of(self, counts: Floats) -> Floats:
        """The weighted rank correlations; NaN when one side is constant."""
        weights = counts if self.ends is None else self._of_pairs(counts, self.ends)
        total = weights.sum(axis=1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            x, y = (self._centred(ranks.under(weights), weights / total) for ranks in (self.x, self.y))
            weighted = weights * x
            covariance = np.einsum("rp,rp->r", weighted, y)
            spread = np.einsum("rp,rp->r", weighted, x) * np.einsum("rp,rp,rp->r", weights, y, y)
            correlation: Floats = covariance / np.sqrt(spread)
        return correlation

    def of_independent_pairs(self) -> RankCorrelation:
        """The same correlation as a function of how often each pair is counted, `n = P`."""
        other = copy(self)
        other.ends, other.n = None, len(self.x.group)
        return other

    def _of_pairs(self, counts: Floats, ends: tuple[NDArray[np.int64], NDArray[np.int64]]) -> Floats:
        first = counts[:, ends[0]]
        weights: Floats = first * counts[:, ends[1]]
        weights[:, self.within] = first[:, self.within]
        return weights

    @staticmethod
    def _centred(ranks: Floats, shares: Floats) -> Floats:
        centred: Floats = ranks - np.einsum("rp,rp->r", shares, ranks)[:, None]
        return centred


class _Ranks:
    """Mid-ranks under any weights, from one sort."""

    def __init__(self, values: Floats) -> None:
        self.order = np.argsort(values, kind="stable")
        new = np.diff(values[self.order], prepend=-np.inf) > 0
        self.starts = np.flatnonzero(new)
        self.group = np.empty(len(values), np.int64)
        self.group[self.order] = np.cumsum(new) - 1

    def under(self, weights: Floats) -> Floats:
        """The mid-rank of each item when items are repeated as `weights` say, `[R, P]`, less a constant of 1/2."""
        in_group = np.add.reduceat(weights[:, self.order], self.starts, axis=1)
        ranks: Floats = (np.cumsum(in_group, axis=1) - in_group / 2)[:, self.group]
        return ranks


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric of one evaluation set, ready to be computed on any resample of its rows.

    Attributes:
        about: What it is.
        statistics: By model, all over the same `n` rows; `constant` (`CONSTANT`) where a constant answer has a value.
        rows: `[n]` positions of those rows in the evidence; None: they are all of its rows.
        pairs: How many pairs of independent texts it is computed on, when the `n` that are drawn are the texts.
        capped: The metric looks at a sample of the rows: more rows would not narrow its interval.
        costly: A resample takes much longer than a mean: fewer are drawn.
    """

    about: Description
    statistics: dict[str, Statistic]
    rows: NDArray[np.int64] | None = None
    pairs: int | None = None
    capped: bool = False
    costly: bool = False

    @property
    def n(self) -> int:
        """How many rows (or texts, or pairs) a resample draws."""
        return next(iter(self.statistics.values())).n
