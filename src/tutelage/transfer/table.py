"""Rows from Parquet, CSV and JSON Lines files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from tutelage.categories import MISSING_WORDS
from tutelage.errors import DataError
from tutelage.paths import resolve_path
from tutelage.transfer.arrow import Roles, as_names, rows_of
from tutelage.transfer.base import Rows, Source
from tutelage.transfer.delimited import read_delimited, with_whole_numbers
from tutelage.transfer.file_limits import block_size, require_file, require_parquet_size, require_text_size
from tutelage.transfer.json_rows import read_json
from tutelage.transfer.text_format import TextFormat

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
            stands for itself. In CSV files, an empty cell and the words that pandas takes for missing (NA, n/a, null
            ...) are missing numbers.
        categories: Which of the inputs are categories (texts, numbers, truth values, dates); those that are not among
            the inputs follow them. In CSV files an empty cell is a missing one, and a column is one of whole numbers
            only where all of its cells are, written plainly (7, not 007).
        image: Column of encoded images (bytes).
        label: Column of the label, or several of numbers. Texts are classes, whole numbers class numbers (in a CSV file
            names where one is written 007), other numbers values, and for a regression all numbers. An empty cell or
            NaN is a row without a label, and the class number -1 where that can mean nothing else.
        group: Column that names groups whose rows must stay in one split.
        split: Column with "train", "development" (or "validation"), "test" or nothing.
        classes: Names of the classes, in the order of the model's outputs. None: alphabetical. Labels that are all
            among them are names, whole numbers too: `["3", "5", "8"]`.
        values: Labels are values to be predicted, not classes. None: as the task of the recipe says.
        max_gb: Gigabytes that a file may unpack to; a larger one is refused before it is read.
        unlabelled: What stands for a missing label, beside an empty cell and NaN, such as -1.
        delimiter: Character between the columns of a CSV file. None: a comma, or a tab where its name ends in .tsv.
        decimal: Decimal point of the numbers of a CSV file: "." or ",".
        encoding: Encoding of a CSV, TSV or JSON file: utf-8, cp1252, latin-1, utf-16 ...
        missing: Words that stand for nothing in inputs, categories and labels: ["?", "-"].
        teacher_columns: Columns that are no inputs of the student but are kept for the teacher: answers that are there
            already (`ColumnTeacher`), or what a teacher that reads raw columns sees beyond the student.
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
        values: bool | None = None,
        delimiter: str | None = None,
        decimal: str = ".",
        encoding: str = "utf-8",
        missing: list[str] | None = None,
        unlabelled: str | int | None = None,
        teacher_columns: list[str] | None = None,
        max_gb: float = 32.0,
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
        self.delimiter = delimiter
        self.decimal = decimal
        self.encoding = encoding
        self.missing = missing
        self.unlabelled = unlabelled
        self.teacher_columns = teacher_columns
        self.max_gb = max_gb
        self._roles()
        self._form()

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
            unlabelled=self.unlabelled,
            teacher_columns=as_names(self.teacher_columns),
        )

    def _form(self) -> TextFormat:
        return TextFormat(
            delimiter=self.delimiter, decimal=self.decimal, encoding=self.encoding, missing=as_names(self.missing)
        )

    def load(self) -> Rows:
        """See `Source.load`."""
        roles, form = self._roles(), self._form()
        files = _files(resolve_path(self.path, key="data.source.path"))
        read = [_read(file, roles, form, self.max_gb) for file in files]
        tables = _with_labels_alike([table for table, _ in read], [*roles.label, *roles.teacher_columns])
        notes = [note for _, told in read for note in told]
        try:
            table = pa.concat_tables(tables, promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise DataError(
                "data.source.path",
                expected="files with the same types of columns",
                found=str(error).splitlines()[0],
                mend="write them with one schema",
            ) from error
        table = _without_words(table, roles.with_missing, form.missing)
        if _kind(files[0]) in ("csv", "tsv"):
            table = with_whole_numbers(table, roles.categories)
        notes += _words_as_categories(table, roles.categories)
        rows = rows_of(table, roles)
        return replace(rows, notes=[*rows.notes, *notes])


def _with_labels_alike(tables: list[pa.Table], names: Sequence[str]) -> list[pa.Table]:
    """The tables with labels as texts where they are in one of them: codes such as 007 beside a file of plain ones."""
    for name in names:
        kinds = {table[name].type for table in tables}
        if pa.string() in kinds and any(pa.types.is_integer(kind) for kind in kinds):
            tables = [t.set_column(t.column_names.index(name), name, t[name].cast(pa.string())) for t in tables]
    return tables


def _words_as_categories(table: pa.Table, names: Sequence[str]) -> list[str]:
    """Which categories are words that often stand for nothing."""
    notes = []
    for name in names:
        kind = table[name].type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            words = pa.array([word for word in (*MISSING_WORDS, "?", "-") if word], kind)
            found = pc.filter(table[name], pc.is_in(table[name], words))
            if len(found):
                shown = sorted(set(found.to_pylist()))
                told = f"column `{name}`: {', '.join(map(repr, shown))} ({len(found):,} rows) taken as categories"
                notes.append(f"{told}; where they stand for nothing, missing: {shown} in data.source")
    return notes


def _without_words(table: pa.Table, names: Sequence[str], words: Sequence[str]) -> pa.Table:
    """The table without the words that stand for nothing."""
    for name in names if words else ():
        kind = table[name].type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            nothing = pc.is_in(table[name], pa.array(words, kind))
            table = table.set_column(
                table.column_names.index(name), name, pc.if_else(nothing, pa.scalar(None, kind), table[name])
            )
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


def _read(file: Path, roles: Roles, form: TextFormat, max_gb: float) -> tuple[pa.Table, list[str]]:
    """The columns that have a role, and what the user should know of how they were read."""
    kind = _kind(file)
    require_file(file)
    try:
        if kind == "parquet":
            roles.check(parquet.read_schema(file).names, file.name)
            require_parquet_size(file, roles.columns, max_gb)
            return parquet.read_table(file, columns=roles.columns), []
        form = replace(form, block=block_size(require_text_size(file, max_gb, json=kind == "json")))
        if kind == "json":
            return read_json(file, roles, form), []
        return read_delimited(file, roles, form, "\t" if kind == "tsv" else ",")
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            str(file), expected=f"a {kind} file", found=str(error).splitlines()[0], mend="check how it was written"
        ) from error
