"""One equality of categories: a cell of a table is the same category as a text, a number, a truth value or a date.

Readers, data frames and model files each keep a category in a type of their own: what is `1` in one file is 1.0 in a
data frame with gaps, "1" where all cells are texts, and True is "True" in a CSV file. `category` gives a cell its plain
form, and `KnownCategories` finds which of the categories that a model or a student was fitted on it is.
"""

from __future__ import annotations

import datetime
import decimal
import math
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

__all__ = ["MISSING_WORDS", "Category", "KnownCategories", "category", "spellings"]

Category = str | int | float | bool
"""What a category may be; as in Python, 1 and True are the same one, and so are 1 and 1.0."""

MISSING_WORDS = (
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A"),
    *("NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
)
"""Words that stand for nothing in text files, as pandas reads them."""

_EXACT = 2**53
"""The first whole number that float64 can't tell from its neighbour."""
_ODD = object()
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
_PLAIN_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d.*)?", re.ASCII)
_TRUTH = {word: word.lower() == "true" for word in ("true", "True", "TRUE", "false", "False", "FALSE")}


def category(cell: Any) -> Category | None:
    """Plain form of a cell: a text, a number (whole ones as int), a truth value; None where nothing is.

    Dates and times are texts, as ISO 8601 has them, without the time where it is midnight.

    Raises:
        ValueError: It is no category; the message says what it is.
    """
    if isinstance(cell, np.datetime64):
        cell = cell.astype("datetime64[us]")
    if isinstance(cell, np.generic):
        cell = cell.item()
    if cell is None or type(cell).__name__ in ("NAType", "NaTType") or (isinstance(cell, str) and not cell):
        return None
    if isinstance(cell, str | bool | int):
        return cell
    if isinstance(cell, decimal.Decimal):
        if not cell.is_finite():
            return category(float(cell))
        return int(cell) if cell == cell.to_integral_value() else float(cell)
    if isinstance(cell, float):
        return _whole(cell)
    if isinstance(cell, datetime.datetime):
        midnight = cell.time() == datetime.time() and cell.tzinfo is None
        return cell.date().isoformat() if midnight else cell.isoformat(sep=" ")
    if isinstance(cell, datetime.date | datetime.time):
        return cell.isoformat()
    raise ValueError(f"{cell!r}")


def _whole(number: float) -> int | float | None:
    """A float as a category: whole ones are whole numbers that a file keeps as floats, as some are missing."""
    if math.isnan(number):
        return None
    if math.isinf(number):
        raise ValueError(f"{number!r}")
    if not number.is_integer():
        return number
    if abs(number) >= _EXACT:
        raise ValueError(f"{number!r}, which as a float can't be told from its neighbours")
    return int(number)


class KnownCategories:
    """The categories that something was fitted on.

    A cell is the known one that equals it. Else it is the one that it spells: a text is read as a number, a truth value
    or a date where the known ones are such, and the other way round ("7.0" is 7, and "true" is True). Two texts are
    equal letter by letter, but for dates. What could be two of the known ones is none.

    Args:
        values: The known ones, in whatever type; missing ones among them are left out.

    Attributes:
        values: The known ones as they were given.
    """

    def __init__(self, values: Iterable[Any]) -> None:
        plain: list[tuple[Any, Any]] = [(_known_form(value), value) for value in values]
        self.values = [value for form, value in plain if form is not None]
        self._equal: dict[Category, Any] = {}
        self._of_numbers: dict[float, Any] = {}  # how a number that is known reads in float64
        self._of_texts: dict[float, Any] = {}  # texts that are known and spell a number or a truth value
        self._dates: dict[datetime.datetime, Any] = {}
        for form, value in plain:
            if form is None or form is _ODD:
                continue
            self._equal.setdefault(form, value)
            if not isinstance(form, str):
                _put(self._of_numbers, _float(form), value)
                continue
            if (number := _TRUTH.get(form)) is not None or _PLAIN_NUMBER.fullmatch(form):
                _put(self._of_texts, _float(form if number is None else number), value)
            if (date := _date(form)) is not None:
                _put(self._dates, date, value)

    def __len__(self) -> int:
        return len(self.values)

    def find(self, cell: Any) -> Any | None:
        """The known category that a cell is; None where it is none of them, or nothing."""
        form = category(cell)
        if form is None:
            return None
        if (found := self._equal.get(form)) is not None:
            return found
        if isinstance(form, str):
            number = _number(form)
            if number is not None and (found := self._equal.get(number)) is not None:
                return found
            date = _date(form)
            return self._dates.get(date) if date is not None else self._number(self._of_numbers, number)
        if (found := self._equal.get(str(form))) is not None:
            return found
        return self._number(self._of_texts, form) if self._of_texts else self._number(self._of_numbers, form)

    def match(self, cell: Any) -> Any | None:
        """The known category that a cell is, or None where it is nothing, or the cell itself: an unknown one.

        A word for nothing ("NA") that is no known category is nothing.
        """
        found = self.find(cell)
        return found if found is not None or cell in MISSING_WORDS else cell

    @staticmethod
    def _number(known: dict[float, Any], number: float | None) -> Any | None:
        return None if number is None else known.get(_float(number))


def _known_form(value: Any) -> Any:
    """As `category`; also of whole floats that have no neighbours in float64. What no cell can be is `_ODD`."""
    try:
        return category(value)
    except ValueError:
        return int(value) if isinstance(value, float | np.floating) and math.isfinite(value) else _ODD


def _float(number: Any) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf


def _put(known: dict[Any, Any], key: Any, value: Any) -> None:
    known[key] = None if key in known else value


def _number(text: str) -> float | int | bool | None:
    """The number or truth value that a text spells."""
    if text in _TRUTH:
        return _TRUTH[text]
    if not _NUMBER.fullmatch(text):
        return None
    try:
        return int(text)
    except ValueError:
        number = float(text)
        return int(number) if number.is_integer() and abs(number) < _EXACT else number


def _date(text: str) -> datetime.datetime | None:
    if not _DATE.fullmatch(text):
        return None
    try:
        return datetime.datetime.fromisoformat(text)
    except ValueError:
        return None


def spellings(cell: Category) -> tuple[str, ...]:
    """How a category may have been written as a text, one kind of spelling at each place.

    As it is, as a whole number, as a float, as a truth value (three ways), as a day, as a time (two ways); as it is
    where a kind does not apply. So 1 is "1" and "1.0", "007" is "7" also, and True is "1", "1.0", "true" and "TRUE".
    """
    plain = str(cell)
    number = _number(cell) if isinstance(cell, str) else cell
    whole = real = low = high = day = spaced = joined = plain
    truth = plain
    if number is not None and math.isfinite(_float(number)):
        whole, real = str(int(number)) if number == int(number) else plain, str(_float(number))
        if number in (0, 1):
            truth = str(bool(number))
            low, high = truth.lower(), truth.upper()
    elif isinstance(cell, str) and (date := _date(cell)) is not None:
        day = date.date().isoformat() if date.time() == datetime.time() else plain
        spaced, joined = date.isoformat(sep=" "), date.isoformat()
    return plain, whole, real, truth, low, high, day, spaced, joined
