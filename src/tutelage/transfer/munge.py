"""MUNGE: rows of a table that exchange values with their nearest neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np

from tutelage.errors import DataError, RecipeError
from tutelage.transfer.made import Column, Given, MadeRows, Maker

__all__ = ["Munge", "munge"]

Array = np.ndarray[Any, Any]


class Munge(Maker):
    """MUNGE, for tables: in a pass over a copy of the training rows, each row `e` in turn meets its nearest `e'`.

    Each attribute `a` is exchanged with probability `p`. A continuous one becomes `e_a ~ N(e'_a, sd)` and
    `e'_a ~ N(e_a, sd)`, both of the values before, with `sd = |e_a - e'_a| / s`; a categorical one is swapped. So are
    missing values (NaN). Rows are compared by the Euclidean distance of continuous attributes, each scaled to [0, 1],
    where a categorical attribute that differs counts 1. Neighbours are looked for among the rows as they have become.
    Passes are made until there are `count` rows; of the last a part is drawn.

    A pass costs `n² F` for `n` rows of `F` attributes: 2 s for 5,000 rows of 16.

    Source: Buciluǎ, Caruana, Niculescu-Mizil, "Model Compression", 2006.

    Args:
        count: How many rows are made.
        p: Probability that an attribute is exchanged.
        s: Local variance: the larger, the closer a value stays to one that was there.
        categorical: Numbers of the attributes that are categories, counted from 0 over all columns in their order.
            Columns of whole numbers, and those that the source names as categories, are so anyway.
        seed: Another seed makes others.
    """

    def __init__(
        self, count: int, p: float = 0.5, s: float = 5.0, *, categorical: list[int] | None = None, seed: int = 0
    ) -> None:
        self.count = count
        self.p = p
        self.s = s
        self.categorical = categorical
        self.seed = seed

    def check(self, key: str) -> None:
        """Refuses a count below 1, a `p` that is no probability above 0 and an `s` that is not positive."""
        super().check(key)
        if not 0 < self.p <= 1:
            raise RecipeError(f"{key}.p", expected="a probability above 0", found=str(self.p))
        if not 0 < self.s < float("inf"):
            raise RecipeError(f"{key}.s", expected="a positive number", found=str(self.s))

    def make(self, given: Given) -> MadeRows:
        """See the class.

        Raises:
            DataError: There is a single row, a column of texts or images, or no attribute of a number that is named.
        """
        table = _table(given)
        nominal = self._nominal(given, table.shape[1])
        random = self.random()
        made, parents = [], []
        for start in range(0, self.count, len(table)):
            rows, neighbours = munge(table, nominal, p=self.p, s=self.s, random=random)
            kept = random.permutation(len(table))[: self.count - start]
            made.append(rows[kept])
            parents.append(np.stack([kept, neighbours[kept]], axis=1))
        return MadeRows(columns=_columns(np.concatenate(made), given), parents=np.concatenate(parents))

    def _nominal(self, given: Given, attributes: int) -> Array:
        """`[F]` bool: which attributes are categories."""
        whole = [
            np.full(int(np.prod(column.shape[1:])), given.is_nominal(name))
            for name, column in given.columns.items()
            if not isinstance(column, list)
        ]
        nominal = np.concatenate(whole)
        wrong = [number for number in self.categorical or [] if not 0 <= number < attributes]
        if wrong:
            raise DataError(
                "data.made: Munge.categorical",
                expected=f"numbers of the {attributes} attributes, from 0",
                found=", ".join(map(str, wrong)),
                mend="count them from 0, over all columns in their order",
            )
        nominal[self.categorical or []] = True
        return nominal


def munge(table: Array, nominal: Array, *, p: float, s: float, random: np.random.Generator) -> tuple[Array, Array]:
    """One pass.

    Args:
        table: `[n, F]` float64, NaN where a value is missing.
        nominal: `[F]` bool: which attributes are categories.
        p: Probability that an attribute is exchanged.
        s: Local variance.
        random: Draws, for each row in turn, `F` uniform numbers and then `2 F` normal ones.

    Returns:
        The rows as they have become, `[n, F]`, and the neighbour that each met, `[n]`.
    """
    rows = table.copy()
    total, attributes = rows.shape
    continuous = ~nominal
    with np.errstate(invalid="ignore"):
        spread = np.nanmax(table, axis=0, initial=-np.inf) - np.nanmin(table, axis=0, initial=np.inf)
    scale = np.where(np.isfinite(spread) & (spread > 0) & continuous, spread, 1.0)
    neighbours = np.empty(total, dtype=np.int64)
    for index in range(total):
        distance = _distances(rows, rows[index], continuous, scale)
        distance[index] = np.inf
        neighbour = neighbours[index] = int(distance.argmin())
        mine, theirs = rows[index].copy(), rows[neighbour].copy()
        exchanged = random.random(attributes) < p
        noise = random.standard_normal((2, attributes))
        spread_here = np.where(continuous, np.abs(mine - theirs) / s, 0.0)
        shaken = np.nan_to_num(spread_here, nan=0.0) * noise
        rows[index] = np.where(exchanged, theirs + shaken[0], mine)
        rows[neighbour] = np.where(exchanged, mine + shaken[1], theirs)
    return rows, neighbours


def _distances(rows: Array, row: Array, continuous: Array, scale: Array) -> Array:
    """`[n]` squared distances to `row`; one missing value is as far as two categories, two are alike."""
    difference = (rows - row) / scale
    squared = np.where(continuous, difference * difference, (rows != row).astype(np.float64))
    missing, lacks = np.isnan(rows), np.isnan(row)
    if lacks.any() or missing.any():
        squared = np.where(missing | lacks, (missing != lacks).astype(np.float64), squared)
    total: Array = squared.sum(axis=1)
    return total


def _table(given: Given) -> Array:
    """All columns side by side, `[n, F]` float64."""
    if len(given) < 2:
        raise DataError("data.made: Munge", expected="at least 2 training rows", found=str(len(given)))
    parts = []
    for name, column in given.columns.items():
        if isinstance(column, list) or column.dtype.kind not in "ifO":
            raise DataError(
                f"data.made: Munge: column `{name}`",
                expected="numbers or categories",
                found="texts" if isinstance(column, list) else str(column.dtype),
                mend="use MaskedWords for texts, Mixup for images",
            )
        numbers = _numbered(column, _kinds(column)) if column.dtype.kind == "O" else column
        parts.append(numbers.reshape(len(column), -1).astype(np.float64))
    return np.concatenate(parts, axis=1)


def _columns(table: Array, given: Given) -> dict[str, Column]:
    """The columns of a table that `_table` made, in the shapes and types they had."""
    columns: dict[str, Column] = {}
    at = 0
    for name, column in given.columns.items():
        assert isinstance(column, np.ndarray)  # _table has seen to it
        width = int(np.prod(column.shape[1:]))
        cells = table[:, at : at + width].reshape(-1, *column.shape[1:])
        if column.dtype.kind == "O":
            kinds = _kinds(column)
            columns[name] = np.array([None if np.isnan(cell) else kinds[int(cell)] for cell in cells], dtype=object)
        else:
            columns[name] = cells.astype(column.dtype)
        at += width
    return columns


def _kinds(column: Array) -> list[Any]:
    """The categories of a column of objects, in the order of their first rows."""
    return list(dict.fromkeys(cell for cell in column if cell is not None))


def _numbered(column: Array, kinds: list[Any]) -> Array:
    """`[n]` float64: the number of each cell's category, NaN where it is missing."""
    number = {kind: float(index) for index, kind in enumerate(kinds)}
    return np.array([np.nan if cell is None else number[cell] for cell in column])
