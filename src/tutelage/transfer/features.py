"""Columns of a table: numbers and categories, some of them missing, as the source has them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tutelage.categories import Category, category
from tutelage.errors import DataError
from tutelage.transfer.hashing import Digests, array_digests, mixed, text_digests

__all__ = ["Category", "Features"]

Array = np.ndarray[Any, Any]


class Features:
    """The columns of a table by name, in the order in which models see them: one entry of `Rows.columns`.

    Numbers are kept as float64, NaN where they are missing. Categories are kept in their plain form (`category`: texts,
    numbers, truth values), None where they are missing: an empty text, NaN or None.

    Args:
        columns: `[N]` each.
        categories: Names of the columns that hold categories.
        whole: Names of columns of numbers that are whole, beside those whose arrays are of whole numbers: integers with
            missing ones come as floats.

    Attributes:
        whole: The columns of whole numbers. What makes rows of others gives them no fractions.

    Raises:
        DataError: A cell is no number, infinite, or no category; its column and row are named.
    """

    def __init__(
        self,
        columns: Mapping[str, Array | Sequence[Any]],
        categories: Collection[str] = (),
        whole: Collection[str] = (),
    ) -> None:
        self.categories = tuple(name for name in columns if name in categories)
        self.columns: dict[str, Array] = {
            name: _categories(column, name) if name in self.categories else _numbers(column, name)
            for name, column in columns.items()
        }
        self.whole = tuple(
            n for n in self.numbers if n in whole or getattr(columns[n], "dtype", np.dtype(object)).kind in "iub"
        )

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return self.matrix().astype(dtype or np.float64, copy=False)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self), len(self.columns)

    @property
    def numbers(self) -> tuple[str, ...]:
        """Names of the columns of numbers."""
        return tuple(name for name in self.columns if name not in self.categories)

    def missing(self) -> dict[str, Array]:
        """`[N]` bool for each column with missing cells: where they are."""
        found = {name: _missing(column) for name, column in self.columns.items()}
        return {name: where for name, where in found.items() if where.any()}

    def matrix(self) -> Array:
        """`[N, F]` float64, for tables of numbers without missing ones.

        Raises:
            DataError: There are categories or missing cells.
        """
        mend = "set `data.tabular: {}`, which says how they become numbers"
        if self.categories:
            raise DataError(
                f"column `{self.categories[0]}`", expected="numbers", found="categories (data.source)", mend=mend
            )
        for name, where in self.missing().items():
            raise DataError(
                f"column `{name}`, row {int(np.argmax(where))}",
                expected="a value in every row",
                found=f"nothing, or a word for it such as NA (in {int(where.sum()):,} rows)",
                mend=f"fill or remove these rows, or {mend}",
            )
        return np.stack(list(self.columns.values()), axis=1)

    def take(self, rows: Array) -> dict[str, Array]:
        """Some rows: float64 `[B]`, or objects `[B]` for categories."""
        return {name: column[rows] for name, column in self.columns.items()}

    def digests(self) -> Digests:
        """A digest of each row, `[N, 2]`."""
        parts = [array_digests(np.stack([self.columns[name] for name in self.numbers], axis=1))] if self.numbers else []
        if self.categories:
            cells = zip(*(self.columns[name] for name in self.categories), strict=True)
            parts.append(text_digests([repr(row) for row in cells]))
        if len(parts) == 1:
            return parts[0]
        halves = [mixed(seed, *[part[:, half] for part in parts for half in (0, 1)]) for seed in (0, 1)]
        return np.stack(halves, axis=1)

    def display(self, row: int) -> str:
        """A row as a person reads it."""
        return ", ".join(f"{name}: {_word(column[row])}" for name, column in self.columns.items())


def _is_nothing(cell: Any) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def _word(cell: Any) -> str:
    if _is_nothing(cell):
        return "missing"
    return f"{cell:.6g}" if isinstance(cell, float) else str(cell)


def _missing(column: Array) -> Array:
    if column.dtype.kind == "f":
        return np.isnan(column)
    return np.array([cell is None for cell in column], dtype=bool)


def _numbers(column: Array | Sequence[Any], name: str) -> Array:
    """`[N]` float64 with NaN where nothing is."""
    raw = np.asarray(column) if not isinstance(column, np.ndarray) else column
    if raw.dtype.kind not in "iufb":
        raw = np.array([np.nan if cell is None else cell for cell in column], dtype=object)
    try:
        values: Array = raw.astype(np.float64)
    except (TypeError, ValueError) as error:
        row = next(row for row, cell in enumerate(raw) if not _is_number(cell))
        raise DataError(
            f"column `{name}`, row {row}",
            expected="numbers",
            found=f"{raw[row]!r}"[:80],
            mend="name the column among the `categories` of data.source",
        ) from error
    with np.errstate(over="ignore"):
        infinite = np.isinf(values.astype(np.float32))
    if infinite.any():
        row = int(np.argmax(infinite))
        raise DataError(
            f"column `{name}`, row {row}",
            expected="numbers that float32 can hold",
            found=f"{values[row]} (in {int(infinite.sum()):,} rows)",
            harm="one such number turns the loss, and then every weight, into NaN",
            mend="fill or remove these rows, or leave the cells empty",
        )
    values[np.isnan(values)] = np.nan  # one NaN of the many that there are: rows that look the same have one digest
    return values


def _is_number(cell: Any) -> bool:
    try:
        float(cell)
    except (TypeError, ValueError):
        return False
    return True


def _categories(column: Array | Sequence[Any], name: str) -> Array:
    """`[N]` objects: texts, numbers, truth values, or None."""
    found = np.empty(len(column), dtype=object)
    for row, cell in enumerate(column):
        try:
            found[row] = category(cell)
        except ValueError as error:
            raise DataError(
                f"column `{name}`, row {row}",
                expected="a category: a text, a number, a truth value or a date",
                found=str(error)[:120],
                mend="leave the column out of `categories`, or write its cells as texts",
            ) from error
    return found
