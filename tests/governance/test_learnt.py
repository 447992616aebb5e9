"""What no gate makes up for: a student or a teacher that labelled test rows do not tell from a constant answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tutelage.evaluation.evidence import Evidence, Task
from tutelage.evaluation.results import MetricResult
from tutelage.evaluation.statistics import evaluate
from tutelage.governance.policy import Gate
from tutelage.governance.verdict import judge

CLASSES = 3


def metrics_of(task: Task, teacher: np.ndarray, student: np.ndarray, labels: np.ndarray) -> list[MetricResult]:
    evidence = Evidence(
        set="test",
        task=task,
        rows=np.arange(len(labels)),
        digests=["d"] * len(labels),
        outputs={"teacher": teacher.astype(np.float32), "student": student.astype(np.float32)},
        labels=labels,
        labelled=np.ones(len(labels), bool),
    )
    return evaluate(evidence, resamples=300)


def classified(order: list[int], n: int = 300, known: float = 0.97) -> list[MetricResult]:
    """A teacher that is right on a share of the rows, its outputs in an order, and a student that is like it."""
    rng = np.random.default_rng(0)
    labels = rng.choice(CLASSES, n, p=[0.5, 0.3, 0.2])
    said = np.where(rng.random(n) < known, labels, rng.integers(0, CLASSES, n))
    teacher = (3.0 * np.eye(CLASSES)[said] + 0.3 * rng.normal(size=(n, CLASSES)))[:, order]
    return metrics_of("classification", teacher, teacher + 0.1 * rng.normal(size=teacher.shape), labels)


AGREES, MARGIN, FREE = Gate("agreement", at_least=0.8), Gate("accuracy", margin=0.05), Gate("accuracy", at_least=0.2)
PERMUTED, RIGHT = classified([1, 2, 0]), classified([0, 1, 2])


@pytest.mark.parametrize("policy", [[AGREES], [MARGIN], [AGREES, MARGIN]])
def test_a_student_like_a_teacher_in_another_order_does_not_pass_whatever_it_is_judged_by(policy: list[Gate]) -> None:
    verdict = judge(PERMUTED, None, policy, None, None)
    assert verdict.exit_status == 3
    assert any("student is worse than the best constant answer" in reason for reason in verdict.reasons)
    assert any("being like it shows nothing" in reason for reason in verdict.reasons)
    assert all(gate.outcome == "PASS" for gate in verdict.gates)  # each by itself lets it through
    assert judge(RIGHT, None, policy, None, None).verdict == "PASS"


def test_values_of_the_wrong_sign_and_labels_in_another_order_do_not_pass_either() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(300, 1))
    turned = -values + 0.1 * rng.normal(size=values.shape)
    gates = [Gate("r2", margin=0.05), Gate("rmse_to_teacher", at_most=1.0)]
    assert judge(metrics_of("regression", turned, turned + 0.01, values), None, gates, None, None).exit_status == 3
    labels = (rng.random((300, 3)) < [0.6, 0.3, 0.15]).astype(np.int64)
    logits = (4.0 * labels - 2 + 0.3 * rng.normal(size=labels.shape))[:, [1, 2, 0]]
    gates = [Gate("macro_f1", margin=0.05), Gate("agreement", at_least=0.9)]
    assert judge(metrics_of("multilabel", logits, logits, labels), None, gates, None, None).exit_status == 3


@pytest.mark.parametrize(("n", "verdict"), [(300, "INCONCLUSIVE"), (40, "PASS, with a warning")])
def test_a_teacher_that_guesses_is_no_measure_on_enough_rows_and_doubted_on_few(n: int, verdict: str) -> None:
    """On 40 rows a good many teachers that know something are not told from one that does not."""
    rng = np.random.default_rng(2)
    labels = np.repeat([0, 1], n // 2)
    teacher = np.stack([np.zeros(n), 0.02 * rng.normal(size=n)], 1)
    metrics = metrics_of("classification", teacher, teacher + 1e-4 * rng.normal(size=teacher.shape), labels)
    gate = Gate("agreement", at_least=0.6)
    found = judge(metrics, None, [gate], None, None)
    assert found.headline == verdict
    # A gate on the student alone is none on the teacher.
    alone = judge(metrics, None, [Gate("accuracy", at_least=0.2)], None, None)
    assert not any("teacher is not shown" in sentence for sentence in [*alone.reasons, *alone.warnings])


def test_a_model_of_rare_positives_that_is_better_by_its_ranking_alone_has_learnt() -> None:
    rng = np.random.default_rng(3)
    labels = (rng.random(800) < 0.04).astype(np.int64)
    score = 1.5 * labels + rng.normal(size=800) - 0.5  # many false alarms: its accuracy is below that of no alarm
    teacher = np.stack([np.zeros(800), score], 1)
    metrics = metrics_of("classification", teacher, teacher, labels)
    accuracy: Any = next(metric for metric in metrics if metric.name == "accuracy")
    assert accuracy.differences["student - constant"].high < 0
    assert judge(metrics, None, [AGREES], None, None).verdict == "PASS"


def test_the_difference_of_the_teacher_from_a_constant_answer_is_that_of_the_two() -> None:
    for metric in RIGHT:
        if metric.kind == "quality" and "constant" in metric.models:
            found = metric.differences["teacher - constant"]
            apart = metric.models["teacher"].value - metric.models["constant"].value
            assert found.value == pytest.approx(apart) and found.low <= apart <= found.high
        else:
            assert "teacher - constant" not in metric.differences
