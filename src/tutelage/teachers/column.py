"""Answers that are there already, in columns of the data: of a paid batch job, of another program, of people."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from tutelage.errors import ModelError, did_you_mean
from tutelage.signals import Batch, Request, Signals
from tutelage.teachers.answer_form import AnswerForm, Answers, require_answers
from tutelage.teachers.base import Teacher, TransferFacts, refuse_features, refuse_members

__all__ = ["ColumnTeacher"]

Array = np.ndarray[Any, Any]


class ColumnTeacher(Teacher):
    """What columns of the data say that a teacher answered about each row.

    The data source keeps the columns for the teacher alone (`teacher_columns`): the student is not given them, and its
    bundle does not ask for them.

    ```yaml
    data:
      source:
        class_path: Table
        init_args: {path: scored.csv, text: text, label: label, teacher_columns: [p_pos, p_neg]}
    teacher:
      class_path: ColumnTeacher
      init_args: {columns: [p_pos, p_neg], gives: probabilities, classes: [positive, negative]}
    ```

    Several columns are one for each class or value. A single one has a number, a label, or a list in each row; in a CSV
    file a list is written as JSON, `[0.1, 0.9]`. All answers are checked before anything is trained.

    * `logits`; `values` of a regression, also embeddings: passed on as they are.
    * `probabilities`, or a single column of those of the second of two classes; `log_probabilities` (natural
      logarithms, as APIs give them): passed on as log-probabilities. With `decimals` or `truncated` they are known as
      far as they are told: what is missing to 1 is shared by the classes at 0 or without a cell.
    * `sigmoid`, independent probabilities of labels, also 0 and 1: passed on as log-odds.
    * `labels`, names of classes or their numbers: a class and nothing else (`TopK`).

    A row whose cells are all empty (None, NaN) has no answer: it teaches nothing, and the student is not compared with
    the teacher on it. Rows of other data, as in production, can't be asked about; nor is there anything to be timed.

    Args:
        columns: The columns, one for each class or value in their order; or a single one.
        gives: What they hold.
        classes: Names of the classes in the order of the columns (of the list). None: those of the data, in its order.
        decimals: Probabilities are rounded to so many decimals. None: they are not.
        truncated: The probabilities of the likeliest classes alone are told.
    """

    def __init__(
        self,
        columns: str | list[str],
        gives: Answers,
        *,
        classes: list[str] | None = None,
        decimals: int | None = None,
        truncated: bool = False,
    ) -> None:
        vars(self)["classes"] = classes  # the property of that name is what all teachers have
        self.columns = columns
        self.gives = gives
        self.decimals = decimals
        self.truncated = truncated
        self._known: tuple[str, ...] = ()
        self._kept: dict[str, Array] = {}
        self._said: tuple[torch.Tensor, torch.Tensor] | None = None
        self._by_name = False
        self._is_loaded = False

    @property
    def _names(self) -> list[str]:
        return [self.columns] if isinstance(self.columns, str) else list(self.columns)

    def load(self, device: torch.device) -> None:
        """Checks the settings; there is nothing to load.

        Raises:
            ModelError: They contradict each other.
        """
        require_answers(self.gives, self.decimals, self.truncated)
        if not self._names or len(set(self._names)) < len(self._names):
            raise ModelError("teacher.columns", expected="different columns", found=str(self.columns))
        if self.gives == "labels" and len(self._names) > 1:
            raise ModelError(
                "teacher.columns",
                expected="one column, of labels",
                found=", ".join(self._names),
                mend="gives: sigmoid, for a column of 0 and 1 for each label",
            )
        self._is_loaded = True

    def meet(self, facts: TransferFacts) -> None:
        """Takes the columns of all rows, and checks them.

        Raises:
            ModelError: The data keeps no such column for the teacher, or a cell is not what `gives` says.
        """
        self._known = facts.classes
        self._kept = _chosen(facts.columns, self._names)
        self._by_name = self.gives == "labels" and self._are_names(self._kept)
        self._said = self._answers(self._kept)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, where the recipe gives them."""
        return tuple(vars(self)["classes"] or ())

    def check(self, request: Request) -> None:
        """Raises a `ModelError` if features or members are requested: columns have an output alone."""
        refuse_members(self, request)
        refuse_features(self, request)

    def ask(self, batch: Batch, request: Request) -> Signals:
        """The answers about rows of the data, whatever view they are seen in.

        Raises:
            ModelError: They are no rows of the data, or the cells are not what `gives` says.
        """
        self.check(request)
        if not request.output:
            return Signals()
        if not self._is_loaded:
            raise ModelError("teacher", expected="a ColumnTeacher that is loaded", found="one that is not")
        device = batch.rows.device
        if self._said is None:  # asked without data that keeps the columns
            if batch.raw is None:
                raise ModelError("teacher.columns", expected="rows with raw columns", found="a batch of tensors alone")
            said, answered = self._answers(_chosen(batch.raw(), self._names))
            return self._form().signals([said], device, None if bool(answered.all()) else answered)
        rows = batch.rows.cpu()
        if bool((rows < 0).any()):
            raise ModelError(
                f"teacher: {self.describe()}",
                expected="rows of the data",
                found="others, about which its columns say nothing",
                mend="ask the model that the answers are from",
            )
        said, answered = self._said
        # A loop that finds no silence in its first batch looks for none in the others: all say it, or none.
        return self._form().signals([said[rows]], device, answered[rows] if self._silent else None)

    def answered(self, rows: Array) -> Array:
        """Which of these rows of the data have an answer, `[N]` bool; all, before the columns are known."""
        return np.ones(len(rows), bool) if self._said is None else self._said[1].numpy()[rows]

    @property
    def _silent(self) -> int:
        """How many rows of the data have no answer."""
        return 0 if self._said is None else int((~self._said[1]).sum())

    def _form(self) -> AnswerForm:
        return AnswerForm(
            gives=self.gives,
            names=self.classes or self._known,
            decimals=self.decimals,
            truncated=self.truncated,
            who=f"teacher: column{'s' * (len(self._names) > 1)} {', '.join(self._names)}",
            mend="look at the columns, and at teacher.gives",
        )

    def _answers(self, columns: dict[str, Array]) -> tuple[torch.Tensor, torch.Tensor]:
        """The answers `[N, ...]`, 0 where there is none, and which rows have one, `[N]` bool."""
        if self.gives == "labels":
            cells = [_label(cell, by_name=self._by_name) for cell in columns[self._names[0]].tolist()]
            answered = np.array([cell is not None for cell in cells], dtype=bool)
            told: Any = [cell for cell in cells if cell is not None]
        else:
            table, answered = self._table(columns)
            told = table[answered]
        if not answered.any():
            raise ModelError("teacher.columns", expected="answers", found=f"nothing in {', '.join(self._names)}")
        read = self._form().read(told, int(answered.sum()))
        said = torch.zeros(len(answered), *read.shape[1:], dtype=read.dtype)
        mask = torch.from_numpy(answered)
        said[mask] = read
        return said, mask

    def _table(self, columns: dict[str, Array]) -> tuple[Array, Array]:
        """Numbers `[N, ...]`, and which rows have any, `[N]` bool."""
        parts = [_numbers(columns[name], name) for name in self._names]
        alone = len(parts) == 1
        flat = parts if alone else [_flat(part, name) for part, name in zip(parts, self._names, strict=True)]
        table = parts[0] if alone else np.stack(flat, axis=1)
        empty: Array = np.isnan(table).reshape(len(table), -1)
        answered = np.asarray(~empty.all(1))
        partly = np.flatnonzero(empty.any(1) & answered)
        if len(partly) and not self.truncated:
            raise ModelError(
                f"teacher: columns {', '.join(self._names)}, row {partly[0]}",
                expected="a number in every cell, or in none where there is no answer",
                found=f"{int(empty[partly[0]].sum())} empty cells of {empty.shape[1]} (in {len(partly):,} rows)",
                mend="fill them; where the likeliest classes alone are told, truncated: true",
            )
        nothing = -np.inf if self.gives == "log_probabilities" else 0.0
        return np.where(np.isnan(table), nothing, table), answered

    def _are_names(self, columns: dict[str, Array]) -> bool:
        """Whether all labels are names of classes, whole numbers too: so labels of the data are read."""
        names = set(self.classes or self._known)
        cells = {_label(cell, by_name=True) for cell in columns[self._names[0]].tolist()}
        return bool(names) and cells <= {*names, None}

    def fingerprint(self) -> str:
        """SHA-256 of the settings and of the columns."""
        settings = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        sha = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        sha.update("\0".join(self._known).encode())
        for name, column in self._kept.items():
            plain = column.dtype.kind != "O"
            sha.update(f"{name} {column.shape}".encode())
            sha.update(np.ascontiguousarray(column).tobytes() if plain else repr(column.tolist()).encode())
        return sha.hexdigest()

    @property
    def comes_from_elsewhere(self) -> bool:
        """Whether somebody else may have made it: columns don't say who answered."""
        return True

    @property
    def notes(self) -> list[str]:
        """Which rows have no answer, how the columns were read, and that no other rows can be asked about."""
        notes = [f"{self.describe()}: it can't be asked about rows that are not in the data, as those of production"]
        if self._said is not None and self._silent:
            total = len(self._said[1])
            notes.append(f"{self._silent:,} of {total:,} rows have no answer in the columns: they teach nothing of it")
        if len(self._names) > 1 and self._known and not self.classes and self.gives != "values":
            pairs = ", ".join(f"{n}: {c}" for n, c in zip(self._names, self._known, strict=False))
            notes.append(
                f"columns are taken for the classes of the data in their order ({pairs}); else teacher.classes"
            )
        if self._by_name and any(name.isdigit() for name in self.classes or self._known):
            notes.append("the labels in the column are taken for names of classes, not for their numbers from 0")
        return notes

    def describe(self) -> str:
        """Its columns."""
        names = self._names
        more = f" and {len(names) - 4} more" if len(names) > 5 else ""
        return f"answers in column{'s' * (len(names) > 1)} {', '.join(names[: 4 if more else 5])}{more}"


def _chosen(columns: dict[str, Array] | Any, names: Sequence[str]) -> dict[str, Array]:
    absent = [name for name in names if name not in columns]
    if absent:
        raise ModelError(
            "teacher.columns",
            expected="columns that the data keeps for the teacher"
            + (f": {', '.join(columns)}"[:200] if columns else ""),
            found=", ".join(f"`{name}`" for name in absent),
            mend=did_you_mean(absent[0], columns)
            if columns
            else f"name them in data.source: teacher_columns: [{', '.join(names)}], and not among its inputs",
        )
    return {name: np.asarray(columns[name]) for name in names}


def _label(cell: Any, *, by_name: bool) -> Any:
    """A name or number of a class; None where there is none."""
    if cell is None or cell == "" or (isinstance(cell, float) and np.isnan(cell)):
        return None
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    return str(cell).strip() if by_name or isinstance(cell, str) else cell


def _numbers(column: Array, name: str) -> Array:
    """`[N, ...]` float64 with NaN where there is nothing; lists in cells, also as JSON, of one length."""
    if column.dtype.kind != "O":
        return column.astype(np.float64)
    try:
        cells = [json.loads(cell) if isinstance(cell, str) and cell.strip() else cell for cell in column.tolist()]
        shape = next((np.shape(cell) for cell in cells if cell is not None and cell != ""), ())
        empty = np.full(shape, np.nan)
        return np.array([empty if cell is None or cell == "" else cell for cell in cells], dtype=np.float64)
    except (TypeError, ValueError) as error:
        wrong = next((row for row, cell in enumerate(column.tolist()) if not _is_numeric(cell)), None)
        raise ModelError(
            f"teacher: column {name}" + ("" if wrong is None else f", row {wrong}"),
            expected="numbers, or lists of them of one length",
            found=f"{column[wrong]!r}"[:80] if wrong is not None else f"{error}"[:160],
            mend="gives: labels, for names of classes",
        ) from error


def _is_numeric(cell: Any) -> bool:
    try:
        np.array(json.loads(cell) if isinstance(cell, str) and cell.strip() else cell or 0, dtype=np.float64)
    except (TypeError, ValueError):
        return False
    return True


def _flat(column: Array, name: str) -> Array:
    if column.ndim == 1:
        return column
    raise ModelError(
        f"teacher: column {name}",
        expected="a number in each cell, as one of several columns",
        found=f"lists of {column.shape[1]}",
        mend="name that column alone",
    )
