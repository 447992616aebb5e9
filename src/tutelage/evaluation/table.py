"""Parquet files whose meaning is in their metadata: written atomically, read back to the bit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tutelage.errors import DataError
from tutelage.files import replacing

__all__ = ["fixed_lists", "from_fixed_lists", "read_table", "write_table"]

KEY = b"tutelage"
VERSION = 1


def fixed_lists(array: NDArray[Any]) -> pa.FixedSizeListArray:
    """A column of fixed-size lists from `[N, ...]`: the inner axes are flattened."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), flat.size // len(array))


def from_fixed_lists(column: pa.ChunkedArray, shape: Sequence[int]) -> NDArray[Any]:
    """The array `[N, *shape]` of a column of fixed-size lists, or of a plain column."""
    parts = [chunk.flatten() if pa.types.is_fixed_size_list(chunk.type) else chunk for chunk in column.chunks]
    flat = np.concatenate([part.to_numpy(zero_copy_only=False) for part in parts])
    return flat.reshape(len(column), *shape)


def write_table(path: Path, columns: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Writes columns as a zstd Parquet file with `about` as JSON metadata; a half-written file never has the name."""
    table = pa.table(dict(columns)).replace_schema_metadata({KEY: json.dumps({"version": VERSION, **about}).encode()})
    with replacing(path) as partial:
        pq.write_table(table, partial, compression="zstd")


def read_table(path: Path, kind: str | None = None) -> tuple[pa.Table, dict[str, Any]]:
    """Reads a table and what it says about itself.

    Raises:
        DataError: The file is missing, is no Parquet, is not of this `kind`, or was written by a newer tutelage.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(
            path.name,
            expected="a Parquet file of evidence",
            found=str(error).split("\n")[0] if path.exists() else "no such file",
            mend="restore the file, or make the bundle again",
        ) from error
    about = json.loads((table.schema.metadata or {}).get(KEY, b"{}"))
    if "kind" not in about or (kind is not None and about["kind"] != kind):
        raise DataError(path.name, expected=f"evidence of kind {kind or 'evidence or pairs'}", found=str(about)[:200])
    if about["version"] > VERSION:
        raise DataError(
            path.name,
            expected=f"format version {VERSION}",
            found=f"version {about['version']}",
            mend="use a newer tutelage",
        )
    return table, about
