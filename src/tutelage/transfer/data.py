"""The `data:` section of a recipe: where the inputs come from, how they are split, encoded, labelled and varied."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.errors import DataError, RecipeError, did_you_mean
from tutelage.transfer.base import Rows, Source
from tutelage.transfer.columns import Columns, with_table
from tutelage.transfer.features import Features
from tutelage.transfer.hashing import Digests, mixed, text_digests
from tutelage.transfer.images import Images
from tutelage.transfer.labels import Labels, choose_labelled, read_labels
from tutelage.transfer.made import Made, Maker, add_made, given_rows
from tutelage.transfer.splits import NONE, TRAIN, Splits, assign, split_name
from tutelage.transfer.tabular import Tabular
from tutelage.transfer.text import Text
from tutelage.transfer.transfer_set import TransferSet
from tutelage.transfer.views import Views

__all__ = ["Data"]

Array = np.ndarray[Any, Any]

_LIMIT, _LABELLED = 1, 2
"""Streams of the hash: which rows are tested, left out or labelled are independent choices."""


@dataclass(kw_only=True)
class Data:
    """The transfer set of a run.

    Attributes:
        source: Where the rows come from.
        splits: Shares of the splits that the source does not give.
        text: How texts become tokens. None: `Text()`, with the teacher's tokenizer.
        images: How images become tensors. None: `Images()`. uint8 columns with 3 or 4 axes, and files, are images.
        tabular: How the columns of a table become the student's inputs, with missing numbers and categories. None:
            numbers are taken as they are, and there is neither.
        labelled: How many training rows keep their label: a count (whole number) or a share (up to 1.0), chosen by
            content and spread over the classes in proportion. None: all that the source labels.
        limit: How many training rows are used, chosen by content. None: all.
        views: Augmentation of the training rows. None: they are used as they are.
        labelled_share: Share of each training batch that is drawn from the labelled rows. None: as they come.
        tasks: Columns that are no input but the labels of further tasks, each with a head of its own (`Recipe.heads`).
            A row that keeps its label keeps those of all tasks.
        made: Who make further training rows of those there are. Made rows have no label, and stand after the source's.
    """

    source: Source
    splits: Splits = field(default_factory=Splits)
    text: Text | None = None
    images: Images | None = None
    tabular: Tabular | None = None
    labelled: int | float | None = None
    limit: int | None = None
    views: Views | None = None
    labelled_share: float | None = None
    tasks: list[str] = field(default_factory=list)
    made: list[Maker] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise RecipeError("data.limit", expected="at least 1 row, or null for all", found=str(self.limit))
        if self.labelled is not None and (
            self.labelled < 0 or (isinstance(self.labelled, float) and self.labelled > 1)
        ):
            raise RecipeError(
                "data.labelled", expected="a count (500), a share (0.1), or null for all", found=str(self.labelled)
            )
        if self.labelled_share is not None and not 0 < self.labelled_share <= 1:
            raise RecipeError(
                "data.labelled_share", expected="a share above 0, up to 1, or null", found=str(self.labelled_share)
            )
        for index, maker in enumerate(self.made):
            maker.check(f"data.made[{index}]")

    def load(
        self, tokenizer_path: str | Path | None = None, *, values: Mapping[str, bool] | None = None
    ) -> TransferSet:
        """Reads, checks, splits and encodes the rows.

        Args:
            tokenizer_path: The teacher's folder, where `text.tokenizer` is None.
            values: Whether labels are values to be predicted (True) or classes (False), as the tasks say: by the names
                of `tasks`, and "" for those of the source. Of others the source says it, or what they look like.

        Raises:
            DataError: The rows can't be used; the message names the place.
            RecipeError: The recipe asks for what these rows don't have.
        """
        values = values or {}
        rows, tasks = _without_tasks(_read_as(self.source, values.get("")).load(), self.tasks, values)
        _check_rows(rows)
        columns = Columns(
            rows.columns,
            images=self.images,
            views=self.views,
            tabular=self.tabular,
            teacher_columns=rows.teacher_columns,
        )
        tokenizer = None
        if columns.texts:
            tokenizer = (self.text or Text()).load(tokenizer_path)
        elif self.text is not None:
            raise RecipeError("data.text", expected="a column of texts", found="none", mend="remove data.text")
        content, exact = columns.digests()
        columns.inputs(np.array([0]), np.array([1]))  # a first row in a first view: what can't work fails here
        group = None if rows.group is None else _group_digests(rows.group, content)
        codes, notes = assign(content, group, rows.split, self.splits)
        fitted_on = np.flatnonzero(codes == TRAIN)
        notes = [*rows.notes, *columns.notes, *notes, *columns.fit(fitted_on)]
        notes += self._keep_limit(codes, content)
        labelled = _labelled(rows)
        notes += _never_trained(rows, labelled, codes)
        notes += self._keep_labels(labelled, codes, content, rows)
        made = None
        if self.made:
            train, named = np.flatnonzero(codes == TRAIN), rows.columns
            named = named if self.tabular is None else with_table(named)
            given = given_rows(named, columns, train, None if tokenizer is None else tokenizer.mask)
            named, made = add_made(self.made, named, given, train)
            kept = {name: _with_empty(column, int(made.rows.sum())) for name, column in rows.teacher_columns.items()}
            columns = Columns(named, images=self.images, views=self.views, tabular=self.tabular, teacher_columns=kept)
            columns.fit(fitted_on)  # with the statistics of the given rows
            content, exact = columns.digests()
            codes = np.concatenate([codes, np.full(made.rows.sum(), TRAIN, dtype=codes.dtype)])
            notes += _drop_copies(codes, content, made)
            notes.append(_said_of(made, codes))
            rows, tasks, labelled = _longer(rows, tasks, labelled, made)
            group = None if group is None else np.concatenate([group, group[made.parents[made.rows, 0]]])
        if tokenizer is not None:
            columns.tokenise(tokenizer)
            notes += tokenizer.notes
        if columns.tokens is not None and columns.tokens.cut and tokenizer is not None:
            length = tokenizer.form.max_length
            notes.append(f"{columns.tokens.cut:,} of {len(codes):,} texts were cut to {length} tokens")
        return TransferSet(
            columns,
            codes,
            digests=exact,
            labels=rows.labels,
            labelled=labelled,
            classes=rows.classes,
            labelled_share=self.labelled_share,
            notes=notes,
            groups=None if group is None else np.unique(group, return_inverse=True)[1].astype(np.int64),
            tasks=tasks,
            made=made,
        )

    def _keep_limit(self, codes: Array, content: Digests) -> list[str]:
        """Drops the training rows above `limit`, in place."""
        train = np.flatnonzero(codes == TRAIN)
        if self.limit is None or self.limit >= len(train):
            return []
        order = np.argsort(mixed(self.splits.seed, np.array([_LIMIT]), content[train]), kind="stable")
        codes[train[order[self.limit :]]] = NONE
        return [f"{self.limit:,} of {len(train):,} training rows used (data.limit)"]

    def _keep_labels(self, labelled: Array, codes: Array, content: Digests, rows: Rows) -> list[str]:
        """Hides the labels of the training rows that `labelled` leaves out, in place."""
        if self.labelled is None:
            return []
        train = np.flatnonzero((codes == TRAIN) & labelled)
        count = self.labelled if isinstance(self.labelled, int) else round(self.labelled * len(train))
        if count > len(train):
            raise DataError(
                "data.labelled",
                expected=f"at most {len(train):,}, the training rows that the source labels",
                found=f"{count:,}",
                mend="ask for fewer, or set data.labelled to null for all",
            )
        labelled[codes == TRAIN] = False
        if count and rows.labels is not None:
            strata = rows.labels[train] if rows.labels.dtype.kind == "i" else None
            order = mixed(self.splits.seed, np.array([_LABELLED]), content[train])
            labelled[choose_labelled(train, strata, order, count)] = True
        return [f"{count:,} of {int((codes == TRAIN).sum()):,} training rows keep their label (data.labelled)"]


def _never_trained(rows: Rows, labelled: Array, codes: Array) -> list[str]:
    """Which classes have rows to be judged on but none to be learnt from."""
    train, others = (labelled & (codes == TRAIN)), labelled & (codes != TRAIN) & (codes != NONE)
    if rows.labels is None or rows.labels.dtype.kind != "i" or not train.any():
        return []
    judged = np.bincount(rows.labels[others], minlength=len(rows.classes))
    judged[np.unique(rows.labels[train])] = 0
    absent = np.flatnonzero(judged)
    if not len(absent):
        return []
    said = [f"{rows.classes[i] if i < len(rows.classes) else i} ({judged[i]:,} held-out rows)" for i in absent[:8]]
    more = f" and {len(absent) - 8:,} more" if len(absent) > 8 else ""
    return [f"no labelled training row is of the class {', '.join(said)}{more}: it can't be learnt from labels"]


def _drop_copies(codes: Array, content: Digests, made: Made) -> list[str]:
    """Drops made rows that say the same as another row, in place: above all as one that is held out."""
    _, first = np.unique(content, return_index=True)  # given rows come first
    copies = made.rows & ~np.isin(np.arange(len(codes)), first)
    codes[copies] = NONE
    if not copies.any():
        return []
    return [f"{copies.sum():,} of {made.rows.sum():,} made rows dropped: they say the same as another row"]


def _said_of(made: Made, codes: Array) -> str:
    """What a reader should know of the made rows."""
    counts = made.counts(codes == TRAIN)
    by = ", ".join(f"{count:,} by {name}" for name, count in counts.items())
    total, given = sum(counts.values()), int(((codes == TRAIN) & ~made.rows).sum())
    return f"{total:,} of {total + given:,} training rows are made of the other {given:,} ({by}); they have no label"


def _longer(rows: Rows, tasks: dict[str, Labels], labelled: Array, made: Made) -> tuple[Rows, dict[str, Labels], Array]:
    """Labels with an empty place for each made row."""
    count = int(made.rows.sum())

    def filled(values: Array) -> Array:
        return np.concatenate([values, np.zeros((count, *values.shape[1:]), dtype=values.dtype)])

    labels = None if rows.labels is None else filled(rows.labels)
    tasks = {name: replace(task, values=filled(task.values)) for name, task in tasks.items()}
    return replace(rows, labels=labels), tasks, filled(labelled)


def _with_empty(column: Array, count: int) -> Array:
    """A column of the teacher's with so many empty cells more: nobody has answered about made rows."""
    if column.dtype.kind in "iuf":
        return np.concatenate([column.astype(np.float64), np.full((count, *column.shape[1:]), np.nan)])
    return np.concatenate([column.astype(object), np.full((count, *column.shape[1:]), None, dtype=object)])


def _read_as(source: Source, values: bool | None) -> Source:
    """The source with labels read as values or as classes, where it leaves that open.

    Raises:
        RecipeError: It says the contrary.
    """
    if values is None or source.values == values:
        return source
    if source.values is not None:
        raise RecipeError(
            "data.source.values",
            expected=f"{str(values).lower()}, or nothing: the task takes {'values' if values else 'classes'}",
            found=str(source.values).lower(),
            mend="remove it, or change the task",
        )
    read = copy.copy(source)
    read.values = values
    return read


def _without_tasks(rows: Rows, names: Sequence[str], values: Mapping[str, bool]) -> tuple[Rows, dict[str, Labels]]:
    """The rows without the columns that are labels of further tasks, and those labels."""
    tasks = {}
    for name in names:
        column = rows.columns.get(name)
        if column is None or isinstance(column, Features):
            raise RecipeError(
                "data.tasks",
                expected="the name of a column of the source",
                found=repr(name),
                mend=did_you_mean(name, rows.columns),
            )
        labels = read_labels(column, f"data.tasks: column `{name}`", values=values.get(name))
        if rows.labels is None or labels.labelled is not None:
            raise DataError(
                f"data.tasks: column `{name}`",
                expected="labels of the main task, and in each row one of this task",
                found="no labels of the main task" if rows.labels is None else "rows without one",
                mend="the main task is that of data.source's labels; leave out the rows that lack a label of another",
            )
        tasks[name] = labels
    columns = {name: column for name, column in rows.columns.items() if name not in tasks}
    return replace(rows, columns=columns), tasks


def _group_digests(group: Sequence[str], content: Digests) -> Digests:
    """A digest of each row's group; a row without one ("") is a group by itself."""
    alone = np.array([not name for name in group], dtype=bool)
    return np.where(alone, content, text_digests(group)[:, 0])


def _labelled(rows: Rows) -> Array:
    """A new `[N]` bool array: which rows have a label."""
    if rows.labels is None:
        return np.zeros(len(rows), dtype=bool)
    return np.ones(len(rows), dtype=bool) if rows.labelled is None else np.array(rows.labelled, dtype=bool)


def _check_rows(rows: Rows) -> None:
    """What must hold of the rows of any source, also of a user's own."""
    if not rows.columns or not len(rows):
        raise DataError("data.source", expected="at least one row", found="none", mend="check the file or the filter")
    sized = {f"column `{name}`": column for name, column in rows.columns.items()}
    sized |= {f"column `{name}`": column for name, column in rows.teacher_columns.items()}
    sized |= {name: getattr(rows, name) for name in ("labels", "labelled", "group", "split")}
    for name, values in sized.items():
        if values is not None and len(values) != len(rows):
            first = next(iter(rows.columns))
            raise DataError(
                f"data.source: {name}",
                expected=f"{len(rows):,} rows, as column `{first}` has",
                found=f"{len(values):,}",
                harm="rows and labels would be matched wrongly",
                mend="give every column and the labels one entry a row",
            )
    if rows.labels is not None and (rows.labels.dtype not in (np.int64, np.float32) or rows.labels.ndim > 2):
        raise DataError(
            "data.source: labels",
            expected="int64 class numbers [N], or float32 values [N] or [N, K]",
            found=f"{rows.labels.dtype} {list(rows.labels.shape)}",
            mend="make them with tutelage.transfer.read_labels",
        )
    for row, word in enumerate(rows.split or ()):
        if split_name(word, f"data.source: split, row {row}") != word:
            raise DataError(
                f"data.source: split, row {row}",
                expected='"train", "development", "test" or ""',
                found=repr(word),
                mend="translate it with tutelage.transfer.split_name",
            )
