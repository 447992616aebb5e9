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

__all__ = ["Opened", "Reader", "Spec", "spread"]

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
class Opened:
    """A shard, mapped into memory: its pairs, its columns, and what has to live as long as they do."""

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
    """Of a signal in a view: the group that answers a row, where each column of it begins, how many tokens it has.

    Row `r` has place `r + 1`; -1 says that it is not answered. The first and the last place are nobody's: what is
    below or above all rows is clipped to them.
    """

    spec: Spec
    group: Array
    columns: list[list[tuple[str, Array, Windows]]]
    lengths: Array | None


class Reader:
    """Gives stored answers. A shard is opened, and its checksum verified, when it is first read.

    Args:
        folder: Of the cache.
        shards: Those of the manifest.
        specs: How each signal is stored.
        rows: How many rows the transfer set has.
        opened: Shards that were opened before, by name.
    """

    def __init__(
        self,
        folder: Path,
        shards: Mapping[str, ShardRecord],
        specs: Mapping[str, Spec],
        rows: int,
        opened: Mapping[str, Opened] | None = None,
    ) -> None:
        self.folder = folder
        self.shards = dict(sorted(shards.items()))
        self.specs = dict(specs)
        self.rows = rows
        self._opened: dict[str, Opened] = dict(opened or {})
        self._groups: dict[str, list[_Group]] = {}
        self._tables: dict[tuple[str, int], _Table] = {}
        self._alike = b""

    def opened(self, shards: Mapping[str, ShardRecord]) -> dict[str, Opened]:
        """What is opened of these shards, where they are those that this reader knows."""
        return {name: shard for name, shard in self._opened.items() if shards.get(name) == self.shards[name]}

    def stored(self, name: str, rows: Array, views: Array) -> Array:
        """Which (row, view) pairs are answered, `[n]` bool, for one signal.

        Raises:
            CacheError: A shard is damaged.
        """
        known = np.zeros(len(rows), dtype=bool)
        if name in self.specs:
            for view in np.unique(views).tolist():
                here, table = views == view, self._table(name, view)
                assert table is not None
                known[here] = table.group.take(rows[here] + 1, mode="clip") >= 0
        return known

    def read(
        self, names: Sequence[str], rows: Array, views: Array, mask: Array | None = None
    ) -> dict[str, Part] | None:
        """Signals of some (row, view) pairs, or None if one of them is not answered.

        Args:
            names: Of the signals.
            rows: `[B]` row numbers, at least one; those that are no rows of the set are never answered.
            views: `[B]` view numbers.
            mask: `[B, L]` bool, the tokens that count; at the others a signal of tokens is 0.

        Raises:
            CacheError: A shard is damaged, or the tokens are not those that were answered.
        """
        places = rows + 1
        if not self._are_alike(views):
            return self._read_mixed(names, places, views, mask)
        view = views.item(0)
        parts: dict[str, Part] = {}
        for name in names:
            table = self._tables.get((name, view)) or self._table(name, view)
            if table is None:
                return None
            if len(table.columns) == 1 and table.lengths is None:
                part = _gather(table.spec, table.columns[0], places)
            else:
                part = self._read_unequal(table, places, mask)
            if part is None:
                return None
            parts[name] = part
        return parts

    def _are_alike(self, views: Array) -> bool:
        """Whether all rows of a batch are in one view. Most batches have the views of the one before."""
        said = views.tobytes()
        if said != self._alike and (views == views[0]).all():
            self._alike = said
        return said == self._alike

    def _read_mixed(
        self, names: Sequence[str], places: Array, views: Array, mask: Array | None
    ) -> dict[str, Part] | None:
        """Signals of rows in several views."""
        pieces = [np.flatnonzero(views == view) for view in np.unique(views)]
        found = []
        for at in pieces:
            part = self.read(names, places[at] - 1, views[at], None if mask is None else mask[at])
            if part is None:
                return None
            found.append(part)
        return {name: joined([part[name] for part in found], _back(pieces)) for name in names}

    def _read_unequal(self, table: _Table, places: Array, mask: Array | None) -> Part | None:
        """A signal of rows in one view, where it is one of tokens or some shards are wider than others."""
        which = table.group.take(places, mode="clip")
        if which.min() < 0:
            return None
        lengths = None if table.lengths is None else table.lengths.take(places)
        if lengths is not None and (mask is None or not np.array_equal(mask.sum(1), lengths)):
            raise CacheError(
                str(self.folder),
                expected="batches with the tokens that were answered",
                found="no mask" if mask is None else "rows with more or fewer tokens",
                harm="answers would be put to tokens that they are not about",
                mend="remove the folder to have all of it asked again",
            )
        pieces = [np.flatnonzero(which == group) for group in np.unique(which)]
        parts = []
        for at in pieces:
            columns = table.columns[which[at[0]]]
            if lengths is None or mask is None:
                part = _gather(table.spec, columns, places[at])
                assert part is not None
            else:
                tokens = _gather_tokens(table.spec, columns, places[at], lengths[at])
                part = spread(tokens, torch.from_numpy(mask[at]))
            parts.append(part)
        return joined(parts, _back(pieces))

    def _table(self, name: str, view: int) -> _Table | None:
        """Where the answers to each row in a view are; the tables of the views that were made last are kept."""
        if (name, view) in self._tables or name not in self.specs:
            return self._tables.get((name, view))
        groups, spec, places = self._groups_of(name), self.specs[name], self.rows + 2
        table = _Table(
            spec=spec,
            group=np.full(places, -1, dtype=np.int16),
            columns=[
                [(column, np.full(places, -1, dtype=np.int64), windows) for column, windows in group.columns.items()]
                for group in groups
            ],
            lengths=np.full(places, -1, dtype=np.int64) if spec.tokens else None,
        )
        for number, group in enumerate(groups):
            for index, shard in enumerate(group.shards):
                if view in self.shards[shard].views:
                    self._enter(table, self.shard(shard), name, view, number=number, index=index)
        of_signal = [key for key in self._tables if key[0] == name]
        for old in of_signal[: max(0, len(of_signal) - TABLES + 1)]:
            del self._tables[old]
        self._tables[name, view] = table
        return table

    def _enter(self, table: _Table, shard: Opened, name: str, view: int, *, number: int, index: int) -> None:
        """Enters the answers to a view of the `index`-th shard of a group into its table."""
        at = np.flatnonzero(shard.views == view)
        places = shard.rows[at] + 1
        table.group[places] = number
        for column, starts, windows in table.columns[number]:
            stored = shard.columns[f"{name}:{column}"]
            first = stored.offsets[at] if isinstance(stored, Tokens) else at
            starts[places] = windows.starts[index] + first * windows.width
            if isinstance(stored, Tokens) and table.lengths is not None:
                table.lengths[places] = stored.offsets[at + 1] - first

    def _groups_of(self, name: str) -> list[_Group]:
        """The shards that hold a signal, by the widths of its columns."""
        if name not in self._groups:
            by_width: dict[tuple[tuple[str, int], ...], dict[str, dict[str, Array]]] = {}
            for shard in (shard for shard, record in self.shards.items() if name in record.signals):
                columns = {
                    column.removeprefix(f"{name}:"): stored.values if isinstance(stored, Tokens) else stored
                    for column, stored in self.shard(shard).columns.items()
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

    def shard(self, name: str) -> Opened:
        """A shard, opened and verified once."""
        if name not in self._opened:
            rows, views, columns, alive = open_shard(self.folder / name, self.shards[name])
            self._opened[name] = Opened(rows, views, columns, alive)
        return self._opened[name]


_lowest = np.minimum.reduce
"""`array.min()`, which for a batch of rows takes longer to be called than to compute."""


def _gather(spec: Spec, columns: Sequence[tuple[str, Array, Windows]], places: Array) -> Part | None:
    """A signal of rows, or None if one of them is not answered."""
    values: dict[str, Array] = {}
    for column, starts, windows in columns:
        at = starts.take(places, mode="clip")
        if _lowest(at) < 0:
            return None
        values[column] = spec.coding.shaped(column, windows.take(at), spec.shape)
    return spec.coding.decode(values)


def _gather_tokens(spec: Spec, columns: Sequence[tuple[str, Array, Windows]], places: Array, lengths: Array) -> Part:
    """A signal of the tokens of rows, one after the other."""
    within = np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths)
    values: dict[str, Array] = {}
    for column, starts, windows in columns:
        at = np.repeat(starts.take(places), lengths) + within * windows.width
        values[column] = spec.coding.shaped(column, windows.take(at), spec.shape)
    return spec.coding.decode(values)


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
