"""How the columns of a table become the inputs of a student: missing numbers, scale, categories."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from tutelage.categories import Category, KnownCategories
from tutelage.errors import DataError, RecipeError
from tutelage.transfer.features import Features

__all__ = ["CategoryColumn", "Encoding", "NumberColumn", "Tabular"]

Array = np.ndarray[Any, Any]


@dataclass(kw_only=True)
class Tabular:
    """How the columns of a table become a student's inputs. Teachers that read raw columns see them as they are.

    A missing number becomes the median of its column, and a column that has missing ones in the training rows gets a
    further column: 1 where it is missing, 0 elsewhere. A missing category is a category of its own. All statistics are
    those of the training rows, also of those that `data.limit` leaves out; they are in the bundle, in
    `preprocessing.json`, and `Encoding.from_dict` makes the same inputs of new rows.

    Attributes:
        scale: Numbers are shifted and scaled to mean 0 and standard deviation 1.
        indicators: Whether there are columns that say where a number is missing.
        categories: `one_hot`: one column of 0 and 1 for each category, in the same matrix `[N, F]` as the numbers; all
            are 0 for a category that the training rows don't have. `codes`: the student is called with `numbers`
            `[N, F]` and `categories` `[N, K]` int64, for embeddings; 0 is a category that the training rows don't have.
        rare: A category with fewer training rows than this counts as one that they don't have.
    """

    scale: bool = True
    indicators: bool = True
    categories: Literal["one_hot", "codes"] = "one_hot"
    rare: int = 1

    def __post_init__(self) -> None:
        if self.rare < 1:
            raise RecipeError("data.tabular.rare", expected="at least 1 row", found=str(self.rare))

    def fit(self, features: Features, rows: Array) -> Encoding:
        """The encoding whose statistics are those of `rows`.

        Raises:
            DataError: A column of numbers has none in these rows, or one of categories has none that is frequent.
        """
        numbers, categories = [], []
        for name, column in features.columns.items():
            if name in features.categories:
                categories.append(_category_column(name, column[rows], self.rare))
            else:
                numbers.append(self._number_column(name, column[rows]))
        return Encoding(numbers=tuple(numbers), categories=tuple(categories), codes=self.categories == "codes")

    def _number_column(self, name: str, values: Array) -> NumberColumn:
        present = values[~np.isnan(values)]
        if not len(present):
            raise DataError(
                f"column `{name}`",
                expected="a number in at least one training row",
                found="none",
                mend="leave the column out of `inputs`",
            )
        deviation = float(present.std())
        return NumberColumn(
            name=name,
            fill=float(np.median(present)),
            mean=float(present.mean()) if self.scale else 0.0,
            deviation=(deviation or 1.0) if self.scale else 1.0,
            indicator=self.indicators and len(present) < len(values),
        )


@dataclass(frozen=True, kw_only=True)
class NumberColumn:
    """A column of numbers: `(x - mean) / deviation`, with `fill` for x where it is missing."""

    name: str
    fill: float
    mean: float
    deviation: float
    indicator: bool


@dataclass(frozen=True, kw_only=True)
class CategoryColumn:
    """A column of categories: those that are known, in order, None among them where it may be missing."""

    name: str
    values: tuple[Category | None, ...]

    @functools.cached_property
    def known(self) -> KnownCategories:
        """The values, to find which of them a cell is."""
        return KnownCategories(self.values)

    @functools.cached_property
    def places(self) -> dict[Category | None, int]:
        """Place of each value, from 1."""
        return {value: number for number, value in enumerate(self.values, start=1)}


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """Columns of a table -> inputs of a student, with statistics that stay as they are.

    Attributes:
        numbers: The columns of numbers, in order.
        categories: The columns of categories, in order.
        codes: Categories are numbers of their own, not columns of 0 and 1.
    """

    numbers: tuple[NumberColumn, ...]
    categories: tuple[CategoryColumn, ...]
    codes: bool

    def __call__(self, columns: Mapping[str, Array | Sequence[Any]]) -> dict[str, Array]:
        """`inputs` `[N, F]` float32; with `codes`, `numbers` `[N, F]` float32 and `categories` `[N, K]` int64.

        Raises:
            DataError: A column is missing, or a cell is neither number nor category.
        """
        wanted = [*(column.name for column in self.numbers), *(column.name for column in self.categories)]
        absent = [name for name in wanted if name not in columns]
        if absent:
            raise DataError(f"column `{absent[0]}`", expected="a column of the table", found="none of that name")
        sizes = {name: len(columns[name]) for name in wanted}
        if len(set(sizes.values())) > 1:
            told = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
            raise DataError("columns of a table", expected="as many rows in each", found=told)
        numbers = self._numbers(columns)
        table = Features({column.name: columns[column.name] for column in self.categories}, wanted)
        codes = [_codes(table.columns[column.name], column) for column in self.categories]
        if self.codes:
            found = {"numbers": np.concatenate(numbers, axis=1, dtype=np.float32)} if numbers else {}
            return found | ({"categories": np.stack(codes, axis=1)} if codes else {})
        for code, column in zip(codes, self.categories, strict=True):
            numbers.append(code[:, None] == np.arange(1, len(column.values) + 1))
        return {"inputs": np.concatenate(numbers, axis=1, dtype=np.float32)}

    def _numbers(self, columns: Mapping[str, Array | Sequence[Any]]) -> list[Array]:
        """The numbers `[N, F]` float64, and where those are missing that have indicators; none where there are none.

        All columns at once: of a row that is served alone, most of the time would go into doing it for each.
        """
        if not self.numbers:
            return []
        raw = _raw_numbers({column.name: columns[column.name] for column in self.numbers})
        missing = np.isnan(raw)
        fill, mean, deviation = np.array([(each.fill, each.mean, each.deviation) for each in self.numbers]).T
        shown = [number for number, each in enumerate(self.numbers) if each.indicator]
        return [(np.where(missing, fill, raw) - mean) / deviation, missing[:, shown]]

    @property
    def names(self) -> list[str]:
        """What each column of the matrix of floats is."""
        named = [column.name for column in self.numbers]
        named += [f"{column.name} is missing" for column in self.numbers if column.indicator]
        if self.codes:
            return named
        return named + [f"{column.name} = {value}" for column in self.categories for value in column.values]

    def summary(self) -> str:
        """What the author of a student, and who runs it, has to know."""
        record = "preprocessing.json of the bundle says how"
        columns = len(self.numbers) + len(self.categories)
        if not self.codes:
            return f"{columns} columns of the table are {len(self.names)} inputs (data.tabular); {record}"
        sizes = ", ".join(f"{column.name} {len(column.values) + 1}" for column in self.categories)
        inputs = f"{len(self.names)} numbers and the codes of {sizes}"
        return f"{columns} columns of the table are {inputs} (data.tabular); {record}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for `preprocessing.json`."""
        return {"kind": "table", "inputs": self.names, **asdict(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Encoding:
        """The encoding that `to_dict` described."""
        categories = (CategoryColumn(name=c["name"], values=tuple(c["values"])) for c in data["categories"])
        numbers = tuple(NumberColumn(**column) for column in data["numbers"])
        return cls(numbers=numbers, categories=tuple(categories), codes=bool(data["codes"]))


def _raw_numbers(columns: Mapping[str, Array | Sequence[Any]]) -> Array:
    """`[N, F]` float64. `Features` reads what is not float64 yet, and names the cell that can't be used."""
    cells = list(columns.values())
    if all(isinstance(each, np.ndarray) and each.dtype == np.float64 for each in cells):
        raw = np.stack(cells, axis=1)
        with np.errstate(over="ignore"):
            if not np.isinf(raw.astype(np.float32)).any():
                return raw
    return np.stack(list(Features(columns).columns.values()), axis=1)


def _codes(cells: Array, column: CategoryColumn) -> Array:
    """`[N]` int64: the place of each cell among the known ones, from 1; 0 where it is not known."""
    codes = (column.places.get(column.known.match(cell), 0) for cell in cells)
    return np.fromiter(codes, dtype=np.int64, count=len(cells))


def _category_column(name: str, cells: Array, rare: int) -> CategoryColumn:
    counts: dict[Category | None, int] = {}
    for cell in cells:
        counts[cell] = counts.get(cell, 0) + 1
    known = [value for value, count in counts.items() if count >= rare]
    if not known:
        raise DataError(
            f"column `{name}`",
            expected=f"a category with at least {rare} training rows (data.tabular.rare)",
            found=f"{len(counts):,} categories, all of them rarer",
            mend="lower data.tabular.rare, or leave the column out",
        )
    known.sort(
        key=lambda value: (value is None, isinstance(value, str), value if isinstance(value, str) else "", value)
    )
    return CategoryColumn(name=name, values=tuple(known))
