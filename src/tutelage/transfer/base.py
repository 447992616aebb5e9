"""Where the inputs come from: the interface that every source has."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tutelage.transfer.features import Features

__all__ = ["Column", "Rows", "Source"]

Column = np.ndarray[Any, Any] | Sequence[str] | Features
"""A numpy array `[N, ...]`, N texts or paths of images, or the columns of a table."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows of a source, column by column.

    Attributes:
        columns: Inputs by name, each a numpy array `[N, ...]`, a sequence of N strings (texts, or paths of images), or
            the columns of a table (`Features`, at most one).
        labels: `[N]` class indices (int64) or values (float32), or None.
        labelled: `[N]` bool: which rows have a label. None when all or none have.
        classes: Names of the classes, when the source knows them.
        group: `[N]` strings: rows of a group (an article, a patient) stay in one split. None: each row by itself.
        split: `[N]` strings "train", "development", "test", or "" where the source leaves it open. None: all open.
        notes: What the user should know of how they were read.
        teacher_columns: Columns that are no inputs, `[N, ...]` numbers with NaN or objects with None where a cell is
            empty: `Batch.raw` has them, and nothing of the student's.
    """

    columns: dict[str, Column]
    labels: np.ndarray[Any, Any] | None = None
    labelled: np.ndarray[Any, Any] | None = None
    classes: tuple[str, ...] = field(default=())
    group: Sequence[str] | None = None
    split: Sequence[str] | None = None
    notes: Sequence[str] = ()
    teacher_columns: Mapping[str, np.ndarray[Any, Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


class Source(abc.ABC):
    """Base of all sources. Constructors only store; `load` reads."""

    values: bool | None = None
    """Whether labels are values to be predicted, not classes: what `load` reads them as. None: numbers with a fraction
    are. The task of a recipe decides where it is None, and contradicts nothing else."""

    @abc.abstractmethod
    def load(self) -> Rows:
        """Reads the rows.

        Raises:
            DataError: The file, the column or the package is missing; the message says what to do.
        """
