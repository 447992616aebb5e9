"""Rows known by their content: a cache for batches of no transfer set, whose rows have no numbers of their own.

A row is a digest of all that a teacher may read of it. The first time that a row is answered it gets the next free
number, and each shard carries the digests of its rows, so that numbers and answers can't be parted: the reader is the
one of any cache. A question writes one small shard; shards of like size are merged, so that `n` answers lie in about
`n / shard_rows + log₂(shard_rows)` files and each is written about `log₂(shard_rows)` times.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tutelage.cache.jobs import Job
from tutelage.cache.parts import Part
from tutelage.cache.shards import Columns, ShardRecord, Tokens, write_shard
from tutelage.cache.store import Store
from tutelage.errors import ModelError
from tutelage.signals import Batch

__all__ = ["BY_CONTENT", "Contents", "digests_of"]

Array = np.ndarray[Any, Any]

BY_CONTENT = hashlib.sha256(b"tutelage: rows by content").hexdigest()
"""What stands in the place of a transfer set's fingerprint in the identity of such a cache."""
TOKENS = frozenset({"input_ids", "attention_mask", "token_type_ids", "position_ids"})
"""Named inputs that a tokenizer pads."""


def digests_of(batch: Batch) -> list[bytes]:
    """A digest of each row: of its inputs (name, dtype, shape, bytes), its mask, its number, view and raw columns.

    A row ends with its last token that counts, so that a text is the same row whatever it is padded to at the end:
    this holds for the inputs that a tokenizer gives, or the lone input, of a batch with a mask. All else counts whole.

    Raises:
        ModelError: An input has not one entry for each row.
    """
    inputs = batch.inputs if isinstance(batch.inputs, Mapping) else {"": batch.inputs}
    mask = None if batch.mask is None else batch.mask.bool().cpu()
    ends = None if mask is None else (mask.long() * torch.arange(1, mask.shape[1] + 1)).amax(1).tolist()
    named = {"rows": batch.rows, "views": batch.views} | ({} if mask is None else {"mask": mask})
    named |= {f"inputs/{name}": tensor for name, tensor in inputs.items()}
    digests = [hashlib.blake2b(digest_size=16) for _ in range(len(batch))]
    for name, tensor in sorted(named.items()):
        if tensor.dim() == 0 or len(tensor) != len(batch):
            raise ModelError(
                f"input `{name.removeprefix('inputs/')}` of a cached teacher",
                expected=f"a tensor with an entry for each of the {len(batch)} rows on its first axis",
                found=f"the shape {[*tensor.shape]}",
                mend="leave to the teacher's forward what is not one a row",
            )
        padded = mask is not None and tensor.shape[:2] == mask.shape and _is_padded(name)
        shape = tensor.shape[2:] if padded else tensor.shape[1:]
        head = f"{name} {tensor.dtype} {tuple(shape)} {padded}".encode()
        data = tensor.detach().cpu().contiguous().reshape(len(batch), -1).view(torch.uint8).numpy()
        for i, digest in enumerate(digests):
            row = data[i, : data.shape[1] // tensor.shape[1] * ends[i]] if padded and ends is not None else data[i]
            _add(digest, head, row.tobytes())
    for name, column in sorted(({} if batch.raw is None else batch.raw()).items()):
        for digest, cell in zip(digests, column, strict=True):
            _add(digest, name.encode(), *_cell(cell))
    return [digest.digest() for digest in digests]


class Contents:
    """Stored answers to rows that are known by their content.

    Args:
        store: Of the folder; its identity says `BY_CONTENT`.
        shard_rows: Answers in a file at most.

    Raises:
        CacheError: The folder can't be used.
    """

    def __init__(self, store: Store, shard_rows: int) -> None:
        self.store, self.shard_rows = store, shard_rows
        self._numbers: dict[bytes, int] = {}
        self._owners: dict[int, bytes] = {}
        self._learnt: set[str] = set()
        with store.locked(wait=True):
            self._learn()

    def numbers(self, digests: Sequence[bytes]) -> Array:
        """The numbers of rows, `[n]`; -1 for those that nothing is stored about."""
        return np.array([self._numbers.get(digest, -1) for digest in digests], dtype=np.int64)

    def lacking(self, names: Sequence[str], rows: Array) -> Array:
        """Whether one of these signals is not stored of a row, `[n]` bool."""
        views = np.zeros_like(rows)
        stored: Array = np.all([self.store.reader.stored(name, rows, views) for name in names], axis=0)
        return ~stored

    def read(self, names: Sequence[str], rows: Array, mask: Array | None) -> dict[str, Part] | None:
        """Signals of rows by their numbers, as `Reader.read` gives them."""
        return self.store.reader.read(names, rows, np.zeros_like(rows), mask)

    def keep(self, digests: Sequence[bytes], parts: Mapping[str, Part], mask: Tensor | None) -> None:
        """Stores the answers to some distinct rows; they are on the disk when it returns.

        Raises:
            SignalError: They can't be stored.
            RunError: The disk is full, or the folder can't be written.
        """
        with self.store.locked(wait=True):
            self._learn()  # what another process stored meanwhile: no number may be given twice
            free = max(self._owners, default=-1) + 1
            fresh = [digest for digest in digests if digest not in self._numbers]
            known = self._numbers | dict(zip(fresh, range(free, free + len(fresh)), strict=True))
            rows = np.array([known[digest] for digest in digests], dtype=np.int64)
            about = np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(len(digests), -1)
            job = Job(rows, np.zeros_like(rows), tuple(parts), about)
            builder = self.store.builder(job)
            builder.add(np.arange(len(rows)), parts, mask)
            self.store.keep(builder.write())
            self._merge(job.file)
            self._learn()

    def _learn(self) -> None:
        """Enters the rows of shards that are new, and opens them: they stay readable when others merge them."""
        store = self.store
        store.read_anew()
        for name in sorted(store.manifest.shards.keys() - self._learnt):
            shard = store.reader.shard(name)
            digests = shard.columns["digest"]
            assert isinstance(digests, np.ndarray)
            for number, digest in zip(shard.rows.tolist(), map(bytes, digests), strict=True):
                before = self._owners.get(number, digest)
                if before != digest:  # its shard was removed, and the number given again
                    del self._numbers[before]
                self._owners[number], self._numbers[digest] = digest, number
        self._learnt = set(store.manifest.shards)
        store.rows = max(self._owners, default=-1) + 1
        store.read_anew()

    def _merge(self, last: str) -> None:
        """Merges the last shard with those that are no larger than it and those it was merged with."""
        shards = self.store.manifest.shards
        group, total = [last], shards[last].rows
        small = [name for name, record in shards.items() if name != last and record.signals == shards[last].signals]
        for name in sorted(small, key=lambda name: (shards[name].rows, name)):
            if shards[name].rows > total or total + shards[name].rows > self.shard_rows:
                break
            group, total = [*group, name], total + shards[name].rows
        self.store.read_anew()
        pieces = [self.store.reader.shard(name) for name in group]
        if len(group) == 1 or len({_layout(piece.columns) for piece in pieces}) > 1:
            return
        columns = {name: _concatenated([piece.columns[name] for piece in pieces]) for name in pieces[0].columns}
        rows, digests = np.concatenate([piece.rows for piece in pieces]), columns["digest"]
        assert isinstance(digests, np.ndarray)
        records = [shards[name] for name in group]
        job = Job(rows, np.zeros_like(rows), tuple(records[0].signals), digests)
        about = {**self.store.identity.to_dict(), "signals": {n: self.store.manifest.signals[n] for n in job.names}}
        size, crc = write_shard(self.store.folder / job.file, rows, job.views, columns, about)
        errors = {name: _summed([record.errors.get(name, {}) for record in records]) for name in job.names}
        record = ShardRecord(
            rows=len(rows),
            bytes=size,
            crc32=crc,
            signals=records[0].signals,
            views=[0],
            errors={name: sums for name, sums in errors.items() if sums},
        )
        for name in group:
            del shards[name]
        shards[job.file] = record
        self.store.manifest.save(self.store.folder)
        for name in group:  # after the manifest: a kill before leaves files that the next filling removes
            with contextlib.suppress(OSError):
                (self.store.folder / name).unlink()


def _is_padded(name: str) -> bool:
    kind, _, of = name.partition("/")
    return kind == "mask" or (kind == "inputs" and (not of or of in TOKENS))


def _cell(value: Any) -> tuple[bytes, ...]:
    """Bytes that tell a cell of a raw column from any other."""
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype != object:
        return str((value.dtype, value.shape)).encode(), value.tobytes()
    if isinstance(value, (list, tuple, np.ndarray)):
        return type(value).__name__.encode(), str(len(value)).encode(), *(part for one in value for part in _cell(one))
    return type(value).__name__.encode(), repr(value).encode()


def _add(digest: hashlib.blake2b, *parts: bytes) -> None:
    """Adds parts, each after its length, so that no two lists of parts give the same stream."""
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)


def _layout(columns: Columns) -> tuple[tuple[str, bool, int], ...]:
    """Names, kinds and widths of columns: those that are equal can be put after each other."""
    arrays = {name: (column.values if isinstance(column, Tokens) else column) for name, column in columns.items()}
    return tuple((name, isinstance(columns[name], Tokens), array.shape[1]) for name, array in sorted(arrays.items()))


def _concatenated(columns: Sequence[Array | Tokens]) -> Array | Tokens:
    """Columns of several shards after each other."""
    tokens = [column for column in columns if isinstance(column, Tokens)]
    if not tokens:
        return np.concatenate([column for column in columns if isinstance(column, np.ndarray)])
    lengths = np.concatenate([np.diff(column.offsets) for column in tokens])
    values = [column.values[column.offsets[0] : column.offsets[-1]] for column in tokens]
    return Tokens(np.concatenate([[0], lengths.cumsum()]), np.concatenate(values))


def _summed(several: Sequence[Mapping[str, float]]) -> dict[str, float]:
    keys = sorted({key for sums in several for key in sums})
    return {key: sum(sums.get(key, 0.0) for sums in several) for key in keys}
