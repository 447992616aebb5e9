"""LightGBM models."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.errors import MissingExtra, ModelError
from tutelage.teachers.cells import Cells
from tutelage.teachers.fitting import Progress
from tutelage.teachers.gives import log_of_probabilities
from tutelage.teachers.pickles import require_begins
from tutelage.teachers.tabular import TabularTeacher

__all__ = ["LightGBMTeacher"]

Array = np.ndarray[Any, Any]

_CLASSIFY = ("binary", "multiclass", "multiclassova", "cross_entropy")
_VALUES = (
    *("regression", "regression_l1", "huber", "fair", "poisson", "quantile", "mape", "gamma", "tweedie"),
    *("lambdarank", "rank_xendcg"),
)
_UNSAFE = re.compile(r'[",:\[\]{}\s]')
"""Characters that LightGBM does not allow in the names of columns, or changes."""


class LightGBMTeacher(TabularTeacher):
    """A LightGBM model as `Booster.save_model` writes it (text).

    Args:
        path: The file.
        columns: The columns of the data that it reads, in its order. None: those of its own names, or all.
        fit: LightGBM's parameters (`{num_iterations: 300, learning_rate: 0.05}`): the model is fitted in the run and
            kept in `path`. The objective follows from the labels where none is given; fits can be repeated exactly.
            None: the file is there.
        threads: Threads of a prediction. None: LightGBM's own choice.

    Source: Ke et al., "LightGBM: A Highly Efficient Gradient Boosting Decision Tree", 2017.
    """

    _kind = ""
    library = "LightGBM"

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
            import lightgbm  # noqa: F401
        except ImportError as error:
            raise MissingExtra("lightgbm", "trees", "a LightGBM teacher") from error

    def read(self, path: Path) -> Any:
        """See `TabularTeacher.read`."""
        import lightgbm

        expected = "a LightGBM model (text)"
        require_begins(
            path, b"tree\n", "teacher.path", expected=expected, mend='model.booster_.save_model("model.txt")'
        )
        try:
            model = lightgbm.Booster(model_file=str(path))
        except lightgbm.basic.LightGBMError as error:
            raise ModelError("teacher.path", expected=expected, found=f"{path.name}: {error}") from error
        self._kind = _objective(model)
        return model

    def train(self, cells: Cells, labels: Array, classes: Sequence[str], progress: Progress) -> Any:
        """See `TabularTeacher.train`."""
        import lightgbm

        if labels.ndim > 1:
            raise ModelError(
                "teacher",
                expected="one label a row",
                found=str(labels.shape),
                mend="use XGBoostTeacher or CatBoostTeacher",
            )
        assert self.fit is not None
        about: dict[str, Any] = {"objective": "regression"}
        if labels.dtype.kind == "i":
            many = {"objective": "multiclass", "num_class": len(classes)}
            about = many if len(classes) > 2 else {"objective": "binary"}
        about |= {"seed": 0, "deterministic": True, "force_row_wise": True, "verbosity": -1}

        def tell(env: Any) -> None:
            progress.at = f"iteration {env.iteration + 1:,} of {env.end_iteration:,}"

        frame = cells.frame()
        if any(_UNSAFE.search(name) for name in cells.names):
            frame.columns = [f"Column_{index}" for index in range(len(cells.names))]
        return lightgbm.train(about | self.fit, lightgbm.Dataset(frame, labels), callbacks=[tell])

    def save(self, model: Any, path: Path) -> None:
        """See `TabularTeacher.save`."""
        model.save_model(str(path))

    def wanted(self, model: Any) -> tuple[Sequence[str], int | None]:
        """See `TabularTeacher.wanted`."""
        names = model.feature_name()
        generic = names == [f"Column_{index}" for index in range(len(names))]
        return () if generic else names, len(names)

    def has_categories(self, model: Any) -> bool:
        """See `TabularTeacher.has_categories`."""
        return bool(model.pandas_categorical)

    def categories(self, model: Any, cells: Cells) -> dict[str, Sequence[Any]]:
        """See `TabularTeacher.categories`."""
        stored = model.pandas_categorical or []
        places = model.params.get("categorical_feature")
        if isinstance(places, list) and len(places) == len(stored) and all(isinstance(place, int) for place in places):
            return {cells.names[place]: values for place, values in zip(sorted(places), stored, strict=True)}
        if len(stored) not in (0, len(cells.categories)):
            raise ModelError(
                "categories of the data",
                expected=f"{len(stored)} columns of categories, as {self.describe()} was fitted on",
                found=f"{len(cells.categories)}: {', '.join(cells.categories)}",
                mend="name them among the `categories` of data.source",
            )
        return dict(zip(cells.categories, stored, strict=True)) if stored else {}

    def answer(self, model: Any, cells: Cells) -> Array:
        """See `TabularTeacher.answer`."""
        named = self.known(model, cells)
        rows = cells.frame(named) if named else cells.matrix()
        said = model.predict(rows, num_threads=self.threads or 0)
        return log_of_probabilities(said) if self._kind in _CLASSIFY else np.asarray(said)

    def labels(self, model: Any) -> Sequence[Any]:
        """See `TabularTeacher.labels`: LightGBM has numbers alone."""
        return ()

    def settings(self) -> dict[str, Any]:
        """See `TabularTeacher.settings`."""
        return {}


def _objective(model: Any) -> str:
    words = str(model.dump_model(num_iteration=1).get("objective", "")).split()
    objective = words[0] if words else "none"
    if objective in (*_CLASSIFY, *_VALUES):
        return objective
    raise ModelError(
        "teacher.path",
        expected=f"a model with one of the objectives {', '.join((*_CLASSIFY, *_VALUES))}",
        found=objective,
        harm="whether its numbers are probabilities, margins or values would be a guess",
        mend="use FunctionTeacher with a function that turns its numbers into probabilities",
    )
