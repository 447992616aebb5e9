"""Limits on tables, looked at before a reader sees them: some files make it wait, crash, or fill the memory."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from tutelage.errors import DataError
from tutelage.transfer.text_format import open_bytes

__all__ = ["block_size", "require_file", "require_parquet_size", "require_text_size"]

MOST_DEPTH = 100
"""Lists and objects of JSON that lie in each other. Arrow's reader ends the process at some thousands."""
MOST_LINE = 2**30
"""Bytes of a line."""
_PIECE = 2**20
_MARKS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+("?)|[\[{]|[\]}]', re.DOTALL)
_END = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)


def require_file(file: Path) -> None:
    """Refuses what is no file: a named pipe or a device would be waited for without end.

    Raises:
        DataError: It is none.
    """
    mode = file.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = "a named pipe" if stat.S_ISFIFO(mode) else "a folder" if stat.S_ISDIR(mode) else "a device or socket"
        raise DataError(
            str(file), expected="a file", found=kind, harm="reading it could last for ever", mend="write it to a file"
        )


def require_text_size(file: Path, most_gb: float, *, json: bool) -> int:
    """Bytes of the longest line of a CSV or JSON file, unpacked.

    Args:
        file: The file.
        most_gb: Gigabytes that it may have, unpacked.
        json: Whether it is JSON, so that its depth counts.

    Raises:
        DataError: It unpacks to more, has a line above 1 GiB, or its JSON lies more than 100 deep.
    """
    size = longest = line = depth = 0
    rest, within = b"", False
    with open_bytes(file) as stream:
        while piece := stream.read(_PIECE):
            size += len(piece)
            if size > most_gb * 1e9:
                raise _too_large(file, f"more than {most_gb:g} GB of text", most_gb)
            ends = np.flatnonzero(np.frombuffer(piece, np.uint8) == 10)
            if len(ends):
                longest = max(longest, line + int(ends[0]) + 1, int(np.diff(ends).max(initial=0)))
                line = len(piece) - int(ends[-1]) - 1
            else:
                line += len(piece)
            if max(longest, line) > MOST_LINE:
                raise DataError(str(file), expected="lines of up to 1 GiB", found="a longer one", mend="split it")
            if json:
                piece = rest + piece
                escapes = len(piece) - len(piece.rstrip(b"\\"))
                rest = b"\\" * (escapes % 2)  # what it escapes is in the next piece
                depth, within = _deepest(file, piece[: len(piece) - len(rest)], depth, within)
    return max(longest, line)


def _deepest(file: Path, piece: bytes, depth: int, within: bool) -> tuple[int, bool]:
    """The depth at the end of a piece of JSON, and whether it ends within a text, whose brackets do not count."""
    begin = 0
    if within:
        end = _END.match(piece)
        if end is None:
            return depth, True
        begin = end.end()
    within = False
    for mark in _MARKS.finditer(piece, begin):
        word = mark.group()
        if word in (b"[", b"{"):
            depth += 1
            if depth > MOST_DEPTH:
                raise DataError(
                    str(file),
                    expected=f"JSON whose lists and objects lie at most {MOST_DEPTH} deep in each other",
                    found="deeper ones",
                    harm="the reader would end the process",
                    mend="take the rows out of what is around them, or leave such columns out",
                )
        elif word in (b"]", b"}"):
            depth = max(depth - 1, 0)
        else:
            within = not mark.group(1)
    return depth, within


def block_size(longest: int) -> int:
    """Bytes that Arrow's readers take at once: a line has to fit into one."""
    return min(max(_PIECE, 2 * longest), 2**31 - 1)


def require_parquet_size(file: Path, columns: list[str], most_gb: float) -> None:
    """Refuses a Parquet file whose columns unpack to more than is allowed: a dictionary holds a value once for all.

    Raises:
        DataError: They do.
    """
    with parquet.ParquetFile(file) as opened:
        rows = opened.metadata.num_rows
        texts, fixed = [], 0
        for name in columns:
            kind = opened.schema_arrow.field(name).type
            kind = kind.value_type if pa.types.is_dictionary(kind) else kind  # a category
            if pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_large_string(kind):
                texts.append(name)
            else:
                fixed += rows  # at least a byte each
    if fixed > most_gb * 1e9 or rows * max(len(texts), 1) > most_gb * 1e9:
        raise _too_large(file, f"{rows:,} rows, whose columns take more than {most_gb:g} GB", most_gb)
    size = 0
    with parquet.ParquetFile(file, read_dictionary=texts) as opened:
        for batch in opened.iter_batches(batch_size=2**16, columns=texts) if texts else ():
            for column in batch.columns:
                lengths = pa.compute.binary_length(column.dictionary) if pa.types.is_dictionary(column.type) else None
                counted = column.nbytes if lengths is None else pa.compute.sum(lengths.take(column.indices)).as_py()
                size += counted or 0
            if size > most_gb * 1e9:
                raise _too_large(file, f"texts of more than {most_gb:g} GB", most_gb)


def _too_large(file: Path, found: str, most_gb: float) -> DataError:
    return DataError(
        str(file),
        expected=f"a table of at most {most_gb:g} GB, unpacked",
        found=found,
        harm="it could fill the memory: a small file can unpack to a thousand times its size",
        mend="if it is meant to be so large: max_gb in data.source",
    )
