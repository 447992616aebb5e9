"""A student that looks at no input must not pass by gates that a constant answer meets."""

from __future__ import annotations

import numpy as np
import pytest

from tutelage.evaluation.evidence import Evidence
from tutelage.evaluation.results import Estimate, MetricResult
from tutelage.evaluation.statistics import evaluate
from tutelage.governance.constant import is_met_by_constant
from tutelage.governance.policy import Gate
from tutelage.governance.verdict import Verdict, judge


def rare(student: str, n: int = 1500) -> list[MetricResult]:
    """Labels that are on in 1% of decisions: the metrics of a student that says no to all, or one that has learnt."""
    rng = np.random.default_rng(0)
    labels = (rng.random((n, 10)) < 0.01).astype(np.int64)
    teacher = 6.0 * labels - 3 + 0.5 * rng.normal(size=labels.shape)
    answers = np.full(labels.shape, -3.0) if student == "all no" else teacher + 0.5 * rng.normal(size=labels.shape)
    evidence = Evidence(
        set="test",
        task="multilabel",
        rows=np.arange(n),
        digests=["d"] * n,
        outputs={"teacher": teacher.astype(np.float32), "student": answers.astype(np.float32)},
        labels=labels,
        labelled=np.ones(n, bool),
    )
    return evaluate(evidence, resamples=200)


ALL_NO, LEARNT = rare("all no"), rare("learnt")
AGREES = Gate("agreement", at_least=0.98)


def test_a_student_that_says_no_to_everything_does_not_pass_by_its_agreement() -> None:
    by_name = {metric.name: metric for metric in ALL_NO}
    assert by_name["agreement"].models["student"].value > 0.985
    assert by_name["f1_to_teacher"].models["student"].value == by_name["micro_f1"].models["student"].value == 0
    verdict = judge(ALL_NO, None, [AGREES], None, None)
    assert (verdict.verdict, verdict.exit_status) == ("INCONCLUSIVE", 3)
    (gate,) = verdict.gates
    assert gate.outcome == "INCONCLUSIVE"
    assert "meets this too, and the student is not shown to be better" in gate.warning
    assert gate.warning in gate.explanation
    reason, worse = verdict.reasons
    assert "not shown to be better in f1_to_teacher" in reason and not verdict.warnings
    assert "student is worse than the best constant answer" in worse  # in its F1: a constant may say yes


@pytest.mark.parametrize("metric", ["f1_to_teacher", "micro_f1", "map", "map_to_teacher", "top1"])
def test_the_metrics_of_rare_labels_fail_it(metric: str) -> None:
    verdict = judge(ALL_NO, None, [AGREES, Gate(metric, at_least=0.5)], None, None)
    assert verdict.verdict == "FAIL"
    assert not any(is_met_by_constant(Gate(metric, at_least=0.5), x) for x in ALL_NO if x.name == metric)


def test_a_student_that_has_learnt_passes_such_a_gate_with_a_warning_that_names_better_ones() -> None:
    verdict = judge(LEARNT, None, [AGREES], None, None)
    assert verdict.verdict == "PASS"
    (warning,) = verdict.warnings
    assert "Such an answer is worse than the student in macro_f1, jaccard, map" in warning
    (gate,) = verdict.gates
    assert gate.warning.endswith("meets this too.")
    assert Verdict.from_dict(verdict.to_dict()) == verdict


def test_one_gate_that_a_constant_fails_makes_the_pass_a_plain_one() -> None:
    verdict = judge(LEARNT, None, [AGREES, Gate("f1_to_teacher", at_least=0.6)], None, None)
    assert (verdict.verdict, verdict.reasons, verdict.warnings) == ("PASS", [], [])
    assert [bool(gate.warning) for gate in verdict.gates] == [True, False]
    counts = np.sort((np.random.default_rng(0).random((1500, 10)) < 0.01).sum(0))[::-1]
    best = max(2 * counts[:k].sum() / (1500 * k + counts.sum()) for k in range(1, 11))
    assert f"best constant answer {100 * best:.2f}%" in verdict.gates[1].explanation


def metric(
    name: str, student: float, constant: float | None, teacher: float | None = None, *, higher: bool = True
) -> MetricResult:
    def near(value: float) -> Estimate:
        return Estimate(value=value, low=value - 0.001, high=value + 0.001)

    values = {"student": student, "constant": constant, "teacher": teacher}
    models = {model: near(value) for model, value in values.items() if value is not None}
    return MetricResult(
        name=name,
        title=name,
        kind="quality",
        set="test",
        higher_is_better=higher,
        n=1000,
        models=models,
        differences={f"student - {m}": near(student - models[m].value) for m in ("teacher", "constant") if m in models},
    )


@pytest.mark.parametrize(
    ("gate", "found", "verdict", "warned"),
    [
        (Gate("accuracy", margin=0.02), metric("accuracy", 0.96, 0.96, 0.97), "INCONCLUSIVE", True),
        (Gate("accuracy", margin=0.02), metric("accuracy", 0.97, 0.96, 0.97), "PASS", True),
        (Gate("accuracy", margin=0.02), metric("accuracy", 0.97, 0.9, 0.97), "PASS", False),
        (Gate("rmse", margin=0.5), metric("rmse", 1.0, 1.0, 0.8, higher=False), "INCONCLUSIVE", True),
        (Gate("rmse", margin=0.5), metric("rmse", 1.0, 2.0, 0.8, higher=False), "PASS", False),
        (Gate("kl", at_most=0.2), metric("kl", 0.1, 0.1, higher=False), "INCONCLUSIVE", True),
        (Gate("kl", at_most=0.2), metric("kl", 0.1, 0.3, higher=False), "PASS", False),
        (Gate("correlation", at_least=0.5), metric("correlation", 0.9, None), "PASS", False),
        (Gate("accuracy", at_least=0.99), metric("accuracy", 0.95, 0.96), "FAIL", False),
    ],
)
def test_margins_and_limits_of_either_direction(gate: Gate, found: MetricResult, verdict: str, warned: bool) -> None:
    judged = judge([found], None, [gate], None, None)
    assert judged.verdict == verdict
    assert bool(judged.gates[0].warning) == warned
    assert bool(judged.warnings) == (warned and verdict == "PASS")


def test_a_verdict_of_an_earlier_version_is_read() -> None:
    stored = judge(LEARNT, None, [AGREES], None, None).to_dict()
    del stored["warnings"], stored["gates"][0]["warning"]
    assert Verdict.from_dict(stored).warnings == []
