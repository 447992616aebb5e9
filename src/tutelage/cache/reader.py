"""Reading: random access by (row, view), with one look-up and one gather from the memory maps for each column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tutelage.cache.coding import Coding
from tutelage.cache.parts import Part, joined
from tutelage.cache.shards import Columns, ShardRecord, Tokens, open_shard
from tutelage.cache.windows import Windows
from tutelage.errors import CacheError
from tutelage.forms import TopK

__all__ = ["Reader", "Spec", "spread"]

Array = np.ndarray[Any, Any]

TABLES = 8
"""Views of a signal whose tables are kept in memory."""


@dataclass(frozen=True)
class Spec:
    """How a signal is stored: its coding, the shape of a position, and whether positions are tokens."""

    coding: Coding
    shape: tuple[int, ...]
    tokens: bool


@dataclass(frozen=True)
class _Shard:
    rows: Array
    views: Array
    columns: Columns
    alive: object


@dataclass(frozen=True)
class _Group:
    """Shards in which the columns of a signal are equally wide: all but where answers name more or fewer classes."""

    shards: tuple[str, ...]
    columns: dict[str, Windows]


@dataclass(frozen=True)
class _Table:
    """Of a signal in a view, by row: the group that answers it, where each column begins (-1: nowhere), its tokens."""

    group: Array
    starts: dict[str, Array]
    lengths: Array | None


class Reader:
    """Gives stored answers. A shard is opened, and its checksum verified, when it is first read.

    Args:
        folder: Of the cache.
        shards: Those of the manifest.
        specs: How each signal is stored.
        rows: How many rows the transfer set has.
    """

    def __init__(self, folder: Path, shards: Mapping[str, ShardRecord], specs: Mapping[str, Spec], rows: int) -> None:
        self.folder = folder
        self.shards = dict(sorted(shards.items()))
        self.specs = dict(specs)
        self.rows = rows
        self._opened: dict[str, _Shard] = {}
        self._groups: dict[str, list[_Group]] = {}
        self._tables: dict[tuple[str, int], _Table] = {}

    def stored(self, name: str, rows: Array, views: Array) -> Array:
        """Which (row, view) pairs are answered, `[n]` bool, for one signal.

        Raises:
            CacheError: A shard is damaged.
        """
        known = np.zeros(len(rows), dtype=bool)
        if name in self.specs:
            inside = (rows >= 0) & (rows < self.rows)
            for view in np.unique(views).tolist():
                here = inside & (views == view)
                known[here] = self._table(name, view).group[rows[here]] >= 0
        return known

    def read(
        self, names: Sequence[str], rows: Array, views: Array, mask: Array | None = None
    ) -> dict[str, Part] | None:
        """Signals of some (row, view) pairs, or None if one of them is not answered.

        Args:
            names: Of the signals.
            rows: `[B]` row numbers, at least one; negative ones are never answered.
            views: `[B]` view numbers.
            mask: `[B, L]` bool, the tokens that count; at the others a signal of tokens is 0.

        Raises:
            CacheError: A shard is damaged, or the tokens are not those that were answered.
        """
        if rows.min() < 0:
            return None
        alike = bool((views == views[0]).all())
        parts: dict[str, Part] = {}
        for name in names:
            if name not in self.specs:
                return None
            part = self._in_view(name, rows, int(views[0]), mask) if alike else self._mixed(name, rows, views, mask)
            if part is None:
                return None
            parts[name] = part
        return parts

    def verify(self) -> None:
        """Opens every shard.

        Raises:
            CacheError: One is damaged.
        """
        for shard in self.shards:
            self._shard(shard)

    def _mixed(self, name: str, rows: Array, views: Array, mask: Array | None) -> Part | None:
        """A signal of rows in several views."""
        parts = []
        places = [np.flatnonzero(views == view) for view in np.unique(views)]
        for at in places:
            part = self._in_view(name, rows[at], int(views[at[0]]), None if mask is None else mask[at])
            if part is None:
                return None
            parts.append(part)
        return joined(parts, _back(places))

    def _in_view(self, name: str, rows: Array, view: int, mask: Array | None) -> Part | None:
        """A signal of rows in one view."""
        table = self._tables.get((name, view)) or self._table(name, view)
        groups = self._groups[name]
        if len(groups) == 1:
            return self._gather(self.specs[name], groups[0], table, rows, mask)
        which = table.group.take(rows)
        if which.min() < 0:
            return None
        places = [np.flatnonzero(which == group) for group in np.unique(which)]
        parts = [
            self._gather(self.specs[name], groups[which[at[0]]], table, rows[at], None if mask is None else mask[at])
            for at in places
        ]
        return joined([part for part in parts if part is not None], _back(places))

    def _gather(self, spec: Spec, group: _Group, table: _Table, rows: Array, mask: Array | None) -> Part | None:
        """A signal of rows in one view and one group."""
        if spec.tokens:
            return self._gather_tokens(spec, group, table, rows, mask)
        values: dict[str, Array] = {}
        for column, windows in group.columns.items():
            at = table.starts[column].take(rows)
            if not values and at.min() < 0:
                return None
            values[column] = spec.coding.shaped(column, windows.all[at], spec.shape)
        return spec.coding.decode(values)

    def _gather_tokens(self, spec: Spec, group: _Group, table: _Table, rows: Array, mask: Array | None) -> Part | None:
        """The same for a signal of tokens, put where the mask says that they count."""
        assert table.lengths is not None
        lengths = table.lengths.take(rows)
        if lengths.min() < 0:
            return None
        if mask is None or not np.array_equal(mask.sum(1), lengths):
            raise CacheError(
                str(self.folder),
                expected="batches with the tokens that were answered",
                found="no mask" if mask is None else "rows with more or fewer tokens",
                harm="answers would be put to tokens that they are not about",
                mend="remove the folder to have all of it asked again",
            )
        within = np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths)
        values: dict[str, Array] = {}
        for column, windows in group.columns.items():
            at = np.repeat(table.starts[column].take(rows), lengths) + within * windows.width
            values[column] = spec.coding.shaped(column, windows.all[at], spec.shape)
        return spread(spec.coding.decode(values), torch.from_numpy(mask))

    def _table(self, name: str, view: int) -> _Table:
        """Where the answers to each row in a view are; the tables of the views that were read last are kept."""
        known = self._tables.pop((name, view), None)
        if known is not None:
            self._tables[name, view] = known
            return known
        groups = self._groups_of(name)
        tokens = self.specs[name].tokens
        table = _Table(
            group=np.full(self.rows, -1, dtype=np.int16),
            starts={column: np.full(self.rows, -1, dtype=np.int64) for group in groups for column in group.columns},
            lengths=np.full(self.rows, -1, dtype=np.int64) if tokens else None,
        )
        for number, group in enumerate(groups):
            for index, shard in enumerate(group.shards):
                if view in self.shards[shard].views:
                    self._enter(table, self._shard(shard), name, view, number=number, group=group, index=index)
        of_signal = [key for key in self._tables if key[0] == name]
        for old in of_signal[: max(0, len(of_signal) - TABLES + 1)]:
            del self._tables[old]
        self._tables[name, view] = table
        return table

    def _enter(
        self, table: _Table, shard: _Shard, name: str, view: int, *, number: int, group: _Group, index: int
    ) -> None:
        """Enters one shard's answers to a view into its table."""
        at = np.flatnonzero(shard.views == view)
        rows = shard.rows[at]
        table.group[rows] = number
        for column, windows in group.columns.items():
            stored = shard.columns[f"{name}:{column}"]
            first = stored.offsets[at] if isinstance(stored, Tokens) else at
            table.starts[column][rows] = windows.starts[index] + first * windows.width
            if isinstance(stored, Tokens) and table.lengths is not None:
                table.lengths[rows] = stored.offsets[at + 1] - first

    def _groups_of(self, name: str) -> list[_Group]:
        """The shards that hold a signal, by the widths of its columns."""
        if name not in self._groups:
            by_width: dict[tuple[tuple[str, int], ...], dict[str, dict[str, Array]]] = {}
            for shard in (shard for shard, record in self.shards.items() if name in record.signals):
                columns = {
                    column.removeprefix(f"{name}:"): stored.values if isinstance(stored, Tokens) else stored
                    for column, stored in self._shard(shard).columns.items()
                    if column.startswith(f"{name}:")
                }
                widths = tuple((column, values.shape[1]) for column, values in columns.items())
                by_width.setdefault(widths, {})[shard] = columns
            self._groups[name] = [
                _Group(
                    tuple(members),
                    {column: Windows([columns[column] for columns in members.values()]) for column, _ in widths},
                )
                for widths, members in by_width.items()
            ]
        return self._groups[name]

    def _shard(self, name: str) -> _Shard:
        """A shard, opened and verified once."""
        if name not in self._opened:
            rows, views, columns, alive = open_shard(self.folder / name, self.shards[name])
            self._opened[name] = _Shard(rows, views, columns, alive)
        return self._opened[name]


def _back(places: Sequence[Array]) -> Tensor:
    """The order that brings what was taken from these places back to them."""
    return torch.from_numpy(np.argsort(np.concatenate(places), kind="stable"))


def spread(part: Part, mask: Tensor) -> Part:
    """`[T, ...]` of the tokens that count as `[B, L, ...]`, 0 elsewhere."""

    def of(tensor: Tensor) -> Tensor:
        spread = tensor.new_zeros(*mask.shape, *tensor.shape[1:])
        spread[mask] = tensor
        return spread

    return part.map(of) if isinstance(part, TopK) else of(part)
