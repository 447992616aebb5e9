"""Intervals cover what they promise, on data whose truth is known by construction."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap, t

from tutelage.evaluation.draw import bootstrap_counts, integers, shuffled
from tutelage.evaluation.intervals import Drawn, difference_interval, expansion, value_interval, wilson
from tutelage.evaluation.metrics.base import SHARE, Difference, Mean, OfMeans, RankCorrelation, Statistic
from tutelage.evaluation.metrics.classification import BINS, bin_of
from tutelage.evaluation.results import Estimate
from tutelage.evaluation.statistics import draw
from tutelage.sampling import t_quantile

ANY = (-np.inf, np.inf)
Pair = tuple[Statistic, Statistic]


def drawn(statistics: list[Statistic], seed: int, resamples: int = 300) -> list[Drawn]:
    return draw(statistics, statistics[0].n, resamples, seed=seed)


def difference(pair: Pair, seed: int, *, share: bool = False) -> Estimate:
    a, b, both = drawn([*pair, Difference(*pair)], seed)
    bounds = SHARE if share else ANY
    estimate = difference_interval(a, b, difference=both, bounds=bounds, share=share, confidence=0.95)
    assert estimate is not None
    return estimate


def covered(
    make: Callable[[np.random.Generator], Pair], truth: float, *, share: bool = False, runs: int = 200
) -> float:
    rng = np.random.default_rng(11)
    estimates = [difference(make(rng), seed, share=share) for seed in range(runs)]
    return float(np.mean([e.low <= truth <= e.high for e in estimates]))


def graded(rng: np.random.Generator, n: int = 200) -> Pair:
    """Paired, strongly correlated values; the true difference is -0.1."""
    common = rng.gamma(2.0, size=n)
    return Mean(common - 0.1 + 0.3 * rng.normal(size=n)), Mean(common + 0.3 * rng.normal(size=n))


def flips(rng: np.random.Generator, n: int, lost: float, gained: float) -> Pair:
    u = rng.random(n)
    teacher = (u < lost) | (u > 0.3)
    return Mean(np.where(u < lost, 0, np.where(u < lost + gained, 1, teacher))), Mean(teacher)


def test_paired_interval_covers_a_known_difference_in_95_of_100() -> None:
    assert 0.915 <= covered(graded, -0.1) <= 0.985


def test_pairing_is_used_the_interval_is_shorter_than_of_unpaired_rows() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = graded(rng, 500)
    assert isinstance(theirs, Mean)
    paired = difference((ours, theirs), 0)
    broken = difference((ours, Mean(rng.permutation(theirs.values))), 0)
    assert paired.high - paired.low < 0.5 * (broken.high - broken.low)


@pytest.mark.parametrize(("n", "lost", "gained"), [(300, 0.01, 0.0), (300, 0.003, 0.0), (500, 0.03, 0.02)])
def test_few_flips_do_not_make_the_interval_too_sure(n: int, lost: float, gained: float) -> None:
    assert covered(lambda rng: flips(rng, n, lost, gained), gained - lost, share=True) >= 0.93


def test_small_samples_are_covered_too() -> None:
    rng = np.random.default_rng(2)
    hits = 0
    for seed in range(200):
        (mean,) = drawn([Mean(rng.normal(size=6))], seed)
        estimate = value_interval(mean, bounds=ANY, share=False, confidence=0.95)
        assert estimate is not None
        hits += estimate.low <= 0 <= estimate.high
    assert hits / 200 >= 0.92


def calibration(rng: np.random.Generator, n: int, too_sure: float) -> Statistic:
    """The calibration error of a model whose confidence is above its accuracy by `too_sure`."""
    confidence = rng.uniform(0.5, 0.95, n)
    gap = confidence - (rng.random(n) < confidence - too_sure)
    columns = np.eye(BINS)[bin_of(confidence)] * gap[:, None]
    return OfMeans(columns, lambda means: np.abs(means).sum(axis=1), smooth=False)


@pytest.mark.parametrize("too_sure", [0.01, 0.03, 0.2])
def test_calibration_error_near_zero_is_covered_although_its_estimate_is_biased(too_sure: float) -> None:
    rng = np.random.default_rng(4)
    hits = 0
    for seed in range(200):
        (error,) = drawn([calibration(rng, 300, too_sure)], seed)
        estimate = value_interval(error, bounds=SHARE, share=True, confidence=0.95)
        assert estimate is not None
        hits += estimate.low <= too_sure <= estimate.high
    assert hits / 200 >= 0.92


def test_a_perfectly_calibrated_teacher_does_not_make_a_worse_student_look_as_good() -> None:
    rng = np.random.default_rng(6)

    def make(_: np.random.Generator) -> Pair:
        return calibration(rng, 300, 0.08), calibration(rng, 300, 0.0)

    assert covered(make, 0.08, share=True, runs=200) >= 0.93


def test_equal_biases_of_two_models_are_not_taken_to_cancel() -> None:
    value = OfMeans(np.full((1000, 1), 0.2), lambda means: means[:, 0])
    spread = np.random.default_rng(0).normal(scale=0.01, size=(2, 1000))
    biased = [Drawn(value, 0.2 + 0.004 + s - s.mean()) for s in spread]
    unbiased = [Drawn(value, 0.2 + s - s.mean()) for s in spread]
    wide, narrow = (difference_interval(*d, bounds=ANY, share=False, confidence=0.95) for d in (biased, unbiased))
    assert wide is not None
    assert narrow is not None
    reach = 0.004 / (np.sqrt(2) - 1)
    assert narrow.low - wide.low == pytest.approx(reach, rel=1e-6)
    assert wide.high - narrow.high == pytest.approx(reach, rel=1e-6)


def test_pairs_of_rows_are_resampled_by_row_not_as_if_independent() -> None:
    rng = np.random.default_rng(8)

    def pairs(n: int) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
        z = rng.normal(size=(n, 4))
        noisy = z + 0.7 * rng.normal(size=z.shape) * rng.gamma(1.0, size=(n, 1))
        first, second = np.triu_indices(n, 1)
        return (z[first] * z[second]).sum(1), (noisy[first] * noisy[second]).sum(1), (first, second)

    truth = float(np.mean([RankCorrelation(*pairs(300)[:2]).value() for _ in range(20)]))
    by_row, by_pair = [], []
    for seed in range(80):
        x, y, ends = pairs(60)
        judged = [(RankCorrelation(x, y, ends=ends, n=60), by_row)]
        if seed % 4 == 0:  # the naive way is slow, and far off
            judged.append((RankCorrelation(x, y), by_pair))
        for statistic, hits in judged:
            (correlation,) = drawn([statistic], seed, resamples=150)
            estimate = value_interval(correlation, bounds=(-1, 1), share=False, confidence=0.95)
            assert estimate is not None
            hits.append(estimate.low <= truth <= estimate.high)
    assert np.mean(by_row) >= 0.89
    assert np.mean(by_pair) <= 0.75


@pytest.mark.parametrize("same", [0.0, 1.0])
def test_no_flip_in_n_is_no_proof_that_there_are_none(same: float) -> None:
    n = 100
    student = Mean(np.full(n, same))
    estimate = difference((student, student), 0, share=True)
    assert (estimate.low, estimate.value, estimate.high) == (-0.03, 0.0, 0.03)
    (single,) = drawn([student], 0)
    value = value_interval(single, bounds=SHARE, share=True, confidence=0.95)
    assert value is not None
    assert (value.low, value.high) == ((0.0, 0.03) if same == 0 else (0.97, 1.0))


def test_a_single_row_has_no_interval_rather_than_one_of_no_width() -> None:
    (single,) = drawn([Mean(np.array([0.3]))], 0)
    assert value_interval(single, bounds=ANY, share=False, confidence=0.95) is None


def test_large_samples_agree_with_scipys_paired_percentile_bootstrap() -> None:
    ours, theirs = graded(np.random.default_rng(1), 2_000)
    assert isinstance(ours, Mean)
    assert isinstance(theirs, Mean)
    a, b, both = drawn([ours, theirs, Difference(ours, theirs)], 0, resamples=2_000)
    estimate = difference_interval(a, b, difference=both, bounds=ANY, share=False, confidence=0.95)
    assert estimate is not None
    reference = bootstrap(
        (ours.values - theirs.values,), np.mean, n_resamples=2_000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    width = reference.high - reference.low
    assert estimate.low == pytest.approx(reference.low, abs=0.06 * width)
    assert estimate.high == pytest.approx(reference.high, abs=0.06 * width)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 6, 10, 30, 1000])
def test_t_quantile_is_scipys(freedom: int) -> None:
    for p in (0.9, 0.95, 0.975):
        assert t_quantile(p, freedom) == pytest.approx(t.ppf(p, freedom), rel=0.012 if freedom < 6 else 0.001)


def test_expansion_is_what_the_docstring_says() -> None:
    assert [round(expansion(n, 0.95), 2) for n in (10, 40)] == [1.22, 1.05]


@pytest.mark.parametrize(("events", "n"), [(0, 20), (1, 300), (7, 50), (50, 50)])
def test_wilson_is_scipys(events: int, n: int) -> None:
    reference = binomtest(events, n).proportion_ci(method="wilson")
    assert wilson(events / n, n, 0.95) == pytest.approx((reference.low, reference.high), abs=1e-12)


def test_resamples_draw_every_row_equally_often_and_n_rows_each() -> None:
    counts = np.concatenate(list(bootstrap_counts(50, 4_000, seed=3)))
    assert (counts.sum(axis=1) == 50).all()
    # Binomial(50, 1/50): mean 1, variance 0.98.
    assert np.abs(counts.mean(axis=0) - 1).max() < 5 * np.sqrt(0.98 / 4_000)
    assert counts.var() == pytest.approx(0.98, rel=0.02)
    off_diagonal = np.cov(counts.T)[np.triu_indices(50, 1)]
    assert off_diagonal.mean() == pytest.approx(-1 / 50, rel=0.05)


def test_resamples_do_not_depend_on_how_they_are_cut_into_pieces() -> None:
    whole = np.concatenate(list(bootstrap_counts(37, 100, seed=1)))
    pieces = list(bootstrap_counts(37, 100, seed=1, width=1_000_000))
    assert len(pieces) == 25
    assert (np.concatenate(pieces) == whole).all()


def test_draws_are_the_same_for_ever() -> None:
    # Written down: a verdict must come out the same with another version of numpy.
    assert integers(np.random.PCG64(0), 1000, 7).tolist() == [636, 269, 40, 16, 850, 511, 307]
    assert shuffled(8, seed=0).tolist() == [3, 2, 1, 6, 0, 7, 4, 5]
