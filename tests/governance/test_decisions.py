"""A gate on decisions that a constant answer meets: no student passes it that ranks well and says no to everything."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tutelage.evaluation.evidence import Evidence, Task
from tutelage.evaluation.results import MetricResult
from tutelage.evaluation.statistics import evaluate
from tutelage.governance.policy import Gate
from tutelage.governance.verdict import judge

ROWS = 800


def measured(
    task: Task, teacher: np.ndarray, student: np.ndarray, labels: np.ndarray, on: str = "test"
) -> list[MetricResult]:
    n = len(labels)
    outputs = {"teacher": teacher.astype(np.float32), "student": student.astype(np.float32)}
    known = {"labels": labels, "labelled": np.ones(n, bool)}
    evidence = Evidence(set=on, task=task, rows=np.arange(n), digests=["d"] * n, outputs=outputs, **known)
    return evaluate(evidence, resamples=200)


def rare_labels(never: Callable[[np.ndarray], np.ndarray], on: str = "test") -> list[MetricResult]:
    rng = np.random.default_rng(0)
    labels = (rng.random((ROWS, 10)) < np.linspace(0.01, 0.05, 10)).astype(np.int64)
    teacher = 6.0 * labels - 3.5 + 1.3 * rng.normal(size=labels.shape)
    return measured("multilabel", teacher, never(teacher + 0.9 * rng.normal(size=labels.shape)), labels, on)


def rare_classes(never: Callable[[np.ndarray], np.ndarray]) -> list[MetricResult]:
    rng = np.random.default_rng(0)
    labels = rng.choice(3, ROWS, p=[0.94, 0.04, 0.02])
    teacher = 4.0 * np.eye(3)[labels] + [1.5, 0, 0] + 0.8 * rng.normal(size=(ROWS, 3))
    return measured("classification", teacher, never(teacher + 0.4 * rng.normal(size=teacher.shape)), labels)


def same(scores: np.ndarray) -> np.ndarray:
    return scores


def no_to_all(scores: np.ndarray) -> np.ndarray:
    """The same order of the rows; every label is off."""
    return 0.2 * scores - 6


def first_class(scores: np.ndarray) -> np.ndarray:
    return 0.2 * scores + [8, 0, 0]


def seldom(scores: np.ndarray) -> np.ndarray:
    """A twentieth of the labels is on: the agreement is then above a constant's, by next to nothing."""
    return scores - 5


def one_in_three(scores: np.ndarray) -> np.ndarray:
    return scores - 3.3


LABELS = {f.__name__: rare_labels(f) for f in (same, no_to_all, seldom)}
CLASSES = {f.__name__: rare_classes(f) for f in (same, first_class)}
MULTILABEL = [Gate("agreement", at_least=0.95), Gate("exact_match", margin=0.5), Gate("jaccard", at_least=0.6)]
ONE_CLASS = [Gate("accuracy", margin=0.12), Gate("agreement", at_least=0.9), Gate("negative_flips", at_most=0.12)]


@pytest.mark.parametrize("gate", MULTILABEL, ids=lambda gate: gate.metric)
@pytest.mark.parametrize("student", ["no_to_all", "seldom"])
def test_labels_that_are_never_on_do_not_pass_by_their_order(gate: Gate, student: str) -> None:
    ranks = [Gate("map", at_least=0.4), Gate("map_to_teacher", at_least=0.4), Gate("top1", at_least=0.4)]
    verdict = judge(LABELS[student], None, [gate, *ranks], None, None)
    assert [x.outcome for x in verdict.gates] == ["INCONCLUSIVE", "PASS", "PASS", "PASS"]
    assert verdict.exit_status == 3 and "Gate on f1_to_teacher as well" in verdict.gates[0].explanation
    good = judge(LABELS["same"], None, [gate, *ranks], None, None)
    assert (good.verdict, good.warnings) == ("PASS", [])


@pytest.mark.parametrize("gate", ONE_CLASS, ids=lambda gate: gate.metric)
def test_a_class_that_is_always_said_does_not_pass_by_its_scores(gate: Gate) -> None:
    ranks = Gate("auc", margin=0.1)
    verdict = judge(CLASSES["first_class"], None, [gate, ranks], None, None)
    assert [x.outcome for x in verdict.gates] == ["INCONCLUSIVE", "PASS"]
    assert "Gate on balanced_agreement as well" in verdict.reasons[0]
    assert judge(CLASSES["same"], None, [gate, ranks], None, None).headline == "PASS"


def test_a_further_set_is_judged_by_its_own_decisions() -> None:
    policy = [Gate("agreement:street", at_least=0.95), Gate("map:street", at_least=0.4)]
    bad = [*LABELS["same"], *rare_labels(no_to_all, "street")]
    assert judge(bad, None, policy, None, None).verdict == "INCONCLUSIVE"
    good = [*LABELS["no_to_all"], *rare_labels(same, "street")]
    assert judge(good, None, policy, None, None).verdict != "FAIL"
    assert judge(good, None, policy, None, None).gates[0].outcome == "PASS"


def test_a_teacher_that_decides_nothing_itself_is_copied_by_its_ranking_and_that_is_no_fault() -> None:
    """Positives of 4% are seldom above a half: their teacher's decisions are a constant's."""
    rng = np.random.default_rng(1)
    labels = (rng.random(ROWS) < 0.04).astype(np.int64)
    teacher = np.stack([np.zeros(ROWS), 2.0 * labels + rng.normal(size=ROWS) - 8], 1)
    metrics = measured("classification", teacher, teacher + 0.1 * rng.normal(size=teacher.shape), labels)
    verdict = judge(metrics, None, [Gate("accuracy", margin=0.02), Gate("auc", margin=0.05)], None, None)
    assert verdict.verdict == "PASS"


def test_gates_on_probabilities_are_judged_as_they_were() -> None:
    policy = [Gate("kl", at_most=5.0), Gate("map", at_least=0.4)]
    assert judge(LABELS["no_to_all"], None, policy, None, None).gates[0].outcome == "PASS"


def test_another_gate_on_decisions_says_what_is_enough() -> None:
    own = Gate("f1_to_teacher", at_least=0.02)  # a constant's is above it: it says nothing either
    verdict = judge(LABELS["seldom"], None, [MULTILABEL[0], own], None, None)
    assert verdict.gates[0].outcome == "INCONCLUSIVE"
    third = [Gate("agreement", at_least=0.95), Gate("f1_to_teacher", at_least=0.15)]
    verdict = judge(rare_labels(one_in_three), None, third, None, None)
    assert [x.outcome for x in verdict.gates] == ["PASS", "PASS"]
    assert judge(rare_labels(one_in_three), None, third[:1], None, None).exit_status == 3
