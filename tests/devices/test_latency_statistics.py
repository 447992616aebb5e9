"""Percentiles and ratios, against numpy and brute force."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from tutelage.devices.cost import Cost, ModelCost
from tutelage.devices.quantiles import Interval
from tutelage.devices.statistics import latency_of, ratio_of, recomputed


def test_percentiles_are_those_of_all_calls_not_means_of_rounds() -> None:
    samples = np.random.default_rng(3).lognormal(1.0, 0.7, size=(8, 37))
    found = latency_of("torch", 4, samples.tolist())
    assert (found.form, found.batch) == ("torch", 4)
    for value, q in ((found.p50_ms, 50), (found.p95_ms, 95), (found.p99_ms, 99)):
        assert value == pytest.approx(np.percentile(samples.ravel(), q))
    np.testing.assert_allclose(found.samples_ms, samples, atol=1e-6)


def test_a_sixth_of_the_rounds_slow_is_no_upper_limit_however_many_calls_they_have() -> None:
    # All calls of a round are alike: calls are not independent, and only 6 rounds speak.
    samples = np.repeat(np.array([1.0, 1.1, 1.2, 5.0, 1.0, 1.1])[:, None], 100, axis=1)
    found = latency_of("torch", 1, samples.tolist())
    assert found.p95_high_ms is None
    assert found.p95_low_ms is not None and found.p95_low_ms < 5.0 == found.p95_ms


def test_what_is_stored_is_what_was_judged_to_the_last_bit() -> None:
    """Catches an interval of the samples before they are rounded, which a stranger could not make again."""
    samples = np.random.default_rng(5).gamma(4.0, 1.0, size=(12, 30)).tolist()
    found = latency_of("torch", 1, samples, [1.23456789] * 12)
    student = ModelCost(name="student", parameters=1, embedding_parameters=0, size_bytes=4, latencies=[found])
    cost = Cost(device={}, rounds=12, models={"student": student})
    assert recomputed(Cost.from_dict(json.loads(json.dumps(cost.to_dict())))) == cost


def test_an_interval_in_the_record_that_does_not_follow_from_its_samples_is_not_believed() -> None:
    samples = np.random.default_rng(5).gamma(4.0, 1.0, size=(12, 30)).tolist()
    honest = latency_of("torch", 1, samples)
    forged = replace(honest, p95_ms=0.1, p95_low_ms=0.1, p95_high_ms=0.1)
    model = ModelCost(name="student", parameters=1, embedding_parameters=0, size_bytes=4, latencies=[forged])
    bare = replace(model, latencies=[replace(forged, samples_ms=[])])
    cost = Cost(device={}, rounds=12, models={"student": model}, ratios={"torch/1": Interval(value=0.1, low=0, high=1)})
    assert recomputed(cost).models["student"].latencies == [honest] and recomputed(cost).ratios == {}
    assert recomputed(replace(cost, models={"student": bare})).models["student"].latencies == []


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
    assert found.value == pytest.approx(expected)
    assert found.low is not None and found.high is not None
    assert 0.249 < found.low <= found.value <= found.high < 0.251


def test_one_disturbed_round_does_not_move_the_ratio() -> None:
    found = ratio_of([[1.0]] * 8 + [[50.0]], [[2.0]] * 9)
    assert (found.low, found.value, found.high) == (0.5, 0.5, 0.5)


def test_five_rounds_give_no_interval_of_a_ratio() -> None:
    """Catches a bootstrap of five rounds, whose ends are two of the five."""
    five, six = (ratio_of([[1.0 + 0.01 * i] for i in range(n)], [[2.0]] * n) for n in (5, 6))
    assert (five.low, five.high) == (None, None)
    assert six.low is not None and 0.5 <= six.low < six.value


BUSY = {
    "teacher": latency_of("torch", 1, [[100.0]] * 20, [30.0] * 20),
    "student": latency_of("torch", 1, [[0.31]] * 20, [0.9] * 20),
}


def busy(disturbed: int, **cpu: list[float]) -> Cost:
    models = {
        name: ModelCost(
            name=name,
            parameters=1,
            embedding_parameters=0,
            size_bytes=4,
            latencies=[replace(timed, cpu_ms=cpu.get(name, timed.cpu_ms))],
        )
        for name, timed in BUSY.items()
    }
    return recomputed(Cost(device={}, rounds=20, models=models, disturbed={"torch/1": disturbed}))


def test_on_a_machine_that_stays_busy_the_ratio_is_the_worse_of_wall_and_cpu_time() -> None:
    """Catches a call shorter than a time slice that escapes what the teacher's long one suffers: 0.0031 for 0.03."""
    for disturbed, value, high in ((0, 0.0031, 0.0031), (5, 0.0031, 0.0031), (6, 0.03, 0.03), (20, 0.03, 0.03)):
        found = busy(disturbed).ratio("torch", 1)
        assert found is not None
        assert (found.value, found.low, found.high) == pytest.approx((value, 0.0031, high)), disturbed


def test_a_busy_machine_without_cpu_times_gives_no_interval_of_the_ratio() -> None:
    for cpu in ({"teacher": [], "student": []}, {"teacher": [0.0] * 20}):
        found = busy(20, **cpu).ratio("torch", 1)
        assert found is not None and (found.value, found.low, found.high) == (pytest.approx(0.0031), None, None)


def test_a_record_of_an_earlier_version_loads_without_cpu_times() -> None:
    stored = busy(0).to_dict()
    for name in ("cpu_ratios", "disturbed"):
        del stored[name]
    for model in stored["models"].values():
        for timed in model["latencies"]:
            del timed["cpu_ms"]
    cost = Cost.from_dict(stored)
    assert cost.ratio("torch", 1) == cost.ratios["torch/1"] and cost.cpu_ratios == {}
