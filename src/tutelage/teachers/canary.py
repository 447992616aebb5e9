"""Rows of a served model whose answers are known: what a later run looks at before it asks anything new."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tutelage.ledger import Ledger

__all__ = ["Canary", "KnownRow", "stacked"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class KnownRow:
    """A row and what the model answered to it.

    Attributes:
        inputs: The row of each input of the model, without the batch axis.
        answer: As the ledger keeps it.
    """

    inputs: Mapping[str, Array]
    answer: bytes


class Canary:
    """The first rows that a model answered, kept in the ledger with their inputs: it has only hashes of all others.

    Args:
        ledger: Where they are kept.
        name: Whose they are: all that decides an answer but the row.
        size: How many; 0 for none.
    """

    def __init__(self, ledger: Ledger, name: str, size: int) -> None:
        self._ledger, self._name, self._size = ledger, name, size
        self._full = size == 0

    def rows(self) -> list[KnownRow]:
        """Those that are kept, no more than `size`."""
        return [_unpacked(each) for each in self._ledger.kept_rows(self._name)[: self._size]] if self._size else []

    def keep(self, arrays: Mapping[str, Array], answers: Sequence[bytes], at: Sequence[int]) -> None:
        """Keeps rows of a batch until there are `size`; does nothing once there are.

        Args:
            arrays: The batch, `[B, ...]` each.
            answers: Those to the rows at `at`.
            at: Which rows of the batch.
        """
        if self._full or not at:
            return
        known = [
            KnownRow({name: array[row] for name, array in arrays.items()}, answer)
            for row, answer in zip(at[: self._size], answers, strict=False)
        ]
        self._full = self._ledger.keep_rows(self._name, [_packed(each) for each in known], self._size) >= self._size


def stacked(rows: Sequence[KnownRow], most: int) -> Iterator[tuple[dict[str, Array], list[bytes]]]:
    """Batches of no more than `most` rows of the same shapes, each with the answers to it."""
    for _, group in itertools.groupby(rows, lambda row: [array.shape for array in row.inputs.values()]):
        alike = list(group)
        for at in range(0, len(alike), most):
            some = alike[at : at + most]
            arrays = {name: np.stack([row.inputs[name] for row in some]) for name in some[0].inputs}
            yield arrays, [row.answer for row in some]


def _packed(row: KnownRow) -> bytes:
    """As JSON: of each input datatype, shape and bytes; texts one by one."""
    inputs = {name: _packed_array(np.asarray(array)) for name, array in row.inputs.items()}
    return json.dumps({"inputs": inputs, "answer": _text(row.answer)}).encode()


def _unpacked(row: bytes) -> KnownRow:
    said = json.loads(row)
    inputs = {name: _unpacked_array(*array) for name, array in said["inputs"].items()}
    return KnownRow(inputs, base64.b64decode(said["answer"]))


def _packed_array(array: Array) -> list[Any]:
    if array.dtype == object:
        items = [each if isinstance(each, bytes) else str(each).encode() for each in array.reshape(-1).tolist()]
        return ["texts", list(array.shape), [_text(each) for each in items]]
    little = array.astype(array.dtype.newbyteorder("<"))
    return [little.dtype.str, list(array.shape), _text(little.tobytes())]


def _unpacked_array(kind: str, shape: list[int], data: Any) -> Array:
    if kind == "texts":
        array = np.empty(len(data), object)
        array[:] = [base64.b64decode(each) for each in data]
        return array.reshape(shape)
    return np.frombuffer(base64.b64decode(data), kind).reshape(shape)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
