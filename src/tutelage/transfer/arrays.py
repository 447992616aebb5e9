"""Rows from numpy arrays and torch tensors, in memory or in `.npy` and `.npz` files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from tutelage.errors import DataError, did_you_mean
from tutelage.paths import resolve_path
from tutelage.transfer.array_files import read_arrays
from tutelage.transfer.arrow import require_single
from tutelage.transfer.base import Column, Rows, Source
from tutelage.transfer.features import Features
from tutelage.transfer.labels import read_labels
from tutelage.transfer.splits import split_name

__all__ = ["Arrays"]

Array = np.ndarray[Any, Any]


class Arrays(Source):
    """Arrays with one row an example.

    uint8 arrays with 3 or 4 axes are images; other whole numbers stay int64 (tokens), other numbers become float32.

    Args:
        inputs: An array or tensor `[N, ...]`, a list of texts, or a dict of them by input name (a Series of pandas is
            an array); a DataFrame; or the path of a `.npy` or `.npz` file. Of a `.npz`, the arrays named below are
            labels, group and split, and the rest inputs.
        labels: `[N]` or `[N, K]`; the path of a `.npy` file; or the name of an array of the `.npz`. None: no labels.
            A missing label is None, NaN, ""; the class number -1 where that can mean nothing else.
        categories: Names of inputs that are categories (texts, numbers, truth values, dates): they and the inputs with
            one number a row become a table, see `data.tabular`.
        group: `[N]` names of groups that must stay together, or the name of an array of the `.npz`.
        split: `[N]` "train", "development", "test" or "", or the name of an array of the `.npz`.
        classes: Names of the classes, in the order of the model's outputs. Labels may be these names or class numbers.
        values: Labels are values to be predicted, not classes. None: as the task of the recipe says.
        unlabelled: What stands for a missing label, beside an empty cell and NaN, such as -1.
        teacher_columns: Names of `inputs` that are none of the student's but are kept for the teacher: answers that are
            there already (`ColumnTeacher`), or what a teacher that reads raw columns sees beyond the student.
        max_gb: Gigabytes that the arrays of a file may take; a larger one is refused before it is read.
    """

    incidental: ClassVar[tuple[str, ...]] = ("max_gb",)

    def __init__(
        self,
        inputs: Any,
        labels: Any = None,
        *,
        categories: list[str] | None = None,
        group: Any = None,
        split: Any = None,
        classes: list[str] | None = None,
        values: bool | None = None,
        unlabelled: str | int | None = None,
        teacher_columns: list[str] | None = None,
        max_gb: float = 32.0,
    ) -> None:
        self.inputs = inputs
        self.labels = labels
        self.categories = categories
        self.group = group
        self.split = split
        self.classes = classes
        self.values = values
        self.unlabelled = unlabelled
        self.teacher_columns = teacher_columns
        self.max_gb = max_gb

    def load(self) -> Rows:
        """See `Source.load`."""
        columns, stored = self._columns()
        _require_named(self.teacher_columns or (), columns, "teacher_columns")
        kept = {name: _cells(columns.pop(name)) for name in self.teacher_columns or ()}
        found = {name: self._side(name, stored) for name in ("labels", "group", "split")}
        split = found["split"]
        split = None if split is None else [split_name(str(word), "split") for word in split]
        labels = None
        if found["labels"] is not None:
            labels = read_labels(
                found["labels"],
                "labels",
                classes=self.classes,
                values=self.values,
                unlabelled=self.unlabelled,
                split=split,
            )
        return Rows(
            columns=_table(columns, self.categories or ()),
            labels=None if labels is None else labels.values,
            labelled=None if labels is None else labels.labelled,
            classes=tuple(self.classes or ()) if labels is None else labels.classes,
            group=None if found["group"] is None else [str(name) for name in found["group"]],
            split=split,
            notes=() if labels is None else labels.notes,
            teacher_columns=kept,
        )

    def _columns(self) -> tuple[dict[str, Array | Sequence[str]], dict[str, Array]]:
        """The inputs, and all arrays of the `.npz` if there is one."""
        if isinstance(self.inputs, Mapping):
            return {str(name): self._array(value, str(name)) for name, value in self.inputs.items()}, {}
        if hasattr(self.inputs, "columns") and hasattr(self.inputs, "iloc"):
            return _frame(self.inputs), {}
        loaded = self._read(self.inputs, "data.source.inputs") if isinstance(self.inputs, (str, Path)) else self.inputs
        if not isinstance(loaded, dict):
            return {"inputs": self._array(loaded, "inputs")}, {}
        used = {word for word in (self.labels, self.group, self.split) if isinstance(word, str)}
        columns: dict[str, Array | Sequence[str]] = {k: v for k, v in loaded.items() if k not in used}
        return columns, loaded

    def _side(self, name: str, stored: dict[str, Array]) -> Any:
        """Labels, group or split, wherever they are."""
        value = getattr(self, name)
        if isinstance(value, (str, Path)):
            if str(value) in stored:
                return stored[str(value)]
            if stored and "." not in str(value):
                raise DataError(
                    f"data.source.{name}",
                    expected=f"an array of `{self.inputs}`",
                    found=f"`{value}`",
                    mend=did_you_mean(str(value), stored),
                )
            value = self._read(value, f"data.source.{name}")
        return None if value is None else self._array(value, name)

    def _read(self, path: str | Path, key: str) -> Any:
        file = resolve_path(str(path), key=key)
        if file.suffix not in (".npy", ".npz"):
            raise DataError(key, expected="a .npy or .npz file", found=f"`{path}`", mend="save it with numpy.save")
        return read_arrays(file, self.max_gb, key)

    def _array(self, value: Any, name: str) -> Array | Sequence[str]:
        """The array that is given, or that in a file."""
        return _array(self._read(value, f"data.source: {name}") if isinstance(value, (str, Path)) else value, name)


def _table(columns: dict[str, Array | Sequence[str]], categories: Sequence[str]) -> dict[str, Column]:
    """The columns with those of a table put together, where some are categories."""
    _require_named(categories, columns, "categories")
    if not categories:
        return dict(columns)
    cells = {
        name: column
        for name, column in columns.items()
        if name in categories or (isinstance(column, np.ndarray) and column.ndim == 1 and column.dtype.kind in "iufb")
    }
    return {"inputs": Features(cells, categories), **{n: c for n, c in columns.items() if n not in cells}}


def _require_named(names: Sequence[str], columns: Mapping[str, object], argument: str) -> None:
    for name in names:
        if name not in columns:
            raise DataError(
                f"data.source.{argument}",
                expected="a name of `inputs`",
                found=f"`{name}`",
                mend=did_you_mean(name, columns),
            )


def _cells(column: Array | Sequence[str]) -> Array:
    """A column as an array, lists of texts as objects."""
    if isinstance(column, np.ndarray):
        return column
    cells = np.empty(len(column), dtype=object)
    cells[:] = list(column)
    return cells


def _frame(frame: Any) -> dict[str, Array | Sequence[str]]:
    """The columns of a DataFrame."""
    names = [str(name) for name in frame.columns]
    require_single(names, names, "data.source.inputs")
    return {name: _array(frame.iloc[:, place], name) for place, name in enumerate(names)}


def _series(series: Any) -> Array:
    """A Series: numbers as numbers, with NaN where one is missing, and anything else as objects with None."""
    missing = series.isna().to_numpy()
    if getattr(series.dtype, "kind", "O") in "iufb":
        numbers: Array = series.to_numpy(np.float64, na_value=np.nan) if missing.any() else series.to_numpy()
        return numbers
    objects = np.array(series.astype(object).to_numpy(), dtype=object)
    objects[missing] = None
    return objects


def _array(value: Any, name: str) -> Array | Sequence[str]:
    """A numpy array; lists of texts (and of mixed labels) stay lists."""
    array: Array
    if hasattr(value, "isna") and hasattr(value, "iloc"):
        array = _series(value)
    elif isinstance(value, torch.Tensor):
        tensor = value.detach().cpu()
        array = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    elif isinstance(value, np.ndarray):
        array = value
    elif not isinstance(value, Sequence):
        raise DataError(f"data.source: {name}", expected="an array, a tensor or a list", found=type(value).__name__)
    elif any(isinstance(item, str) or item is None for item in value):
        return value
    else:
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise DataError(
                f"data.source: {name}",
                expected="rows of the same shape",
                found="ragged ones",
                mend="pad the rows to one length",
            ) from error
    if array.ndim == 0:
        raise DataError(f"data.source: {name}", expected="an array with one row an example", found="a single number")
    return array
