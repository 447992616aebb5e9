"""Intervals of skewed metrics hold: a small part of `benchmarks/coverage.py`."""

from __future__ import annotations

import numpy as np
import pytest
from coverage_case import MAKERS, Cell, simulate

from tutelage.evaluation.metrics import TASKS
from tutelage.evaluation.metrics.embedding import HUMAN
from tutelage.evaluation.statistics import evaluate


@pytest.mark.parametrize(
    ("cell", "names", "runs"),
    [
        # Behind each: how often the percentile interval let a gate at its limit pass.
        (Cell("regression", "moderate", True, 40), ("rmse", "mae", "rmse_to_teacher"), 80),  # 10 to 15%
        (Cell("regression", "sure", False, 40), ("rmse", "r2", "correlation"), 80),  # 54 to 59%
        (Cell("regression", "heavy", False, 200), ("rmse", "r2", "correlation"), 80),  # 16 to 22%
        (Cell("classification", "sure", False, 40), ("nll", "kl", "brier"), 80),  # 52 to 63%
        (Cell("classification", "heavy", False, 200), ("nll", "kl"), 80),  # 16 to 22%
        (Cell("multilabel", "sure", False, 40), ("kl", "agreement"), 80),
    ],
    ids=lambda x: "-".join(map(str, vars(x).values())) if isinstance(x, Cell) else "",
)
def test_a_gate_at_its_limit_passes_as_rarely_as_it_says(cell: Cell, names: tuple[str, ...], runs: int) -> None:
    found = simulate(cell, runs, resamples=250, only=names, population=40_000)
    assert {f.name for f in found} >= set(names)
    assert [(f.name, f.passed, f.missed) for f in found if f.excess()] == []


def test_moderate_errors_of_many_rows_make_no_reservation_and_intervals_no_longer_than_they_must_be() -> None:
    for task, names in (("regression", ("rmse", "mae", "r2")), ("classification", ("nll", "kl", "brier"))):
        for f in simulate(Cell(task, "moderate", False, 2000), 15, resamples=250, only=names, population=40_000):
            assert (f.reserved, f.width < 1.5) == (0, True) or f.name.startswith(("rmse", "r2")), f
            assert f.reserved <= 0.3 and f.width < 2.2, f


@pytest.mark.parametrize("task", list(MAKERS))
def test_every_metric_that_a_policy_may_name_is_simulated(task: str) -> None:
    evidence = MAKERS[task]("moderate", np.random.default_rng(0), 60, False)
    names = {result.name.split(":")[0] for result in evaluate(evidence, resamples=20, costly_resamples=20)}
    known = (HUMAN,) if task == "human" else TASKS[task].DESCRIPTIONS  # type: ignore[index]
    # A row has one value here: margins between values of a row are left to regression's other metrics.
    assert names == {about.name for about in known if not about.needs_several}
