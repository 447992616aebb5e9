"""XGBoost models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.errors import MissingExtra, ModelError
from tutelage.teachers.cells import Cells
from tutelage.teachers.fitting import Progress
from tutelage.teachers.pickles import require_begins
from tutelage.teachers.tabular import TabularTeacher, log_of_margins

__all__ = ["XGBoostTeacher"]

Array = np.ndarray[Any, Any]

_MARGIN = ("binary:logistic", "binary:logitraw", "multi:softprob", "multi:softmax")
_VALUES = ("reg:", "count:", "rank:")
_ESCAPED = "tutelage_categories_are_escaped"
"""Attribute of models whose categories are kept in ASCII, as Python's `unicode_escape` writes them.

XGBoost (3.2) keeps names of categories as bytes and cuts them apart by numbers of characters.
"""


class XGBoostTeacher(TabularTeacher):
    """An XGBoost model as `save_model` writes it (`.json` or `.ubj`).

    Where it was fitted with early stopping, the trees up to its best iteration answer, as in `XGBClassifier`.

    Args:
        path: The file.
        columns: The columns of the data that it reads, in its order. None: those of its own names, or all.
        fit: XGBoost's parameters, `num_boost_round` among them (100): the model is fitted in the run and kept in
            `path`. The objective follows from the labels where none is given. None: the file is there.
        threads: Threads of a prediction. None: XGBoost's own choice.

    Source: Chen, Guestrin, "XGBoost: A Scalable Tree Boosting System", 2016.
    """

    _kind = ""
    library = "XGBoost"

    def __init__(
        self,
        path: str,
        *,
        columns: list[str] | None = None,
        fit: dict[str, Any] | None = None,
        threads: int | None = None,
    ) -> None:
        self.path = path
        self.columns = columns
        self.fit = fit
        self.threads = threads

    def require(self) -> None:
        """See `TabularTeacher.require`."""
        try:
            import xgboost  # noqa: F401
        except ImportError as error:
            raise MissingExtra("xgboost", "xgboost", "an XGBoost teacher") from error

    def read(self, path: Path) -> Any:
        """See `TabularTeacher.read`."""
        import xgboost

        expected = "an XGBoost model (.json or .ubj)"
        require_begins(path, b"{", "teacher.path", expected=expected, mend='model.save_model("model.ubj")')
        try:
            model = xgboost.Booster({"nthread": self.threads or 0}, model_file=bytearray(path.read_bytes()))
        except xgboost.core.XGBoostError as error:
            raise ModelError(
                "teacher.path", expected=expected, found=f"{path.name}: {str(error).strip().splitlines()[0]}"
            ) from error
        self._kind = _objective(model)
        _require_whole_names(model, path)
        return model

    def train(self, cells: Cells, labels: Array, classes: Sequence[str], progress: Progress) -> Any:
        """See `TabularTeacher.train`."""
        import xgboost

        assert self.fit is not None
        about: dict[str, Any] = {"objective": "reg:squarederror", "seed": 0, "verbosity": 0}
        if labels.dtype.kind == "i":
            many = {"objective": "multi:softprob", "num_class": len(classes)}
            about |= many if len(classes) > 2 else {"objective": "binary:logistic"}
        about |= {name: value for name, value in self.fit.items() if name != "num_boost_round"}
        rounds = int(self.fit.get("num_boost_round", 100))

        class Tell(xgboost.callback.TrainingCallback):  # type: ignore[misc]
            def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
                progress.at = f"round {epoch + 1:,} of {rounds:,}"
                return False

        rows = _named(cells.frame())
        escape = not all(str(name).isascii() for column in cells.categories for name in rows[column].cat.categories)
        data = xgboost.DMatrix(_escaped(rows) if escape else rows, labels, enable_categorical=True)
        model = xgboost.train(about, data, rounds, callbacks=[Tell()])
        if escape:
            model.set_attr(**{_ESCAPED: "1"})
        return model

    def save(self, model: Any, path: Path) -> None:
        """See `TabularTeacher.save`."""
        path.write_bytes(model.save_raw("json" if path.suffix == ".json" else "ubj"))

    def wanted(self, model: Any) -> tuple[Sequence[str], int | None]:
        """See `TabularTeacher.wanted`."""
        return model.feature_names or (), model.num_features()

    def has_categories(self, model: Any) -> bool:
        """See `TabularTeacher.has_categories`."""
        return "c" in (model.feature_types or ())

    def categories(self, model: Any, cells: Cells) -> dict[str, Sequence[Any]]:
        """See `TabularTeacher.categories`."""
        real = _real if model.attr(_ESCAPED) else (lambda name: name)
        places = zip(cells.names, _stored(model), strict=False)
        return {name: [real(value) for value in values] for name, values in places if values is not None}

    def answer(self, model: Any, cells: Cells) -> Array:
        """See `TabularTeacher.answer`."""
        import xgboost

        stored = self.known(model, cells)
        rows = cells.frame(stored) if stored else cells.matrix()
        if stored and model.attr(_ESCAPED):
            rows = _escaped(rows)
        types = None if stored else model.feature_types
        data = xgboost.DMatrix(
            rows, enable_categorical=True, feature_names=model.feature_names, feature_types=types, nthread=self.threads
        )
        best = model.attr("best_iteration")
        trees = (0, int(best) + 1) if best is not None else (0, 0)
        margin = self._kind in _MARGIN
        said = model.predict(data, output_margin=margin, iteration_range=trees)
        return log_of_margins(said) if margin else np.asarray(said)

    def labels(self, model: Any) -> Sequence[Any]:
        """See `TabularTeacher.labels`: XGBoost has numbers alone."""
        return ()

    def settings(self) -> dict[str, Any]:
        """See `TabularTeacher.settings`."""
        return {}


def _stored(model: Any) -> list[list[Any] | None]:
    """What the model keeps as the categories of each of its columns; None of a column of numbers."""
    if "c" not in (model.feature_types or ()):
        return []
    arrays = model.get_categories(export_to_arrow=True).to_arrow() or []
    return [None if array is None else array.to_pylist() for _, array in arrays]


def _require_whole_names(model: Any, path: Path) -> None:
    try:
        names = [name for column in _stored(model) for name in column or () if isinstance(name, str)]
        broken = [ascii(name) for name in names if not name.isascii()]
    except UnicodeDecodeError as error:
        broken = [f"{error.object!r}"]
    if broken:
        raise ModelError(
            "teacher.path",
            expected="names of categories in plain ASCII: XGBoost cuts others apart in the wrong places",
            found=f"{path.name}, which has {', '.join(broken[:5])}",
            harm="the model would take rows of one category for those of another, or for missing ones",
            mend="fit it anew with whole numbers or ASCII names for the categories (then map them alike in the data), "
            "or let the run fit it: fit: {num_boost_round: 100}",
        )


def _named(rows: Any) -> Any:
    """A data frame with the categories that XGBoost does not take, such as 0.5 and True, as texts."""
    texts = {
        name: rows[name].cat.rename_categories([str(value) for value in rows[name].cat.categories])
        for name in rows.columns
        if rows[name].dtype == "category" and rows[name].cat.categories.dtype.kind not in "iu"
    }
    return rows.assign(**texts)


def _escaped(rows: Any) -> Any:
    """A data frame with the texts among its categories in ASCII."""
    texts = {
        name: rows[name].cat.rename_categories([_ascii(value) for value in rows[name].cat.categories])
        for name in rows.columns
        if rows[name].dtype == "category" and any(isinstance(value, str) for value in rows[name].cat.categories)
    }
    return rows.assign(**texts)


def _ascii(name: str) -> str:
    return name.encode("unicode_escape").decode("ascii")


def _real(name: Any) -> Any:
    return name.encode("ascii").decode("unicode_escape") if isinstance(name, str) else name


def _objective(model: Any) -> str:
    learner = json.loads(model.save_config())["learner"]
    objective = str(learner["objective"]["name"])
    several = int(learner["learner_model_param"].get("num_target", "1")) > 1
    if (objective in _MARGIN and not several) or objective.startswith(_VALUES):
        return objective
    raise ModelError(
        "teacher.path",
        expected=f"a model with one of the objectives {', '.join(_MARGIN)}, or of the kinds {', '.join(_VALUES)}",
        found=f"{objective} for several labels" if several else objective,
        harm="whether its numbers are probabilities, margins or values would be a guess",
        mend="use FunctionTeacher with a function that turns its numbers into probabilities",
    )
