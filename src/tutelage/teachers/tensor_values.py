"""Values of the Open Inference Protocol: rows as a model takes them, and answers as a ledger keeps them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from tutelage.errors import ModelError
from tutelage.teachers.casts import converted

__all__ = ["DATATYPES", "digest_of_row", "fitted", "read_back", "same_answer", "written"]

Array = np.ndarray[Any, Any]
DATATYPES = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "INT8": "int8",
    "INT16": "int16", "INT32": "int32", "INT64": "int64", "FP16": "float16", "FP32": "float32", "FP64": "float64",
    "BYTES": "object",
}  # fmt: skip
TOLERANCE = 1e-3
"""Largest change of an answer, as a share of the largest in it (at least 1), that is taken for rounding."""


def fitted(array: Array, wanted: dict[str, Any], numbers: Sequence[int] | None = None) -> Array:
    """Rows in the datatype and shape of an input.

    Args:
        array: The rows.
        wanted: The input's `name`, `datatype` and `shape`.
        numbers: Those of the rows, for messages.

    Raises:
        ModelError: They do not fit it, or a value would become another one (`converted`).
    """
    name, datatype, shape = wanted["name"], wanted["datatype"], wanted["shape"]
    array = converted(array, np.dtype(DATATYPES[datatype]), where=f"input `{name}` ({datatype})", rows=numbers)
    rows, rest = len(array), shape[1:]
    if len(rest) == array.ndim - 1 and all(
        want in (-1, have) for want, have in zip(rest, array.shape[1:], strict=True)
    ):
        shaped = array
    elif -1 not in rest and int(np.prod(rest)) * rows == array.size:
        shaped = array.reshape(rows, *rest)  # such as pictures for a model that takes their pixels in a line
    else:
        raise ModelError(
            f"input `{name}`",
            expected=f"rows of shape {rest}, as the model takes them",
            found=f"rows of shape {list(array.shape[1:])}",
            mend="name another column in `inputs`, or prepare the data as the model wants it",
        )
    return np.ascontiguousarray(shaped)


def digest_of_row(row: Array) -> str:
    """SHA-256 of a row's content, in hex."""
    if row.dtype == object:
        return hashlib.sha256(json.dumps(row.tolist(), default=str).encode()).hexdigest()
    return hashlib.sha256(row.tobytes()).hexdigest()


def written(value: Array) -> bytes:
    """One row of an output as bytes: a line of JSON with datatype and shape, then its numbers, or texts as JSON."""
    array = np.ascontiguousarray(value)
    if array.dtype.kind in "OSU":
        texts = [each.decode() if isinstance(each, bytes) else str(each) for each in array.reshape(-1).tolist()]
        return json.dumps(["texts", list(np.shape(value))]).encode() + b"\n" + json.dumps(texts).encode()
    little = array.dtype.newbyteorder("<")
    return json.dumps([little.str, list(np.shape(value))]).encode() + b"\n" + array.astype(little).tobytes()


def read_back(answer: bytes) -> Array:
    """What `written` wrote."""
    header, _, data = answer.partition(b"\n")
    kind, shape = json.loads(header)
    if kind == "texts":
        return np.array(json.loads(data)).reshape(shape)
    return np.frombuffer(data, kind).reshape(shape)


def same_answer(before: Array, now: Array) -> bool:
    """Whether two answers differ by no more than rounding."""
    if before.shape != now.shape or before.dtype.kind != now.dtype.kind:
        return False
    if before.dtype.kind != "f":
        return bool((before == now).all())
    scale = max(1.0, float(np.abs(before).max(initial=0.0)))
    return bool(np.abs(before - now).max(initial=0.0) <= TOLERANCE * scale)
