"""Limits of percentiles, against scipy's binomial, brute force and simulated measurements."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from tutelage.devices.quantiles import effective_samples, least_samples, quantile_interval, samples_to_decide

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]

CALLS: dict[str, Draw] = {
    "lognormal": lambda rng, shape: 0.1 * rng.standard_normal(shape),
    "heavy tail": lambda rng, shape: 0.06 * rng.standard_t(3, shape),
}
"""Logarithms of the durations of calls."""


def measured(calls: str, between: float, rounds: int, each: int, repeats: int) -> tuple[np.ndarray, float]:
    """So many measurements `[repeats, rounds, calls]`, and the true 95th percentile; rounds shift by `between`."""
    rng = np.random.default_rng(11)
    many = between * rng.standard_normal(1_000_000) + CALLS[calls](rng, (1_000_000,))
    shifts = between * rng.standard_normal((repeats, rounds, 1))
    return np.exp(shifts + CALLS[calls](rng, (repeats, rounds, each))), float(np.exp(np.quantile(many, 0.95)))


@pytest.mark.parametrize("calls", CALLS)
@pytest.mark.parametrize("between", [0.0, 0.05])
@pytest.mark.parametrize(("rounds", "each"), [(15, 10), (10, 200), (30, 5), (10, 20), (40, 5)])
def test_the_interval_of_p95_covers_it_in_95_of_100_measurements_and_a_limit_at_it_passes_in_2(
    calls: str, between: float, rounds: int, each: int
) -> None:
    """Catches resampling of rounds, which can't exceed the largest sample, and calls counted as if independent."""
    samples, true = measured(calls, between, rounds, each, repeats=700)
    found = [quantile_interval(sample, 0.95) for sample in samples]
    passes = np.mean([x.high is not None and x.high < true for x in found])
    fails = np.mean([x.low is not None and x.low > true for x in found])
    both = [x.low <= true <= x.high for x in found if x.low is not None and x.high is not None]
    # 2.5% on each side; three standard deviations of a share of 700 are 1.8 points.
    assert passes < 0.043 and fails < 0.043, (passes, fails)
    assert 0.93 < 1 - passes - fails < 0.985
    assert np.mean(both) > 0.95 - 3 * math.sqrt(0.95 * 0.05 / len(both)), (np.mean(both), len(both))
    if between == 0 or rounds == 40:
        assert len(both) > 0.9 * len(found)


@pytest.mark.parametrize("between", [0.1, 0.2])
def test_rounds_that_differ_as_much_as_calls_or_more_do_not_make_a_limit_at_p95_pass(between: float) -> None:
    """Catches a design effect that is read off the few slow rounds that happened to come up."""
    for rounds, each in ((10, 200), (15, 200), (40, 25)):
        samples, true = measured("lognormal", between, rounds, each, repeats=300)
        found = [quantile_interval(sample, 0.95) for sample in samples]
        assert np.mean([x.high is not None and x.high < true for x in found]) < 0.05


@pytest.mark.parametrize(("rounds", "each"), [(5, 1), (15, 1), (71, 1), (5, 10), (1, 500), (2, 100)])
def test_too_few_calls_or_rounds_have_no_upper_limit_whatever_they_show(rounds: int, each: int) -> None:
    samples = np.random.default_rng(0).lognormal(0.0, 0.1, size=(rounds, each))
    found = quantile_interval(samples, 0.95)
    assert found.high is None
    assert found.value == pytest.approx(np.percentile(samples, 95))


def test_a_hundred_equal_calls_have_an_interval_and_it_is_that_call() -> None:
    found = quantile_interval([[2.0] * 10] * 10, 0.95)
    assert (found.low, found.value, found.high) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize(("p", "count"), [(0.95, 72), (0.95, 100), (0.95, 1000), (0.5, 6), (0.5, 25), (0.9, 60)])
def test_of_independent_samples_the_limits_lie_between_the_order_statistics_that_the_binomial_gives(
    p: float, count: int
) -> None:
    """Catches a limit one place off: its confidence would be that of the next order statistic."""
    ordered = np.arange(1.0, count + 1)
    found = quantile_interval(ordered[:, None], p)
    assert found.low is not None and found.high is not None
    # P(X_(k) > quantile) = P(fewer than k of them at or below it)
    above = {k: stats.binom.cdf(k - 1, count, p) for k in range(count + 1)}
    upper = min(k for k, chance in above.items() if chance >= 0.975)
    lower = max(k for k, chance in above.items() if 1 - chance >= 0.975 and k)
    assert upper - 1 < found.high <= upper
    assert lower <= found.low < lower + 1


def test_72_independent_samples_are_the_least_for_an_upper_limit_of_p95_and_6_for_a_median() -> None:
    assert (least_samples(0.95), least_samples(0.5)) == (72, 6)
    for p, least in ((0.95, 72), (0.5, 6)):
        assert quantile_interval(np.arange(1.0, least + 1)[:, None], p).high is not None
        assert quantile_interval(np.arange(1.0, least)[:, None], p).high is None


@pytest.mark.parametrize("rounds", [6, 8, 15, 40])
def test_the_interval_of_a_median_of_rounds_covers_it_in_95_of_100(rounds: int) -> None:
    """Catches the bootstrap of a median of few rounds, whose 95% interval covers it in 85 of 100 (of 6)."""
    rng = np.random.default_rng(5)
    skewed = rng.lognormal(0.0, 0.3, size=(3000, rounds, 1))
    found = [quantile_interval(sample, 0.5) for sample in skewed]
    covered = np.mean([x.low <= 1.0 <= x.high for x in found if x.low is not None and x.high is not None])
    assert 0.935 < covered < 0.972  # 95%, and four standard deviations


def test_rounds_of_like_calls_are_worth_about_as_many_samples_as_there_are_rounds() -> None:
    rng = np.random.default_rng(1)
    apart, alike = rng.lognormal(size=(60, 1)), rng.lognormal(sigma=1e-6, size=(60, 40))
    assert effective_samples(apart * alike, 0.95) < 62
    assert effective_samples(rng.lognormal(size=(60, 40)), 0.95) > 1500
    assert effective_samples(apart, 0.95) == 60


def test_durations_that_a_clock_could_not_tell_from_zero_are_no_error() -> None:
    with np.errstate(all="raise"):
        found = quantile_interval([[0.0] * 20, [0.0] * 19 + [1.0]] * 10, 0.95)
    assert found.value == 0.0 and found.low == 0.0


def test_so_many_more_samples_do_decide_and_a_few_more_do_not() -> None:
    rng = np.random.default_rng(2)

    def calls(count: int) -> np.ndarray:
        """Evenly spread, in an order without rounds."""
        return rng.permutation((np.arange(count) + 0.5) / count)[:, None]

    # 97% of all calls are within the limit: n > z² 0.95 0.05 / 0.02² independent calls, from the textbook's formula.
    more = samples_to_decide(calls(200), 0.95, 0.97)
    assert more == math.ceil(1.959964**2 * 0.95 * 0.05 / 0.02**2) - 200
    enough, few = (quantile_interval(calls(count), 0.95) for count in (int(1.15 * (200 + more)), 300))
    assert enough.high is not None and few.high is not None
    assert enough.high < 0.97 < few.high
    assert samples_to_decide(calls(20), 0.95, 2.0) == 72 - 20  # every call is within: no fewer have a limit at all
    assert samples_to_decide(calls(200), 0.95, 0.95) is None
    assert samples_to_decide(calls(20), 0.95, 0.8) == 1  # beyond it: failing takes fewer, n > 1.96² 0.0475 / 0.15²
