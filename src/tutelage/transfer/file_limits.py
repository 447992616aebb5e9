"""Limits on tables, looked at before a reader sees them: some files make it wait, crash, or fill the memory."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from tutelage.errors import DataError
from tutelage.transfer.json_depth import JsonDepth

__all__ = ["block_size", "require_file", "require_parquet_size", "require_text_size", "too_large", "unpacked_bytes"]

MOST_LINE = 2**30
"""Bytes of a line."""
_PIECE = 2**20
_SOON = 4
"""A packed file whose beginning stands for this many times what it may hold is refused without unpacking it all."""
_ENOUGH = 2**28
"""Unpacked bytes that are taken for the beginning of a file."""
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4, "INT64": 8, "DOUBLE": 8, "INT96": 8}
"""Bytes of a value by its type in Parquet."""


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
    size = longest = line = 0
    depth = JsonDepth(file)
    packed = file.stat().st_size
    with file.open("rb") as raw, pa.input_stream(raw, compression=_packing(file)) as stream:
        while piece := stream.read(_PIECE):
            size += len(piece)
            if size > most_gb * 1e9:
                raise too_large(file, f"more than {most_gb:g} GB of text", most_gb)
            if size > _ENOUGH and size * packed > _SOON * most_gb * 1e9 * (taken := raw.tell()):
                begun = f"the first {size / 1e9:.2g} GB are packed into {taken / packed:.2%} of the file"
                raise too_large(file, f"about {size / taken * packed / 1e9:,.0f} GB of text: {begun}", most_gb)
            ends = np.flatnonzero(np.frombuffer(piece, np.uint8) == 10)
            if len(ends):
                longest = max(longest, line + int(ends[0]) + 1, int(np.diff(ends).max(initial=0)))
                line = len(piece) - int(ends[-1]) - 1
            else:
                line += len(piece)
            if max(longest, line) > MOST_LINE:
                raise DataError(str(file), expected="lines of up to 1 GiB", found="a longer one", mend="split it")
            if json:
                depth.read(piece)
    return max(longest, line)


def _packing(file: Path) -> str | None:
    """How Arrow would unpack a file by its name."""
    return {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}.get(file.suffix)


def block_size(longest: int) -> int:
    """Bytes that Arrow's readers take at once: a line has to fit into one."""
    return min(max(_PIECE, 2 * longest), 2**31 - 1)


def require_parquet_size(file: Path, columns: list[str], most_gb: float) -> None:
    """Refuses a Parquet file whose columns unpack to more than is allowed: a dictionary holds a value once for all.

    Numbers are counted from the file's own description, within lists and structs too; texts are read as dictionaries.

    Raises:
        DataError: They do.
    """
    with parquet.ParquetFile(file) as opened:
        places = [place for place in range(opened.metadata.num_columns) if _top(opened, place) in columns]
        texts, size, most = [], 0, 1
        for place in places:
            values = sum(opened.metadata.row_group(g).column(place).num_values for g in range(opened.num_row_groups))
            leaf = opened.schema.column(place)
            if leaf.physical_type == "BYTE_ARRAY":
                texts.append(leaf.path)
            size += values * (_WIDTHS.get(leaf.physical_type) or max(leaf.length or 0, 1))
            most = max(most, values)
        rows = opened.metadata.num_rows
    if size > most_gb * 1e9:
        raise too_large(file, f"{rows:,} rows, whose columns take {size / 1e9:,.3g} GB or more", most_gb)
    size, at_once = 0, max(2**16 * rows // most, 1)  # rows of long lists are read a few at a time
    with parquet.ParquetFile(file, read_dictionary=texts) as opened:
        for batch in opened.iter_batches(batch_size=at_once, columns=texts) if texts else ():
            size += sum(map(unpacked_bytes, batch.columns))
            if size > most_gb * 1e9:
                raise too_large(file, f"texts of more than {most_gb:g} GB", most_gb)


def _top(opened: parquet.ParquetFile, place: int) -> str:
    """The column that a leaf belongs to; a name may have dots itself."""
    path = str(opened.schema.column(place).path)
    names = opened.schema_arrow.names
    return path if path in names else next((name for name in names if path.startswith(f"{name}.")), path)


def unpacked_bytes(array: pa.Array) -> int:
    """Bytes that an array takes once each of its dictionaries is written out."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    kind = array.type
    if pa.types.is_dictionary(kind):
        try:
            lengths = pa.compute.binary_length(array.dictionary)
        except pa.ArrowNotImplementedError:  # of numbers
            return int(len(array) * 8)
        return int(pa.compute.sum(lengths.take(array.indices)).as_py() or 0)
    if pa.types.is_struct(kind):
        return sum(map(unpacked_bytes, array.flatten()))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return unpacked_bytes(array.flatten()) + 8 * len(array)
    return int(array.nbytes)


def too_large(file: Path, found: str, most_gb: float) -> DataError:
    """The error for a file that would unpack to more than is allowed."""
    return DataError(
        str(file),
        expected=f"a table of at most {most_gb:g} GB, unpacked",
        found=found,
        harm="it could fill the memory: a small file can unpack to a thousand times its size",
        mend="if it is meant to be so large: max_gb in data.source",
    )
