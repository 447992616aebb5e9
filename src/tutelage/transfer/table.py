"""Rows from Parquet, CSV and JSON Lines files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, json, parquet

from tutelage.errors import DataError
from tutelage.paths import resolve_path
from tutelage.transfer.arrow import Roles, as_names, rows_of
from tutelage.transfer.base import Rows, Source

__all__ = ["Table"]

_KINDS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
}
MANIFEST = ".manifest.json"
"""How the name of a set's manifest ends: it is no table, where a folder is read."""


class Table(Source):
    """A table in a Parquet, CSV, TSV or JSON Lines file, or in a folder of files of one of these kinds.

    Args:
        path: The file or folder.
        text: Column of texts, or two for pairs of texts.
        inputs: Columns of numbers or categories. Those of plain numbers become one float32 matrix `[N, F]` in this
            order, or what `data.tabular` makes of them, of missing ones and of categories; one of lists
            stands for itself.
        categories: Which of the inputs are categories (texts or whole numbers); those that are not among the inputs
            follow them. In CSV files an empty cell is a missing one, and a column is one of whole numbers only
            where all of its cells are, written plainly (7, not 007).
        image: Column of encoded images (bytes).
        label: Column of the label, or several of numbers. Texts are classes, whole numbers class numbers, other
            numbers values; an empty cell, NaN, or -1 as a class number, is a row without a label.
        group: Column that names groups whose rows must stay in one split.
        split: Column with "train", "development" (or "validation"), "test" or nothing.
        classes: Names of the classes, in the order of the model's outputs. None: alphabetical.
        values: Whole-number labels are values to be predicted, not class numbers.
    """

    def __init__(
        self,
        path: str,
        text: str | list[str] | None = None,
        *,
        inputs: list[str] | None = None,
        categories: list[str] | None = None,
        image: str | None = None,
        label: str | list[str] | None = None,
        group: str | None = None,
        split: str | None = None,
        classes: list[str] | None = None,
        values: bool = False,
    ) -> None:
        self.path = path
        self.text = text
        self.inputs = inputs
        self.categories = categories
        self.image = image
        self.label = label
        self.group = group
        self.split = split
        self.classes = classes
        self.values = values
        self._roles()

    def _roles(self) -> Roles:
        return Roles(
            text=as_names(self.text),
            inputs=as_names(self.inputs),
            categories=as_names(self.categories),
            image=self.image,
            label=as_names(self.label),
            group=self.group,
            split=self.split,
            classes=as_names(self.classes),
            values=self.values,
        )

    def load(self) -> Rows:
        """See `Source.load`."""
        roles = self._roles()
        files = _files(resolve_path(self.path, key="data.source.path"))
        tables = [_read(file, roles) for file in files]
        try:
            table = pa.concat_tables(tables, promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise DataError(
                "data.source.path",
                expected="files with the same types of columns",
                found=str(error).splitlines()[0],
                mend="write them with one schema",
            ) from error
        if _kind(files[0]) in ("csv", "tsv"):
            table = _with_whole_numbers(table, roles.categories)
        return rows_of(table, roles)


def _with_whole_numbers(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """The table with columns of texts as whole numbers, where all of their cells are ones, written plainly."""
    for name in names:
        cells = pc.if_else(pc.equal(table[name], ""), None, table[name])
        if pc.all(pc.match_substring_regex(cells, r"^(0|-?[1-9][0-9]{0,17})$")).as_py():
            table = table.set_column(table.column_names.index(name), name, cells.cast(pa.int64()))
    return table


def _kind(file: Path) -> str | None:
    suffixes = [suffix for suffix in file.suffixes if suffix not in (".gz", ".bz2", ".zst")]
    return _KINDS.get(suffixes[-1].lower()) if suffixes else None


def _files(path: Path) -> list[Path]:
    """The file, or the files of a folder, in the order of their names."""
    if not path.is_dir():
        if _kind(path) is None:
            raise DataError(
                "data.source.path", expected=f"a file ending in {', '.join(_KINDS)}", found=f"`{path.name}`"
            )
        return [path]
    files = [file for file in sorted(path.iterdir()) if file.is_file() and _kind(file) is not None]
    files = [file for file in files if not file.name.endswith(MANIFEST)]
    kinds = {_kind(file) for file in files}
    if len(kinds) != 1:
        raise DataError(
            "data.source.path",
            expected="a folder of files of one kind",
            found=f"`{path}` with {', '.join(sorted(str(k) for k in kinds)) or 'no table'}",
            mend="give one file, or move the others away",
        )
    return files


def _read(file: Path, roles: Roles) -> pa.Table:
    """The columns that have a role."""
    kind = _kind(file)
    try:
        if kind == "parquet":
            roles.check(parquet.read_schema(file).names, file.name)
            return parquet.read_table(file, columns=roles.columns)
        if kind == "json":
            table = json.read_json(file)
            roles.check(table.column_names, file.name)
            return table.select(roles.columns)
        return _read_csv(file, roles, "\t" if kind == "tsv" else ",")
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(
            str(file), expected=f"a {kind} file", found=str(error).splitlines()[0], mend="check how it was written"
        ) from error


def _read_csv(file: Path, roles: Roles, delimiter: str) -> pa.Table:
    """Texts, categories, groups and splits are read as they stand: `007` or `NA` is no number and not missing."""
    parse = csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    with csv.open_csv(file, parse_options=parse) as reader:
        columns = reader.schema.names
    if len(columns) == 1 and (other := next((mark for mark in ";\t," if mark != delimiter and mark in columns[0]), "")):
        raise DataError(
            str(file),
            expected=f"columns separated by {delimiter!r}",
            found=f"one column, `{columns[0][:60]}`: its names seem to be separated by {other!r}",
            mend="name the file .tsv" if other == "\t" else f"write it with {delimiter!r} between the columns",
        )
    roles.check(columns, file.name)
    names = [*roles.text, *roles.categories, *(name for name in (roles.group, roles.split) if name)]
    convert = csv.ConvertOptions(
        include_columns=roles.columns,
        column_types={name: pa.string() for name in names},
        strings_can_be_null=False,
    )
    return csv.read_csv(file, parse_options=parse, convert_options=convert)
