"""Inputs of a graph that are the same for every row: a rate, a flag, a state from which a sequence begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tutelage.errors import ModelError, did_you_mean
from tutelage.teachers.casts import converted
from tutelage.teachers.port import Port

__all__ = ["Constant", "Constants"]

Array = np.ndarray[Any, Any]
Constant = bool | int | float | str | list[Any]
"""A number or text, with which an input is filled, or its content as a list (of lists). Whole numbers stay whole."""


class Constants:
    """Constant inputs in the types and shapes of a graph.

    A single value fills its input; an axis of any size is then that of the rows, wherever it stands (the second one of
    a recurrent state `[layers, B, H]`). A list is the input's whole content, or that for each row.

    Args:
        values: By the names of the graph's inputs.
        ports: The graph's inputs.
        renamed: Column of the data -> input.

    Raises:
        ModelError: There is no such input, it is given a column as well, or it can't be the value.
    """

    def __init__(self, values: Mapping[str, Constant], ports: Sequence[Port], renamed: Mapping[str, str]) -> None:
        known = {port.name: port for port in ports}
        self._values: dict[str, tuple[Array, Port]] = {}
        for name, value in values.items():
            key = f"teacher.constants.{name}"
            if name not in known or name in renamed.values():
                raise ModelError(
                    key,
                    expected=f"an input of the graph that no column goes to: {', '.join(known)}",
                    found=f"`{name}`, which teacher.inputs names too" if name in known else f"`{name}`",
                    mend="remove one of the two" if name in known else did_you_mean(name, known),
                )
            self._values[name] = _typed(value, known[name], key), known[name]
            self._array(name, 2)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def arrays(self, rows: int) -> dict[str, Array]:
        """The inputs for a call with so many rows."""
        return {name: self._array(name, rows) for name in self._values}

    def _array(self, name: str, rows: int) -> Array:
        value, port = self._values[name]
        if port.shape is None or _fits(value.shape, port.shape):
            return value
        free = [axis for axis, size in enumerate(port.shape) if size is None]
        shape = tuple(rows if size is None else size for size in port.shape)
        alone = port.shape[: free[0]] + port.shape[free[0] + 1 :] if free else port.shape
        if len(free) <= 1 and (not value.ndim or (free and _fits(value.shape, alone))):
            content = value if not value.ndim else np.expand_dims(value, free[0])
            return np.ascontiguousarray(np.broadcast_to(content, shape))
        raise ModelError(
            f"teacher.constants.{name}",
            expected=f"what input {port} takes" + (" (`?` stands for any size)" if free else ""),
            found=f"a list of shape {list(value.shape)}" if value.ndim else "one value for several axes of any size",
            mend="give its content as a list of lists",
        )


def _fits(shape: Sequence[int], wanted: Sequence[int | None]) -> bool:
    return len(shape) == len(wanted) and all(want in (None, size) for size, want in zip(shape, wanted, strict=True))


def _typed(value: Constant, port: Port, key: str) -> Array:
    try:
        array = np.asarray(value)
    except ValueError as error:  # lists of several lengths
        raise ModelError(key, expected="a value, or a list of lists of one length", found=str(error)) from error
    return array if port.dtype is None else converted(array, port.dtype, where=key)
