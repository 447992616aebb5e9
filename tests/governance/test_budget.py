"""Limits of a budget: what is judged, in which form, and when the calls are too few or were disturbed."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import pytest
from costs import COST, TORCH, beside, changed, latency, parity

from tutelage.devices.cost import Cost, Latency
from tutelage.devices.quantiles import Interval
from tutelage.devices.statistics import latency_of
from tutelage.governance.policy import Budget
from tutelage.governance.verdict import judge


@pytest.mark.parametrize(
    ("budget", "export", "outcome", "value"),
    [
        (Budget(latency_p95_ms=4.5), True, "PASS", 4.0),
        (Budget(latency_p95_ms=4.05), True, "INCONCLUSIVE", 4.0),
        (Budget(latency_p95_ms=3.4), True, "FAIL", 4.0),
        (Budget(latency_p95_ms=9.0), False, "PASS", 8.0),
        (Budget(latency_p95_ms=5.0, form="torch"), True, "FAIL", 8.0),
        (Budget(latency_p95_ms=100, batch=32), True, "PASS", 60.0),
        (Budget(latency_p95_ms=100, batch=8), True, "INCONCLUSIVE", None),
        (Budget(size_mb=20), False, "PASS", 20.0),
        (Budget(size_mb=19.9), False, "FAIL", 20.0),
        (Budget(peak_memory_mb=150), True, "PASS", 100.0),
        (Budget(peak_memory_mb=150), False, "FAIL", 200.0),
        (Budget(latency_vs_teacher=0.6), False, "PASS", 0.5),
        (Budget(latency_vs_teacher=0.5), False, "INCONCLUSIVE", 0.5),
        (Budget(latency_vs_teacher=0.4), False, "FAIL", 0.5),
        (Budget(latency_vs_teacher=0.6, form="onnxruntime"), True, "INCONCLUSIVE", None),
    ],
)
def test_budget_truth_table(budget: Budget, export: bool, outcome: str, value: float | None) -> None:
    verdict = judge([], COST, [], budget, {"onnx": parity(True) if export else None})
    gate = verdict.gates[0]
    assert (gate.outcome, gate.kind) == (outcome, "budget")
    assert gate.value == (value if value is None else pytest.approx(value, rel=0.01))
    assert verdict.verdict == outcome
    assert outcome in gate.explanation


def test_a_teacher_of_another_library_is_judged_in_the_form_that_both_share_and_the_verdict_names_it() -> None:
    for form in ("from raw columns", "from tensors"):
        ours = [latency(form, 1, 3.0), latency(form, 32, 9.0)]
        theirs = [beside(ours[0], slower=1 / 0.3), beside(ours[1], slower=10)]
        found = changed(student={"latencies": [TORCH, *ours]}, teacher={"latencies": theirs})
        (gate,) = judge([], found, [], Budget(latency_vs_teacher=0.301), {"onnx": None}).gates
        assert gate.outcome == "INCONCLUSIVE" and gate.value == pytest.approx(0.3, rel=0.01)
        assert f"(batch 1, {form})" in gate.explanation
        (other,) = judge([], found, [], Budget(latency_vs_teacher=0.35, batch=8), None).gates
        (named,) = judge([], found, [], Budget(latency_vs_teacher=0.35, form="torch"), None).gates
        assert other.value is None and named.value is None  # another batch, another form: no evidence
        (own,) = judge([], found, [], Budget(latency_p95_ms=9), None).gates
        assert "torch" in own.explanation and own.value == pytest.approx(8.0, rel=0.01)
        both = changed(student={"latencies": [TORCH, *ours]}, teacher={"latencies": [beside(TORCH, slower=2), *theirs]})
        (gate,) = judge([], both, [], Budget(latency_vs_teacher=0.9), None).gates
        assert gate.value == pytest.approx(0.5, rel=0.01)  # the form that the other limits are judged in comes first


def test_a_ratio_that_is_there_in_torch_alone_is_judged_there_and_said_to_be() -> None:
    """Catches a verdict of "not measured" after a full run, because the teacher's own ONNX export had failed."""
    exported = {"onnx": parity(True)}
    (gate,) = (x for x in judge([], COST, [], Budget(latency_vs_teacher=0.6), exported).gates if x.kind == "budget")
    assert gate.outcome == "PASS" and gate.value == pytest.approx(0.5, rel=0.01)
    assert "not measured in onnxruntime, so it is judged in torch" in gate.explanation
    (own,) = (x for x in judge([], COST, [], Budget(latency_p95_ms=5), exported).gates if x.kind == "budget")
    assert "(batch 1, onnxruntime)" in own.explanation and "judged in" not in own.explanation
    named = Budget(latency_vs_teacher=0.6, form="onnxruntime")
    (gate,) = (x for x in judge([], COST, [], named, exported).gates if x.kind == "budget")
    assert gate.outcome == "INCONCLUSIVE"
    assert "In torch it is 0.5: with `budget.form: torch` that would be judged." in gate.explanation


def test_a_runtime_that_lacks_the_device_leaves_the_other_to_be_judged() -> None:
    """Catches a p95 and a peak memory "not measured" on CUDA, where ONNX Runtime was installed for the CPU alone."""
    found = changed(student={"latencies": [TORCH], "peak_memory_bytes": {"torch": 200_000_000}})
    budget = Budget(latency_p95_ms=9, peak_memory_mb=250)
    gates = [x for x in judge([], found, [], budget, {"onnx": parity(True)}).gates if x.kind == "budget"]
    assert [gate.outcome for gate in gates] == ["PASS", "PASS"]
    assert all("judged in torch" in gate.explanation for gate in gates)


def few(p95: float, *, rounds: int, calls: int) -> Cost:
    return changed(student={"latencies": [latency("torch", 1, p95, rounds=rounds, calls=calls)]})


@pytest.mark.parametrize(
    ("limit", "outcome", "told"),
    [
        (100.0, "INCONCLUSIVE", "about 57 more timed calls, in further rounds"),  # 72 are the least
        (8.0, "INCONCLUSIVE", "measure.seconds"),
        (2.0, "FAIL", "FAIL"),  # every one of 15 calls is above
    ],
)
def test_fifteen_calls_can_fail_a_limit_on_p95_and_can_not_pass_one(limit: float, outcome: str, told: str) -> None:
    """Catches a PASS of 15 calls, whose largest lies below the true p95 in 46 of 100 measurements."""
    gate = judge([], few(8.0, rounds=15, calls=15), [], Budget(latency_p95_ms=limit), None).gates[0]
    assert (gate.outcome, gate.high) == (outcome, None)
    assert told in gate.explanation and "no upper end" in gate.explanation
    assert gate.more_samples == (57 if limit == 100.0 else gate.more_samples)
    json.dumps(asdict(gate), allow_nan=False)


def test_a_slow_round_in_ten_leaves_no_upper_end_and_says_how_many_calls_would_give_one() -> None:
    rounds = [[8.0 + 0.01 * i for i in range(20)]] * 14 + [[80.0 + i for i in range(20)]]
    found = changed(student={"latencies": [latency_of("torch", 1, rounds)]})
    gate = judge([], found, [], Budget(latency_p95_ms=500), None).gates[0]
    assert gate.outcome == "INCONCLUSIVE" and gate.more_samples is not None and gate.more_samples > 300


def test_stored_numbers_that_do_not_follow_from_the_samples_judge_nothing() -> None:
    """Catches a bundle whose p95, interval or ratio was edited: the verdict is made of the calls."""
    lies = replace(TORCH, p95_ms=0.1, p95_low_ms=0.1, p95_high_ms=0.1)
    ratio = {"torch/1": Interval(value=0.01, low=0.01, high=0.01)}
    found = replace(changed(student={"latencies": [lies]}), ratios=ratio)
    gates = judge([], found, [], Budget(latency_p95_ms=5, latency_vs_teacher=0.1), None).gates
    assert [gate.outcome for gate in gates] == ["FAIL", "FAIL"]
    bare = changed(student={"latencies": [replace(lies, samples_ms=[])]})
    (gate,) = judge([], bare, [], Budget(latency_p95_ms=5), None).gates
    assert (gate.outcome, gate.value) == ("INCONCLUSIVE", None)


def disturbed(kept: int, *, cpu: bool = True) -> Cost:
    """A student of 0.3 ms that escapes other work, and a teacher of 30 ms that it makes three times as slow."""

    def timed(wall: float, own: float) -> Latency:
        return latency_of("torch", 1, [[wall] * 10] * 20, [own] * 20 if cpu else ())

    return replace(
        changed(student={"latencies": [timed(0.3, 0.9)]}, teacher={"latencies": [timed(90.0, 30.0)]}),
        disturbed={"torch/1": kept},
        device={"threads": 1},
    )


@pytest.mark.parametrize(
    ("kept", "cpu", "limit", "outcome"),
    [
        (0, True, 0.01, "PASS"),  # quiet: by wall time 0.0033
        (20, True, 0.01, "INCONCLUSIVE"),  # by CPU time 0.03
        (20, True, 0.04, "PASS"),
        (20, True, 0.002, "FAIL"),
        (20, False, 0.01, "INCONCLUSIVE"),
        (20, False, 0.5, "INCONCLUSIVE"),
        (20, False, 0.002, "INCONCLUSIVE"),
    ],
)
def test_on_a_busy_machine_a_ratio_passes_by_wall_and_cpu_time_or_not_at_all(
    kept: int, cpu: bool, limit: float, outcome: str
) -> None:
    """Catches a green PASS of a short call beside a long one that other work slowed: 0.0033 for 0.03."""
    gate = judge([], disturbed(kept, cpu=cpu), [], Budget(latency_vs_teacher=limit), None).gates[0]
    assert gate.outcome == outcome
    assert ("shared with other work in 20 of 20 rounds" in gate.explanation) == bool(kept)
    if kept and cpu:
        assert "0.00333 by wall time and 0.03 by CPU time" in gate.explanation


def test_on_a_busy_machine_a_p95_may_pass_and_fails_by_its_cpu_time_alone() -> None:
    """Catches a student that fails a budget because other work was slow: 90 ms of which 30 are its own."""
    busy = disturbed(20)
    slow = replace(busy, models={"student": replace(busy.models["teacher"], name="student")})
    for limit, outcome in ((100.0, "PASS"), (50.0, "INCONCLUSIVE"), (20.0, "FAIL")):
        gate = judge([], slow, [], Budget(latency_p95_ms=limit), None).gates[0]
        assert gate.outcome == outcome and "shared with other work in 20 of 20 rounds" in gate.explanation
    quiet = replace(slow, disturbed={})
    assert judge([], quiet, [], Budget(latency_p95_ms=50), None).gates[0].outcome == "FAIL"
    unknown = replace(disturbed(20, cpu=False), models={"student": replace(disturbed(20, cpu=False).models["teacher"])})
    assert judge([], unknown, [], Budget(latency_p95_ms=20), None).gates[0].outcome == "INCONCLUSIVE"


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_latency_that_is_no_number_is_no_measurement(bad: float) -> None:
    broken = changed(student={"latencies": [replace(TORCH, samples_ms=[[bad] * 400])]})
    (gate,) = judge([], broken, [], Budget(latency_p95_ms=3), None).gates
    assert (gate.outcome, gate.value) == ("INCONCLUSIVE", None)
