"""What all teachers that are models of tables share: they differ in the library that reads, fits and asks them."""

from __future__ import annotations

import abc
import copy
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tutelage.categories import KnownCategories
from tutelage.errors import ModelError, UserError, blame
from tutelage.files import digest_file
from tutelage.paths import resolve_path
from tutelage.signals import Batch, Request, Signals
from tutelage.teachers.base import Teacher, TransferFacts, refuse_features, refuse_members
from tutelage.teachers.cells import Cells, Strangers, cells_of
from tutelage.teachers.fitting import Fitted, Progress, announced, digest_of_rows
from tutelage.teachers.gives import FLOOR
from tutelage.teachers.served import Served
from tutelage.teachers.settings import require_threads

__all__ = ["TabularTeacher", "log_of_margins"]

Array = np.ndarray[Any, Any]

MANY = 100
"""Classes above which a tenth must occur among the labels that a model is fitted on."""


def log_of_margins(margins: Array) -> Array:
    """Log-softmax `[N, C]` of scores `[N, C]`; of a margin `[N]`, that of two classes: `log σ(-m)`, `log σ(m)`."""
    m = np.asarray(margins, dtype=np.float64)
    if m.ndim == 1:
        return np.stack([-np.logaddexp(0, m), -np.logaddexp(0, -m)], axis=1)
    logs: Array = m - np.logaddexp.reduce(m, axis=1, keepdims=True)
    return logs


class TabularTeacher(Teacher):
    """A model of tables in a file of its library's own format; it reads the rows as the source has them.

    Classifiers answer with log-probabilities `[B, C]`, regressors with values `[B]` or `[B, K]`. Classes that the model
    names are brought into the data's order, and those of the data that it does not know get the least probability.

    With `fit` (or an estimator) the model is fitted on the labelled training rows when it meets the data, and kept in
    `path`; a file that was fitted on other rows or with other arguments is refused.

    A subclass stores `path`, `columns` and `fit` (and `threads`, where its library is told them with each prediction or
    when it reads the file), and says how its library does it.
    """

    path: str
    columns: list[str] | None
    fit: dict[str, Any] | None
    threads: int | None = None
    _model: Any = None
    _file: Path | None = None
    _digest = ""
    _strangers: Strangers
    _known: tuple[Any, dict[str, KnownCategories]] | None = None
    _facts: TransferFacts | None = None

    library: str
    """For messages."""

    # What a library differs in.

    @abc.abstractmethod
    def require(self) -> None:
        """Raises a `MissingExtra` if a package is not installed."""

    @abc.abstractmethod
    def read(self, path: Path) -> Any:
        """The model in a file, which exists. Raises a `ModelError` if it is no such model."""

    @abc.abstractmethod
    def train(self, cells: Cells, labels: Array, classes: Sequence[str], progress: Progress) -> Any:
        """A model fitted on rows: int64 class numbers, or float32 values `[N]` or `[N, K]`."""

    @abc.abstractmethod
    def save(self, model: Any, path: Path) -> None:
        """Writes a model in the library's format."""

    @abc.abstractmethod
    def wanted(self, model: Any) -> tuple[Sequence[str], int | None]:
        """The names of the columns that a model reads (none where it has none), and how many they are."""

    @abc.abstractmethod
    def answer(self, model: Any, cells: Cells) -> Array:
        """Log-probabilities `[N, C]` or values `[N]` or `[N, K]`."""

    @abc.abstractmethod
    def labels(self, model: Any) -> Sequence[Any]:
        """The classes in the order of the answers, as the model has them; none where it does not name them."""

    @abc.abstractmethod
    def settings(self) -> dict[str, Any]:
        """What decides the answers beside the file, as plain data."""

    def has_categories(self, model: Any) -> bool:
        """Whether a model tells the categories that it knows."""
        return False

    def categories(self, model: Any, cells: Cells) -> dict[str, Sequence[Any]]:
        """The categories that a model knows of each column of categories, where it tells them."""
        return {}

    def check_categories(self, model: Any, cells: Cells) -> None:
        """Refuses rows of whose column the model knows no category."""
        self._strangers.look(cells, self.known(model, cells))

    def arguments(self) -> dict[str, Any] | None:
        """What a fit depends on beside the rows, as plain data; None for a model that is ready."""
        return self.fit

    # What they have in common.

    @property
    def comes_from_elsewhere(self) -> bool:
        """Whether its file is not fitted in the run."""
        return self.arguments() is None

    def load(self, device: torch.device) -> None:
        """Reads the file. A model that the run fits is read when it meets the data.

        Raises:
            ModelError: A setting is wrong, or the file is missing, a pickle, or not of the library's format.
        """
        require_threads(self.threads)
        self.require()
        if self._model is None and self.arguments() is None:
            self._read(resolve_path(self.path, key="teacher.path", error=ModelError))

    def _read(self, path: Path) -> None:
        self._model, self._file = self.read(path), path
        self._strangers = Strangers(self.describe())
        self._known = None
        self._digest = digest_file(path)

    def known(self, model: Any, cells: Cells) -> dict[str, KnownCategories]:
        """The categories that a model knows of each column, by which cells are found among them."""
        about = cells.names, cells.categories
        if self._known is None or self._known[0] != about:
            found = {name: KnownCategories(values) for name, values in self.categories(model, cells).items()}
            self._known = about, found
        return self._known[1]

    def meet(self, facts: TransferFacts) -> None:
        """Fits the model if the recipe says so and its file is not there, and learns the order of the classes.

        Raises:
            UserError: The rows have no labels, or the file was fitted on others or knows no category of a column.
        """
        self._facts = facts
        arguments = self.arguments()
        if arguments is not None:
            self._fit(facts, arguments)
        elif self.has_categories(self._model) and len(rows := facts.labelled()):
            self.check_categories(self._model, self._cells(rows))

    def _fit(self, facts: TransferFacts, arguments: dict[str, Any]) -> None:
        batch = facts.labelled()
        if batch.labels is None or not len(batch):
            raise ModelError(
                "teacher.fit",
                expected="labelled training rows to fit the teacher on",
                found="none",
                mend="name the label in data.source, or give a model that is fitted, without `fit`",
            )
        cells, labels = cells_of(batch, self.describe()).only(self.columns, (), None, "the model"), batch.labels.numpy()
        if labels.dtype.kind == "i" and len(facts.classes) > max(MANY, 10 * (different := len(np.unique(labels)))):
            raise ModelError(
                "teacher.fit",
                expected="labels most of whose classes occur",
                found=f"{different:,} different whole numbers up to {len(facts.classes) - 1:,}",
                harm=f"a classifier of {len(facts.classes):,} classes would be fitted",
                mend="name the classes in data.source.classes; or write task: regression if these are values",
            )
        path = Path(self.path).expanduser()
        fitted = Fitted(path, digest_of_rows(cells, labels), {self.library: arguments, "classes": len(facts.classes)})
        if not fitted.is_there():
            model = self._trained(cells, labels, facts.classes)
            fitted.write(lambda partial: self.save(model, partial), {"count": len(labels), "columns": cells.names})
        self._read(path)

    def _trained(self, cells: Cells, labels: Array, classes: Sequence[str]) -> Any:
        with announced(f"fitting the teacher ({self.library}) on {len(labels):,} rows") as progress:
            try:
                return self.train(cells, labels, classes, progress)
            except UserError:
                raise
            except Exception as error:  # each library has errors of its own
                raise ModelError(
                    "teacher.fit",
                    expected=f"arguments with which {self.library} fits {len(labels):,} rows",
                    found=blame(error),
                    mend="look at the arguments, and at the columns and labels of data.source",
                ) from error

    def check(self, request: Request) -> None:
        """Raises a `ModelError` if features or members are requested: a model of tables supplies its output alone."""
        refuse_members(self, request)
        refuse_features(self, request)

    def ask(self, batch: Batch, request: Request) -> Signals:
        """The model's answers to the rows as the source has them, float32.

        Raises:
            ModelError: The rows lack a column that the model reads, or hold what it can't take.
        """
        self.check(request)
        if not request.output:
            return Signals()
        model, cells = self._loaded(), self._cells(batch)
        try:
            self.check_categories(model, cells)
            answer = self._placed(self.answer(model, cells))
        except UserError:
            raise
        except Exception as error:  # each library has errors of its own
            raise ModelError(
                f"asking {self.describe()}",
                expected="rows that the model can take",
                found=blame(error),
                mend="compare the columns of data.source with those that the model was fitted on",
            ) from error
        return Signals(output=torch.from_numpy(answer.astype(np.float32)).to(batch.rows.device))

    def _cells(self, batch: Batch) -> Cells:
        """What the model reads of a batch."""
        names, count = self.wanted(self._loaded())
        return cells_of(batch, self.describe()).only(self.columns, names, count, self.describe())

    def _placed(self, answer: Array) -> Array:
        """Columns in the data's order of classes."""
        known, places = self._data_classes(), self._places()
        if places is None:
            return answer
        wide = np.full((len(answer), len(known)), np.log(FLOOR))
        wide[:, places] = answer
        return log_of_margins(wide)

    def _places(self) -> list[int] | None:
        """Where each class of the model is in the data, if that knows all of them and has another order or more."""
        known, own = self._data_classes(), [_name(label) for label in self.labels(self._loaded())]
        if not own or own == known or not set(own) <= set(known):
            return None
        return [known.index(name) for name in own]

    def _data_classes(self) -> list[str]:
        return list(self._facts.classes) if self._facts is not None else []

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes in the order of the answers, where the model has names for them."""
        if self._model is None:
            return ()
        if self._places() is not None:
            return tuple(self._data_classes())
        labels = self.labels(self._model)
        return tuple(_name(label) for label in labels) if any(isinstance(label, str) for label in labels) else ()

    def served(self) -> Served:
        """A model of its own, read from the file, with the threads asked for."""
        self._loaded()
        assert self._file is not None
        return Served(open=self._opened, reads=frozenset({"raw"}), files=(self._file,))

    def _opened(self, threads: int) -> Callable[[Batch], Signals]:
        assert self._file is not None
        twin = copy.copy(self)
        twin.threads = threads
        twin._model = twin.read(self._file)
        return lambda batch: twin.ask(batch, Request(output=True))

    def fingerprint(self) -> str:
        """SHA-256 of the file and of the settings."""
        self._loaded()
        said = json.dumps({"library": self.library, "columns": self.columns, **self.settings()}, sort_keys=True)
        places = repr(self._data_classes() if self._places() is not None else None)
        return hashlib.sha256(f"{self._digest}{said}{places}".encode()).hexdigest()

    def describe(self) -> str:
        """The library and the file."""
        return f"{type(self).__name__} {Path(self.path).name}"

    def _loaded(self) -> Any:
        if self._model is None:
            raise ModelError(
                "teacher",
                expected=f"a {type(self).__name__} that is loaded"
                + (" and has met the data, on which it is fitted" if self.arguments() is not None else ""),
                found="one that is not",
                mend="call `load(device)` first" + (", then `meet(facts)`" if self.arguments() is not None else ""),
            )
        return self._model


def _name(label: Any) -> str:
    """A class as `read_labels` names it."""
    label = label.item() if isinstance(label, np.generic) else label
    if isinstance(label, bool):
        return str(label).lower()
    return str(int(label)) if isinstance(label, float) and label.is_integer() else str(label)
