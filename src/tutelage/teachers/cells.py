"""The columns that a model of tables is given: which ones, in which order, as a matrix or as a data frame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tutelage.categories import KnownCategories
from tutelage.errors import MissingExtra, ModelError, did_you_mean
from tutelage.signals import Batch

__all__ = ["Cells", "Strangers", "cells_of"]

Array = np.ndarray[Any, Any]

_ENOUGH = 16
"""Cells of a column, of two values at least, that can't all be new to a model by chance."""


class Cells:
    """Columns of a table by name, in order: numbers `[N]` float64 with NaN, categories `[N]` objects with None.

    Args:
        columns: The columns.
        named: Whether the source gives them names, or they are the numbers of one array.
    """

    def __init__(self, columns: Mapping[str, Array], *, named: bool = True) -> None:
        self.columns = dict(columns)
        self.named = named

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    @property
    def names(self) -> list[str]:
        """Of all columns."""
        return list(self.columns)

    @property
    def categories(self) -> list[str]:
        """Names of the columns that hold no numbers."""
        return [name for name, column in self.columns.items() if column.dtype.kind == "O"]

    def objects(self, name: str) -> list[Any]:
        """The cells of a column as categories: texts, numbers, truth values, None where one is missing."""
        return _cells(self.columns[name])

    def texts(self, name: str) -> list[str]:
        """A column of texts.

        Raises:
            ModelError: It holds something else, or nothing in a row.
        """
        cells: list[Any] = self.columns[name].tolist()
        wrong = [cell for cell in cells if not isinstance(cell, str)]
        if wrong:
            nothing = wrong[0] is None
            raise ModelError(
                f"column `{name}` of the data",
                expected="a text in every row, as a vectorizer of the model reads it",
                found=f"nothing (in {len(wrong):,} of {len(cells):,} rows)" if nothing else f"{wrong[0]!r}",
                mend="fill or remove these rows" if nothing else "name the column under `text` in data.source",
            )
        return cells

    def written(self, texts: Mapping[str, Sequence[str]]) -> Cells:
        """The columns with some of them replaced by texts."""
        return Cells(self.columns | {name: _objects(cells) for name, cells in texts.items()}, named=self.named)

    def only(self, wanted: Sequence[str] | None, names: Sequence[str], count: int | None, model: str) -> Cells:
        """The columns that a model reads, in its order.

        Args:
            wanted: As the user names them; None to find them.
            names: The model's own names for them; empty where it has none.
            count: How many it reads; None where it doesn't say.
            model: How to name it in messages.

        Raises:
            ModelError: The table lacks a column, or it is open which ones are meant.
        """
        chosen = list(wanted) if wanted is not None else list(names)
        absent = [name for name in chosen if name not in self.columns]
        if absent:
            raise ModelError(
                f"column `{absent[0]}`" if wanted is None else "teacher.columns",
                expected=f"a column of the data, which {model} was fitted on",
                found=f"`{absent[0]}`, which the data doesn't have" if wanted is not None else "none of that name",
                mend=f"{did_you_mean(absent[0], self.columns)}, or name the columns in the model's order in "
                "teacher.columns",
            )
        columns = {name: self.columns[name] for name in chosen} if chosen else self.columns
        if count is not None and len(columns) != count:
            raise ModelError(
                "columns of the data",
                expected=f"{count}, as {model} was fitted on",
                found=f"{len(columns)}: {', '.join(columns)}"[:200],
                harm="its numbers would be read as other columns",
                mend="name the model's columns in its order in teacher.columns",
            )
        return Cells(columns, named=self.named)

    def matrix(self) -> Array:
        """`[N, F]` float64, NaN where a cell is missing.

        Raises:
            ModelError: A column holds texts.
        """
        try:
            return np.stack([_floats(column) for column in self.columns.values()], axis=1)
        except (TypeError, ValueError) as error:
            raise ModelError(
                f"columns {', '.join(self.categories)} of the data",
                expected="numbers: the model was fitted on numbers alone",
                found=f"categories ({error})",
                mend="name the model's columns in its order in teacher.columns",
            ) from error

    def like(self, categories: Mapping[str, KnownCategories]) -> Cells:
        """The same columns with each category as it is known, in its type. Unknown ones stay as they are."""

        def column(name: str, cells: Array) -> Array:
            known = categories.get(name)
            numbers = known is not None and all(isinstance(value, int | float) for value in known.values)
            if not known or (cells.dtype.kind != "O" and numbers):
                return cells
            return _objects([known.match(cell) for cell in _cells(cells)])

        return Cells({name: column(name, cells) for name, cells in self.columns.items()}, named=self.named)

    def frame(
        self,
        categories: Mapping[str, KnownCategories] | None = None,
        *,
        missing: str | None = None,
        objects: Mapping[str, float | None] | None = None,
        texts: Collection[str] = (),
    ) -> Any:
        """A pandas DataFrame.

        Args:
            categories: The categories that each column may have: others are missing ones. None: those that are there.
            missing: What stands for a missing category, where the columns are to stay objects.
            objects: Columns that are to stay objects, and what stands for a missing cell in each: None or NaN.

            texts: Columns of texts, which are to stay what they are.

        Raises:
            MissingExtra: pandas is not installed.
            ModelError: A text is missing.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise MissingExtra("pandas", "trees", "tables with names or categories, for a model of tables") from error

        def column(name: str, cells: Array) -> Any:
            if name in texts:
                return pd.Series(self.texts(name), dtype=object)
            if name not in (self.categories if categories is None else categories):
                return _floats(cells)
            if missing is not None:
                return pd.Series([missing if cell is None else cell for cell in _cells(cells)], dtype=object)
            if objects is not None and name in objects:
                return pd.Series([objects[name] if cell is None else cell for cell in _cells(cells)], dtype=object)
            if categories is None:
                return pd.Categorical(cells, categories=_known(cells))
            known = categories[name]
            return pd.Categorical([known.find(cell) for cell in _cells(cells)], categories=known.values)

        return pd.DataFrame({name: column(name, cells) for name, cells in self.columns.items()})


class Strangers:
    """Refuses columns of which the model knows no category at all: each row would count as one without a category.

    Args:
        model: How to name it in messages.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._met: set[str] = set()
        self._strange: dict[str, Counter[Any]] = {}

    def look(self, cells: Cells, categories: Mapping[str, KnownCategories]) -> None:
        """Looks at some more rows; a column that held a known category once is left alone.

        Args:
            cells: The rows.
            categories: What the model knows of its columns of categories.

        Raises:
            ModelError: All of many cells of a column are new to the model.
        """
        for name, known in categories.items():
            if name in self._met:
                continue
            found = [cell for cell in _cells(cells.columns[name]) if cell is not None]
            seen = self._strange.setdefault(name, Counter())
            if any(known.find(cell) is not None for cell in found):
                self._met.add(name)
                continue
            seen.update(found)
            if seen.total() >= _ENOUGH and len(seen) > 1:
                raise ModelError(
                    f"column `{name}` of the data",
                    expected=f"categories that {self._model} was fitted on: {_some(known.values)}",
                    found=f"none of them, but {_some(seen)}",
                    harm="the model would take each row for one whose category is missing",
                    mend="write the categories as in the rows that the model was fitted on, or fit it anew",
                )


def cells_of(batch: Batch, teacher: str) -> Cells:
    """The raw columns of a batch; a column of lists or pixels gives one column for each of its numbers.

    Raises:
        ModelError: The batch has no raw columns.
    """
    if batch.raw is None:
        raise ModelError(
            teacher,
            expected="rows with their columns as the source has them",
            found="a batch of tensors alone",
            mend="use a teacher that reads tensors, such as ModuleTeacher",
        )
    columns: dict[str, Array] = {}
    raw = batch.raw()
    for name, column in raw.items():
        if column.ndim == 1:
            columns[name] = column if column.dtype.kind == "O" else column.astype(np.float64)
        else:
            flat = column.reshape(len(column), -1).astype(np.float64)
            columns |= {f"{name}_{index}": flat[:, index] for index in range(flat.shape[1])}
    return Cells(columns, named=any(column.ndim == 1 for column in raw.values()))


def _floats(column: Array) -> Array:
    if column.dtype.kind == "O":
        return np.array([np.nan if cell is None else float(cell) for cell in column], dtype=np.float64)
    return column


def _cells(column: Array) -> list[Any]:
    if column.dtype.kind == "O":
        return list(column)
    return [None if np.isnan(cell) else int(cell) if cell.is_integer() else cell for cell in column.tolist()]


def _some(values: Iterable[Any]) -> str:
    names = [repr(value) for value in values]
    return ", ".join(names[:5]) + (f", ... ({len(names)} in all)" if len(names) > 5 else "")


def _known(column: Array) -> list[Any]:
    return sorted(
        {cell for cell in column.tolist() if cell is not None}, key=lambda cell: (isinstance(cell, str), cell)
    )


def _objects(cells: Sequence[Any]) -> Array:
    found = np.empty(len(cells), dtype=object)
    found[:] = cells
    return found
