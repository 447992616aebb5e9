"""scikit-learn estimators and pipelines, in files that skops writes."""

from __future__ import annotations

import importlib
import inspect
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tutelage.errors import MissingExtra, ModelError, blame, did_you_mean
from tutelage.teachers.cells import Cells
from tutelage.teachers.fitting import Progress
from tutelage.teachers.gives import log_of_probabilities
from tutelage.teachers.pickles import refuse_pickle_file
from tutelage.teachers.sklearn_encoders import Encoders
from tutelage.teachers.sklearn_texts import reads_texts, text_columns
from tutelage.teachers.tabular import TabularTeacher, log_of_margins
from tutelage.verbatim import unwrapped

__all__ = ["SklearnTeacher"]

Array = np.ndarray[Any, Any]


class SklearnTeacher(TabularTeacher):
    """A scikit-learn estimator or pipeline in a `.skops` file; it is never unpickled.

    Classifiers need `predict_proba`, or `decision_function`, whose scores then count as logits. Estimators that were
    fitted on a data frame are given one, with categories as pandas' category type; where an encoder knows None as a
    category, as objects with None. Categories get the type (texts, numbers) that the encoder of their column knows.
    Vectorizers of texts (TfidfVectorizer ...) read their column as it is; a pipeline that begins with one reads the
    only column, or the one in `columns`.

    In a recipe, to be fitted in the run:
    ```yaml
    teacher:
      class_path: SklearnTeacher
      init_args:
        path: runs/NAME/teacher.skops
        estimator: {class_path: sklearn.ensemble.RandomForestClassifier, init_args: {n_estimators: 300}}
        trusted: [sklearn.tree._tree.Tree]
    ```

    Args:
        path: The file, as `skops.io.dump` writes it.
        columns: The columns of the data that it reads, in its order. None: those of its own names, or all.
        estimator: What is fitted in the run and kept in `path`: `{class_path: ..., init_args: {...}}`, also within
            init_args, as the steps of a pipeline: `steps: [[scale, {class_path: ...}], [model, {class_path: ...}]]`.
            None: the file is there.
        fit: Further arguments of `estimator.fit`.
        missing_category: The text that stood for a missing category in what the model was fitted on. None: missing ones
            were missing there, too.
        trusted: Types that may be made although skops does not know them to be harmless, such as
            `sklearn.tree._tree.Tree`: those of files that you made or whose maker you trust.

    Source: Pedregosa et al., "Scikit-learn: Machine Learning in Python", 2011; skops.
    """

    verbatim: ClassVar = ("estimator",)
    """Arguments that no recipe makes objects of."""
    library = "scikit-learn"
    _encoders: Encoders
    _reads_texts = False
    _text_columns: set[str | int]

    def __init__(
        self,
        path: str,
        *,
        columns: list[str] | None = None,
        estimator: dict[str, Any] | None = None,
        fit: dict[str, Any] | None = None,
        missing_category: str | None = None,
        trusted: list[str] | None = None,
    ) -> None:
        self.path = path
        self.columns = columns
        self.estimator = unwrapped(estimator)
        self.fit = fit
        self.missing_category = missing_category
        self.trusted = trusted

    def arguments(self) -> dict[str, Any] | None:
        """See `TabularTeacher.arguments`."""
        if self.estimator is None:
            return None
        return {"estimator": self.estimator, "fit": self.fit or {}, **self.settings()}

    def require(self) -> None:
        """See `TabularTeacher.require`; refuses an estimator that can't be made."""
        for package in ("sklearn", "skops"):
            try:
                importlib.import_module(package)
            except ImportError as error:
                name = {"sklearn": "scikit-learn"}.get(package, package)
                raise MissingExtra(name, "trees", "a scikit-learn teacher") from error
        if self.estimator is not None:
            _built(self.estimator, "teacher.estimator")
        elif self.fit is not None:
            raise ModelError(
                "teacher.fit",
                expected="an estimator to fit",
                found="`fit` without `estimator`",
                mend="name it: estimator: {class_path: sklearn.ensemble.HistGradientBoostingClassifier}",
            )

    def read(self, path: Path) -> Any:
        """See `TabularTeacher.read`."""
        from skops import io

        expected = "a .skops file"
        write = 'skops.io.dump(model, "model.skops")'
        refuse_pickle_file(path, "teacher.path", expected=expected, mend=write)
        if not zipfile.is_zipfile(path):
            raise ModelError("teacher.path", expected=expected, found=f"{path.name}, of another format", mend=write)
        try:
            self._require_trusted(path)
            model = io.load(path, trusted=self.trusted or [])
        except ModelError:
            raise
        except Exception as error:  # skops raises whatever the parts of a damaged file do
            raise ModelError(
                "teacher.path", expected=expected, found=f"{path.name}: {blame(error)}", mend=write
            ) from error
        if not hasattr(model, "predict"):
            raise ModelError("teacher.path", expected="an estimator", found=f"a {type(model).__name__}", mend=write)
        if self.threads is not None:
            for part in _parts(model):
                part.n_jobs = self.threads
        names = getattr(model, "feature_names_in_", None)
        self._reads_texts = names is None and reads_texts(model)
        self._text_columns = text_columns(model)
        self._encoders = Encoders(model)
        if self.missing_category is None:
            self._encoders.require_one_kind_of_missing()
        return model

    def _require_trusted(self, path: Path) -> None:
        from skops import io

        named = io.get_untrusted_types(file=path)
        unknown = [name for name in named if name not in (self.trusted or ())]
        if unknown:
            raise ModelError(
                "teacher.trusted",
                expected="types that skops knows to be harmless, or that are named here",
                found=", ".join(unknown),
                harm="making an object of a type can run its code; a tree in a file that was tampered with can make "
                "its model read and write any memory",
                mend=f"if the file is your own, or you trust whoever made it: trusted: [{', '.join(unknown)}]",
            )

    def train(self, cells: Cells, labels: Array, classes: Sequence[str], progress: Progress) -> Any:
        """See `TabularTeacher.train`."""
        assert self.estimator is not None
        estimator = _built(self.estimator, "teacher.estimator")
        from sklearn.base import is_classifier

        if is_classifier(estimator) != (labels.dtype.kind == "i"):
            raise ModelError(
                "teacher.estimator",
                expected="a classifier, for labels that are classes"
                if labels.dtype.kind == "i"
                else "a regressor, for labels that are values",
                found=f"a {type(estimator).__name__}",
                mend="fit the other kind of estimator, or change the task",
            )
        progress.at = type(estimator).__name__
        if reads_texts(estimator):
            rows: Any = self._texts(cells)
        elif cells.named:
            texts = {cells.names[each] if isinstance(each, int) else each for each in text_columns(estimator)}
            rows = cells.frame(missing=self.missing_category, texts=texts)
        else:
            rows = cells.matrix()
        try:
            return estimator.fit(rows, labels, **(self.fit or {}))
        except ValueError as error:
            if not cells.categories or "could not convert string to float" not in str(error):
                raise
            raise ModelError(
                "teacher.estimator",
                expected=f"an estimator that takes texts: {', '.join(cells.categories)}",
                found=f"{type(estimator).__name__}: {error}",
                mend="fit a Pipeline that begins with a ColumnTransformer: a OneHotEncoder for these columns",
            ) from error

    def _texts(self, cells: Cells) -> list[str]:
        """The only column, of texts."""
        if len(cells.names) != 1:
            raise ModelError(
                "teacher.columns",
                expected="one column, of texts: the model begins with a vectorizer",
                found=", ".join(cells.names)[:200],
                mend="name it: columns: [review], or give the vectorizer its column in a ColumnTransformer",
            )
        return cells.texts(cells.names[0])

    def save(self, model: Any, path: Path) -> None:
        """See `TabularTeacher.save`."""
        from skops import io

        io.dump(model, path)
        self._require_trusted(path)

    def wanted(self, model: Any) -> tuple[Sequence[str], int | None]:
        """See `TabularTeacher.wanted`."""
        if self._reads_texts:
            return (), 1
        names = getattr(model, "feature_names_in_", ())
        return [str(name) for name in names], getattr(model, "n_features_in_", None)

    def has_categories(self, model: Any) -> bool:
        """See `TabularTeacher.has_categories`."""
        return self._encoders.any

    def categories(self, model: Any, cells: Cells) -> dict[str, Sequence[Any]]:
        """See `TabularTeacher.categories`."""
        return self._encoders.categories(cells.names)

    def answer(self, model: Any, cells: Cells) -> Array:
        """See `TabularTeacher.answer`."""
        from sklearn.base import is_classifier

        rows = self._texts(cells) if self._reads_texts else self._rows(model, cells)
        if not is_classifier(model):
            return np.asarray(model.predict(rows))
        if hasattr(model, "predict_proba"):
            said = model.predict_proba(rows)
        elif hasattr(model, "decision_function"):
            return log_of_margins(model.decision_function(rows))
        else:
            said = None
        if not isinstance(said, np.ndarray):
            raise ModelError(
                "teacher.path",
                expected="a classifier of one class a row with predict_proba or decision_function",
                found=f"a {type(model).__name__}" + (" of several labels" if said is not None else " without either"),
                mend="fit it with probabilities (SVC: probability=True), or use FunctionTeacher",
            )
        return log_of_probabilities(said)

    def _rows(self, model: Any, cells: Cells) -> Any:
        """A data frame or matrix as the model was fitted on it."""
        names = self.wanted(model)[0]
        cells = cells.like(self.known(model, cells))
        if not len(names) and not cells.categories:
            return cells.matrix()
        places = {cells.names[each] if isinstance(each, int) else each for each in self._text_columns}
        objects = self._encoders.objects(cells.names)
        rows = cells.frame(missing=self.missing_category, objects=objects, texts=places)
        if not len(names):
            return rows.to_numpy(object)
        rows.columns = names
        return rows

    def labels(self, model: Any) -> Sequence[Any]:
        """See `TabularTeacher.labels`."""
        return list(getattr(model, "classes_", ()))

    def settings(self) -> dict[str, Any]:
        """See `TabularTeacher.settings`."""
        return {} if self.missing_category is None else {"missing_category": self.missing_category}


def _parts(value: Any) -> Iterator[Any]:
    """The estimator and those that it is made of, as far as they have a number of jobs."""
    if isinstance(value, list | tuple | np.ndarray):
        if not isinstance(value, np.ndarray) or value.dtype.kind == "O":
            for item in value:
                yield from _parts(item)
    elif isinstance(value, dict):
        yield from _parts(list(value.values()))
    elif hasattr(value, "get_params") and not isinstance(value, type):
        if hasattr(value, "n_jobs"):
            yield value
        yield from _parts(list(vars(value).values()))


def _built(value: Any, key: str) -> Any:
    """`value` with each `{class_path, init_args}` in it made into the object that it describes."""
    if isinstance(value, list):
        return [_built(item, f"{key}[{index}]") for index, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if "class_path" not in value:
        return {name: _built(item, f"{key}.{name}") for name, item in value.items()}
    name, arguments = str(value["class_path"]), _built(value.get("init_args") or {}, f"{key}.init_args")
    module, _, attribute = name.rpartition(".")
    try:
        holder = importlib.import_module(module) if module else None
    except ImportError:
        holder = None
    target = getattr(holder, attribute, None)
    if not callable(target):
        raise ModelError(
            f"{key}.class_path",
            expected="the import path of an estimator",
            found=f"`{name}`",
            mend=did_you_mean(attribute, vars(holder)) if holder is not None else "sklearn.ensemble.NAME, for example",
        )
    try:
        defaults = {name: each.default for name, each in inspect.signature(target).parameters.items()}
        # YAML has no tuples, and scikit-learn takes nothing else for a range (`ngram_range: [1, 2]`).
        pairs = {n: tuple(v) for n, v in arguments.items() if isinstance(v, list) and type(defaults.get(n)) is tuple}
        return target(**(arguments | pairs))
    except Exception as error:  # a constructor may raise anything
        raise ModelError(
            f"{key}.init_args",
            expected=f"arguments of {attribute}",
            found=blame(error),
            mend="look at its documentation",
        ) from error
