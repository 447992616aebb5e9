"""What a terminal is told: small costs are not nothing, and a gain that was not shown is not told as one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tutelage.devices.cost import Cost, Latency, ModelCost, significant
from tutelage.doctor import describe_benefit, describe_cost
from tutelage.evaluation.results import Estimate, MetricResult


def metric(name: str, difference: tuple[float, float, float] | None, **changes: Any) -> MetricResult:
    value = Estimate(value=0.5, low=0.4, high=0.6)
    fields: dict[str, Any] = {
        "name": name, "title": name, "kind": "quality", "set": "test", "higher_is_better": True, "unit": "%", "n": 100,
        "models": {"student": value},
        "differences": {}
        if difference is None
        else {"student - baseline": Estimate(value=difference[0], low=difference[1], high=difference[2])},
    }  # fmt: skip
    return MetricResult(**{**fields, **changes})


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            metric("accuracy", (0.051, 0.02, 0.08)),
            "distillation: +5.1 points of accuracy over the same student without it (95% interval +2.0 to +8.0)",
        ),
        (metric("accuracy", (0.004, -0.01, 0.018)), "distillation: not shown to help: +0.4 points of accuracy over"),
        (metric("accuracy", (-0.03, -0.05, -0.01)), "distillation: did harm: -3.0 points of accuracy over"),
        (metric("nll", (-0.2, -0.3, -0.1), higher_is_better=False, unit=""), "distillation: -0.2 in nll over"),
        (metric("nll", (0.2, 0.1, 0.3), higher_is_better=False, unit=""), "distillation: did harm: +0.2 in nll"),
    ],
)
def test_what_distillation_gained_is_told_by_its_interval(found: MetricResult, said: str) -> None:
    assert describe_benefit([found]).startswith(said)


def test_a_gain_by_an_interval_with_a_reservation_is_not_told_as_one() -> None:
    found = metric("nll", (-0.2, -0.3, -0.1), higher_is_better=False, unit="")
    unsure = Estimate(value=-0.2, low=-0.3, high=-0.1, reservation="1 of 40 rows makes up half of the variance")
    said = describe_benefit([replace(found, differences={"student - baseline": unsure})])
    assert said.startswith("distillation: not shown to help: -0.2 in nll over")


def test_the_gain_told_is_that_of_the_metric_which_the_policy_judges_and_not_of_agreement() -> None:
    agreement = metric("agreement", (0.3, 0.2, 0.4), kind="fidelity")
    metrics = [agreement, metric("f1", (0.1, 0.05, 0.15)), metric("accuracy", (0.2, 0.1, 0.3))]
    assert "points of accuracy" in describe_benefit(metrics, ["agreement", "accuracy"])
    assert "points of f1" in describe_benefit(metrics)


def test_without_a_baseline_nothing_is_said_of_a_gain() -> None:
    assert describe_benefit([metric("accuracy", None)]) == ""


def test_costs_of_a_tiny_model_are_not_shown_as_nothing() -> None:
    timed = Latency(
        form="onnxruntime", batch=1, p50_ms=0.00512, p95_ms=0.00634, p95_low_ms=0.0061, p95_high_ms=0.0072,
        p99_ms=0.0088, samples_ms=[],
    )  # fmt: skip
    student = ModelCost(name="student", parameters=910, embedding_parameters=0, size_bytes=3640, latencies=[timed])
    shown = describe_cost(Cost(device={}, rounds=1, models={"student": student}))
    for text in ("0.00364 MB", "0.00512 ms", "0.00634 ms [0.0061, 0.0072]", "0.0088 ms"):
        assert text in shown, shown
    assert [significant(x) for x in (0.0, 4.123, 69.56, 812.4, 12345.6)] == ["0", "4.12", "69.6", "812", "12,346"]
