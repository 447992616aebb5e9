"""The transfer set: rows that are split, encoded and labelled, and the batches made of them."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tutelage.errors import DataError
from tutelage.signals import Batch, Inputs
from tutelage.teachers.sentence_layout import TextForm
from tutelage.transfer.columns import Columns
from tutelage.transfer.hashing import Digests
from tutelage.transfer.labels import Labels
from tutelage.transfer.made import Made
from tutelage.transfer.order import Order, by_length
from tutelage.transfer.splits import DEVELOPMENT, NONE, SPLITS, TRAIN, SplitName
from tutelage.transfer.views import Views

__all__ = ["TransferSet", "evaluation_batches"]

Array = np.ndarray[Any, Any]


class TransferSet:
    """What `Data.load` gives. Row numbers are those of the source, in its order.

    Args:
        columns: The inputs.
        codes: `[N]` split of each row, as `splits.assign` gives it.
        digests: `[N]` exact digest of each row.
        labels: `[N]` int64 class numbers, `[N]` or `[N, K]` float32 values, or None.
        labelled: `[N]` bool: which rows have a label that may be used.
        classes: Names of the classes.
        labelled_share: Share of each training batch that is labelled, or None: as they come.
        notes: What a reader of the report should know about these rows.
        groups: `[N]` int64 number of each row's group, or None.
        tasks: The labels of further tasks by name; which rows have them is as in `labelled`.
        made: Which rows are made, by whom and of which, or None: all are given.

    Attributes:
        labels: As given; 0 where a row is not labelled, so that a withheld label can't be read by accident.
        labelled: As given; all False when there are no labels.
    """

    def __init__(
        self,
        columns: Columns,
        codes: Array,
        *,
        digests: Digests,
        labels: Array | None = None,
        labelled: Array | None = None,
        classes: Sequence[str] = (),
        labelled_share: float | None = None,
        notes: Sequence[str] = (),
        groups: Array | None = None,
        tasks: Mapping[str, Labels] | None = None,
        made: Made | None = None,
    ) -> None:
        self.columns = columns
        self.codes = codes
        self.labelled = np.zeros(len(codes), dtype=bool) if labels is None or labelled is None else labelled
        self.labels = labels
        if labels is not None:
            shown = self.labelled.reshape(-1, *[1] * (labels.ndim - 1))
            self.labels = np.where(shown, labels, 0).astype(labels.dtype)
        self.tasks = dict(tasks or {})
        self.classes = tuple(classes)
        self.labelled_share = labelled_share
        self.notes = list(notes)
        self.made = made
        self._digests = digests
        self._groups = groups
        self._rows = {name: np.flatnonzero(codes == code).astype(np.int64) for code, name in enumerate(SPLITS)}
        self._first = self._rows["train"]

    def __len__(self) -> int:
        return len(self.codes)

    def limited_to(self, rows: Array) -> TransferSet:
        """The same set with these training rows alone; the other splits, and all row numbers, stay as they are."""
        other = copy.copy(self)
        kept = np.isin(np.arange(len(self)), rows)
        other.codes = np.where((self.codes == TRAIN) & ~kept, NONE, self.codes).astype(self.codes.dtype)
        other._rows = {**self._rows, "train": np.flatnonzero(other.codes == TRAIN).astype(np.int64)}
        return other

    @property
    def views(self) -> Views | None:
        """The augmentation, or None."""
        return self.columns.views

    @property
    def sizes(self) -> dict[str, int]:
        """Rows in each split."""
        return {name: len(rows) for name, rows in self._rows.items()}

    @property
    def made_counts(self) -> dict[str, int]:
        """How many training rows each maker made; empty where all rows are given."""
        return {} if self.made is None else self.made.counts(self.codes == TRAIN)

    @property
    def labelled_rows(self) -> Array:
        """The training rows that keep their label, in row order."""
        train = self._rows["train"]
        known: Array = train[self.labelled[train]]
        return known

    def rows(self, split: SplitName) -> Array:
        """Row numbers of a split, `[n]` int64, in row order.

        Raises:
            DataError: The split is empty.
        """
        rows = self._rows[split]
        if not len(rows):
            raise DataError(
                f"{split} split",
                expected="at least one row",
                found="none",
                mend=f"set data.splits.{split} above 0, or mark {split} rows in the source",
            )
        return rows

    def groups(self, rows: Array) -> Array | None:
        """The number of the group of each row, `[n]` int64; None when the source gives no groups.

        Rows of a group are not independent. A row that the source leaves without one is a group by itself, together
        with rows of the same content.
        """
        return None if self._groups is None else self._groups[rows]

    def batch(self, rows: Array, views: Array | None = None) -> Batch:
        """Some rows in some views (the rows as they are, without `views`), as CPU tensors."""
        rows = np.asarray(rows, dtype=np.int64)
        views = np.zeros_like(rows) if views is None else np.asarray(views, dtype=np.int64)
        inputs, mask = self.columns.inputs(rows, views)
        return Batch(
            inputs=inputs,
            rows=torch.from_numpy(rows.copy()),
            views=torch.from_numpy(views.copy()),
            labels=None if self.labels is None else torch.from_numpy(self.labels[rows]),
            labelled=None if self.labels is None else torch.from_numpy(self.labelled[rows]),
            mask=mask,
            tasks={name: torch.from_numpy(labels.values[rows]) for name, labels in self.tasks.items()},
            raw=lambda: self.columns.raw(rows),
        )

    def encode(self, raw: Mapping[str, Array]) -> Inputs:
        """What the models are called with for rows whose columns are given (`Batch.raw`): what a server has to make."""
        return self.columns.encode(raw)

    def example(self, count: int = 2) -> Batch:
        """The first training rows as they are, before any limit: for tracing, export and the plan."""
        self.rows("train")  # an empty split is refused
        return self.batch(self._first[:count])

    def lengths(self, rows: Array) -> Array | None:
        """Tokens of each row, `[n]` int64; None when the rows aren't texts."""
        return None if self.columns.tokens is None else self.columns.tokens.lengths[rows]

    def order(self, batch_size: int, seed: int) -> Order:
        """The order in which the training rows are trained on."""
        rows = self.rows("train")
        return Order(
            rows,
            batch_size,
            seed=seed,
            lengths=self.lengths(rows),
            labelled=self.labelled_rows,
            labelled_share=self.labelled_share,
            views=self.views,
        )

    def digests(self, rows: Array) -> list[str]:
        """The exact digest of each row's content, in hex: what names a row outside of this data set."""
        return [row.tobytes().hex() for row in self._digests[rows]]

    @property
    def tokenizer_folder(self) -> Path | None:
        """The folder of the tokenizer, for texts."""
        return None if self.columns.tokenizer is None else Path(self.columns.tokenizer.tokenizer.name_or_path)

    @property
    def text_form(self) -> TextForm | None:
        """How texts are prepared before they are tokens; None where there are none."""
        return None if self.columns.tokenizer is None else self.columns.tokenizer.form

    def display(self, row: int) -> dict[str, Any]:
        """What a report shows of a row.

        Returns:
            `kind` ("text", "image" or "array"), `input` (str; uint8 `[H, W]` or `[H, W, 3]`; list of numbers) and
            `label` (its name, its value as text, or None).
        """
        kind, value = self.columns.display(row)
        return {"kind": kind, "input": value, "label": self._label(row)}

    def _label(self, row: int) -> str | None:
        if self.labels is None or not self.labelled[row]:
            return None
        label = self.labels[row]
        if label.dtype.kind == "i" and int(label) < len(self.classes):
            return self.classes[int(label)]
        return ", ".join(f"{number:.6g}" for number in np.atleast_1d(label))

    @property
    def preprocessing(self) -> dict[str, Any] | None:
        """How the columns of a table become inputs, as plain data; None where there is nothing to know."""
        return None if self.columns.encoding is None else self.columns.encoding.to_dict()

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 over the rows, their splits and the labels that may be used."""
        sha = hashlib.sha256(b"tutelage transfer set 1")
        for part in (self._digests, self.codes, self.labelled, self.labels):
            sha.update(b"-" if part is None else np.ascontiguousarray(part).tobytes())
        sha.update("\0".join(self.classes).encode())
        for name, labels in self.tasks.items():
            sha.update("\0".join([name, *labels.classes]).encode())
            sha.update(np.ascontiguousarray(labels.values).tobytes())
        self.columns.update_fingerprint_of_teacher(sha)
        return sha.hexdigest()

    @property
    def inputs_fingerprint(self) -> str:
        """Hex SHA-256 over the rows and how they become tensors (tokens, images, views): what answers depend on."""
        sha = hashlib.sha256(b"tutelage inputs 1")
        sha.update(np.ascontiguousarray(self._digests).tobytes())
        self.columns.update_fingerprint(sha)
        return sha.hexdigest()

    @property
    def learnt_from(self) -> dict[str, str]:
        """Hex SHA-256 of each thing that training and selection read: all but the test rows.

        The rows that are in no split count too: a teacher that is trained in the run may learn from them.
        """
        parts = {}
        for name, code in (("training rows", TRAIN), ("development rows", DEVELOPMENT), ("rows in no split", NONE)):
            rows = np.flatnonzero(self.codes == code)
            sha = hashlib.sha256(rows.astype(np.int64).tobytes())  # their numbers decide order and views
            groups = None if self._groups is None else np.unique(self._groups[rows], return_inverse=True)[1]
            labels = [None if values is None else values[rows] for values in (self.labelled, self.labels)]
            for part in (self._digests[rows], groups, *labels, *(task.values[rows] for task in self.tasks.values())):
                sha.update(b"-" if part is None else f"{part.dtype}{part.shape}".encode() + part.tobytes())
            self.columns.update_fingerprint_of_teacher(sha, rows)
            sha.update(b"-" if self.columns.tokens is None else self.columns.tokens.digest(rows))
            parts[name] = sha.hexdigest()
        names = {"": self.classes, **{name: tuple(labels.classes) for name, labels in self.tasks.items()}}
        parts["class names"] = hashlib.sha256(repr(names).encode()).hexdigest()
        sha = hashlib.sha256()
        self.columns.update_fingerprint_of_settings(sha)
        parts["way in which rows become tensors"] = sha.hexdigest()
        return parts

    def encode_texts(self, texts: Sequence[str], batch_size: int) -> Iterator[tuple[Array, Batch]]:
        """Further texts, such as those of evaluation pairs, in the way of this set's texts.

        Yields:
            `(positions in texts, batch)`, the longest texts first; `rows` of the batch are negative, for they are no
            rows of this set.

        Raises:
            DataError: This set has no texts.
        """
        tokenizer = self.columns.tokenizer
        if tokenizer is None:
            raise DataError(
                "evaluation texts",
                expected="a transfer set of texts, whose tokenizer is used",
                found="one without texts",
                mend="leave out the evaluation pairs",
            )
        tokens = tokenizer.encode(texts, key="evaluation texts")
        for positions in by_length(len(texts), batch_size, tokens.lengths):
            inputs, mask = tokenizer.pad_rows(tokens, positions)
            rows = -1 - torch.from_numpy(positions.astype(np.int64))
            some = np.array([texts[position] for position in positions], dtype=object)
            raw = {next(iter(self.columns.texts)): some}
            yield (
                positions,
                Batch(inputs=inputs, rows=rows, views=torch.zeros_like(rows), mask=mask, raw=raw.copy),
            )


def evaluation_batches(data: TransferSet, rows: Array, batch_size: int) -> Iterator[tuple[Array, Batch]]:
    """Some rows as they are, the longest first: `scores = in_original_order((at, model(b)) for at, b in ...)`.

    Yields:
        `(positions in rows, batch)`.
    """
    for positions in by_length(len(rows), batch_size, data.lengths(rows)):
        yield positions, data.batch(np.asarray(rows)[positions])
