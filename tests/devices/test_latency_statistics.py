"""Percentiles and ratios, against numpy and brute force."""

from __future__ import annotations

import numpy as np
import pytest

from tutelage.devices.statistics import latency_of, ratio_of


def test_percentiles_are_those_of_all_calls_not_means_of_rounds() -> None:
    samples = np.random.default_rng(3).lognormal(1.0, 0.7, size=(8, 37))
    found = latency_of("torch", 4, samples.tolist())
    assert (found.form, found.batch) == ("torch", 4)
    for value, q in ((found.p50_ms, 50), (found.p95_ms, 95), (found.p99_ms, 99)):
        assert value == pytest.approx(np.percentile(samples.ravel(), q))
    np.testing.assert_allclose(found.samples_ms, samples, atol=1e-6)


def test_the_interval_resamples_rounds_not_calls() -> None:
    # All calls of a round are alike: calls are not independent, and only 6 rounds speak.
    samples = np.repeat(np.array([1.0, 1.1, 1.2, 5.0, 1.0, 1.1])[:, None], 100, axis=1)
    found = latency_of("torch", 1, samples.tolist())
    assert found.p95_high_ms == pytest.approx(5.0)
    # A sixth of the rounds is slow; (5/6)^6 = 33% of the resamples don't have it, and end at 1.2 or below.
    assert found.p95_low_ms <= 1.2


def test_the_interval_of_p95_agrees_with_a_bootstrap_written_apart() -> None:
    samples = np.random.default_rng(5).gamma(4.0, 1.0, size=(12, 30))
    rng = np.random.default_rng(99)
    values = [np.percentile(samples[rng.integers(0, 12, 12)], 95) for _ in range(4000)]
    found = latency_of("torch", 1, samples.tolist())
    assert found.p95_low_ms == pytest.approx(np.percentile(values, 2.5), rel=0.03)
    assert found.p95_high_ms == pytest.approx(np.percentile(values, 97.5), rel=0.03)


def test_rounds_may_have_different_numbers_of_calls() -> None:
    found = latency_of("torch", 1, [[1.0, 2.0, 3.0], [4.0]])
    assert found.p50_ms == pytest.approx(2.5)


def test_what_slows_a_round_for_both_models_cancels_in_the_ratio() -> None:
    rng = np.random.default_rng(0)
    drift = np.linspace(1.0, 10.0, 9)[:, None]
    teacher = drift * rng.normal(8.0, 0.01, size=(9, 21))
    student = drift * rng.normal(2.0, 0.01, size=(9, 41))
    found = ratio_of(student.tolist(), teacher.tolist())
    expected = np.median(np.median(student, axis=1) / np.median(teacher, axis=1))
    assert found["value"] == pytest.approx(expected)
    assert 0.249 < found["low"] <= found["value"] <= found["high"] < 0.251


def test_one_disturbed_round_does_not_move_the_ratio() -> None:
    found = ratio_of([[1.0]] * 8 + [[50.0]], [[2.0]] * 9)
    assert found["value"] == 0.5
