"""Building one shard from the answers to its batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tutelage.cache.basis import write_basis
from tutelage.cache.coding import LowRank
from tutelage.cache.form import Form
from tutelage.cache.jobs import Job
from tutelage.cache.manifest import Identity
from tutelage.cache.parts import Part, joined
from tutelage.cache.reader import Spec
from tutelage.cache.shards import Columns, ShardRecord, Tokens, write_shard
from tutelage.errors import SignalError
from tutelage.forms import TopK

__all__ = ["Built", "ShardBuilder", "is_of_tokens", "positions_of"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Built:
    """A shard that is written: its file, what the manifest says of it, and how its signals are stored."""

    file: str
    record: ShardRecord
    signals: dict[str, dict[str, Any]]


@dataclass
class _Growing:
    """One signal of a shard, batch by batch."""

    tokens: bool
    shape: tuple[int, ...]
    spec: Spec | None
    columns: list[dict[str, Array]] = field(default_factory=list)
    waiting: list[Part] = field(default_factory=list)
    lengths: list[Array] = field(default_factory=list)
    errors: dict[str, float] = field(default_factory=dict)

    def encode(self, part: Part) -> None:
        """Adds positions, encoded."""
        assert self.spec is not None
        columns = self.spec.coding.encode(part)
        self.columns.append(columns)
        for key, value in self.spec.coding.error(part, columns).items():
            self.errors[key] = self.errors.get(key, 0.0) + value


class ShardBuilder:
    """Takes the answers to the batches of a job, in any order, and writes the shard.

    Args:
        folder: Of the cache.
        identity: Whose answers, about what, in which form.
        form: How they are stored.
        specs: How signals that were stored before are; others follow from the form and the first answer.
        bases: The records of the bases that are in files.
        job: What is answered.
    """

    def __init__(
        self,
        folder: Path,
        identity: Identity,
        form: Form,
        *,
        specs: Mapping[str, Spec],
        bases: Mapping[str, dict[str, Any]],
        job: Job,
    ) -> None:
        self.folder, self.identity, self.form, self.job = folder, identity, form, job
        self.specs, self.bases = dict(specs), dict(bases)
        self._signals: dict[str, _Growing] = {}
        self._positions: list[Array] = []

    def add(self, positions: Array, parts: Mapping[str, Part], mask: Tensor | None) -> None:
        """The answers to the rows at these positions of the job.

        Raises:
            SignalError: They are not numbers, or of another shape than those before.
        """
        self._positions.append(positions)
        for name in self.job.names:
            part = _plain(parts[name])
            _require_numbers(name, part, self.job.rows[positions])
            growing = self._signals.get(name) or self._begin(name, part, mask)
            values, lengths = positions_of(part, mask if growing.tokens else None)
            _require_shape(name, values, growing.shape, self.specs.get(name), growing.tokens)
            if lengths is not None:
                growing.lengths.append(lengths)
            if growing.spec is None:
                growing.waiting.append(values)
            else:
                growing.encode(values)

    def write(self) -> Built:
        """Writes the shard.

        Raises:
            RunError: The disk is full, or the folder can't be written.
        """
        order = np.argsort(np.concatenate(self._positions), kind="stable")
        columns: Columns = {}
        for name, growing in self._signals.items():
            if growing.spec is None:
                self._fit(name, growing)
            joint = {c: np.concatenate(_alike([piece[c] for piece in growing.columns], c)) for c in growing.columns[0]}
            for column, values in joint.items():
                columns[f"{name}:{column}"] = (
                    _in_order(values, np.concatenate(growing.lengths), order) if growing.tokens else values[order]
                )
        if self.job.digests is not None:
            columns["digest"] = self.job.digests
        signals = {name: self._describe(name, growing) for name, growing in self._signals.items()}
        about = {**self.identity.to_dict(), "signals": signals}
        size, crc = write_shard(self.folder / self.job.file, self.job.rows, self.job.views, columns, about)
        record = ShardRecord(
            rows=len(self.job.rows),
            bytes=size,
            crc32=crc,
            signals=sorted(self._signals),
            views=np.unique(self.job.views).tolist(),
            errors={name: growing.errors for name, growing in self._signals.items() if growing.errors},
        )
        return Built(file=self.job.file, record=record, signals=signals)

    def _begin(self, name: str, part: Part, mask: Tensor | None) -> _Growing:
        known = self.specs.get(name)
        tokens = is_of_tokens(part, mask) if known is None else known.tokens
        values, _ = positions_of(part, mask if tokens else None)
        shape = () if isinstance(values, TopK) else tuple(values.shape[1:])
        spec = known
        if spec is None and not self.form.needs_fitting(name, values):
            spec = Spec(self.form.coding(name, values), shape, tokens)
        self._signals[name] = _Growing(tokens, shape, spec)
        return self._signals[name]

    def _fit(self, name: str, growing: _Growing) -> None:
        """Fits the coding of a signal on all that this shard holds of it."""
        coding = self.form.coding(name, joined(growing.waiting))
        growing.spec = Spec(coding, growing.shape, growing.tokens)
        if isinstance(coding, LowRank):
            self.bases[name] = write_basis(self.folder, coding)
        for part in growing.waiting:
            growing.encode(part)

    def _describe(self, name: str, growing: _Growing) -> dict[str, Any]:
        assert growing.spec is not None
        about = {"coding": growing.spec.coding.to_dict(), "shape": list(growing.shape), "tokens": growing.tokens}
        return about | ({"basis": self.bases[name]} if name in self.bases else {})


def is_of_tokens(part: Part, mask: Tensor | None) -> bool:
    """Whether a part has a value for each token of the mask: `[B, L, D]`."""
    tensor = part.logits if isinstance(part, TopK) else part
    return mask is not None and tensor.dim() >= 3 and tensor.shape[:2] == mask.shape


def positions_of(part: Part, mask: Tensor | None) -> tuple[Part, Array | None]:
    """The rows of a part; with a mask, the tokens that count, and how many each row has."""
    if mask is None:
        return part, None
    tokens = mask.bool()
    values = part.map(lambda tensor: tensor[tokens]) if isinstance(part, TopK) else part[tokens]
    lengths: Array = tokens.sum(1).numpy()
    return values, lengths


def _plain(part: Part) -> Part:
    if isinstance(part, TopK):
        return part.map(lambda tensor: tensor.detach().cpu())
    return part.detach().cpu()


def _require_numbers(name: str, part: Part, rows: Array) -> None:
    numbers = part.logits if isinstance(part, TopK) else part
    if not bool(torch.isnan(numbers.sum())):  # the sum is quick, but +inf - inf is NaN too
        return
    wrong = rows[torch.isnan(numbers).reshape(len(rows), -1).any(1).numpy()]
    if len(wrong):
        raise SignalError(
            f"teacher: {name}",
            expected="numbers",
            found=f"NaN for {len(wrong)} of {len(rows)} rows asked together, the first of them row {wrong.min()}",
            harm="it would be stored, and every student of these answers would learn NaN",
            mend="look at the inputs' scale and at the weights",
        )


def _require_shape(name: str, part: Part, shape: tuple[int, ...], known: Spec | None, tokens: bool) -> None:
    """Refuses answers that are not as wide as those before, and `TopK` of anything but rows or tokens."""
    found = tuple(part.indices.shape[1:-1]) if isinstance(part, TopK) else tuple(part.shape[1:])
    expected = shape if known is None or isinstance(part, TopK) else known.shape
    if found != expected:
        raise SignalError(
            f"teacher: {name}",
            expected=f"{'tokens' if tokens else 'rows'} of the shape {list(expected)}, as before",
            found=f"the shape {list(found)}",
            harm="what changes its shape from batch to batch can't be stored row by row",
            mend="leave out the loss that reads it, or use that teacher without Cached",
        )


def _alike(pieces: list[Array], column: str) -> list[Array]:
    """Pieces of one width: of answers that name fewer classes, the further places are not used."""
    if pieces[0].ndim != 2 or len({piece.shape[1] for piece in pieces}) == 1:
        return pieces
    k = max(piece.shape[1] for piece in pieces)
    more = [k - piece.shape[1] for piece in pieces]
    if column == "logits":
        return [
            np.pad(piece, ((0, 0), (0, extra)), constant_values=-np.inf)
            for piece, extra in zip(pieces, more, strict=True)
        ]
    return [np.pad(piece, ((0, 0), (0, extra)), mode="edge") for piece, extra in zip(pieces, more, strict=True)]


def _in_order(values: Array, lengths: Array, order: Array) -> Tokens:
    """Tokens of rows, as they came, in the order of the job."""
    first = lengths.cumsum() - lengths
    sorted_lengths = lengths[order]
    offsets = np.concatenate([[0], sorted_lengths.cumsum()])
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], sorted_lengths)
    return Tokens(offsets, values[np.repeat(first[order], sorted_lengths) + within])
