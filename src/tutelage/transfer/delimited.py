"""Rows from CSV and TSV files; what can't be read right is refused by its line, with the setting that mends it."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from tutelage.categories import MISSING_WORDS
from tutelage.errors import DataError
from tutelage.transfer.arrow import Roles
from tutelage.transfer.file_limits import MOST_LINE
from tutelage.transfer.text_format import TextFormat, open_bytes, open_text, wrong_encoding

__all__ = ["read_delimited", "with_whole_numbers"]

_OTHERS = ";\t|,"
_SAMPLE = 200
csv.field_size_limit(MOST_LINE)  # by default a line of 131,072 characters without the delimiter is an error
_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d+,\d+([eE][+-]?\d+)?\s*")
_THOUSANDS = re.compile(r"\s*[+-]?\d{1,3}([,.'\u2019\u00a0\u202f ]\d{3})+([.,]\d+)?\s*")
_DATE = re.compile(r"\s*\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([T ].*)?\s*")
_WORDS = ("?", "-", "--", ".", "*", "missing", "unknown", "none")


def read_delimited(file: Path, roles: Roles, form: TextFormat, delimiter: str) -> tuple[pa.Table, list[str]]:
    """The columns that have a role, and what the user should know of how they were read.

    Texts, categories, groups and splits are read as they stand: `007` or `NA` is no number and not missing. In columns
    of numbers the words that pandas reads as missing are missing.

    Args:
        file: The file; its first line names the columns.
        roles: Which columns are wanted.
        form: Its separators, its encoding and its words for nothing.
        delimiter: The separator of columns, where `form` has none.

    Raises:
        DataError: It can't be read as it is; the message names the line and the setting.
    """
    delimiter = form.delimiter or delimiter
    with open_text(file, form) as lines:
        names = next((row for row in csv.reader(lines, delimiter=delimiter) if row), [])
    if not names:
        raise DataError(
            str(file),
            expected="names of columns in the first line",
            found="an empty file",
            mend="fill it, or give another data.source.path",
        )
    if any(name not in names for name in roles.columns):
        _refuse_delimiter(file, roles, form, delimiter, names)
    roles.check(names, file.name)
    _refuse_open_quote(file, form, delimiter)
    texts = [*roles.text, *roles.categories, *(name for name in (roles.group, roles.split) if name)]
    table = _read(file, roles.columns, texts, form, delimiter)
    numbers = [name for name in roles.inputs if name not in roles.categories]
    for name in roles.columns:
        if pa.types.is_binary(table[name].type):
            raise wrong_encoding(file, form)
        if name in numbers and (pa.types.is_string(table[name].type) or pa.types.is_temporal(table[name].type)):
            _refuse_text(file, name, form, delimiter)
    codes = roles.label if len(roles.label) == 1 and not roles.values else ()
    for name in dict.fromkeys([*codes, *roles.teacher_columns]):
        table = _with_codes(table, name, file, form, delimiter)
    gaps = [name for name in numbers if table[name].null_count]
    return table, _words_for_nothing(_read(file, gaps, gaps, form, delimiter)) if gaps else []


def _with_codes(table: pa.Table, name: str, file: Path, form: TextFormat, delimiter: str) -> pa.Table:
    """The table with a column as texts where it holds codes such as 007, which lose their zeros as numbers."""
    if not pa.types.is_integer(table[name].type):
        return table
    texts = _read(file, [name], [name], form, delimiter)[name]
    if not pc.any(pc.match_substring_regex(texts, r"^\s*0[0-9]")).as_py():
        return table
    texts = pc.if_else(table[name].is_null(), None, texts)
    return table.set_column(table.column_names.index(name), name, texts)


def _words_for_nothing(texts: pa.Table) -> list[str]:
    """Which words were taken for missing numbers."""
    notes = []
    for name in texts.column_names:
        counts = {each["values"]: each["counts"] for each in pc.value_counts(texts[name]).to_pylist()}
        words = {word: counts[word] for word in MISSING_WORDS if word and word in counts}
        if words:
            told = ", ".join(f"{word!r} ({count:,} rows)" for word, count in words.items())
            notes.append(f"column `{name}`: {told} read as missing numbers")
    return notes


def _read(file: Path, columns: Sequence[str], texts: Sequence[str], form: TextFormat, delimiter: str) -> pa.Table:
    try:
        return arrow_csv.read_csv(
            file,
            # Arrow skips a byte-order mark of UTF-8 by itself, and hands any other codec to Python, which is slow.
            read_options=arrow_csv.ReadOptions(
                encoding="utf8" if form.codec == "utf-8-sig" else form.codec, block_size=form.block
            ),
            parse_options=arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(
                include_columns=columns,
                column_types=dict.fromkeys(texts, pa.string()),
                strings_can_be_null=False,
                null_values=[*MISSING_WORDS, *form.missing],
                decimal_point=form.decimal,
            ),
        )
    except (pa.ArrowException, UnicodeError) as error:
        if isinstance(error, UnicodeError) or "UTF8" in str(error):
            raise wrong_encoding(file, form) from error
        if next(islice(_lines(file, form, delimiter), 1, None), None) is None:
            raise DataError(
                str(file), expected="at least one row", found="no rows after the first line", mend="check the path"
            ) from error
        raise _ragged(file, form, delimiter) or DataError(
            str(file), expected="a CSV file", found=str(error).splitlines()[0], mend="check how it was written"
        ) from error


def _ragged(file: Path, form: TextFormat, delimiter: str) -> DataError | None:
    """The error for the first row that has not as many cells as the first line."""
    width = 0
    for line, row in _lines(file, form, delimiter):
        width = width or len(row)
        if len(row) != width:
            shown = delimiter.join(row)[:80]
            return DataError(
                f"{file}, line {line:,}",
                expected=f"{width} cells separated by {delimiter!r}, as in the first line",
                found=f"{len(row)}: {shown}",
                mend=f'put cells that hold a {delimiter!r} in quotes, or name another separator: delimiter: ";"',
            )
    return None


def _lines(file: Path, form: TextFormat, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not empty, the header among them, and the line where each begins."""
    with open_text(file, form) as lines:
        reader, line = csv.reader(lines, delimiter=delimiter), 1
        for row in reader:
            if row:
                yield line, row
            line = reader.line_num + 1


def _refuse_delimiter(file: Path, roles: Roles, form: TextFormat, delimiter: str, names: list[str]) -> None:
    """Refuses a file whose columns are there by name, but separated by another character."""
    for other in _OTHERS:
        with open_text(file, form) as lines:
            rows = [row for row in islice(csv.reader(lines, delimiter=other), _SAMPLE) if row]
        if other == delimiter or not rows or any(name not in rows[0] for name in roles.columns):
            continue
        numbers = [rows[0].index(name) for name in roles.inputs if name not in roles.categories]
        cells = [row[place] for row in rows[1:] for place in numbers if place < len(row)]
        comma = other != "," and any(_DECIMAL_COMMA.fullmatch(cell) for cell in cells)
        written = '"\\t"' if other == "\t" else f'"{other}"'
        raise DataError(
            str(file),
            expected=f"columns separated by {delimiter!r}",
            found=f"`{delimiter.join(names)[:60]}`: its names are separated by {other!r}"
            + (" and its numbers have a decimal comma" if comma else ""),
            mend=f"delimiter: {written}" + (' and decimal: ","' if comma else "") + " in data.source",
        )


def _refuse_open_quote(file: Path, form: TextFormat, delimiter: str) -> None:
    """Refuses a file with a quote that is never closed: all that follows it would be one cell."""
    with open_bytes(file) as stream:
        if sum(block.count(b'"') for block in iter(lambda: stream.read(1 << 20), b"")) % 2 == 0:
            return
    line = 1
    with open_text(file, form) as lines:
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        try:
            for _ in reader:
                line = reader.line_num + 1
        except csv.Error as error:
            if "unexpected end" in str(error):
                raise DataError(
                    f"{file}, line {line:,}",
                    expected="each quote closed",
                    found='a cell that begins with a " and does not end',
                    harm="all rows after it would be read as part of this cell",
                    mend='close the quote, and write quotes within a quoted cell twice ("")',
                ) from error


def _refuse_text(file: Path, name: str, form: TextFormat, delimiter: str) -> None:
    """Refuses a column of numbers for the first cell that is none."""
    nothing, place, row = {*MISSING_WORDS, *form.missing}, -1, -1
    for line, cells in _lines(file, form, delimiter):
        if place < 0:
            place = cells.index(name)
            continue
        row += 1
        cell = cells[place]
        if cell in nothing or _is_number(cell, form):
            continue
        raise DataError(
            f"column `{name}`, row {row} (line {line:,})",
            expected="numbers",
            found=f"the text {cell!r}"[:80],
            mend=_mend(cell, form),
        )
    raise DataError(f"column `{name}`", expected="numbers", found="texts", mend="name it under `text` or `categories`")


def _is_number(cell: str, form: TextFormat) -> bool:
    if form.decimal == "," and "." in cell:
        return False
    try:
        float(cell.replace(form.decimal, "."))
    except ValueError:
        return False
    return "_" not in cell


def _mend(cell: str, form: TextFormat) -> str:
    """What a user can do about a cell that is no number."""
    plain = f"write it as a plain number, such as 1234{form.decimal}5"
    if cell.strip().lower() in _WORDS:
        return f"if it stands for nothing: missing: [{cell.strip()!r}] in data.source"
    comma, thousands = form.decimal == "." and _DECIMAL_COMMA.fullmatch(cell), _THOUSANDS.fullmatch(cell)
    if comma and thousands:
        return f'decimal: "," in data.source if it has a decimal comma; if that separates thousands, {plain}'
    if comma:
        return 'decimal: "," in data.source'
    if thousands or cell.strip().endswith("%"):
        return plain
    if _DATE.fullmatch(cell):
        return "write dates as numbers (days since the first of them), or name the column under `categories`"
    return (
        "name the column under `text` or `categories`, encode it as numbers, or, where the cell stands for nothing, "
        f"missing: [{cell.strip()[:40]!r}] in data.source"
    )


def with_whole_numbers(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """The table with columns of texts as whole numbers, where all of their cells are ones, written plainly."""
    for name in names:
        cells = pc.if_else(pc.equal(table[name], ""), None, table[name])
        if pc.all(pc.match_substring_regex(cells, r"^(0|-?[1-9][0-9]{0,17})$")).as_py():
            table = table.set_column(table.column_names.index(name), name, cells.cast(pa.int64()))
    return table
