"""Columns of an Arrow table as numpy arrays, texts and images: what `Table` and `HuggingFaceDataset` share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tutelage.categories import MISSING_WORDS
from tutelage.errors import DataError, RecipeError, did_you_mean
from tutelage.transfer.base import Column, Rows
from tutelage.transfer.features import Features
from tutelage.transfer.image_files import ImageFiles
from tutelage.transfer.labels import read_labels
from tutelage.transfer.splits import split_name

__all__ = ["Roles", "require_single", "rows_of"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Roles:
    """Which columns of a table are what.

    Attributes:
        text: Columns of texts; one, or two for pairs.
        inputs: Columns of numbers or of lists of numbers, or of categories.
        categories: Which of the inputs are categories; those that are not among the inputs follow them.
        image: Column of encoded images.
        label: Column of the label, or several of numbers for `[N, K]`.
        group: Column that names the group of a row.
        split: Column that names the split of a row.
        classes: Names of the classes, in the order of the model's outputs.
        values: Labels are values to be predicted, not classes. None: as their numbers look.
        unlabelled: What stands for a missing label.
        teacher_columns: Columns that the teacher alone reads.
    """

    text: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    image: str | None = None
    label: tuple[str, ...] = ()
    group: str | None = None
    split: str | None = None
    classes: tuple[str, ...] = ()
    values: bool | None = None
    unlabelled: str | int | None = None
    teacher_columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not (self.text or self.features or self.image):
            raise RecipeError(
                "data.source",
                expected="text, inputs, categories or image columns",
                found="none",
                mend="name at least one",
            )

    @property
    def features(self) -> list[str]:
        """Columns of numbers and of categories, each once."""
        return list(dict.fromkeys([*self.inputs, *self.categories]))

    @property
    def columns(self) -> list[str]:
        """All of them, each once."""
        one = [name for name in (self.image, self.group, self.split) if name is not None]
        return list(dict.fromkeys([*self.text, *self.features, *self.label, *one, *self.teacher_columns]))

    @property
    def with_missing(self) -> list[str]:
        """Columns in which a word may stand for nothing: all but those of texts, groups and splits."""
        return list(dict.fromkeys([*self.features, *self.label, *self.teacher_columns]))

    def check(self, known: Sequence[str], where: str) -> None:
        """Refuses a column that is not there, or twice.

        Raises:
            DataError: It names the nearest column, or where the two stand.
        """
        require_single(self.columns, known, where)
        for role in ("text", "inputs", "categories", "image", "label", "group", "split", "teacher_columns"):
            names = getattr(self, role)
            for name in (names,) if isinstance(names, str) else names or ():
                if name not in known:
                    raise DataError(
                        f"data.source.{role}",
                        expected=f"a column of `{where}`",
                        found=f"`{name}`",
                        mend=did_you_mean(name, known),
                    )


def require_single(wanted: Sequence[str], names: Sequence[str], where: str) -> None:
    """Refuses a column of which there are several.

    Args:
        wanted: The columns that are used.
        names: All columns that there are.
        where: The file, for the message.

    Raises:
        DataError: It names the column and where it stands.
    """
    for name in wanted:
        places = [str(place) for place, each in enumerate(names, start=1) if each == name]
        if len(places) > 1:
            raise DataError(
                where,
                expected="one column of each name",
                found=f"{len(places)} columns named `{name}`: number {', '.join(places[:-1])} and {places[-1]}",
                harm="which of them is meant would be a guess",
                mend="rename or remove all but one",
            )


def as_names(value: str | Sequence[str] | None) -> tuple[str, ...]:
    """Column names, however they were given."""
    return (value,) if isinstance(value, str) else tuple(value or ())


def rows_of(table: pa.Table, roles: Roles) -> Rows:
    """The rows of a table.

    Columns of plain numbers and of categories become one table (`Features`) called `inputs`, in the order given; a
    column of lists (all of one length) stands for itself.

    Raises:
        DataError: A cell is empty where it may not be, lists are ragged, or a column is of the wrong kind.
    """
    if not table.num_rows:
        raise DataError(
            "data.source",
            expected="at least one row",
            found="no rows",
            mend="fill the file that data.source names, give another, or check its `split` or filter",
        )
    columns: dict[str, Column] = {name: _texts(table[name], name) for name in roles.text}
    if roles.image is not None:
        columns[roles.image] = _images(table[roles.image], roles.image)
    cells: dict[str, Any] = {
        name: table[name].to_pylist() if name in roles.categories else _numbers(table[name], name)
        for name in roles.features
    }
    lists = {name: array for name, array in cells.items() if name not in roles.categories and array.ndim > 1}
    if len(lists) < len(cells):
        table_of = {name: column for name, column in cells.items() if name not in lists}
        whole = [n for n in table_of if pa.types.is_integer(table[n].type) or pa.types.is_boolean(table[n].type)]
        columns["inputs"] = Features(table_of, roles.categories, whole)
    columns |= lists
    split = None if roles.split is None else [str(v or "") for v in table[roles.split].to_pylist()]
    if split is not None:
        split = [split_name(word, f"column `{roles.split}`, row {row}") for row, word in enumerate(split)]
    labels = None
    if roles.label:
        raw = _label(table[roles.label[0]]) if len(roles.label) == 1 else _label_matrix(table, roles.label)
        labels = read_labels(
            raw,
            ", ".join(f"column `{name}`" for name in roles.label),
            classes=roles.classes or None,
            values=roles.values,
            unlabelled=roles.unlabelled,
            split=split,
        )
    group = None if roles.group is None else ["" if v is None else str(v) for v in table[roles.group].to_pylist()]
    return Rows(
        columns=columns,
        labels=None if labels is None else labels.values,
        labelled=None if labels is None else labels.labelled,
        classes=roles.classes if labels is None else labels.classes,
        group=group,
        split=split,
        notes=() if labels is None else labels.notes,
        teacher_columns={name: _as_it_is(table[name]) for name in roles.teacher_columns},
    )


def _as_it_is(column: pa.ChunkedArray) -> Array:
    """Numbers, NaN where a cell is empty, and anything else as objects with None."""
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        numbers: Array = column.to_numpy()
        return numbers
    objects = np.empty(len(column), dtype=object)
    objects[:] = column.to_pylist()
    return objects


def _refuse_nulls(column: pa.ChunkedArray, name: str) -> None:
    if column.null_count:
        row = int(np.argmax(column.is_null().to_numpy()))
        raise DataError(
            f"column `{name}`, row {row}",
            expected="a value in every row",
            found=f"nothing (in {column.null_count:,} rows)",
            mend="fill or remove these rows",
        )


def _texts(column: pa.ChunkedArray, name: str) -> list[str]:
    _refuse_nulls(column, name)
    texts: list[str] = column.cast(pa.string()).to_pylist()
    return texts


def _images(column: pa.ChunkedArray, name: str) -> ImageFiles:
    """Encoded images: binary, or `{bytes, path}` as Hugging Face stores them."""
    kind = column.type
    if pa.types.is_struct(kind) and any(kind.field(i).name == "bytes" for i in range(kind.num_fields)):
        column = pc.struct_field(column, "bytes")
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        raise DataError(
            f"column `{name}`",
            expected="encoded images (bytes)",
            found=str(kind),
            mend="store the bytes of the image files in it, or use ImageFolder",
        )
    _refuse_nulls(column, name)
    return ImageFiles([f"column `{name}`, row {row}" for row in range(len(column))], lambda row: column[row].as_py())


def _numbers(column: pa.ChunkedArray, name: str) -> Array:
    """`[N]` numbers, NaN where a cell is empty, or `[N, ...]` from lists of one length."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0) if array.num_chunks else pa.array([], type=array.type)
    shape = [len(array)]
    while True:
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        if len(shape) > 1 or _is_list(array.type):
            _refuse_nulls(pa.chunked_array([array]), name)
        if not _is_list(array.type):
            break
        lengths = pc.list_value_length(array).to_numpy(zero_copy_only=False)
        wrong = np.flatnonzero(lengths != lengths[0])
        if len(wrong):
            row = int(wrong[0]) // int(np.prod(shape[1:]))
            raise DataError(
                f"column `{name}`, row {row}",
                expected=f"lists of {int(lengths[0])}, as in row 0",
                found=f"one of {int(lengths[wrong[0]])}",
                mend="pad the lists to one length",
            )
        shape.append(int(lengths[0]))
        array = array.flatten()
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_decimal(array.type):
        array = array.cast(pa.float64())
    if pa.types.is_null(array.type) or (pa.types.is_boolean(array.type) and array.null_count):
        array = array.cast(pa.float64())
    if not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type) or pa.types.is_boolean(array.type)):
        texts = pa.types.is_string(array.type) or pa.types.is_large_string(array.type)
        row, shown = _first_text(array) if texts else (0, f"{array.type}")
        if texts:
            mend = "name it under `text` or `categories`, or encode it as numbers"
        elif pa.types.is_temporal(array.type):
            mend = "write dates as numbers (days since the first of them), or name the column under `categories`"
        else:
            mend = "encode it as numbers"
        raise DataError(
            f"column `{name}`" + (f", row {row // int(np.prod(shape[1:]))}" if texts else ""),
            expected="numbers",
            found=shown,
            mend=mend,
        )
    values: Array = array.to_numpy(zero_copy_only=False).reshape(shape)
    return values


def _first_text(array: pa.Array) -> tuple[int, str]:
    """The first of these texts that is no number, and where it is."""
    for row, text in enumerate(array.to_pylist()):
        try:
            float(text if text is not None and text not in MISSING_WORDS else 0)
        except ValueError:
            return row, f"the text {text!r}"[:80]
    return 0, f"texts that spell numbers, such as {array[0].as_py()!r}"[:80]


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _label(column: pa.ChunkedArray) -> Array | list[Any]:
    """Labels with None where they are missing; lists of numbers as `[N, K]`."""
    if _is_list(column.type):
        return _numbers(column, "label").astype(np.float64)
    if pa.types.is_temporal(column.type):  # class names that a CSV reader takes for dates
        column = column.cast(pa.string())
    if pa.types.is_floating(column.type):
        values: Array = column.to_numpy()
        return values
    objects: list[Any] = column.to_pylist()
    return objects


def _label_matrix(table: pa.Table, names: Sequence[str]) -> Array:
    """`[N, K]` float64 from several columns of numbers; missing ones are NaN."""
    parts = []
    for name in names:
        kind = table[name].type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
            raise DataError(f"column `{name}`", expected="numbers, as one of several labels", found=str(kind))
        parts.append(np.asarray(table[name].cast(pa.float64()).to_numpy(), dtype=np.float64))
    return np.stack(parts, axis=1)
