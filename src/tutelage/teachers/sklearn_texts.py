"""Which columns a scikit-learn estimator reads as texts: vectorizers take them as they are, one text a row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["inner_estimators", "reads_texts", "text_columns"]


def reads_texts(part: Any) -> bool:
    """Whether a (fitted) estimator takes texts, one a row, and no table: a vectorizer, or what begins with one."""
    if hasattr(part, "build_analyzer"):  # CountVectorizer, TfidfVectorizer, HashingVectorizer
        return True
    if hasattr(part, "transformers"):  # ColumnTransformer
        return False
    if hasattr(part, "steps"):
        return (first := _first(part)) is not None and reads_texts(first)
    return any(reads_texts(inner) for inner in inner_estimators(part))


def text_columns(part: Any) -> set[str | int]:
    """The columns of a data frame that a (fitted) estimator's vectorizers read: names, or numbers from 0."""
    if hasattr(part, "transformers"):
        chosen = getattr(part, "transformers_", part.transformers)
        return {column for _, inner, column in chosen if isinstance(column, str | int) and reads_texts(inner)}
    if hasattr(part, "steps"):
        return set() if (first := _first(part)) is None else text_columns(first)
    return {column for inner in inner_estimators(part) for column in text_columns(inner)}


def inner_estimators(part: Any) -> Iterator[Any]:
    """The estimators that an estimator holds."""
    for value in vars(part).values() if hasattr(part, "__dict__") else ():
        members = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
        for member in members:
            estimator = member[-1] if isinstance(member, list | tuple) and member else member  # (name, estimator)
            if hasattr(estimator, "get_params") or hasattr(estimator, "estimator"):
                yield estimator


def _first(pipeline: Any) -> Any:
    """The first step that decides what a pipeline takes."""
    for _, step in pipeline.steps:
        passes = step is None or isinstance(step, str) or type(step).__name__ == "FunctionTransformer"
        if not passes:
            return step
    return None
