"""Which output goes with which label."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import linear_sum_assignment

from tutelage.checks.order import assignment, find_order, midranks
from tutelage.evaluation.crossed import at_most


@pytest.mark.parametrize("seed", range(40))
def test_the_assignment_is_the_best_of_all_and_takes_no_column_twice(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(1, 6))
    columns = rows + int(rng.integers(0, 3))
    worth = rng.normal(size=(rows, columns)) if seed % 2 else rng.integers(0, 3, (rows, columns)).astype(float)
    found = assignment(worth)
    best = max(worth[range(rows), list(p)].sum() for p in itertools.permutations(range(columns), rows))
    assert len(set(found.tolist())) == rows
    assert worth[range(rows), found].sum() == pytest.approx(best, abs=1e-12)


def test_the_assignment_of_many_is_that_of_scipy() -> None:
    worth = np.random.default_rng(0).normal(size=(50, 400))
    rows, columns = linear_sum_assignment(worth, maximize=True)
    assert worth[range(50), assignment(worth)].sum() == pytest.approx(worth[rows, columns].sum())


def test_equal_numbers_share_their_rank() -> None:
    columns = np.array([[3.0, 1], [1, 1], [3, 1], [-np.inf, 2]])
    np.testing.assert_array_equal(midranks(columns), np.stack([stats.rankdata(c) for c in columns.T], 1))


def test_probabilities_of_few_right_answers_are_the_binomial_ones() -> None:
    for count, n, chance in [(0, 20, 0.5), (3, 20, 0.5), (19, 20, 0.3), (20, 20, 0.3), (-1, 9, 0.2), (40, 200, 0.25)]:
        assert at_most(count, n, chance) == pytest.approx(stats.binom.cdf(count, n, chance), abs=1e-12)
    assert (at_most(0, 5, 0.0), at_most(4, 5, 1.0), at_most(5, 5, 1.0)) == (1.0, 0.0, 1.0)


def test_perfect_answers_in_another_order_are_sure_although_they_do_not_vary() -> None:
    labels = np.repeat(np.eye(2), 10, axis=0)
    fit = find_order(labels, labels[:, ::-1])
    assert fit.permuted and fit.order.tolist() == [1, 0] and len(fit.turned) == 2
    same = find_order(labels, labels)
    assert not same.better and same.informed and same.order.tolist() == [0, 1] and not len(same.turned)


def test_outputs_that_say_nothing_move_no_label_surely() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        fit = find_order(np.eye(5)[rng.integers(0, 5, 200)], rng.normal(size=(200, 5)))
        assert not fit.better
    constant = find_order(np.eye(3)[np.arange(30) % 3], np.zeros((30, 3)))
    assert constant.order.tolist() == [0, 1, 2] and not constant.informed
