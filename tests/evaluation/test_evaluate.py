from __future__ import annotations

import time

import numpy as np
import pytest

from tutelage.errors import DataError, SignalError
from tutelage.evaluation.evidence import Evidence, PairEvidence, Task
from tutelage.evaluation.plots import plot_data, worst_disagreements
from tutelage.evaluation.results import MetricResult
from tutelage.evaluation.seeds import seed_spread, seed_summary
from tutelage.evaluation.statistics import evaluate


def make(task: Task, outputs: dict[str, np.ndarray], labels: np.ndarray | None = None, **changes: object) -> Evidence:
    n = len(outputs["teacher"])
    return Evidence(
        **{  # type: ignore[arg-type]
            "set": "test",
            "task": task,
            "rows": np.arange(n) + 1000,
            "digests": ["d"] * n,
            "outputs": {model: output.astype(np.float32) for model, output in outputs.items()},
            "labels": labels,
            "labelled": None if labels is None else np.ones(n, bool),
            **changes,
        }
    )


def classifiers(n: int = 500, **extra: float) -> Evidence:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, n)
    base = 3 * np.eye(4)[labels] + rng.normal(size=(n, 4))
    noise = {"teacher": 0.1, "student": 0.6, "baseline": 1.5, "untrained": 20, **extra}
    return make("classification", {m: base + s * rng.normal(size=base.shape) for m, s in noise.items()}, labels)


def by_name(results: list[MetricResult]) -> dict[str, MetricResult]:
    return {result.name: result for result in results}


def test_the_record_is_whole_and_survives_its_file_form() -> None:
    results = evaluate(classifiers(), resamples=200)
    accuracy, kl = (by_name(results)[name] for name in ("accuracy", "kl"))
    others = ["student - baseline", "student - untrained", "student - constant"]
    assert list(accuracy.models) == ["teacher", "student", "baseline", "untrained", "constant"]
    assert list(kl.models) == ["student", "baseline", "untrained", "constant"]
    assert list(accuracy.differences) == ["student - teacher", *others, "teacher - constant"]
    assert "student - teacher" not in kl.differences
    for result in results:
        assert MetricResult.from_dict(result.to_dict()) == result
        for estimate in [*result.models.values(), *result.differences.values()]:
            assert estimate.low <= estimate.value <= estimate.high


def test_the_deviation_is_of_the_paired_difference_or_of_the_fidelity_itself() -> None:
    evidence = classifiers()
    results = by_name(evaluate(evidence, resamples=50))
    teacher, student = (evidence.outputs[m].argmax(1) for m in ("teacher", "student"))
    paired = (student == evidence.labels).astype(float) - (teacher == evidence.labels)
    assert results["accuracy"].sd_difference == pytest.approx(paired.std(ddof=1))
    assert results["agreement"].sd_difference == pytest.approx((teacher == student).std(ddof=1))
    assert results["ece"].sd_difference is None


def test_other_seeds_change_nothing_about_the_shipped_one() -> None:
    evidence = classifiers()
    more = make("classification", {**evidence.outputs, "student@1": evidence.outputs["untrained"]}, evidence.labels)
    assert evaluate(more, resamples=50) == evaluate(evidence, resamples=50)


def test_the_same_evidence_gives_the_same_intervals_and_another_seed_others() -> None:
    evidence = classifiers(100)
    assert evaluate(evidence, resamples=100) == evaluate(evidence, resamples=100)
    assert evaluate(evidence, resamples=100) != evaluate(evidence, resamples=100, seed=1)


def test_a_student_that_is_the_teacher_differs_by_nothing_but_is_not_proven_equal() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    logits = 2 * np.eye(3)[labels] + rng.normal(size=(200, 3))
    results = by_name(evaluate(make("classification", {"teacher": logits, "student": logits}, labels), resamples=100))
    difference = results["accuracy"].differences["student - teacher"]
    assert (difference.low, difference.value, difference.high) == (-3 / 200, 0, 3 / 200)
    flips = results["negative_flips"].models["student"]
    assert (flips.low, flips.value, flips.high) == (0, 0, 3 / 200)


def test_undefined_metrics_are_left_out_not_reported_as_nan() -> None:
    constant = make("regression", {"teacher": np.arange(9.0), "student": np.zeros(9)}, np.ones(9))
    assert set(by_name(evaluate(constant, resamples=50))) == {"rmse", "mae", "rmse_to_teacher"}
    one = make("regression", {"teacher": np.zeros(1), "student": np.ones(1)}, np.ones(1))
    assert evaluate(one, resamples=50) == []


def test_a_student_that_diverged_is_named_and_counted() -> None:
    evidence = classifiers(50)
    evidence.outputs["baseline"][7, 2] = np.nan
    with pytest.raises(SignalError, match=r"baseline in the evidence of `test`[\s\S]*1 of 50"):
        evaluate(evidence)


def test_embeddings_and_human_pairs_are_evaluated() -> None:
    rng = np.random.default_rng(1)
    base = rng.normal(size=(300, 6))
    outputs = {
        m: base + s * rng.normal(size=base.shape) for m, s in (("teacher", 0), ("student", 0.5), ("baseline", 2))
    }
    results = by_name(evaluate(make("embedding", outputs), costly_resamples=60))
    assert set(results) == {"cosine", "pair_spearman", "neighbours"}
    assert all(r.differences["student - baseline"].low > 0 for r in results.values())
    score = rng.normal(size=200)
    similarities = {m: score + s * rng.normal(size=200) for m, s in (("teacher", 0.5), ("student", 0.6))}
    (human,) = evaluate(PairEvidence(set="ws", score=score, similarities=similarities))
    assert (human.name, human.kind, human.set, human.n) == ("spearman_human:ws", "quality", "ws", 200)
    assert human.differences["student - teacher"].low < 0.05


def test_neighbours_of_a_capped_sample_do_not_promise_that_more_rows_help() -> None:
    rng = np.random.default_rng(1)
    for n, capped in ((300, False), (2_100, True)):
        base = rng.normal(size=(n, 3))
        evidence = make("embedding", {"teacher": base, "student": base + rng.normal(size=base.shape)})
        result = by_name(evaluate(evidence, resamples=20, costly_resamples=20))["neighbours"]
        assert (result.sd_difference is None) == capped


def test_ten_thousand_rows_take_seconds() -> None:
    evidence = classifiers(10_000)
    start = time.process_time()
    evaluate(evidence)
    assert time.process_time() - start < 20


def test_seeds_are_summarised_with_the_shipped_one_first() -> None:
    evidence = classifiers(200, **{"student@0": 0.8, "baseline@0": 1.2, "student@2": 0.7})
    evidence = Evidence(**{**vars(evidence), "seed": 1})
    seeds = seed_summary([evidence])
    assert [(s["seed"], s["shipped"]) for s in seeds] == [(1, True), (0, False), (2, False)]
    right = (evidence.outputs["student@2"].argmax(1) == evidence.labels).mean()
    assert seeds[2]["metrics"]["accuracy"] == {"student": pytest.approx(right)}
    spread = seed_spread(seeds)["accuracy"]
    values = [s["metrics"]["accuracy"] for s in seeds]
    assert spread["student"]["mean"] == pytest.approx(np.mean([v["student"] for v in values]))
    assert spread["student"]["sd"] == pytest.approx(np.std([v["student"] for v in values], ddof=1))
    gains = [v["student"] - v["baseline"] for v in values if "baseline" in v]
    assert spread["student - baseline"] == {
        "mean": pytest.approx(np.mean(gains)), "sd": pytest.approx(np.std(gains, ddof=1)), "n": 2
    }  # fmt: skip
    assert "sd" not in seed_spread(seeds[:1])["accuracy"]["student"]


def test_a_column_of_the_shipped_seed_under_another_name_is_refused() -> None:
    with pytest.raises(DataError, match="student@0"):
        seed_summary([classifiers(50, **{"student@0": 0.8})])


def test_sets_of_different_shipped_seeds_are_refused() -> None:
    evidence = classifiers(50)
    with pytest.raises(DataError, match="one shipped seed"):
        seed_summary([evidence, Evidence(**{**vars(evidence), "set": "other", "seed": 3})])


def test_reliability_bins_hold_every_labelled_row_once_and_give_the_ece() -> None:
    evidence = classifiers(300)
    bins = plot_data(evidence)["reliability"]["student"]
    assert sum(b["count"] for b in bins) == 300
    ece = sum(b["count"] / 300 * abs(b["confidence"] - b["accuracy"]) for b in bins if b["count"])
    assert ece == pytest.approx(by_name(evaluate(evidence, resamples=5))["ece"].models["student"].value)
    assert set(plot_data(evidence)["reliability"]) == {"teacher", "student", "baseline"}


def test_scatter_points_of_models_belong_together() -> None:
    base = np.random.default_rng(0).normal(size=(3_000, 4))
    scatter = plot_data(make("embedding", {"teacher": base, "student": base}))["scatter"]
    assert len(scatter["teacher"]) <= 3_000
    assert scatter["teacher"] == scatter["student"]
    values = np.random.default_rng(0).normal(size=50)
    scatter = plot_data(make("regression", {"teacher": values, "student": 2 * values}))["scatter"]
    assert scatter["student"] == pytest.approx([2 * x for x in scatter["teacher"]], rel=1e-6)


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression", "embedding"])
def test_worst_disagreements_are_data_rows_worst_first(task: Task) -> None:
    rng = np.random.default_rng(0)
    teacher = rng.normal(size=(40, 5))
    student = teacher + 0.01 * rng.normal(size=teacher.shape)
    student[17], student[3] = -3 * teacher[17], -teacher[3]
    worst = worst_disagreements(make(task, {"teacher": teacher, "student": student}), 3)
    assert {row for row, _ in worst[:2]} == {1017, 1003}
    assert worst == sorted(worst, key=lambda item: -item[1])
    assert len(worst) == 3


def test_worst_disagreements_of_other_widths_look_at_the_geometry() -> None:
    rng = np.random.default_rng(0)
    teacher = rng.normal(size=(40, 5))
    student = np.hstack([teacher, np.zeros((40, 2))])
    student[17] = -student[17]
    ((row, score),) = worst_disagreements(make("embedding", {"teacher": teacher, "student": student}), 1)
    assert row == 1017
    assert score > 0.2
