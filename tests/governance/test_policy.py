from __future__ import annotations

import pytest

from tutelage.errors import RecipeError
from tutelage.evaluation.metrics import available_metrics
from tutelage.governance.policy import Budget, Gate, check_budget, check_gates, check_timed

CLASSIFIER = available_metrics("classification", labels=True)
UNLABELLED = available_metrics("classification", labels=False)
ENCODER = available_metrics("embedding", labels=False, sets=["ws"], same_width=False)


def test_sensible_gates_are_accepted() -> None:
    check_gates(
        [
            Gate("accuracy", margin=0.01),
            Gate("accuracy", margin=0.0),
            Gate("accuracy", at_least=0.9),
            Gate("nll", margin=1.5),
            Gate("kl", at_most=0.05),
            Gate("negative_flips", at_most=0.0),
        ],
        CLASSIFIER,
    )
    check_gates([Gate("spearman_human:ws", margin=0.02), Gate("pair_spearman", at_least=0.9)], ENCODER)
    check_gates([], CLASSIFIER)


@pytest.mark.parametrize(
    ("gate", "available", "key", "told"),
    [
        (Gate("acuracy", margin=0.01), CLASSIFIER, "policy[1].metric", "did you mean `accuracy`?"),
        (Gate("accuracy", margin=0.01), UNLABELLED, "policy[1].metric", "needs labels"),
        (Gate("cosine", at_least=0.9), ENCODER, "policy[1].metric", "one width"),
        (Gate("spearman_human:wss", at_least=0.9), ENCODER, "policy[1].metric", "did you mean `spearman_human:ws`?"),
        (Gate("accuracy"), CLASSIFIER, "policy[1]", "none of them"),
        (Gate("accuracy", margin=0.01, at_least=0.9), CLASSIFIER, "policy[1]", "margin: 0.01 and at_least: 0.9"),
        (Gate("accuracy", margin=-0.01), CLASSIFIER, "policy[1].margin", "write margin: 0.01"),
        (Gate("accuracy", margin=float("nan")), CLASSIFIER, "policy[1].margin", "finite"),
        (Gate("accuracy", at_least=float("inf")), CLASSIFIER, "policy[1].at_least", "finite"),
        (Gate("accuracy", margin=1.0), CLASSIFIER, "policy[1].margin", "no student could fail"),
        (Gate("accuracy", at_least=95), CLASSIFIER, "policy[1].at_least", "write at_least: 0.95"),
        (Gate("accuracy", at_most=0.9), CLASSIFIER, "policy[1].at_most", "replace `at_most` by `at_least`"),
        (Gate("kl", at_least=0.1), CLASSIFIER, "policy[1].at_least", "replace `at_least` by `at_most`"),
        (Gate("agreement", margin=0.01), CLASSIFIER, "policy[1].margin", "replace `margin` by `at_least`"),
        (Gate("kl", margin=0.01), CLASSIFIER, "policy[1].margin", "replace `margin` by `at_most`"),
        (Gate("spearman_human:ws", at_least=1.2), ENCODER, "policy[1].at_least", "between -1 and 1"),
    ],
)
def test_a_gate_that_makes_no_sense_is_refused_by_its_place(
    gate: Gate, available: dict[str, str], key: str, told: str
) -> None:
    fine = Gate(next(name for name in available if name in {"agreement", "pair_spearman"}), at_least=0.5)
    with pytest.raises(RecipeError) as caught:
        check_gates([fine, gate], available)
    assert caught.value.key == key
    assert told in str(caught.value)


def test_sensible_budgets_are_accepted() -> None:
    check_budget(None)
    check_budget(Budget())
    check_budget(Budget(latency_p95_ms=3.5, size_mb=20, peak_memory_mb=100, latency_vs_teacher=0.5, batch=32))


@pytest.mark.parametrize(
    ("budget", "key"),
    [
        (Budget(size_mb=0), "budget.size_mb"),
        (Budget(latency_p95_ms=-1), "budget.latency_p95_ms"),
        (Budget(latency_vs_teacher=float("nan")), "budget.latency_vs_teacher"),
        (Budget(peak_memory_mb=float("inf")), "budget.peak_memory_mb"),
        (Budget(batch=0), "budget.batch"),
        (Budget(form="onnx"), "budget.form"),  # type: ignore[arg-type]
    ],
)
def test_a_budget_that_makes_no_sense_is_refused_by_its_key(budget: Budget, key: str) -> None:
    with pytest.raises(RecipeError) as caught:
        check_budget(budget)
    assert caught.value.key == key


def test_a_limit_on_the_ratio_is_refused_where_the_teacher_is_not_timed_and_nowhere_else() -> None:
    limit, raw = Budget(latency_vs_teacher=0.5), ("from raw columns",)
    for budget, forms in ((limit, raw), (limit, ("torch",)), (Budget(latency_p95_ms=1, size_mb=1, form="torch"), ())):
        check_timed(budget, forms, teacher="trees", device="cpu:1")
    with pytest.raises(RecipeError, match=r"(?s)an API.*could not be judged.*latency_p95_ms") as caught:
        check_timed(limit, (), teacher="an API", device="cpu:1")
    assert caught.value.key == "budget.latency_vs_teacher"
    with pytest.raises(RecipeError, match=r"(?s)trees is timed from raw columns.*form: auto") as caught:
        check_timed(Budget(latency_vs_teacher=0.5, form="torch"), raw, teacher="trees", device="cpu:1")
    assert caught.value.key == "budget.form"
