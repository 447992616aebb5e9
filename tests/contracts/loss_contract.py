"""The losses of the package and their cases, as the contract suites walk over them.

Losses are found by walking the package, their cases by the name of their module: `tests/losses/test_<module>.py` has to
give `CASES` (see `tests/losses/loss_case.py`).
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from loss_case import Array, Case, Numbers, Plain

from tutelage.losses import Loss, all_losses

LOSSES = all_losses()


def cases_of(kind: type[Loss]) -> dict[str, Case]:
    """The cases that the test file of a loss's module gives for it."""
    try:
        module = importlib.import_module(f"test_{kind.__module__.rpartition('.')[2]}")
    except ModuleNotFoundError:
        return {}
    return {name: case for name, case in getattr(module, "CASES", {}).items() if type(case.make()) is kind}


def plain_of(kind: type[Loss]) -> dict[str, Plain]:
    """The plain expressions that the test file of a loss's module gives for it."""
    module = importlib.import_module(f"test_{kind.__module__.rpartition('.')[2]}")
    return {name: plain for name, plain in getattr(module, "PLAIN", {}).items() if type(plain.make()) is kind}


CASES = {f"{kind.__name__}-{name}": case for kind in LOSSES.values() for name, case in cases_of(kind).items()}
FIRST = {kind.__name__: case for kind in LOSSES.values() for case in list(cases_of(kind).values())[:1]}


def cases(chosen: Callable[[Case], bool] = lambda _: True) -> pytest.MarkDecorator:
    """Runs a test on the chosen cases."""
    picked = {name: case for name, case in CASES.items() if chosen(case)}
    return pytest.mark.parametrize("case", picked.values(), ids=picked.keys())


def per_sample(case: Case) -> bool:
    return case.make().per_sample


def numerical_gradient(case: Case, numbers: Numbers, array: Array, step: float = 1e-5) -> Array:
    """Central differences of the golden objective by each element of `array`, which is one of `numbers`."""
    gradient = np.zeros_like(array)
    for index in np.ndindex(*array.shape):
        kept = array[index]
        array[index] = kept + step
        above = case.total(numbers)
        array[index] = kept - step
        gradient[index] = (above - case.total(numbers)) / (2 * step)
        array[index] = kept
    return gradient


def part(numbers: Numbers, rows: slice) -> Numbers:
    """Some rows of the numbers."""

    def of(value: object) -> object:
        if isinstance(value, dict):
            return {name: array[rows] for name, array in value.items()}
        return value[rows] if isinstance(value, np.ndarray) else value

    changed = {f.name: of(getattr(numbers, f.name)) for f in dataclasses.fields(numbers) if f.name != "trained"}
    return replace(numbers, **changed)
