"""The basis of a low-rank coding: a file of its own, that shards are read with."""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from tutelage.cache.coding import LowRank
from tutelage.cache.shards import ShardRecord, mapped, write_file

__all__ = ["read_basis", "write_basis"]


def write_basis(folder: Path, coding: LowRank) -> dict[str, Any]:
    """Writes mean and components, `[1 + rank, C]` float32; gives what `read_basis` takes."""
    values = torch.cat([coding.mean[None], coding.basis]).numpy()
    name = f"basis-{hashlib.blake2b(values.tobytes(), digest_size=8).hexdigest()}.arrow"
    array = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
    sink = pa.BufferOutputStream()
    batch = pa.record_batch([array], names=["basis"])
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    data = memoryview(sink.getvalue())
    write_file(folder / name, data)
    return {"file": name, "bytes": len(data), "crc32": zlib.crc32(data)}


def read_basis(folder: Path, about: dict[str, Any]) -> Tensor:
    """`[1 + rank, C]`: the mean, then the components.

    Raises:
        CacheError: The file is missing or damaged.
    """
    record = ShardRecord(rows=0, bytes=about["bytes"], crc32=about["crc32"], signals=[], views=[])
    with mapped(folder / about["file"], record) as data:
        column = pa.ipc.open_file(pa.BufferReader(data)).get_batch(0).column("basis")
        values = column.values.to_numpy().reshape(-1, column.type.list_size)
        return torch.from_numpy(np.array(values))
