"""Intervals of skewed metrics hold: a small part of `benchmarks/coverage.py`."""

from __future__ import annotations

import numpy as np
import pytest
from coverage_case import MAKERS, Cell, simulate

from tutelage.evaluation.intervals import value_interval
from tutelage.evaluation.metrics import TASKS
from tutelage.evaluation.metrics.base import Mean
from tutelage.evaluation.metrics.embedding import HUMAN
from tutelage.evaluation.results import Estimate
from tutelage.evaluation.statistics import draw, evaluate


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


def of_groups(count: int, seed: int) -> Estimate:
    """The share of right rows in large groups that differ: log-odds of 3 with a deviation of 2 between groups."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(count), 40)
    right = rng.random(len(groups)) < 1 / (1 + np.exp(-3 - 2 * rng.normal(size=count)))[groups]
    (drawn,) = draw([Mean(right.astype(float))], len(right), 300, seed=seed, groups=groups)
    found = value_interval(drawn, bounds=(0, 1), share=True, confidence=0.95)
    assert found is not None
    return found


def test_a_share_of_rows_in_few_large_groups_does_not_pass_falsely() -> None:
    """A percentile interval, and one by Student's t, end above the truth in 6% and 12% of such samples of 20 groups."""
    draws = np.random.default_rng(0).normal(size=400_000)
    truth = float(np.mean(1 / (1 + np.exp(-3 - 2 * draws))))
    found = [of_groups(20, seed) for seed in range(250)]
    assert not any(estimate.reservation for estimate in found)
    share = float(np.mean([estimate.low > truth for estimate in found]))
    assert share <= 0.045, share


def test_rows_of_one_group_have_no_interval() -> None:
    right = np.arange(40.0) % 2
    (drawn,) = draw([Mean(right)], 40, 50, seed=0, groups=np.zeros(40, dtype=np.int64))
    assert value_interval(drawn, bounds=(0, 1), share=True, confidence=0.95) is None


@pytest.mark.parametrize("count", [2, 6, 11])
def test_of_fewer_groups_nothing_is_known_to_hold(count: int) -> None:
    assert f"{count} groups are too few" in of_groups(count, 0).reservation


@pytest.mark.parametrize("task", list(MAKERS))
def test_every_metric_that_a_policy_may_name_is_simulated(task: str) -> None:
    evidence = MAKERS[task]("moderate", np.random.default_rng(0), 60, False)
    names = {result.name.split(":")[0] for result in evaluate(evidence, resamples=20, costly_resamples=20)}
    known = (HUMAN,) if task == "human" else TASKS[task].DESCRIPTIONS  # type: ignore[index]
    # A row has one value here: margins between values of a row are left to regression's other metrics.
    assert names == {about.name for about in known if not about.needs_several}
