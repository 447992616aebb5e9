"""Arrays in the type that a model's input takes: rounded where it has fewer digits, but never another value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tutelage.errors import ModelError

__all__ = ["converted"]

Array = np.ndarray[Any, Any]


def converted(array: Array, dtype: np.dtype[Any], *, where: str, rows: Sequence[int] | None = None) -> Array:
    """An array in another type.

    Floating numbers may lose digits, as they do between float64 and float32, but not become infinite. Whole numbers
    arrive exactly, for they may be identifiers, also where the type is a floating one. Fractions, NaN and infinity
    become no whole numbers, and only 0 and 1 are truth values. Texts become texts; a missing one is empty.

    Args:
        array: One row for each entry of its first axis.
        dtype: The type; `object` for texts.
        where: How to name the input in messages.
        rows: The numbers of the rows, for messages; None where the entries are no rows.

    Raises:
        ModelError: A value would be another one; its row is named.
    """
    if dtype.kind == "O":
        if array.dtype.kind not in "OUS":
            raise _refused(array, where, "texts", f"{array.dtype}")
        texts = [_text(cell) for cell in array.reshape(-1).tolist()]
        return np.array(texts, object).reshape(array.shape)
    if array.dtype.kind not in "fiub":
        raise _refused(array, where, "numbers", f"{array.dtype}")
    if array.dtype == dtype:
        return array
    with np.errstate(over="ignore", invalid="ignore"):
        found = array.astype(dtype)
        lost = _lost(array, found)
    if lost.any():
        at = tuple(int(axis[0]) for axis in np.nonzero(np.atleast_1d(lost)))
        place = "" if rows is None else f" in row {int(rows[at[0]])}"
        value = f"{np.atleast_1d(array)[at].item()}{place}: {array.dtype}"
        value += f" from {array.min().item()} to {array.max().item()}" if array.size > 1 else ""
        raise _refused(array, where, f"numbers that {dtype} can hold", value)
    return found


def _lost(array: Array, found: Array) -> Array:
    """Which values a cast made others."""
    source, target = array.dtype.kind, found.dtype.kind
    if source == "f" and target == "f":
        infinite: Array = np.isfinite(array) & ~np.isfinite(found)
        return infinite
    if source == "f":
        low, high = (0, 1) if target == "b" else (np.iinfo(found.dtype).min, np.iinfo(found.dtype).max)
        wide = array.astype(np.float64)
        whole: Array = (np.trunc(wide) == wide) & (wide >= float(low)) & (wide < float(high) + 1.0)
        return ~whole
    changed: Array = found.astype(array.dtype) != array
    if target == "f":
        top = 2.0 if source == "b" else float(np.iinfo(array.dtype).max) + 1.0  # a cast back from there may be anything
        wide = found.astype(np.float64)
        changed |= ~np.isfinite(wide) | (wide >= top)
        return changed
    changed |= (found < 0) != (array < 0)
    return changed


def _text(cell: Any) -> str:
    if cell is None:
        return ""
    return cell.decode() if isinstance(cell, bytes) else str(cell)


def _refused(array: Array, where: str, expected: str, found: str) -> ModelError:
    whole = array.dtype.kind in "iu" and "float" in expected
    return ModelError(
        where,
        expected=expected + (", digit for digit: whole numbers may be identifiers" if whole else ""),
        found=found,
        harm="the model would read other values than the data has",
        mend="give it the column that it was made for"
        + (", as floating numbers if they may be rounded" if whole else ", or scale it as the model was trained"),
    )
