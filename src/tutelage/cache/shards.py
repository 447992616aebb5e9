"""One shard: an Arrow IPC file with the answers to a run of (row, view) pairs.

It is written beside its place and renamed when it is whole, so there is never a part of one. Its columns are `row`,
`view` and, for each signal, those of its coding; signals of tokens are lists, one a row, of the tokens that count. Its
metadata says whose answers they are, so that a file says for itself where it belongs.

Checksums are CRC-32 over the whole file: the standard library computes it about as fast as a disk reads, it finds every
burst of flipped bits up to 32 long and any other damage but for one case in four thousand million. It is to find
damage, not malice. A file is read once for it, at its first use in a process, and lies in the page cache afterwards.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tutelage.errors import CacheError, RunError

__all__ = ["Columns", "ShardRecord", "Tokens", "open_shard", "read_about", "write_file", "write_shard"]

Array = np.ndarray[Any, Any]
METADATA = b"tutelage"
PARTIAL = ".partial"


@dataclass(frozen=True)
class Tokens:
    """A column of tokens: those of row `i` are `values[offsets[i]:offsets[i + 1]]`."""

    offsets: Array
    values: Array


Columns = dict[str, "Array | Tokens"]
"""Columns of a shard by name, `SIGNAL:COLUMN`."""


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    """What the manifest says of a shard.

    Attributes:
        rows: How many (row, view) pairs it answers.
        bytes: Size of the file.
        crc32: CRC-32 of the file.
        signals: The signals in it.
        views: The views in it.
        errors: For each signal, sums from which the error of its coding is told.
    """

    rows: int
    bytes: int
    crc32: int
    signals: list[str]
    views: list[int]
    errors: dict[str, dict[str, float]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def write_file(path: Path, data: memoryview | bytes) -> None:
    """Writes a file, atomically: a name of this process's own, to the disk, then renamed.

    Raises:
        RunError: The disk is full, or the folder can't be written; nothing that was there is lost.
    """
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}{PARTIAL}")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise RunError(
            f"{path} could not be written ({error}). The answers stored before are kept: "
            "make room, and the same command goes on with those that are missing."
        ) from error


def write_shard(path: Path, rows: Array, views: Array, columns: Columns, about: Mapping[str, Any]) -> tuple[int, int]:
    """Writes a shard; the same content gives the same bytes.

    Args:
        path: Where.
        rows: `[n]` row numbers.
        views: `[n]` view numbers.
        columns: By name.
        about: What the file says of itself.

    Returns:
        Size and CRC-32 of the file.
    """
    arrays = [pa.array(np.asarray(numbers, dtype=np.int64)) for numbers in (rows, views)]
    arrays += [_to_arrow(column) for column in columns.values()]
    schema = pa.schema(
        [pa.field(name, array.type) for name, array in zip(("row", "view", *columns), arrays, strict=True)],
        metadata={METADATA: json.dumps(about, sort_keys=True).encode()},
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.record_batch(arrays, schema=schema))
    data = memoryview(sink.getvalue())
    write_file(path, data)
    return len(data), zlib.crc32(data)


def open_shard(path: Path, record: ShardRecord) -> tuple[Array, Array, Columns, object]:
    """The columns of a shard, mapped into memory, after one reading for the checksum.

    Returns:
        Rows, views, columns without `shape`, and what has to live as long as they do.

    Raises:
        CacheError: The file is missing, truncated, damaged or another's; it names the file and which.
    """
    with mapped(path, record) as data:
        batch = pa.ipc.open_file(pa.BufferReader(data)).get_batch(0)
        columns: dict[str, Array | Tokens] = {
            name: _from_arrow(batch.column(name)) for name in batch.schema.names if name not in ("row", "view")
        }
        rows, views = (batch.column(name).to_numpy(zero_copy_only=True) for name in ("row", "view"))
        return rows, views, columns, data


@contextlib.contextmanager
def mapped(path: Path, record: ShardRecord) -> Iterator[Any]:
    """The bytes of a file that are those the manifest tells of; errors that arise within name the file.

    Raises:
        CacheError: They are not.
    """
    try:
        size = path.stat().st_size
        if size != record.bytes:
            found = f"{size:,}: it is {'truncated' if size < record.bytes else 'longer'}"
            raise damaged(path, f"{record.bytes:,} bytes", found)
        with pa.memory_map(str(path)) as file:
            data = file.read_buffer()
        if zlib.crc32(memoryview(data)) != record.crc32:
            raise damaged(path, f"bytes with the checksum {record.crc32:08x}", _other(path))
        yield data
    except OSError as error:  # pyarrow's own errors too
        raise damaged(path, "a file that can be read", " ".join(str(error).split())) from error
    except (ValueError, KeyError) as error:
        raise damaged(path, "an Arrow IPC file of a cache", " ".join(str(error).split())) from error


def damaged(path: Path, expected: str, found: str) -> CacheError:
    """The error that names a file which can't be used."""
    return CacheError(
        str(path),
        expected=expected,
        found=found,
        harm="the student would learn from answers that the teacher never gave",
        mend="restore the file, or remove it: the same command then asks for its rows again, and for no others",
    )


def read_about(path: Path) -> dict[str, Any] | None:
    """What an Arrow file says of itself; None if it says nothing that can be read."""
    try:
        with pa.memory_map(str(path)) as file:
            metadata = pa.ipc.open_file(file).schema.metadata or {}
        about: dict[str, Any] = json.loads(metadata[METADATA])
        return about
    except (OSError, ValueError, KeyError):
        return None


def _other(path: Path) -> str:
    """What a file with another checksum is, as far as it says."""
    about = read_about(path)
    if about is None:
        return "others: it is damaged"
    return f"others: it is damaged, or another file of its name (answers of the teacher {about['teacher'][:12]})"


def _to_arrow(column: Array | Tokens) -> Any:
    if isinstance(column, Tokens):
        return pa.LargeListArray.from_arrays(pa.array(column.offsets.astype(np.int64)), _to_arrow(column.values))
    width = int(np.prod(column.shape[1:], dtype=np.int64))
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(column).reshape(-1)), width)


def _from_arrow(column: Any) -> Array | Tokens:
    """`[n, width]`, without a copy."""
    if pa.types.is_large_list(column.type):
        inner = _from_arrow(column.values)
        assert isinstance(inner, np.ndarray)
        return Tokens(column.offsets.to_numpy(zero_copy_only=True), inner)
    width = column.type.list_size
    values: Array = column.values.to_numpy(zero_copy_only=True).reshape(-1, width)
    return values
