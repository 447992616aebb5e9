"""Inputs and outputs of a graph in a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Port"]


@dataclass(frozen=True)
class Port:
    """An input or output of a graph.

    Attributes:
        name: As the graph has it.
        dtype: Of numpy; None where the runtime does not say, `object` for texts.
        shape: A number, or None where any size will do; None altogether where the graph does not say.
        keys: Of an output of maps, one for each row: their keys, the classes, in the order of the model's scores.
    """

    name: str
    dtype: np.dtype[Any] | None
    shape: tuple[int | None, ...] | None
    keys: tuple[int | str, ...] = ()

    @property
    def batch(self) -> int | None:
        """The size of the first axis, where the graph fixes it."""
        return self.shape[0] if self.shape else None

    def __str__(self) -> str:
        sizes = ", ".join("?" if size is None else str(size) for size in self.shape or ())
        return f"`{self.name}` {self.dtype or 'of any type'} [{sizes}]"
