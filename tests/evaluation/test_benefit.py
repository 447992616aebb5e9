"""Whether distillation helped: every way in which a student can stand to its baseline and to a constant answer."""

from __future__ import annotations

from typing import Any

import pytest

from tutelage.evaluation.benefit import conclude, standing
from tutelage.evaluation.results import Estimate, MetricResult
from tutelage.governance.policy import Gate
from tutelage.governance.warnings import constant_ahead

BETTER, SAME, WORSE = (0.2, 0.1, 0.3), (0.0, -0.1, 0.1), (-0.2, -0.3, -0.1)
Numbers = tuple[float, float, float]


def estimate(numbers: Numbers, reservation: str = "") -> Estimate:
    value, low, high = numbers
    return Estimate(value=value, low=low, high=high, reservation=reservation)


def metric(name: str, baseline: Numbers | None, constant: Numbers | None, **changes: Any) -> MetricResult:
    differences = {"student - baseline": baseline, "student - constant": constant}
    models = {"student": 0.5, "baseline": 0.4, "constant": 0.3}
    fields: dict[str, Any] = {
        "name": name, "title": name, "kind": "quality", "set": "test", "higher_is_better": True, "n": 100,
        "models": {x: estimate((v, v - 0.1, v + 0.1)) for x, v in models.items()},
        "differences": {x: estimate(d) for x, d in differences.items() if d is not None},
    }  # fmt: skip
    return MetricResult(**{**fields, **changes})


@pytest.mark.parametrize(
    ("baseline", "constant", "answer"),
    [
        (BETTER, BETTER, "yes"),
        (BETTER, None, "yes"),  # a correlation has no value for a constant
        (BETTER, SAME, "not shown"),
        (BETTER, WORSE, "no"),
        (SAME, BETTER, "not shown"),
        (SAME, SAME, "not shown"),
        (SAME, WORSE, "not shown"),
        (WORSE, BETTER, "no"),
        (WORSE, WORSE, "no"),
        (None, BETTER, "not measured"),
        (None, WORSE, "not measured"),
    ],
)
@pytest.mark.parametrize("higher", [True, False])
def test_a_student_that_a_constant_answer_beats_is_no_success_of_distillation(
    baseline: Numbers | None, constant: Numbers | None, answer: str, higher: bool
) -> None:
    def turned(numbers: Numbers | None) -> Numbers | None:
        return numbers if higher or numbers is None else (-numbers[0], -numbers[2], -numbers[1])

    found = conclude([metric("r2", turned(baseline), turned(constant), higher_is_better=higher)], [])
    assert found.answer == answer
    stands = {BETTER: "better", SAME: "open", WORSE: "worse", None: None}
    assert (found.lead.standing if found.lead else None, found.constant) == (stands[baseline], stands[constant])


def test_agreement_with_the_teacher_is_no_evidence_that_distillation_helps() -> None:
    assert conclude([metric("agreement", BETTER, BETTER, kind="fidelity")], []).answer == "not measured"


def test_a_metric_that_says_otherwise_is_not_kept_quiet() -> None:
    metrics = [metric("accuracy", BETTER, BETTER), metric("nll", WORSE, BETTER), metric("auc", BETTER, BETTER)]
    found = conclude(metrics, [])
    assert (found.also_better, [x.name for x in found.also_worse]) == ([], ["nll"])
    found = conclude(metrics, [], {"nll"})
    assert (found.answer, [x.name for x in found.also_better], found.also_worse) == ("no", ["accuracy", "auc"], [])


def test_a_calibration_error_does_not_make_a_constant_answer_the_better_model() -> None:
    found = conclude([metric("ece", BETTER, WORSE)], [])
    assert (found.answer, found.constant) == ("yes", None)


def test_an_interval_with_a_reservation_shows_no_gain() -> None:
    unsure = metric("r2", None, None, differences={"student - baseline": estimate(BETTER, "few rows weigh most")})
    assert standing(unsure, "baseline") == "open"


@pytest.mark.parametrize(
    ("metrics", "gated", "named"),
    [
        ([metric("r2", None, WORSE)], "correlation", ["r2"]),  # the gate looks elsewhere
        ([metric("r2", None, SAME)], "r2", []),
        ([metric("accuracy", None, WORSE), metric("macro_f1", None, BETTER)], "macro_f1", []),  # rare classes
        ([metric("accuracy", None, WORSE), metric("ece", None, WORSE)], "ece", ["accuracy"]),
        ([metric("rmse", None, BETTER), metric("kl", None, WORSE, kind="fidelity")], "kl", ["kl"]),
    ],
)
def test_a_pass_of_a_student_worse_than_a_constant_answer_is_no_plain_one(
    metrics: list[MetricResult], gated: str, named: list[str]
) -> None:
    said = constant_ahead(metrics, [Gate(metric=gated, at_least=0.1)])
    assert [word.partition(": ")[2].split()[0] for word in said] == named
    assert all("0.3 (constant), 0.5 (student)" in word for word in said)
