"""Standard errors of smooth statistics, for the sample and for every resample of it, by linearisation."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import NDArray

from tutelage.evaluation.evidence import Floats
from tutelage.evaluation.metrics.base import Combine, Statistic

__all__ = ["Linearised"]

STEP = 1e-5
"""Step of the numeric gradient, in standard deviations of a column."""
WIDE = 48
"""With more columns than this, the gradient of a resample is that of the sample: each column then matters little."""


class Linearised:
    """A smooth function `f` of the means of columns, over the units that a resample draws: rows, or whole groups.

    Rows `x_i` of unit `u` move the value by `e_u = Σ_{i in u} ∇f · (x_i - x̄)`, so with `w_u` copies of each of `U`
    units, `m_u` rows in each, the standard error is `√(U / (U - 1) · Σ_u w_u e_u²) / Σ_u w_u m_u`: the delta method,
    for groups the usual one of a ratio. A resample has its own means and its own gradient (by central differences).

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, sections 12.5 and 22.

    Args:
        columns: `[n, M]`.
        combine: `f`, from means `[R, M]` to `[R]`.
        groups: `[n]` numbers from 0 of the group of each row, or None.
    """

    def __init__(self, columns: Floats, combine: Combine, groups: NDArray[np.int64] | None = None) -> None:
        self.combine = combine
        self.middle: Floats = columns.mean(axis=0)
        self.spread: Floats = columns.std(axis=0)
        centred = columns - self.middle
        if groups is None:
            self.sums: Floats = centred
            self.sizes: Floats = np.ones(len(columns))
        else:
            units = int(groups.max()) + 1
            self.sums = np.stack([np.bincount(groups, column, units) for column in centred.T], axis=1)
            self.sizes = np.bincount(groups, minlength=units).astype(np.float64)

    @classmethod
    def of(cls, statistic: Statistic, groups: NDArray[np.int64] | None = None) -> Self | None:
        """The statistic linearised, or None if it isn't smooth."""
        means = statistic.as_means()
        return None if means is None else cls(*means, groups)

    @property
    def units(self) -> int:
        """How many rows or groups a resample draws."""
        return len(self.sizes)

    def under(self, counts: Floats) -> tuple[Floats, Floats]:
        """The value and its standard error under each of `R` weightings of the units, `[R, U] -> [R]` and `[R]`."""
        with np.errstate(invalid="ignore", divide="ignore"):
            totals = counts @ self.sizes
            shift = counts @ self.sums / totals[:, None]
            values = self.combine(self.middle + shift)
            gradient = self._gradient(shift if self.sums.shape[1] <= WIDE else np.zeros((1, len(self.middle))))
            if self.sums.shape[1] == 1:  # no matrix [R, U] is needed
                x, m = self.sums[:, 0], self.sizes
                xx, xm, mm = (counts @ np.stack([x * x, x * m, m * m], axis=1)).T
                squares = gradient[:, 0] ** 2 * np.maximum(xx - 2 * shift[:, 0] * xm + shift[:, 0] ** 2 * mm, 0.0)
            else:
                middle = (gradient * shift).sum(axis=1, keepdims=True)
                moved = gradient @ self.sums.T - middle * self.sizes
                squares = np.einsum("ru,ru,ru->r", counts, moved, moved)
            return values, np.sqrt(self.units / (self.units - 1) * squares) / totals

    def influence(self) -> Floats:
        """How far each unit moves the value of the sample, `[U]`, but for a factor that is common to all."""
        with np.errstate(invalid="ignore", divide="ignore"):
            moved: Floats = self.sums @ self._gradient(np.zeros((1, len(self.middle))))[0]
        return moved

    def _gradient(self, shift: Floats) -> Floats:
        """`∇f` at the sample's means moved by `shift`, `[R, M]`; 0 for a constant column, which moves nothing."""
        gradient = np.zeros_like(shift)
        at = self.middle + shift
        for column in np.flatnonzero(self.spread):
            step = np.zeros(len(self.middle))
            step[column] = STEP * self.spread[column]
            gradient[:, column] = (self.combine(at + step) - self.combine(at - step)) / (2 * step[column])
        return gradient
