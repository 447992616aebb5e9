"""CatBoost models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.categories import KnownCategories
from tutelage.errors import MissingExtra, ModelError
from tutelage.teachers.cells import Cells
from tutelage.teachers.fitting import Progress
from tutelage.teachers.pickles import require_begins
from tutelage.teachers.tabular import TabularTeacher, log_of_margins
from tutelage.teachers.unnamed_categories import Spelling

__all__ = ["CatBoostTeacher"]

Array = np.ndarray[Any, Any]

_CLASSIFY = ("Logloss", "CrossEntropy", "MultiClass", "MultiClassOneVsAll")
_OTHERS = ("MultiLogloss", "MultiCrossEntropy")


class CatBoostTeacher(TabularTeacher):
    """A CatBoost model as `save_model` writes it (`.cbm`).

    Args:
        path: The file.
        columns: The columns of the data that it reads, in its order. None: those of its own names, or all.
        fit: CatBoost's parameters (`{iterations: 500, depth: 6}`): the model is fitted in the run and kept in `path`.
            The loss function follows from the labels where none is given. None: the file is there.
        missing_category: The text that stands for a missing category, which CatBoost itself does not know: that of the
            model's training.
        threads: Threads of a prediction. None: CatBoost's own choice.

    Source: Prokhorenkova et al., "CatBoost: unbiased boosting with categorical features", 2018.
    """

    _kind = ""
    _spelling: Spelling
    library = "CatBoost"

    def __init__(
        self,
        path: str,
        *,
        columns: list[str] | None = None,
        fit: dict[str, Any] | None = None,
        missing_category: str = "missing",
        threads: int | None = None,
    ) -> None:
        self.path = path
        self.columns = columns
        self.fit = fit
        self.missing_category = missing_category
        self.threads = threads

    def require(self) -> None:
        """See `TabularTeacher.require`."""
        try:
            import catboost  # noqa: F401
        except ImportError as error:
            raise MissingExtra("catboost", "trees", "a CatBoost teacher") from error

    def read(self, path: Path) -> Any:
        """See `TabularTeacher.read`."""
        import catboost

        expected = "a CatBoost model (.cbm)"
        require_begins(path, b"CBM1", "teacher.path", expected=expected, mend='model.save_model("model.cbm")')
        try:
            model = catboost.CatBoost().load_model(str(path), format="cbm")
        except catboost.CatBoostError as error:
            raise ModelError("teacher.path", expected=expected, found=f"{path.name}: {error}") from error
        self._kind = _loss(model)
        self._spelling = Spelling(self.describe(), self.missing_category)
        if self._kind in _OTHERS:
            raise ModelError(
                "teacher.path",
                expected="a model of one class a row, or of values",
                found=f"one with the loss function {self._kind}: several labels a row",
                mend="use FunctionTeacher with a function that gives the logits of the labels",
            )
        return model

    def train(self, cells: Cells, labels: Array, classes: Sequence[str], progress: Progress) -> Any:
        """See `TabularTeacher.train`."""
        import catboost

        assert self.fit is not None
        about: dict[str, Any] = {"loss_function": "RMSE" if labels.ndim == 1 else "MultiRMSE"}
        if labels.dtype.kind == "i":
            many = {"loss_function": "MultiClass", "classes_count": len(classes)}
            about = many if len(classes) > 2 else {"loss_function": "Logloss"}
        about |= {"random_seed": 0, "verbose": False, "allow_writing_files": False}

        class Tell:
            def after_iteration(self, info: Any) -> bool:
                progress.at = f"iteration {info.iteration:,}"
                return True

        spelling = Spelling("the model", self.missing_category)
        texts = {name: spelling.written(name, cells.objects(name)) for name in cells.categories}
        pool = catboost.Pool(_frame(cells, texts), labels, cat_features=cells.categories)
        return catboost.CatBoost(about | self.fit).fit(pool, callbacks=[Tell()])

    def save(self, model: Any, path: Path) -> None:
        """See `TabularTeacher.save`."""
        model.save_model(str(path), format="cbm")

    def wanted(self, model: Any) -> tuple[Sequence[str], int | None]:
        """See `TabularTeacher.wanted`."""
        names = model.feature_names_
        generic = names == [str(index) for index in range(len(names))]
        return () if generic else names, len(names)

    def has_categories(self, model: Any) -> bool:
        """See `TabularTeacher.has_categories`: it keeps hashes of them, see `Spelling`."""
        return bool(model.get_cat_feature_indices())

    def check_categories(self, model: Any, cells: Cells) -> None:
        """See `TabularTeacher.check_categories`; finds how the categories were written where the model was fitted."""
        columns = _categories(model, cells)
        rows = self._spelling.wants(columns) if columns else ()
        if len(rows):
            some = Cells({name: column[rows] for name, column in cells.columns.items()})

            def ask(texts: dict[str, list[str]]) -> Array:
                pool, threads = self._pool(model, some, texts), self.threads or -1
                return np.asarray(model.predict(pool, prediction_type="RawFormulaVal", thread_count=threads))

            self._spelling.look(_categories(model, some), _importance(model, cells), ask)

    def answer(self, model: Any, cells: Cells) -> Array:
        """See `TabularTeacher.answer`."""
        texts = {name: self._spelling.written(name, column) for name, column in _categories(model, cells).items()}
        pool, threads = self._pool(model, cells, texts), self.threads or -1
        if self._kind in _CLASSIFY:
            return log_of_margins(model.predict(pool, prediction_type="LogProbability", thread_count=threads))
        return np.asarray(model.predict(pool, thread_count=threads))

    def _pool(self, model: Any, cells: Cells, texts: dict[str, list[str]]) -> Any:
        import catboost

        rows = _frame(cells, texts)
        rows.columns = model.feature_names_
        places = [cells.names.index(name) for name in texts]
        return catboost.Pool(rows, cat_features=places, thread_count=self.threads or -1)

    def labels(self, model: Any) -> Sequence[Any]:
        """See `TabularTeacher.labels`."""
        return list(model.classes_) if model.classes_ is not None else []

    def settings(self) -> dict[str, Any]:
        """See `TabularTeacher.settings`."""
        return {"missing_category": self.missing_category}


def _categories(model: Any, cells: Cells) -> dict[str, list[Any]]:
    return {cells.names[index]: cells.objects(cells.names[index]) for index in model.get_cat_feature_indices()}


def _frame(cells: Cells, texts: dict[str, list[str]]) -> Any:
    """A data frame of numbers, and of texts in these columns."""
    return cells.written(texts).frame(dict.fromkeys(texts, KnownCategories(())), objects=dict.fromkeys(texts))


def _importance(model: Any, cells: Cells) -> dict[str, float]:
    """Importance of each column in per cent; 0 where the file does not tell it."""
    import catboost

    try:
        found = model.get_feature_importance()
    except catboost.CatBoostError:
        found = np.zeros(len(cells.names))
    return dict(zip(cells.names, map(float, found), strict=True))


def _loss(model: Any) -> str:
    return str(model.get_all_params().get("loss_function", "")).partition(":")[0]
