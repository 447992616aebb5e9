"""A mean with its interval, as the benchmarks print it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from scipy.stats import t as student_t

__all__ = ["half_width", "interval"]


def half_width(values: Sequence[float]) -> float:
    """Half of the 95% interval of the mean (Student's t), of two values or more."""
    return float(student_t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))


def interval(values: Sequence[float], *, signed: bool = False, digits: int = 2) -> str:
    """Mean and 95% interval in percent."""
    shown = f"{100 * statistics.fmean(values):{'+' if signed else ''}.{digits}f}"
    return shown if len(values) < 2 else f"{shown} ± {100 * half_width(values):.{digits}f}"
