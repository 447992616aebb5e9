"""Rows from JSON: a line for each (JSON Lines), or one array of objects."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa
from pyarrow import json as arrow_json

from tutelage.errors import DataError
from tutelage.transfer.arrow import Roles
from tutelage.transfer.text_format import TextFormat, open_bytes, open_text

__all__ = ["read_json"]

Row = list[tuple[str, Any]]
"""Names and values of an object, in order; a name may be there twice."""


def read_json(file: Path, roles: Roles, form: TextFormat) -> pa.Table:
    """The columns that have a role. Texts that look like dates stay texts.

    Args:
        file: The file.
        roles: Which columns are wanted.
        form: Its encoding and its words for nothing.

    Raises:
        DataError: It can't be read as it is; the message names the row and its line.
    """
    with open_bytes(file) as stream:
        plain = form.codec == "utf-8-sig" and not form.missing
        direct = plain and stream.peek(64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{"
        try:
            if not direct:
                raise pa.ArrowInvalid("to be read here")
            table = arrow_json.read_json(file, arrow_json.ReadOptions(block_size=form.block))
            table.validate(full=True)  # Arrow takes bytes that are no UTF-8
        except (pa.ArrowException, UnicodeError):
            table = _arrow(list(_objects(file, form)), file, roles, form)
    roles.check(table.column_names, file.name)
    table = table.select(roles.columns)
    _refuse_columns_as_lists(table, file)
    dates = [field.name for field in table.schema if pa.types.is_temporal(field.type)]
    if dates:
        rows = [dict(row) for _, row in _objects(file, form)]
        for name in dates:
            texts = pa.array([row.get(name) for row in rows], pa.string())
            table = table.set_column(table.column_names.index(name), name, pa.chunked_array([texts]))
    return table


def _objects(file: Path, form: TextFormat) -> Iterator[tuple[int, Row]]:
    """The objects of a file, and the line where each begins.

    Raises:
        DataError: It holds something else.
    """
    decoder = json.JSONDecoder(object_pairs_hook=lambda pairs: pairs)
    with open_text(file, form) as lines:
        text = lines.read()
    at, line, array = _skip(text, 0), 1, False
    if not text[at:]:
        raise DataError(str(file), expected="rows in JSON", found="an empty file", mend="check the path")
    if text[at] == "[":
        array, at = True, _skip(text, at + 1)
    begin = 0
    while at < len(text) and not (array and text[at] == "]"):
        line, begin = line + text.count("\n", begin, at), at
        try:
            value, at = decoder.raw_decode(text, at)
        except ValueError as error:
            shown = text[begin : begin + 60].splitlines()[0]
            _refuse(file, line, f"{str(error).split(':')[0].lower()}: {shown}")
        if not isinstance(value, list) or text[begin] != "{":
            _refuse(file, line, f"{text[begin : begin + 60].splitlines()[0]}")
        yield line, value
        at = _skip(text, at)
        if array and at < len(text) and text[at] == ",":
            at = _skip(text, at + 1)
    if array and (at >= len(text) or text[_skip(text, at + 1) :]):
        _refuse(file, line, "an array that does not end, or more after it")


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _refuse(file: Path, line: int, found: str) -> NoReturn:
    raise DataError(
        f"{file}, line {line:,}",
        expected="JSON Lines (an object in each line, by name of column), or one array of such objects",
        found=found,
        mend="write it so (pandas: frame.to_json(path, orient='records', lines=True))",
    )


def _arrow(rows: list[tuple[int, Row]], file: Path, roles: Roles, form: TextFormat) -> pa.Table:
    """The rows as Arrow reads them from lines. What it can't read is named by its row and line."""
    marks = dict.fromkeys(roles.with_missing, form.missing)
    kinds: dict[str, str] = {}
    for number, (line, row) in enumerate(rows):
        names = [name for name, _ in row]
        for place, (name, value) in enumerate(row):
            where = f"column `{name}`, row {number} (line {line:,})"
            if name not in roles.columns:
                continue
            if names.count(name) > 1:
                raise DataError(
                    where,
                    expected="one value of each name",
                    found=f"{names.count(name)} values named `{name}`",
                    harm="which of them is meant would be a guess",
                    mend="rename or remove all but one",
                )
            if isinstance(value, str) and value in marks.get(name, ()):
                row[place] = (name, None)
                continue
            kind = _kind(value)
            if kind and kinds.setdefault(name, kind) != kind:
                other = f"where it stands for nothing, missing: [{value!r}] in data.source" if kind == "text" else ""
                raise DataError(
                    where,
                    expected=f"a {kinds[name]}, as in the rows before",
                    found=f"the {kind} {json.dumps(value)}"[:80],
                    mend="write the column in one type" + (f", or, {other}" if other else ""),
                )
    wanted = set(roles.columns)
    lines = [json.dumps({name: _plain(value) for name, value in row if name in wanted}) for _, row in rows]
    known = {name for _, row in rows for name, _ in row}
    if not rows:
        raise DataError("data.source", expected="at least one row", found="no rows", mend="check the file")
    roles.check(sorted(known), file.name)
    try:
        longest = 6 * max(map(len, lines)) + 1  # bytes of a letter, escaped
        options = arrow_json.ReadOptions(block_size=min(max(2**20, longest), 2**31 - 1))
        return arrow_json.read_json(io.BytesIO("\n".join(lines).encode()), options)
    except pa.ArrowException as error:
        raise DataError(
            str(file), expected="rows in JSON", found=str(error).splitlines()[0], mend="check how it was written"
        ) from error


def _plain(value: Any) -> Any:
    """Objects within a cell as dicts again."""
    if isinstance(value, list):
        if value and all(isinstance(each, tuple) for each in value):
            return {name: _plain(each) for name, each in value}
        return [_plain(each) for each in value]
    return value


def _kind(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "truth value"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else "list or object"


def _refuse_columns_as_lists(table: pa.Table, file: Path) -> None:
    """Refuses the one object of columns that `DataFrame.to_json` writes by itself."""
    nested = [pa.types.is_nested(field.type) for field in table.schema]
    if table.num_rows == 1 and all(nested):
        _refuse(file, 1, "one object that holds whole columns")
