"""Settings that several teachers have: checked when a teacher is loaded, also for those that no recipe has typed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tutelage.errors import ModelError, did_you_mean

__all__ = ["require_choice", "require_sharpness", "require_threads"]


def require_choice(key: str, value: object, choices: Sequence[str]) -> None:
    """Raises a `ModelError` if a setting is none of its choices."""
    if value not in choices:
        raise ModelError(
            key, expected=f"one of {', '.join(choices)}", found=f"{value!r}", mend=did_you_mean(str(value), choices)
        )


def require_threads(threads: int | None) -> None:
    """Raises a `ModelError` if a number of threads is none."""
    if threads is not None and threads < 1:
        raise ModelError(
            "teacher.threads",
            expected="at least 1",
            found=str(threads),
            mend="leave it out for the library's own choice",
        )


def require_sharpness(sharpness: float) -> None:
    """Raises a `ModelError` if the sharpness of a gate is not a number of at least 0."""
    if not 0 <= sharpness < math.inf:
        raise ModelError(
            "teacher.gate.sharpness",
            expected="a finite number of at least 0",
            found=str(sharpness),
            harm="the least sure member would count most, or no mean would be a number",
        )
