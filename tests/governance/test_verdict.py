"""Gates and verdicts.

Longer than 400 lines because the rules of a verdict are to be read as one list.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from costs import COST, parity

from tutelage.errors import RecipeError
from tutelage.evaluation.evidence import Evidence
from tutelage.evaluation.results import Estimate, MetricResult
from tutelage.evaluation.statistics import evaluate
from tutelage.governance.outcome import decide
from tutelage.governance.policy import Budget, Gate
from tutelage.governance.requirement import rows_to_decide
from tutelage.governance.verdict import Verdict, judge


def metric(name: str = "accuracy", **changes: Any) -> MetricResult:
    fields: dict[str, Any] = {
        "name": name,
        "title": "Accuracy",
        "kind": "quality",
        "set": "test",
        "higher_is_better": True,
        "unit": "%",
        "n": 1000,
        "models": {
            "teacher": Estimate(value=0.95, low=0.94, high=0.96),
            "student": Estimate(value=0.946, low=0.936, high=0.956),
        },
        "differences": {"student - teacher": Estimate(value=-0.004, low=-0.009, high=0.001)},
        "sd_difference": 0.08,
    }
    return MetricResult(**{**fields, **changes})


def lower(value: float, low: float, high: float, **changes: Any) -> MetricResult:
    difference = Estimate(value=value, low=low, high=high)
    fields = {"higher_is_better": False, "unit": "", "differences": {"student - teacher": difference}, **changes}
    return metric("nll", title="Negative log-likelihood", **fields)


def one(found: MetricResult | None, gate: Gate) -> Any:
    verdict = judge([] if found is None else [found], None, [gate], None, None)
    (result,) = verdict.gates
    assert verdict.verdict == result.outcome
    return result


@pytest.mark.parametrize(
    ("margin", "outcome"),
    [(0.02, "PASS"), (0.009, "PASS"), (0.0089, "INCONCLUSIVE"), (0.004, "INCONCLUSIVE"), (0.0, "INCONCLUSIVE")],
)
def test_non_inferiority_passes_only_with_the_whole_interval_inside(margin: float, outcome: str) -> None:
    result = one(metric(), Gate("accuracy", margin=margin))
    assert result.outcome == outcome
    assert result.threshold == -margin
    assert (result.value, result.low, result.high) == (-0.004, -0.009, 0.001)


def test_a_student_surely_worse_than_the_margin_fails() -> None:
    worse = metric(differences={"student - teacher": Estimate(value=-0.03, low=-0.04, high=-0.02)})
    assert one(worse, Gate("accuracy", margin=0.01)).outcome == "FAIL"
    assert one(worse, Gate("accuracy", margin=0.02)).outcome == "INCONCLUSIVE"


@pytest.mark.parametrize(
    ("ends", "outcome"),
    [((-0.01, 0.02), "PASS"), ((0.0, 0.05), "PASS"), ((0.01, 0.06), "INCONCLUSIVE"), ((0.051, 0.07), "FAIL")],
)
def test_where_lower_is_better_the_margin_is_above_the_teacher(ends: tuple[float, float], outcome: str) -> None:
    result = one(lower(sum(ends) / 2, *ends), Gate("nll", margin=0.05))
    assert (result.outcome, result.threshold) == (outcome, 0.05)
    assert result.requirement == "student - teacher <= 0.05 (95% interval)"


@pytest.mark.parametrize(
    ("at_least", "outcome"), [(0.93, "PASS"), (0.94, "INCONCLUSIVE"), (0.956, "INCONCLUSIVE"), (0.957, "FAIL")]
)
def test_at_least_looks_at_the_students_own_interval(at_least: float, outcome: str) -> None:
    assert one(metric(), Gate("accuracy", at_least=at_least)).outcome == outcome


@pytest.mark.parametrize(("at_most", "outcome"), [(0.3, "PASS"), (0.15, "INCONCLUSIVE"), (0.05, "FAIL")])
def test_at_most_looks_at_the_students_own_interval(at_most: float, outcome: str) -> None:
    found = metric(
        "kl",
        kind="fidelity",
        higher_is_better=False,
        unit="",
        models={"student": Estimate(value=0.15, low=0.1, high=0.2)},
        differences={},
    )
    result = one(found, Gate("kl", at_most=at_most))
    assert (result.outcome, result.kind) == (outcome, "fidelity")


def test_the_explanation_is_a_sentence_with_the_numbers_a_reader_needs() -> None:
    assert one(metric(), Gate("accuracy", margin=0.01)).explanation == (
        "The student's accuracy is 0.40 points below the teacher's (95% interval -0.90 to +0.10); "
        "the policy allows 1.00 points below: PASS."
    )
    assert one(metric(), Gate("accuracy", at_least=0.99)).explanation == (
        "The student's accuracy is 94.60% (95% interval 93.60% to 95.60%); the policy demands at least 99.00%: FAIL."
    )


@pytest.mark.parametrize(
    "found",
    [
        None,
        metric("f1"),
        metric(differences={}),
        metric(differences={"student - teacher": Estimate(value=math.nan, low=math.nan, high=math.nan)}),
        metric(differences={"student - teacher": Estimate(value=0.0, low=-math.inf, high=math.inf)}),
    ],
)
def test_missing_evidence_blocks_and_never_passes(found: MetricResult | None) -> None:
    result = one(found, Gate("accuracy", margin=0.01))
    assert (result.outcome, result.value, result.more_samples) == ("INCONCLUSIVE", None, None)
    assert result.threshold == -0.01
    assert "INCONCLUSIVE" in result.explanation


def test_nothing_stated_is_nothing_judged() -> None:
    for budget in (None, Budget()):
        verdict = judge([metric()], None, [], budget, {"onnx": parity(True)})
        assert (verdict.verdict, verdict.exit_status) == ("INCONCLUSIVE", 3)
        assert verdict.reasons == ["no budget and no policy was stated, so nothing was judged"]


PASSING, FAILING, OPEN = Gate("accuracy", margin=0.02), Gate("accuracy", at_least=0.99), Gate("accuracy", margin=0.005)


@pytest.mark.parametrize(
    ("gates", "verdict", "status"),
    [
        ([PASSING], "PASS", 0),
        ([PASSING, OPEN], "INCONCLUSIVE", 3),
        ([OPEN, FAILING, PASSING], "FAIL", 1),
        ([PASSING, FAILING], "FAIL", 1),
    ],
)
def test_the_worst_gate_decides_and_failure_is_worse_than_doubt(gates: list[Gate], verdict: str, status: int) -> None:
    result = judge([metric()], None, gates, None, None)
    assert (result.verdict, result.exit_status) == (verdict, status)
    blocking = [g.explanation for o in ("FAIL", "INCONCLUSIVE") for g in result.gates if g.outcome == o]
    assert result.reasons == blocking


def test_a_policy_that_makes_no_sense_is_not_judged() -> None:
    with pytest.raises(RecipeError):
        judge([metric()], None, [Gate("accuracy", margin=0.1, at_least=0.5)], None, None)


# --- how many more samples ---


def test_more_samples_is_what_the_wider_of_both_intervals_says() -> None:
    result = one(metric(), Gate("accuracy", margin=0.0085))
    # 1000 · (0.005 / 0.0045)² = 1234.6 from the interval; the textbook's (1.96 · 0.08 / 0.0045)² would be 1214.1
    assert result.more_samples == 1235 - 1000
    assert "inside the limit; about 240 more samples" in result.explanation


def test_more_samples_may_be_needed_to_show_a_failure() -> None:
    result = one(metric(), Gate("accuracy", margin=0.001))
    assert result.outcome == "INCONCLUSIVE"
    assert result.more_samples == math.ceil(1000 * (0.005 / 0.003) ** 2) - 1000
    assert "outside the limit" in result.explanation


def test_a_number_of_rows_that_nobody_will_bring_is_rounded_and_said_to_decide_hardly_anything() -> None:
    """Catches "about 204,082 more samples": six digits of an estimate, and as if that were a plan."""
    result = one(metric(), Gate("accuracy", margin=0.00435))
    assert result.more_samples == math.ceil(1000 * (0.005 / 0.00035) ** 2) - 1000  # 203,082
    assert "more rows will hardly decide it: it would take about 210,000 more samples" in result.explanation
    assert "a wider margin or a student closer to the teacher would." in result.explanation
    unknown = one(metric(sd_difference=None), Gate("accuracy", margin=0.0042))
    assert unknown.more_samples is None and "more rows will hardly decide it; a wider margin" in unknown.explanation
    near = lower(0.0, -0.1, 0.1, models={"student": Estimate(value=0.3, low=0.28, high=0.32)})
    told = one(near, Gate("nll", at_most=0.3001)).explanation
    assert "a limit further from it or a better student would." in told, told


def test_an_estimate_at_the_limit_is_decided_by_no_number() -> None:
    result = one(metric(), Gate("accuracy", margin=0.004))
    assert result.more_samples is None
    assert "no number of samples would decide" in result.explanation


def test_a_metric_without_a_row_deviation_says_that_the_number_is_unknown() -> None:
    result = one(metric(sd_difference=None), Gate("accuracy", margin=0.006))
    assert result.more_samples is None
    # 0.005 from the estimate to the lower end, 0.002 from the estimate to the limit.
    assert "2.5 times as narrow" in result.explanation


def test_an_interval_that_is_longer_to_one_side_promises_rows_for_that_side() -> None:
    skewed = Estimate(value=0.3, low=0.28, high=0.36)
    found = lower(0.0, -0.1, 0.1, models={"student": skewed})
    result = one(found, Gate("nll", at_most=0.33))
    assert result.outcome == "INCONCLUSIVE"
    assert result.more_samples == pytest.approx(1000 * (0.06 / 0.03) ** 2 - 1000, abs=2)
    failing = one(found, Gate("nll", at_most=0.29))
    assert failing.more_samples == pytest.approx(1000 * (0.02 / 0.01) ** 2 - 1000, abs=2)


# --- intervals that make a reservation ---


RESERVED = "3 of 200 rows make up half of the variance"


@pytest.mark.parametrize(
    ("at_most", "outcome"), [(0.5, "INCONCLUSIVE"), (0.2, "INCONCLUSIVE"), (0.15, "INCONCLUSIVE"), (0.05, "FAIL")]
)
def test_no_gate_passes_by_an_interval_with_a_reservation_but_it_may_fail(at_most: float, outcome: str) -> None:
    student = Estimate(value=0.15, low=0.1, high=0.2, reservation=RESERVED)
    result = one(lower(0.0, -0.1, 0.1, models={"student": student}), Gate("nll", at_most=at_most))
    assert result.outcome == outcome
    assert (RESERVED in result.explanation) == (outcome == "INCONCLUSIVE")
    assert f": {outcome}" in result.explanation


def test_a_margin_is_judged_by_the_reservation_of_the_difference_not_of_the_value() -> None:
    sure, unsure = (Estimate(value=0.0, low=-0.01, high=0.01, reservation=of) for of in ("", RESERVED))
    for value, difference, outcome in ((unsure, sure, "PASS"), (sure, unsure, "INCONCLUSIVE")):
        found = metric(models={"student": value}, differences={"student - teacher": difference})
        result = one(found, Gate("accuracy", margin=0.05))
        assert result.outcome == outcome
    assert "a gate on a metric that few rows don't decide" in result.explanation
    assert judge([found], None, [Gate("accuracy", margin=0.05)], None, None).exit_status == 3


def test_no_flips_in_a_hundred_need_three_hundred_for_one_point() -> None:
    none = metric(
        "negative_flips",
        kind="fidelity",
        higher_is_better=False,
        n=100,
        models={"student": Estimate(value=0.0, low=0.0, high=0.03)},
        differences={},
        sd_difference=0.0,
    )
    assert one(none, Gate("negative_flips", at_most=0.01)).more_samples == 200
    perfect = metric(n=100, models={"student": Estimate(value=1.0, low=0.97, high=1.0)})
    assert one(perfect, Gate("accuracy", at_least=0.98)).more_samples == 50


def test_without_an_event_whole_groups_are_needed() -> None:
    none = metric(
        "negative_flips",
        kind="fidelity",
        higher_is_better=False,
        n=500,
        groups=100,
        models={"student": Estimate(value=0.0, low=0.0, high=0.03)},
        differences={},
        sd_difference=0.0,
    )
    result = one(none, Gate("negative_flips", at_most=0.01))
    assert result.more_samples == 1000  # 300 groups of 5, less the 500 rows that are there
    assert "now 500 in 100 groups" in result.explanation


def test_an_absolute_demand_uses_the_students_deviation_not_that_of_the_difference() -> None:
    half = 1.959964 * math.sqrt(0.9 * 0.1 / 1000)
    found = metric(models={"student": Estimate(value=0.9, low=0.9 - half, high=0.9 + half)}, sd_difference=1e-3)
    result = one(found, Gate("accuracy", at_least=0.89))
    assert result.more_samples == pytest.approx(0.09 * (1.959964 / 0.01) ** 2 - 1000, abs=2)


def _without_constant(evidence: Evidence, name: str) -> MetricResult:
    """A metric of evidence whose labels are all the same: a constant would be perfect, which is not asked here."""
    found = next(result for result in evaluate(evidence, resamples=1000) if result.name == name)
    models, differences = (
        {k: v for k, v in x.items() if "constant" not in k} for x in (found.models, found.differences)
    )
    return replace(found, models=models, differences=differences)


def regression(n: int, seed: int) -> MetricResult:
    """Errors of student and teacher whose mean difference is exactly 0.05 in every sample."""
    rng = np.random.default_rng(seed)
    teacher = np.abs(rng.normal(size=n)) + 1
    change = rng.normal(size=n)
    student = teacher + 0.05 + 0.5 * (change - change.mean()) / change.std()
    evidence = Evidence(
        set="test",
        task="regression",
        rows=np.arange(n),
        digests=["d"] * n,
        outputs={"teacher": teacher.astype(np.float32), "student": student.astype(np.float32)},
        labels=np.zeros(n),
        labelled=np.ones(n, bool),
    )
    return _without_constant(evidence, "mae")


def test_that_many_samples_do_decide_and_fewer_do_not() -> None:
    gate = Gate("mae", margin=0.1)
    first = one(regression(200, 0), gate)
    assert first.outcome == "INCONCLUSIVE"
    assert first.more_samples is not None
    needed = 200 + first.more_samples
    assert rows_to_decide(0.5, 0.05, 0.95) == 385
    # The interval that judges is Student's, and the longer of two: by some 3% longer than 1.96 standard errors.
    assert 385 <= needed <= 1.08 * 385
    enough = [one(regression(int(1.15 * needed), seed), gate).outcome for seed in range(1, 9)]
    too_few = [one(regression(int(0.85 * needed), seed), gate).outcome for seed in range(1, 9)]
    assert enough == ["PASS"] * 8
    assert too_few == ["INCONCLUSIVE"] * 8


def answers(n: int, lost: int, gained: int) -> MetricResult:
    """The accuracy of a teacher and a student who differ in these rows; the others both get right."""
    right = {"teacher": np.ones(n, bool), "student": np.ones(n, bool)}
    right["student"][:lost] = right["teacher"][lost : lost + gained] = False
    evidence = Evidence(
        set="test",
        task="classification",
        rows=np.arange(n),
        digests=["d"] * n,
        outputs={model: np.stack([~x, x], 1).astype(np.float32) for model, x in right.items()},
        labels=np.ones(n, np.int64),
        labelled=np.ones(n, bool),
    )
    return _without_constant(evidence, "accuracy")


@pytest.mark.parametrize(("n", "lost", "gained"), [(54, 2, 1), (100, 2, 1), (62, 2, 1)])
def test_a_small_test_with_few_events_is_not_promised_too_few_rows(n: int, lost: int, gained: int) -> None:
    gate = Gate("accuracy", margin=0.05)
    first = one(answers(n, lost, gained), gate)
    assert first.outcome == "INCONCLUSIVE" and first.more_samples is not None
    times = 1 + 1.1 * first.more_samples / n  # a little more than was promised
    more = answers(round(times * n), round(times * lost), round(times * gained))
    assert one(more, gate).outcome == "PASS"


# --- what is decided, and the exported file ---


def test_ends_that_are_not_finite_decide_nothing() -> None:
    for low, high in ((math.nan, 0.1), (-math.inf, 0.1), (0.1, math.nan), (0.1, math.inf)):
        for at_least in (True, False):
            for threshold in (0.05, 0.5):
                assert decide(low, high, threshold, at_least=at_least) == "INCONCLUSIVE"


def test_a_budget_without_measurements_blocks() -> None:
    verdict = judge([], None, [], Budget(size_mb=5, latency_p95_ms=3), None)
    assert [gate.outcome for gate in verdict.gates] == ["INCONCLUSIVE"] * 2
    assert verdict.exit_status == 3


def test_an_export_that_computes_something_else_fails_whatever_was_demanded() -> None:
    for policy in ([], [PASSING]):
        verdict = judge([metric()], None, policy, None, {"onnx": parity(False, flips=3)})
        assert verdict.exit_status == 1
        (gate,) = (gate for gate in verdict.gates if gate.kind == "export")
        assert (gate.name, gate.outcome, gate.value, gate.threshold) == ("export parity", "FAIL", 2e-4, 1e-4)
        assert "3 predicted classes differ" in gate.explanation


def test_the_demand_on_an_export_speaks_of_flips_only_where_there_are_classes() -> None:
    tied = {**parity(True, flips=3), "flips_beyond_ties": 0}
    (gate,) = (g for g in judge([metric()], None, [PASSING], None, {"onnx": tied}).gates if g.kind == "export")
    assert (gate.outcome, gate.requirement) == ("PASS", "max |ONNX - student| <= 0.001, no flips but of ties")
    assert "3 predicted classes differ, 3 of them ties" in gate.explanation
    values = {"onnx": parity(True, flips=None)}
    (gate,) = (g for g in judge([metric()], None, [PASSING], None, values).gates if g.kind == "export")
    assert gate.requirement == "max |ONNX - student| <= 0.001"


def test_every_limit_of_a_budget_is_listed_and_can_be_judged() -> None:
    every = Budget(latency_p95_ms=1, size_mb=2, peak_memory_mb=3, latency_vs_teacher=4)
    assert every.limits() == {"latency_p95_ms": 1, "size_mb": 2, "peak_memory_mb": 3, "latency_vs_teacher": 4}
    assert Budget(form="torch", batch=7).limits() == {}
    assert [gate.name for gate in judge([], COST, [], every, None).gates] == list(every.limits())


@pytest.mark.parametrize("export", [None, {}, {"onnx": None}])
def test_no_export_is_no_gate(export: dict[str, Any] | None) -> None:
    assert len(judge([metric()], None, [PASSING], None, export).gates) == 1


def test_verdict_survives_strict_json() -> None:
    verdict = judge(
        [metric()], COST, [PASSING, OPEN, Gate("kl", at_most=1)], Budget(size_mb=1), {"onnx": parity(True, None)}
    )
    text = json.dumps(verdict.to_dict(), allow_nan=False)
    assert Verdict.from_dict(json.loads(text)) == verdict
    schema = {"name", "kind", "requirement", "outcome", "value", "low", "high", "threshold", "explanation"}
    schema |= {"more_samples", "unit", "warning"}
    assert all(set(gate) == schema for gate in verdict.to_dict()["gates"])
