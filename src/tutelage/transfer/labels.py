"""Labels as a source gives them -> class numbers or values, and which rows have one."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tutelage.errors import DataError, did_you_mean
from tutelage.transfer.hashing import Digests

__all__ = ["Labels", "choose_labelled", "read_labels"]

Array = np.ndarray[Any, Any]


_UNSAID = frozenset({"nan", "none", "null", "na", "n/a", "?"})
"""Names of classes that look like a missing label; they are classes all the same, and said."""
_MOST_UNNAMED = 10_000
"""Class numbers may have gaps, but not so many: beyond this count nine in ten of the classes have to occur."""


_WHOLE = re.compile(r"0|-?[1-9][0-9]*")


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Labels ready for `Rows`.

    Attributes:
        values: `[N]` int64 class numbers, or `[N]` or `[N, K]` float32; 0 where the label is missing.
        labelled: `[N]` bool, or None when every row has a label.
        classes: Names of the classes, empty when the labels are numbers.
        notes: How labels were read that could be read otherwise.
    """

    values: Array
    labelled: Array | None
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_labels(
    raw: Array | Sequence[Any],
    key: str,
    *,
    classes: Sequence[str] | None = None,
    values: bool | None = None,
    unlabelled: str | int | None = None,
    split: Sequence[str] | None = None,
) -> Labels:
    """Labels from whatever a column holds.

    Texts and truth values are classes, named in `classes` or, without it, in alphabetical order. Whole numbers are
    names where `classes` has all of them, and else class numbers as they stand. Other numbers, or all with
    `values=True`, are values to be predicted. A label is missing where it is None, NaN, an empty text or `unlabelled`.
    The class number -1 is a missing label where `classes` does not name it, where its whole split has no other, or
    beside three classes or more; beside fewer it may be a class, and is refused.

    Args:
        raw: `[N]`, or `[N, K]` numbers (K values or K yes-or-no labels a row).
        key: Where the labels come from, for messages.
        classes: Names of the classes in the order of the model's outputs.
        values: Whether labels are values to be predicted, not classes. None: numbers with a fraction are.
        unlabelled: What a source writes for a missing label, beside the usual.
        split: `[N]` names of the splits, if the source gives them.

    Raises:
        DataError: A class that is not in `classes`, a negative class number, a class where a value is asked for or the
            other way round, an infinite value, no label at all.
    """
    array = raw if isinstance(raw, np.ndarray) else np.asarray(_plain(raw), dtype=object)
    marker = None if unlabelled is None else _name(unlabelled)
    if array.ndim == 1 and array.dtype.kind in "OUSTiufb":
        numeric = array.dtype.kind in "iuf"
        if numeric and (values or (values is None and array.dtype.kind == "f" and not classes)):
            labels = _values(array.astype(np.float64), key, marker)
        else:
            labels = _of_cells(array, key, _Reading(classes=classes, values=values, unlabelled=marker, split=split))
    elif array.dtype.kind in "iufb" and array.ndim == 2:
        labels = replace(_values(array.astype(np.float64), key, marker), classes=tuple(classes or ()))
        if classes and len(classes) != array.shape[1]:
            found = f"{len(classes)} names for {array.shape[1]} labels a row"
            raise DataError(key, expected="a name in `classes` for each label", found=found, mend="name all, or none")
    else:
        raise DataError(
            key,
            expected="labels [N] or [N, K]: numbers, texts or truth values",
            found=f"{array.dtype} of shape {array.shape}",
            mend="give one label a row",
        )
    if labels.labelled is not None and not labels.labelled.any():
        raise DataError(key, expected="at least one label", found="all are missing", mend="leave the label out")
    return labels


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """What a source says of its labels: the arguments of `read_labels`."""

    classes: Sequence[str] | None
    values: bool | None
    unlabelled: str | None
    split: Sequence[str] | None


def _plain(raw: Sequence[Any]) -> Array:
    """A one-dimensional object array, whatever the elements are."""
    array = np.empty(len(raw), dtype=object)
    array[:] = list(raw)
    return array


def _of_cells(array: Array, key: str, reading: _Reading) -> Labels:
    """Labels of cells: what each distinct one means is decided once."""
    number: dict[tuple[bool, Any], int] = {}
    try:
        place = np.array([number.setdefault((isinstance(v, bool), v), len(number)) for v in _missing_as_none(array)])
    except TypeError:  # what can't be a key is no label
        number = {(False, cell): 0 for cell in (object(),)}
        place = np.zeros(0, dtype=np.int64)
    cells = [None if cell is None or _name(cell) == reading.unlabelled else cell for _, cell in number]
    known = [cell for cell in cells if cell is not None]
    if not all(isinstance(cell, (str, bool, int, float)) for cell in known):
        kinds = ", ".join(sorted({type(value).__name__ for value in array.tolist() if value is not None}))
        raise DataError(key, expected="numbers, texts or truth values", found=kinds)
    plain = not any(isinstance(cell, (str, bool)) for cell in known)
    if reading.unlabelled is not None and not plain:  # a marker that is a text has made texts of numbers
        plain = all(_WHOLE.fullmatch(_name(cell)) for cell in known)
    open_to_values = reading.values is None and plain and not reading.classes
    if reading.values or (open_to_values and any(isinstance(cell, float) for cell in known)):
        numbers = [np.nan if cell is None else _number(cell, key, array) for cell in cells]
        return _values(np.array(numbers, dtype=np.float64)[place], key, reading.unlabelled)
    fraction = [isinstance(cell, float) and not cell.is_integer() for cell in cells]
    if any(fraction):
        row = int(np.flatnonzero(np.array(fraction)[place])[0])
        raise DataError(
            f"{key}, row {row}",
            expected="one class a row: a whole number, a text or a truth value",
            found=f"{cells[place[row]]}",
            harm="a number with a fraction is no class",
            mend="if these are values to be predicted, the task is regression, without `classes` in data.source",
        )
    names = ["" if cell is None else _name(cell) for cell in cells]
    merged = {name: at for at, name in enumerate(dict.fromkeys(names))}  # 3, 3.0 and "3" are one
    place = np.array([merged[name] for name in names], dtype=np.int64)[place]
    column = _Column(key, list(merged), place, place != merged.get("", -1))
    if reading.classes:
        return column.of_named(tuple(reading.classes))
    return column.of_numbers(reading.split) if plain and known else column.of_names()


def _missing_as_none(array: Array) -> list[Any]:
    """The cells as plain Python, None where there is none: NaN, an empty text."""
    return [None if _missing(value) else value.strip() if isinstance(value, str) else value for value in array.tolist()]


def _missing(value: Any) -> bool:
    if isinstance(value, float):
        return bool(np.isnan(value))
    return value is None or (isinstance(value, str) and not value.strip())


def _name(value: Any) -> str:
    """A label as the name of its class: `true` for a truth value, `3` for 3 and 3.0."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _number(cell: Any, key: str, array: Array) -> float:
    try:
        return float(cell)
    except ValueError as error:
        row = next(row for row, value in enumerate(array.tolist()) if isinstance(value, str) and value.strip() == cell)
        raise DataError(
            f"{key}, row {row}",
            expected="a number, since the labels are values to be predicted",
            found=f"`{cell}`",
            harm="the names of classes have no order that a regression could learn",
            mend="write task: classification, or name a column of numbers; `unlabelled` says what a missing one is",
        ) from error


@dataclass(frozen=True)
class _Column:
    """A column of classes: distinct names, which of them each row has, and which rows have a label."""

    key: str
    names: list[str]
    place: Array
    present: Array

    @property
    def known(self) -> list[str]:
        """The distinct names of rows that have a label, in the order of their first row."""
        return [self.names[at] for at in np.unique(self.place[self.present])]

    def row_of(self, name: str) -> int:
        """The first row with this name."""
        return int(np.flatnonzero(self.present & (self.place == self.names.index(name)))[0])

    def count(self, name: str) -> int:
        """Rows with this name."""
        return int((self.present & (self.place == self.names.index(name))).sum())

    def labels(self, number: Mapping[str, int], classes: Sequence[str], notes: Sequence[str] = ()) -> Labels:
        """Labels by the number of each name; a name without one is a missing label."""
        numbers = np.array([number.get(name, -1) for name in self.names], dtype=np.int64)[self.place]
        has = self.present & (numbers >= 0)
        return Labels(
            values=np.where(has, numbers, 0),
            labelled=None if has.all() else has,
            classes=tuple(classes),
            notes=tuple(notes),
        )

    def of_names(self) -> Labels:
        """Texts and truth values, in alphabetical order."""
        classes = sorted(set(self.known))
        notes = [
            f"{self.key}: `{name}` is a class, with {self.count(name):,} rows; if it means a label that is missing, "
            f'write data.source.unlabelled: "{name}"'
            for name in classes
            if name.lower() in _UNSAID
        ]
        alike: dict[str, list[str]] = {}
        for name in classes:
            alike.setdefault(name.casefold(), []).append(name)
        notes += [
            f"{self.key}: the classes {' and '.join(f'`{n}`' for n in same)} differ by case alone"
            for same in alike.values()
            if len(same) > 1
        ]
        return self.labels({name: i for i, name in enumerate(classes)}, classes, notes)

    def of_named(self, classes: tuple[str, ...]) -> Labels:
        """Cells that are names of `classes` or, where not all are, class numbers below their count."""
        number = {name: i for i, name in enumerate(classes)}
        numbers = {str(i): i for i in range(-1, len(classes))}
        strangers = [name for name in self.known if name not in number]
        if not strangers:
            other = [name for name in self.known if name != "-1" and numbers.get(name, number[name]) != number[name]]
            both = bool(other) and all(name in numbers for name in self.known)
            notes = [f"{self.key}: `{n}` is read as the class of that name, not as class number {n}" for n in other[:1]]
            return self.labels(number, classes, notes if both else [])
        if all(name in numbers for name in self.known):
            return self.labels(numbers, classes, self._said_of_minus_one())
        wrong = next((name for name in strangers if name not in numbers), strangers[0])
        counts = f", or a class number from 0 to {len(classes) - 1} in every row" if wrong.lstrip("-").isdigit() else ""
        raise DataError(
            f"{self.key}, row {self.row_of(wrong)}",
            expected=f"a class of `classes`{counts}",
            found=f"`{wrong}`",
            mend=did_you_mean(wrong, classes) or "name all of them in `classes`",
        )

    def of_numbers(self, split: Sequence[str] | None) -> Labels:
        """Class numbers as they stand; their names are the numbers themselves."""
        numbers = {name: int(name) for name in self.known}
        count = max(numbers.values(), default=-1) + 1
        wrong = [name for name, n in numbers.items() if n < -1]
        if wrong:
            raise DataError(
                f"{self.key}, row {self.row_of(wrong[0])}",
                expected="a class number from 0, or -1 for a missing label",
                found=wrong[0],
                mend=f"{self._as_names()}; if these are values to be predicted, the task is regression",
            )
        if count > _MOST_UNNAMED and count > 10 * len(numbers):
            raise DataError(
                f"{self.key}",
                expected="class numbers from 0, most of which occur",
                found=f"{len(numbers):,} different whole numbers up to {count - 1:,}",
                harm=f"models would need {count:,} outputs",
                mend="if these are values to be predicted, the task is regression; "
                "if they are names, list them in data.source.classes",
            )
        if -1 in numbers.values() and count in (1, 2) and not self._is_alone("-1", split):
            raise DataError(
                f"{self.key}, row {self.row_of('-1')}",
                expected="labels whose -1 can only mean one thing",
                found=f"-1 in {self.count('-1'):,} rows, beside {', '.join(n for n in sorted(numbers) if n != '-1')}",
                harm="rows of a class would count as unlabelled, or the other way round",
                mend=f"{self._as_names()}; if it marks rows without a label, write data.source.unlabelled: -1",
            )
        notes = [*self._said_of_minus_one(), *self._gaps(set(numbers.values()) - {-1}, count)]
        return self.labels(numbers, [str(i) for i in range(count)], notes)

    def _as_names(self) -> str:
        names = sorted(self.known, key=int)
        listed = ", ".join(f'"{name}"' for name in names[:12]) + (", ..." if len(names) > 12 else "")
        return f"if these are the names of classes, write data.source.classes: [{listed}]"

    def _is_alone(self, name: str, split: Sequence[str] | None) -> bool:
        """Whether the splits that have this name have no other."""
        splits = np.array([""] * len(self.place) if split is None else split, dtype=object)
        mine = self.present & (self.place == self.names.index(name))
        return not np.isin(splits[self.present & ~mine], splits[mine]).any()

    def _said_of_minus_one(self) -> list[str]:
        if "-1" not in self.known:
            return []
        return [
            f"{self.key}: {self.count('-1'):,} rows with -1 have no label; if -1 is a class, name it in "
            'data.source.classes: ["-1", ...]'
        ]

    def _gaps(self, numbers: set[int], count: int) -> list[str]:
        """What to know where not every class number occurs."""
        absent = [i for i in range(count) if i not in numbers]
        if not absent or not numbers:
            return []
        if absent == [0]:
            return [f"{self.key}: class number 0 does not occur; if the labels begin at 1, {self._as_names()}"]
        shown = ", ".join(map(str, absent[:8])) + (", ..." if len(absent) > 8 else "")
        return [f"{self.key}: {len(absent):,} of {count:,} class numbers do not occur ({shown}); {self._as_names()}"]


def _values(values: Array, key: str, marker: str | None) -> Labels:
    """Values to be predicted; a row with a NaN has no label."""
    if marker is not None:
        with contextlib.suppress(ValueError):
            values = np.where(values == float(marker), np.nan, values)
    with np.errstate(over="ignore"):
        infinite = np.isinf(values.astype(np.float32))
    if infinite.any():
        row = int(np.argwhere(infinite)[0][0])
        raise DataError(f"{key}, row {row}", expected="finite float32 values", found="infinite", mend="clean the data")
    present: Array = np.asarray(np.isfinite(values).reshape(len(values), -1).all(axis=1))
    shown = present.reshape(-1, *[1] * (values.ndim - 1))
    return Labels(values=np.where(shown, values, 0).astype(np.float32), labelled=None if present.all() else present)


def choose_labelled(rows: Array, strata: Array | None, order: Digests, count: int) -> Array:
    """`count` of `rows` spread over the classes in proportion, chosen by digest.

    The first row of every class comes first; after that, the row of rank r among the n of its class stands at
    (r + 1/2) / n. So a larger count contains every smaller one, and shares are kept to within about a row.

    Args:
        rows: Row numbers that have a label.
        strata: Class of each of `rows`, or None when labels are values.
        order: A digest of each of `rows`; rows are taken in its order.
        count: How many to choose.
    """
    by_digest = np.lexsort((rows, order))
    position = np.empty(len(rows))
    groups = np.zeros(len(rows), dtype=np.int64) if strata is None else strata
    for stratum in np.unique(groups):
        members = by_digest[groups[by_digest] == stratum]
        position[members] = (np.arange(len(members)) + 0.5) / len(members)
        position[members[0]] = 0.0
    chosen: Array = np.sort(rows[np.lexsort((rows, order, position))[:count]])
    return chosen
