"""Labels as a source gives them -> class numbers or values, and which rows have one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tutelage.errors import DataError, did_you_mean
from tutelage.transfer.hashing import Digests

__all__ = ["Labels", "choose_labelled", "read_labels"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Labels ready for `Rows`.

    Attributes:
        values: `[N]` int64 class numbers, or `[N]` or `[N, K]` float32; 0 where the label is missing.
        labelled: `[N]` bool, or None when every row has a label.
        classes: Names of the classes, empty when the labels are numbers.
    """

    values: Array
    labelled: Array | None
    classes: tuple[str, ...] = ()


def read_labels(
    raw: Array | Sequence[Any], key: str, *, classes: Sequence[str] | None = None, values: bool = False
) -> Labels:
    """Labels from whatever a column holds.

    Texts and truth values are classes, named in `classes` or, without it, in alphabetical order. Whole numbers are
    class numbers as they stand. Other numbers, or whole ones with `values=True`, are values to be predicted. A label
    is missing where it is None, NaN, an empty text or, as a class number, -1.

    Args:
        raw: `[N]`, or `[N, K]` numbers (K values or K yes-or-no labels a row).
        key: Where the labels come from, for messages.
        classes: Names of the classes in the order of the model's outputs.
        values: Whole numbers are values, not class numbers.

    Raises:
        DataError: A class that is not in `classes`, a negative class number, an infinite value, no label at all.
    """
    array = raw if isinstance(raw, np.ndarray) else np.asarray(_plain(raw), dtype=object)
    if array.dtype.kind in "OUSTb" and array.ndim == 1:
        labels = _read_objects(array, key, classes, values)
    elif array.dtype.kind in "iub" and not values and array.ndim == 1:
        labels = _numbers(array.astype(np.int64), array != -1, key, classes)
    elif classes and not values and array.dtype.kind == "f" and array.ndim == 1:
        labels = _whole(array.astype(np.float64), key, classes)
    elif array.dtype.kind in "iufb" and array.ndim in (1, 2):
        labels = _values(array.astype(np.float64), key)
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


def _plain(raw: Sequence[Any]) -> Array:
    """A one-dimensional object array, whatever the elements are."""
    array = np.empty(len(raw), dtype=object)
    array[:] = list(raw)
    return array


def _read_objects(array: Array, key: str, classes: Sequence[str] | None, values: bool) -> Labels:
    """Labels of mixed Python objects: texts, truth values, or numbers with None among them."""
    present = np.array([not _missing(value) for value in array], dtype=bool)
    known = [v for v, here in zip(array, present, strict=True) if here]
    if any(isinstance(v, (str, bool, np.bool_)) for v in known):
        words = np.array([_word(v) if here else "" for v, here in zip(array, present, strict=True)], dtype=object)
        return _classes_of(words, present, key, classes)
    if not values and all(isinstance(v, (int, np.integer)) for v in known):
        numbers = np.array([v if here else -1 for v, here in zip(array, present, strict=True)], dtype=np.int64)
        return _numbers(numbers, present & (numbers != -1), key, classes)
    try:
        numbers = np.array([v if here else np.nan for v, here in zip(array, present, strict=True)], dtype=np.float64)
    except (TypeError, ValueError) as error:
        kinds = ", ".join(sorted({type(v).__name__ for v in known}))
        raise DataError(key, expected="numbers, texts or truth values", found=kinds) from error
    return _values(numbers, key)


def _missing(value: Any) -> bool:
    if isinstance(value, (float, np.floating)):
        return bool(np.isnan(value))
    return value is None or (isinstance(value, str) and not value.strip())


def _word(value: Any) -> str:
    return str(bool(value)).lower() if isinstance(value, (bool, np.bool_)) else str(value).strip()


def _classes_of(words: Array, present: Array, key: str, classes: Sequence[str] | None) -> Labels:
    names = tuple(classes) if classes else tuple(sorted(set(words[present])))
    number = {name: i for i, name in enumerate(names)}
    for row in np.flatnonzero(present):
        if words[row] not in number:
            raise DataError(
                f"{key}, row {row}",
                expected="a class of `classes`",
                found=f"`{words[row]}`",
                mend=did_you_mean(words[row], names),
            )
    values = np.array([number.get(word, 0) if here else 0 for word, here in zip(words, present, strict=True)])
    return Labels(values=values.astype(np.int64), labelled=None if present.all() else present, classes=names)


def _numbers(numbers: Array, present: Array, key: str, classes: Sequence[str] | None) -> Labels:
    """Class numbers; names are `classes`, or the numbers themselves."""
    known = numbers[present]
    count = len(classes) if classes else int(known.max(initial=-1)) + 1
    wrong = present & ((numbers < 0) | (numbers >= count))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"{key}, row {row}",
            expected=f"a class number from 0 to {count - 1}, or -1 for a missing label",
            found=str(numbers[row]),
            mend="set values: true if these are numbers to be predicted",
        )
    return Labels(
        values=np.where(present, numbers, 0),
        labelled=None if present.all() else present,
        classes=tuple(classes) if classes else tuple(str(i) for i in range(count)),
    )


def _whole(numbers: Array, key: str, classes: Sequence[str]) -> Labels:
    """Class numbers that a file keeps as floats because some are missing."""
    present = ~np.isnan(numbers)
    wrong = present & (numbers != np.round(numbers))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"{key}, row {row}",
            expected="a class number, since `classes` is given",
            found=str(numbers[row]),
            mend="leave out classes if these are values to be predicted",
        )
    whole = np.where(present, numbers, -1).astype(np.int64)
    return _numbers(whole, whole != -1, key, classes)


def _values(values: Array, key: str) -> Labels:
    """Values to be predicted; a row with a NaN has no label."""
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
