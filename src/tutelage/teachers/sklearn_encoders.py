"""What the encoders in a fitted scikit-learn estimator know: the categories of its columns, and what a missing one is.

`None` and NaN are two categories for scikit-learn, and so are `7` and `"7"`: a model that was fitted on the one takes
the other for an unknown category, without a word.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tutelage.errors import ModelError
from tutelage.teachers.sklearn_texts import inner_estimators

__all__ = ["Encoders"]

Array = np.ndarray[Any, Any]
Places = Sequence[int] | None
"""Which columns of the model a part of it reads, in order; None where its inputs are no columns of the model."""


@dataclass
class _Known:
    values: list[Any] = field(default_factory=list)
    none: bool = False
    nan: bool = False
    boxed: bool = False  # numbers in an array of objects, of which scikit-learn compares objects alone

    def add(self, array: Array) -> None:
        categories = array.tolist()
        if array.dtype.kind == "M":  # NaT is the one missing date that there is
            categories = list(array[~np.isnat(array)])
        there = [value for value in categories if value is not None]
        new = [value for value in there if not (isinstance(value, float) and math.isnan(value))]
        self.none |= len(there) < len(categories)
        self.nan |= len(new) < len(there)
        self.boxed |= array.dtype.kind == "O" and not all(isinstance(value, str) for value in new)
        self.values = list(dict.fromkeys([*self.values, *new]))


class Encoders:
    """The fitted encoders of an estimator, and of all that it is made of.

    Args:
        model: The fitted estimator.
    """

    def __init__(self, model: Any) -> None:
        self._columns: dict[int, _Known] = {}
        self._elsewhere = _Known()
        self._seen: set[int] = set()
        count = getattr(model, "n_features_in_", None)
        self._walk(model, None if count is None else range(count))

    def require_one_kind_of_missing(self) -> None:
        """Raises a `ModelError` if a column has both None and NaN among its categories."""
        for known in (*self._columns.values(), self._elsewhere):
            if known.none and known.nan:
                raise ModelError(
                    "teacher.path",
                    expected="a model with one kind of missing categories",
                    found="an encoder that knows both None and NaN",
                    harm="the model takes the two for different categories, and the data has one kind of missing cells",
                    mend="fit it anew on rows with one of them, or name the text for it: missing_category: missing",
                )

    @property
    def any(self) -> bool:
        """Whether they know the categories of a column."""
        return any(known.values for known in self._columns.values())

    def categories(self, names: Sequence[str]) -> dict[str, Sequence[Any]]:
        """What they know of each column, missing ones apart.

        Args:
            names: Of the model's columns, in its order.
        """
        return {names[place]: known.values for place, known in self._columns.items() if known.values}

    def objects(self, names: Sequence[str]) -> dict[str, float | None]:
        """The columns of which they know objects, and what a missing one is in each: None or NaN."""
        everything = [self._elsewhere, *self._columns.values()]
        # Of columns that had none missing: as in the others.
        default = any(known.none for known in everything) and not any(known.nan for known in everything)
        if self._elsewhere.none or self._elsewhere.nan:
            default = self._elsewhere.none
        marked = {names[place]: known.none for place, known in self._columns.items() if known.none or known.nan}
        none = {name: None for name in names if marked.get(name, default)}
        numbers = {names[place]: math.nan for place, known in self._columns.items() if known.boxed}
        return numbers | none

    def _walk(self, part: Any, places: Places) -> None:
        if id(part) in self._seen:
            return
        self._seen.add(id(part))
        if hasattr(part, "steps"):
            for _, step in part.steps:
                self._walk(step, places)
                places = places if _keeps_columns(step) else None
        elif hasattr(part, "transformers_"):
            names = [str(name) for name in getattr(part, "feature_names_in_", ())]
            for _, inner, columns in part.transformers_:
                self._walk(inner, _chosen(columns, names, places))
        elif isinstance(categories := getattr(part, "categories_", None), list):
            for index, values in enumerate(categories):
                self._at(index, places, len(categories)).add(np.asarray(values))
        elif getattr(part, "missing_values", np.nan) is None:  # an imputer
            for index in range(part.n_features_in_):
                self._at(index, places, part.n_features_in_).none = True
        else:
            for inner in inner_estimators(part):
                self._walk(inner, places)

    def _at(self, index: int, places: Places, count: int) -> _Known:
        if places is None or len(places) != count:
            return self._elsewhere
        return self._columns.setdefault(places[index], _Known())


def _keeps_columns(step: Any) -> bool:
    """Whether what a step of a pipeline gives has the columns of what it takes."""
    if step is None or isinstance(step, str):  # "passthrough"
        return True
    imputes = type(step).__module__.startswith("sklearn.impute")
    return imputes and len(step.get_feature_names_out()) == step.n_features_in_


def _chosen(columns: Any, names: list[str], places: Places) -> Places:
    """Which columns of the model a part of a ColumnTransformer reads."""
    if places is None:
        return None
    wanted: Any = [columns] if isinstance(columns, str | int) else columns
    if isinstance(wanted, slice):
        return None if isinstance(wanted.start or wanted.stop, str) else list(places)[wanted]
    if not all(isinstance(column, str) for column in wanted):  # numbers, or which of all
        return [int(place) for place in np.asarray(places)[np.asarray(wanted)]]
    at = dict(zip(names, places, strict=False))
    return [at[column] for column in wanted] if all(column in at for column in wanted) else None
