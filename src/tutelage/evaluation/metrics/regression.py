"""Regression: values `[N]` or `[N, K]`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.errors import SignalError
from tutelage.evaluation.evidence import Evidence, Floats
from tutelage.evaluation.metrics.base import CONSTANT, Description, Mean, Metric, OfMeans, Statistic

__all__ = ["DESCRIPTIONS", "measure"]

RMSE = Description(
    name="rmse", title="Root mean squared error", kind="quality", higher_is_better=False, bounds=(0.0, np.inf),
    needs_labels=True,
)  # fmt: skip
MAE = Description(
    name="mae", title="Mean absolute error", kind="quality", higher_is_better=False, bounds=(0.0, np.inf),
    needs_labels=True,
)  # fmt: skip
R2 = Description(name="r2", title="R²", kind="quality", higher_is_better=True, bounds=(-np.inf, 1.0), needs_labels=True)
RMSE_TO_TEACHER = Description(
    name="rmse_to_teacher", title="Root mean squared difference from the teacher", kind="fidelity",
    higher_is_better=False, bounds=(0.0, np.inf), needs_same_width=True,
)  # fmt: skip
CORRELATION = Description(
    name="correlation", title="Correlation with the teacher", kind="fidelity", higher_is_better=True,
    bounds=(-1.0, 1.0), needs_same_width=True,
)  # fmt: skip
MARGIN_RMSE_TO_TEACHER = Description(
    name="margin_rmse_to_teacher", title="Root mean squared difference of margins (between two values of a row) from "
    "the teacher's", kind="fidelity", higher_is_better=False, bounds=(0.0, np.inf), needs_same_width=True,
    needs_several=True, ignores=frozenset({"shift"}),
)  # fmt: skip
DESCRIPTIONS = (RMSE, MAE, R2, RMSE_TO_TEACHER, CORRELATION, MARGIN_RMSE_TO_TEACHER)


def measure(evidence: Evidence) -> list[Metric]:
    """The metrics of `DESCRIPTIONS` that the evidence supports.

    Errors are pooled over all `K` values of a row; R² and Pearson's correlation are means over the `K` values.
    R² is undefined where the labels are constant, the correlation where the teacher or the student is. Where a row has
    several values (the scores of a query's candidates), the error of their margins is that of `v_j - v_k` over all
    pairs `j < k` of a row: a model may add a number to a row's values.

    The constant answer is the mean (of the absolute error the median) of the labels, or of what the teacher says.

    Raises:
        SignalError: The outputs or labels of the models differ in shape.
    """
    values = {model: _flat(output) for model, output in evidence.outputs.items()}
    _check(evidence, values)
    teacher = values["teacher"]
    others = {model: value for model, value in values.items() if model != "teacher"}
    apart = {model: value - teacher for model, value in {**others, CONSTANT: teacher.mean(axis=0)}.items()}
    metrics = [
        Metric(about=RMSE_TO_TEACHER, statistics={model: _rmse(error) for model, error in apart.items()}),
        Metric(about=CORRELATION, statistics={model: _correlation(teacher, value) for model, value in others.items()}),
    ]
    if teacher.shape[1] > 1:
        margins = {model: _margins(error) for model, error in apart.items()}
        metrics.append(Metric(about=MARGIN_RMSE_TO_TEACHER, statistics=margins))
    if not evidence.has_labels or evidence.labels is None or evidence.labelled is None:
        return metrics
    known = np.flatnonzero(evidence.labelled)
    labels = _flat(evidence.labels)[known]
    errors = {model: value[known] - labels for model, value in values.items()}
    mean, median = ({**errors, CONSTANT: of(labels, axis=0) - labels} for of in (np.mean, np.median))
    quality = [
        Metric(about=RMSE, statistics={model: _rmse(error) for model, error in mean.items()}),
        Metric(about=MAE, statistics={model: Mean(np.abs(error).mean(axis=1)) for model, error in median.items()}),
        Metric(about=R2, statistics={model: _r2(labels, error) for model, error in mean.items()}),
    ]
    return [*(replace(metric, rows=known) for metric in quality), *metrics]


def _flat(values: NDArray[Any]) -> Floats:
    return values.reshape(len(values), -1).astype(np.float64)


def _rmse(error: Floats) -> Statistic:
    return OfMeans((error**2).mean(axis=1, keepdims=True), lambda means: np.sqrt(means[:, 0]))


def _margins(error: Floats) -> Statistic:
    """`√ mean of (e_j - e_k)²` over pairs of values and rows: twice the variance of a row's errors, over `K - 1`."""
    return OfMeans(2 * error.var(axis=1, ddof=1, keepdims=True), lambda means: np.sqrt(means[:, 0]))


def _r2(labels: Floats, error: Floats) -> Statistic:
    """`1 - Σ error² / Σ (y - mean y)²` from the means of y, y² and error²; y is centred first, against cancellation."""
    y = labels - labels.mean(axis=0)

    def combine(means: Floats) -> Floats:
        m, squares, errors = np.split(means, 3, axis=1)
        score: Floats = (1 - errors / _variance(squares, m)).mean(axis=1)
        return score

    return OfMeans(np.hstack([y, y**2, error**2]), combine)


def _correlation(a: Floats, b: Floats) -> Statistic:
    """Pearson's correlation from the means of a, b, a², b² and ab; both are centred first, against cancellation."""
    x, y = a - a.mean(axis=0), b - b.mean(axis=0)

    def combine(means: Floats) -> Floats:
        mx, my, xx, yy, xy = np.split(means, 5, axis=1)
        spread = np.sqrt(_variance(xx, mx) * _variance(yy, my))
        correlation: Floats = ((xy - mx * my) / spread).mean(axis=1)
        return correlation

    return OfMeans(np.hstack([x, y, x**2, y**2, x * y]), combine)


def _variance(squares: Floats, mean: Floats) -> Floats:
    """`E x² - (E x)²`; NaN where it is zero but for rounding: what divides by it is undefined there."""
    variance = squares - mean**2
    return np.where(variance > 1e-12 * squares, variance, np.nan)


def _check(evidence: Evidence, values: dict[str, Floats]) -> None:
    arrays: dict[str, NDArray[Any]] = dict(values)
    if evidence.labels is not None:
        arrays["the labels"] = _flat(evidence.labels)
    for name, value in arrays.items():
        if value.shape != values["teacher"].shape:
            raise SignalError(
                f"values of {name} on `{evidence.set}`",
                expected=f"as many values a row as the teacher gives: {values['teacher'].shape[1]}",
                found=str(value.shape[1]),
            )
