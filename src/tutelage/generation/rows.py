"""The rows of a source as plain columns: what prompts are filled with, and what is kept beside the texts."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tutelage.errors import DataError
from tutelage.transfer import Features, ImageFiles, Rows
from tutelage.transfer.hashing import mixed, text_digests

__all__ = ["digest_of", "limited", "plain_columns"]

Plain = dict[str, list[Any]]


def plain_columns(rows: Rows) -> Plain:
    """Every column by its name, one value of plain Python a row; missing ones are None.

    The label is in `label`, by the name of its class where it has one, and group and split are in `group` and `split`.

    Raises:
        DataError: A column holds images, or two would have one name.
    """
    found: Plain = {}
    for name, column in rows.columns.items():
        if isinstance(column, ImageFiles):
            raise DataError(f"column `{name}`", expected="texts, numbers or categories", found="images")
        several = column.columns if isinstance(column, Features) else {name: column}
        for each, values in several.items():
            _add(found, each, _plain(values))
    if rows.labels is not None:
        known = [True] * len(rows) if rows.labelled is None else rows.labelled.tolist()
        named = _named(rows.labels.tolist(), rows.classes)
        _add(found, "label", [value if has else None for value, has in zip(named, known, strict=True)])
    for name, words in (("group", rows.group), ("split", rows.split)):
        if words is not None:
            _add(found, name, [word or None for word in words])
    return found


def limited(columns: Plain, limit: int | None) -> Plain:
    """So many rows, chosen by what they hold and left in their order."""
    count = len(next(iter(columns.values())))
    if limit is None or limit >= count:
        return columns
    digests = text_digests([_canonical(columns, row) for row in range(count)])
    chosen = np.sort(np.argsort(mixed(0, digests[:, 0], digests[:, 1]), kind="stable")[:limit]).tolist()
    return {name: [values[row] for row in chosen] for name, values in columns.items()}


def digest_of(columns: Plain) -> str:
    """SHA-256 of the names and values of all rows, in their order."""
    sha = hashlib.sha256(json.dumps(list(columns)).encode())
    for row in range(len(next(iter(columns.values())))):
        sha.update(_canonical(columns, row).encode() + b"\n")
    return sha.hexdigest()


def _canonical(columns: Mapping[str, Sequence[Any]], row: int) -> str:
    return json.dumps([values[row] for values in columns.values()], sort_keys=True)


def _add(found: Plain, name: str, values: list[Any]) -> None:
    if name in found:
        raise DataError(
            f"column `{name}`",
            expected="columns of different names",
            found="two of this name: one of them is the source's label, group or split, or of its table",
            mend="rename the column in the source",
        )
    found[name] = values


def _named(labels: list[Any], classes: Sequence[str]) -> list[Any]:
    return [classes[label] if 0 <= label < len(classes) else None for label in labels] if classes else labels


def _plain(values: Any) -> list[Any]:
    """As Python has them; what is no number, which JSON can't say, is None."""
    every = values.tolist() if isinstance(values, np.ndarray) else list(values)
    return [_finite(value) for value in every]


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
