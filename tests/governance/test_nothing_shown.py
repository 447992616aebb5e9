"""Students that have learnt nothing, and pass what was asked: a metric that guesses are good in, or a budget alone."""

from __future__ import annotations

import numpy as np
import pytest

from tutelage.devices.cost import Cost, ModelCost
from tutelage.evaluation.evidence import Evidence
from tutelage.evaluation.results import MetricResult
from tutelage.evaluation.statistics import evaluate
from tutelage.governance.policy import Budget, Gate
from tutelage.governance.verdict import judge

rng = np.random.default_rng(4)
N = 600
LABELS = np.arange(N) % 2
TEACHER = 3.0 * np.eye(2)[np.where(rng.random(N) < 0.9, LABELS, 1 - LABELS)] + 0.3 * rng.normal(size=(N, 2))
GUESSES = 0.01 * (np.eye(2)[np.arange(N) // 2 % 2] - 0.5)
SMALL = Cost(
    device={},
    rounds=6,
    models={"student": ModelCost(name="student", parameters=9, embedding_parameters=0, size_bytes=99)},
)


def metrics_of(student: np.ndarray, *, labelled: bool = True) -> list[MetricResult]:
    outputs = {"teacher": TEACHER.astype(np.float32), "student": student.astype(np.float32)}
    evidence = Evidence(
        set="test",
        task="classification",
        rows=np.arange(N),
        digests=["d"] * N,
        outputs=outputs,
        labels=LABELS if labelled else None,
        labelled=np.ones(N, bool) if labelled else None,
    )
    return evaluate(evidence, resamples=200)


def test_guesses_do_not_pass_by_a_metric_in_which_they_are_better_than_any_constant() -> None:
    gate = [Gate("macro_f1", at_least=0.4)]
    verdict = judge(metrics_of(GUESSES), None, gate, None, None)
    assert [x.outcome for x in verdict.gates] == ["PASS"] and verdict.exit_status == 3
    assert "not shown to be better than the best constant answer" in verdict.reasons[-1]
    good = judge(metrics_of(TEACHER + 0.1), None, gate, None, None)
    assert (good.headline, good.reasons) == ("PASS", [])


@pytest.mark.parametrize("labelled", [True, False])
def test_a_budget_alone_is_no_plain_pass_for_a_student_that_is_as_a_constant(labelled: bool) -> None:
    budget = Budget(size_mb=1)
    verdict = judge(metrics_of(GUESSES, labelled=labelled), SMALL, [], budget, None)
    assert verdict.headline == "PASS, with a warning" and "nothing shows" in verdict.warnings[0]
    assert judge(metrics_of(TEACHER + 0.1, labelled=labelled), SMALL, [], budget, None).headline == "PASS"
