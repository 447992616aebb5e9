"""More inputs from few: rows that are made of training rows, and never taken for given ones."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tutelage.errors import DataError, RecipeError
from tutelage.transfer.columns import Columns
from tutelage.transfer.features import Features
from tutelage.transfer.image_files import ImageFiles

__all__ = ["Given", "Made", "MadeRows", "Maker", "add_made", "given_rows", "positions"]

Array = np.ndarray[Any, Any]
Column = Array | list[str]


@dataclass(frozen=True, kw_only=True)
class Given:
    """The training rows that others may be made of.

    Attributes:
        columns: Inputs by name: texts, arrays `[N, ...]`, images as uint8; of a table float64 numbers, NaN where one is
            missing, and categories as objects, None where one is missing.
        mask_word: What the tokenizer reads as a masked word, or None.
        whole: Columns of a table that are whole numbers in the source; they may be codes of categories.
    """

    columns: dict[str, Column]
    mask_word: str | None = None
    whole: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def is_nominal(self, name: str) -> bool:
        """Whether a column holds categories, or whole numbers, which may be such."""
        column = self.columns[name]
        return name in self.whole or (not isinstance(column, list) and column.dtype.kind in "iO")


@dataclass(frozen=True, kw_only=True)
class MadeRows:
    """Rows that a maker made.

    Attributes:
        columns: The same columns as the given ones, with `M` rows.
        parents: `[M, 2]` int64: which given rows each was made of; -1 where there is no second.
    """

    columns: dict[str, Column]
    parents: Array


class Maker(abc.ABC):
    """Base of all makers. What they make is a function of the given rows and the seed.

    Made rows have no label: the teacher says what they mean. They are for training alone.

    Attributes:
        count: How many rows are made.
        seed: Another seed makes others.
    """

    count: int
    seed: int

    @abc.abstractmethod
    def make(self, given: Given) -> MadeRows:
        """Makes `count` rows.

        Raises:
            DataError: The columns are of a kind that it makes nothing of.
        """

    def check(self, key: str) -> None:
        """Refuses settings that can't be meant.

        Raises:
            RecipeError: Naming the field below `key`.
        """
        if self.count < 1:
            raise RecipeError(f"{key}.count", expected="at least 1 row", found=str(self.count))

    def random(self) -> np.random.Generator:
        """The generator of all its choices."""
        return np.random.default_rng([self.seed % 2**32, 5])


@dataclass(frozen=True, kw_only=True)
class Made:
    """Which rows of a transfer set are made, by whom, and of which.

    Attributes:
        makers: Names of the makers.
        maker: `[N]` the maker of each row; -1 for a given row.
        parents: `[N, 2]` the rows that it is made of; -1 where there is none.
    """

    makers: tuple[str, ...]
    maker: Array
    parents: Array

    @property
    def rows(self) -> Array:
        """`[N]` bool: which rows are made."""
        made: Array = self.maker >= 0
        return made

    def parents_of(self, row: int) -> tuple[int, ...]:
        """The rows that a row is made of; none for a given one."""
        return tuple(int(parent) for parent in self.parents[row] if parent >= 0)

    def counts(self, used: Array) -> dict[str, int]:
        """How many rows of each maker are used, where `used` is `[N]` bool."""
        numbers = [int((used & (self.maker == index)).sum()) for index in range(len(self.makers))]
        totals: dict[str, int] = {}
        for name, number in zip(self.makers, numbers, strict=True):
            totals[name] = totals.get(name, 0) + number
        return totals


def positions(total: int, count: int, random: np.random.Generator) -> Array:
    """`count` positions below `total`, each as often as the others, up to one."""
    rounds = [random.permutation(total) for _ in range(-(-count // total))]
    return np.concatenate(rounds)[:count].astype(np.int64)


def given_rows(named: Mapping[str, Any], columns: Columns, rows: Array, mask_word: str | None) -> Given:
    """Some rows as makers take them, the columns of a table each for itself.

    Args:
        named: The columns of all rows, a table among them where there is one.
        columns: The same, checked.
        rows: Which of them.
        mask_word: What the tokenizer reads as a masked word.

    Raises:
        DataError: A column holds image files, which are read one by one when they are needed.
    """
    found: dict[str, Column] = {}
    whole: frozenset[str] = frozenset()
    for name, column in named.items():
        if isinstance(column, Features):
            found |= column.take(rows)
            whole |= set(column.whole)
        elif name in columns.texts:
            found[name] = [columns.texts[name][row] for row in rows]
        elif name in columns.arrays:
            found[name] = columns.arrays[name][rows]
        else:
            found[name] = _pixels(columns.pictures[name], name)[rows]
    return Given(columns=found, mask_word=mask_word, whole=whole)


def _pixels(pictures: Array | ImageFiles, name: str) -> Array:
    if isinstance(pictures, ImageFiles):
        raise DataError(
            f"data.made: column `{name}`",
            expected="images in an array",
            found="image files",
            mend="load them into an array of uint8 (`Arrays`, or a `Function` of your own)",
        )
    return pictures


def add_made(
    makers: Sequence[Maker], columns: Mapping[str, Any], given: Given, rows: Array
) -> tuple[dict[str, Any], Made]:
    """All columns with the made rows at their end.

    Args:
        makers: Who make them, in order.
        columns: The columns of all rows.
        given: The training rows.
        rows: `[n]` their numbers.
    """
    total = len(next(iter(columns.values())))
    every = [each.make(given) for each in makers]
    maker = [np.full(len(made.parents), index) for index, made in enumerate(every)]
    parents = [np.where(made.parents >= 0, rows[made.parents], -1) for made in every]

    def longer(column: Any, name: str) -> Any:
        return _concatenated([column, *(made.columns[name] for made in every)])

    joined: dict[str, Any] = {}
    for name, column in columns.items():
        if isinstance(column, Features):
            table = {each: longer(cells, each) for each, cells in column.columns.items()}
            joined[name] = Features(table, column.categories, column.whole)
        else:
            joined[name] = longer(column, name)
    made = Made(
        makers=tuple(type(each).__name__ for each in makers),
        maker=np.concatenate([np.full(total, -1), *maker]),
        parents=np.concatenate([np.full((total, 2), -1), *parents]).astype(np.int64),
    )
    return joined, made


def _concatenated(parts: list[Any]) -> Any:
    if all(isinstance(part, np.ndarray) and part.dtype.kind not in "OUS" for part in parts):
        return np.concatenate([part.astype(parts[-1].dtype, copy=False) for part in parts])
    return [value for part in parts for value in part]
