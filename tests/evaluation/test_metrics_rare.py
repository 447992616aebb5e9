"""Metrics of rare classes and labels against scikit-learn's; constant answers against all others of their kind."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    jaccard_score,
    log_loss,
    recall_score,
    roc_auc_score,
)

from tutelage.evaluation.evidence import Evidence, Task
from tutelage.evaluation.metrics import CONSTANT, describe, metrics_for, point_values
from tutelage.evaluation.metrics.rare import average_precision, f1_by_class, f1_by_label, roc_area, roc_area_by_class
from tutelage.evaluation.statistics import evaluate


def make(task: Task, outputs: dict[str, np.ndarray], labels: np.ndarray | None = None) -> Evidence:
    n = len(outputs["teacher"])
    return Evidence(
        set="test",
        task=task,
        rows=np.arange(n),
        digests=["d"] * n,
        outputs={model: output.astype(np.float32) for model, output in outputs.items()},
        labels=labels,
        labelled=None if labels is None else np.ones(n, bool),
    )


def rare_labels(n: int = 300, seed: int = 0) -> Evidence:
    """Five labels of 1% to 40%, one that no row has and one that all rows have; scores of few values, so many tie."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, 7)) < [0.01, 0.05, 0.1, 0.2, 0.4, 0, 1]).astype(np.int64)
    labels[0, 0] = 1
    outputs = {m: np.round(2 * labels - 1.5 + s * rng.normal(size=labels.shape)) + 0.1 for m, s in (
        ("teacher", 0.7), ("student", 1.2), ("baseline", 2.5))}  # fmt: skip
    return make("multilabel", outputs, labels)


def rare_classes(classes: int, n: int = 400, seed: int = 0) -> Evidence:
    """One class has nine rows in ten, the last one none; logits of few values, so many tie."""
    rng = np.random.default_rng(seed)
    shares = np.r_[0.9, np.full(classes - 1, 0.1 / max(classes - 2, 1))]
    if classes > 2:
        shares[-1] = 0
    labels = rng.choice(classes, n, p=shares / shares.sum())
    noise = {"teacher": 0.7, "student": 1.3, "baseline": 3}
    base = 1.5 * np.eye(classes)[labels] + np.r_[1.0, np.zeros(classes - 1)]
    return make(
        "classification", {m: np.round(base + s * rng.normal(size=base.shape), 1) for m, s in noise.items()}, labels
    )


def against(values: dict[str, dict[str, float]], names: tuple[str, ...], truth: np.ndarray, outputs: dict) -> None:
    f1, macro, jaccard, average, top = names
    occurs = truth.any(0)
    for model, output in outputs.items():
        on = output > 0
        assert values[f1][model] == pytest.approx(f1_score(truth, on, average="micro"), abs=1e-12)
        if macro:
            expected = f1_score(truth[:, occurs], on[:, occurs], average="macro")
            assert values[macro][model] == pytest.approx(expected, abs=1e-12)
        expected = jaccard_score(truth, on, average="samples", zero_division=1)
        assert values[jaccard][model] == pytest.approx(expected, abs=1e-12)
        expected = average_precision_score(truth[:, occurs], output[:, occurs], average="macro")
        assert values[average][model] == pytest.approx(expected, abs=1e-12)
        if top:
            rows = np.flatnonzero(truth.any(1))
            assert values[top][model] == pytest.approx(np.mean([truth[i, output[i].argmax()] for i in rows]))


def test_multilabel_against_labels_and_against_the_teachers_decisions_is_scikit_learns() -> None:
    for seed in range(3):
        evidence = rare_labels(seed=seed)
        values = point_values("multilabel", evidence)
        against(values, ("micro_f1", "macro_f1", "jaccard", "map", "top1"), evidence.labels == 1, evidence.outputs)
        for model, output in evidence.outputs.items():
            p = expit(output.astype(np.float64))
            expected = np.mean([log_loss(evidence.labels[:, c], p[:, c], labels=[0, 1]) for c in range(7)])  # type: ignore[index]
            assert values["nll"][model] == pytest.approx(expected, abs=1e-9)
        teacher = evidence.outputs["teacher"]
        others = {m: output for m, output in evidence.outputs.items() if m != "teacher"}
        against(values, ("f1_to_teacher", "", "jaccard_to_teacher", "map_to_teacher", ""), teacher > 0, others)
        for model, output in others.items():
            same = np.mean([a.argmax() == b.argmax() for a, b in zip(output, teacher, strict=True)])
            assert values["top1_agreement"][model] == pytest.approx(same)


def test_two_empty_sets_of_labels_are_equal() -> None:
    whole = rare_labels()
    labels = whole.labels[:, :6]
    outputs = {model: output[:, :6] for model, output in whole.outputs.items()}
    empty = ~(labels == 1).any(1) & ~(outputs["student"] > 0).any(1)
    assert 0 < empty.sum() < len(empty)
    values = point_values("multilabel", make("multilabel", outputs, labels))
    expected = jaccard_score(labels, outputs["student"] > 0, average="samples", zero_division=1)
    assert values["jaccard"]["student"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("classes", [2, 4])
def test_classification_of_rare_classes_is_scikit_learns_for_many_ties_and_a_class_that_never_occurs(
    classes: int,
) -> None:
    evidence = rare_classes(classes)
    values, labels = point_values("classification", evidence), evidence.labels
    assert labels is not None
    occurring = np.unique(labels)
    for model, output in evidence.outputs.items():
        p = softmax(output.astype(np.float64), axis=1)
        chosen = output.argmax(1)
        assert values["balanced_accuracy"][model] == pytest.approx(_quiet(balanced_accuracy_score, labels, chosen))
        expected = f1_score(labels, chosen, labels=occurring, average="macro")
        assert values["macro_f1"][model] == pytest.approx(expected, abs=1e-12)
        # Rounded: probabilities of logits that tie exactly differ in their last bits.
        expected = np.mean([roc_auc_score(labels == c, np.round(p[:, c], 12)) for c in occurring])
        assert values["auc"][model] == pytest.approx(expected, abs=1e-9)
        if model != "teacher":
            teacher = evidence.outputs["teacher"].argmax(1)
            expected = recall_score(teacher, chosen, labels=np.unique(teacher), average="macro")
            assert values["balanced_agreement"][model] == pytest.approx(expected)


def _quiet(score: Callable[..., float], *arguments: np.ndarray) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return score(*arguments)


def test_classes_as_sure_as_floats_can_tell_still_rank() -> None:
    logits = np.array([[60.0, 0], [61, 0], [62, 0], [63, 0]])  # float64 probabilities of class 0 are all 1
    evidence = make("classification", {"teacher": logits, "student": logits}, np.r_[1, 1, 0, 0])
    assert point_values("classification", evidence)["auc"]["student"] == 1


@pytest.mark.parametrize(("part", "score"), [(roc_area, roc_auc_score), (average_precision, average_precision_score)])
def test_the_influence_of_a_row_is_the_derivative_of_scikit_learns_weighted_value(
    part: Callable[..., tuple[float, np.ndarray]], score: Callable[..., float]
) -> None:
    rng = np.random.default_rng(0)
    positive = rng.random(40) < 0.2
    scores = np.round(positive + rng.normal(size=40), 1)
    value, influence = part(scores, positive)
    assert value == pytest.approx(score(positive, scores), abs=1e-12)
    assert influence.mean() == pytest.approx(0, abs=1e-12)
    for row in range(40):
        up, down = np.ones(40), np.ones(40)
        up[row] += 1e-5
        down[row] -= 1e-5
        slope = (score(positive, scores, sample_weight=up) - score(positive, scores, sample_weight=down)) / 2e-5
        assert influence[row] == pytest.approx(40 * slope, abs=1e-6), row


@pytest.mark.parametrize("kind", ["classes", "labels", "recall"])
def test_the_influence_on_a_mean_over_classes_is_the_derivative_of_scikit_learns(kind: str) -> None:
    evidence = rare_classes(4, n=60) if kind != "labels" else rare_labels(60)
    labels, output = evidence.labels, evidence.outputs["student"]
    assert labels is not None
    if kind == "labels":
        occurs = labels.any(0)
        statistic = f1_by_label(output > 0, labels == 1)
        score = lambda w: f1_score(labels[:, occurs], output[:, occurs] > 0, average="macro", sample_weight=w)  # noqa: E731
    elif kind == "classes":
        statistic = f1_by_class(output.argmax(1), labels)
        score = lambda w: f1_score(  # noqa: E731
            labels, output.argmax(1), labels=np.unique(labels), average="macro", sample_weight=w
        )
    else:
        statistic = next(
            m for m in metrics_for("classification", evidence) if m.about.name == "balanced_accuracy"
        ).statistics["student"]
        score = lambda w: _quiet(  # noqa: E731
            lambda: balanced_accuracy_score(labels, output.argmax(1), sample_weight=w)
        )
    influence = statistic.values - statistic.value()
    for row in range(0, 60, 7):
        up, down = np.ones(60), np.ones(60)
        up[row] += 1e-5
        down[row] -= 1e-5
        assert influence[row] == pytest.approx(60 * (score(up) - score(down)) / 2e-5, abs=1e-5), row


def test_the_standard_error_of_the_area_is_delongs() -> None:
    rng = np.random.default_rng(1)
    labels = (rng.random(200) < 0.2).astype(np.int64)
    logits = np.stack([np.zeros(200), labels + rng.normal(size=200)], 1)
    statistic = roc_area_by_class(logits, labels)
    x, y = logits[labels == 1, 1], logits[labels == 0, 1]
    wins = (x[:, None] > y).astype(float) + (x[:, None] == y) / 2
    delong = wins.mean(1).var(ddof=1) / len(x) + wins.mean(0).var(ddof=1) / len(y)
    assert statistic.values.var() / 200 == pytest.approx(delong, rel=0.02)


def test_what_is_undefined_is_left_out_and_never_a_number() -> None:
    outputs = {m: np.full((20, 3), -1.0) for m in ("teacher", "student")}
    none = evaluate(make("multilabel", outputs, np.zeros((20, 3), np.int64)), resamples=50)
    names = {result.name for result in none}
    assert not names & {"micro_f1", "macro_f1", "map", "top1", "f1_to_teacher", "map_to_teacher"}
    assert {"jaccard", "agreement", "exact_match"} <= names
    sure = np.tile([1.0, 0.0], (20, 1))
    one = make("classification", {"teacher": sure, "student": sure}, np.zeros(20, np.int64))
    assert "auc" not in {result.name for result in evaluate(one, resamples=50)}


def test_few_positive_rows_do_not_make_a_perfect_student_sure() -> None:
    labels = np.zeros((1000, 2), np.int64)
    labels[:6, 0] = labels[3:9, 1] = 1
    right = 4.0 * labels - 2
    evidence = make("multilabel", {"teacher": right, "student": right}, labels)
    found = {r.name: r for r in evaluate(evidence, resamples=50)}
    for name, events in (("map", 12), ("macro_f1", 12), ("micro_f1", 9), ("map_to_teacher", 12), ("f1_to_teacher", 9)):
        assert found[name].models["student"].low <= 1 - 3 / events + 1e-9, name
    assert found["agreement"].models["student"].low == pytest.approx(1 - 3 / 1000)
    single = labels.copy()
    single[:, 1] = 0
    single[1:, 0] = 0
    alone = evaluate(make("multilabel", {"teacher": right, "student": right}, single), resamples=50)
    assert not {"map", "macro_f1", "micro_f1"} & {r.name for r in alone}  # one row says nothing of its spread


def saying(evidence: Evidence, answer: np.ndarray) -> dict[str, dict[str, float]]:
    """The values where the student says the same to every row."""
    student = np.tile(answer, (len(evidence), 1)).astype(np.float32)
    changed = Evidence(**{**vars(evidence), "outputs": {**evidence.outputs, "student": student}})
    return point_values(evidence.task, changed)


def test_no_constant_answer_of_a_classifier_is_better_than_the_constant_shown() -> None:
    evidence = rare_classes(4, n=200)
    shown = {name: by_model.get(CONSTANT) for name, by_model in point_values("classification", evidence).items()}
    assert evidence.labels is not None
    shares = np.bincount(evidence.labels, minlength=4) / 200
    teacher = softmax(evidence.outputs["teacher"].astype(np.float64), axis=1).mean(0)
    rng = np.random.default_rng(0)
    tried = [*(np.log(np.eye(4)[c] + 1e-9) for c in range(4)), np.log(shares + 1e-12), np.log(teacher)]
    tried += list(np.log(shares + 1e-12) + 0.1 * rng.normal(size=(20, 4)))
    best: dict[str, float] = {}
    for answer in tried:
        for name, by_model in saying(evidence, answer).items():
            better = max if describe(name).higher_is_better else min  # type: ignore[union-attr]
            best[name] = better(best.get(name, by_model["student"]), by_model["student"])
    balanced = ("balanced_accuracy", "balanced_agreement", "macro_f1", "auc")
    for name in ("accuracy", "nll", "brier", "agreement", "kl", *balanced):
        assert shown[name] == pytest.approx(best[name], abs=1e-5), name


def test_no_constant_set_of_labels_is_better_than_the_constant_shown() -> None:
    rng = np.random.default_rng(2)
    labels = (rng.random((150, 4)) < [0.05, 0.3, 0.55, 0.7]).astype(np.int64)
    teacher, student = 2.0 * labels - 1 + rng.normal(size=(2, 150, 4))
    evidence = make("multilabel", {"teacher": teacher, "student": student}, labels)
    shown = {name: by_model[CONSTANT] for name, by_model in point_values("multilabel", evidence).items()}
    every = [saying(evidence, np.array(answer)) for answer in itertools.product((-1.0, 1.0), repeat=4)]
    names = ["micro_f1", "macro_f1", "jaccard", "exact_match", "agreement", "map"]
    for name in [*names, "f1_to_teacher", "jaccard_to_teacher", "map_to_teacher"]:
        assert shown[name] == pytest.approx(max(values[name]["student"] for values in every)), name
    first = [saying(evidence, np.eye(4)[label]) for label in range(4)]
    for name in ("top1", "top1_agreement"):
        assert shown[name] == pytest.approx(max(values[name]["student"] for values in first)), name
    shares = labels.mean(0)
    rates = saying(evidence, np.log(shares / (1 - shares)))["nll"]["student"]
    assert shown["nll"] == pytest.approx(rates, abs=1e-6) and shown["nll"] < min(v["nll"]["student"] for v in every)
    assert shown["kl"] <= min(values["kl"]["student"] for values in every)


def test_the_constants_of_values_and_embeddings_are_their_means() -> None:
    rng = np.random.default_rng(3)
    labels = rng.gamma(1, size=(80, 2))
    outputs = {m: labels + rng.normal(size=labels.shape) for m in ("teacher", "student")}
    values = point_values("regression", make("regression", outputs, labels))
    teacher = outputs["teacher"].astype(np.float32).astype(np.float64)
    assert values["rmse"][CONSTANT] == pytest.approx(np.sqrt(((labels - labels.mean(0)) ** 2).mean()))
    assert values["mae"][CONSTANT] == pytest.approx(np.abs(labels - np.median(labels, axis=0)).mean())
    assert values["r2"][CONSTANT] == pytest.approx(0, abs=1e-12)
    assert values["rmse_to_teacher"][CONSTANT] == pytest.approx(np.sqrt(((teacher - teacher.mean(0)) ** 2).mean()))
    assert CONSTANT not in values["correlation"]
    base = rng.normal(size=(80, 5)) + 3  # a cone: all of it is near its middle
    unit = base / np.linalg.norm(base, axis=1, keepdims=True)
    middle = unit.mean(0) / np.linalg.norm(unit.mean(0))
    cosine = point_values("embedding", make("embedding", {"teacher": base, "student": base}))["cosine"][CONSTANT]
    assert cosine == pytest.approx((unit @ middle).mean(), abs=1e-6) and cosine > 0.9


def test_margins_are_those_of_all_pairs_of_a_row_whatever_is_added_to_it() -> None:
    rng = np.random.default_rng(4)
    for width in (2, 4):
        t, s = rng.normal(size=(2, 30, width)).astype(np.float32).astype(np.float64)
        errors = [
            ((s[i, j] - s[i, k]) - (t[i, j] - t[i, k])) ** 2
            for i in range(30)
            for j, k in itertools.combinations(range(width), 2)
        ]
        moved = s + 5 * rng.normal(size=(30, 1))
        values = point_values("regression", make("regression", {"teacher": t, "student": moved}))
        assert values["margin_rmse_to_teacher"]["student"] == pytest.approx(np.sqrt(np.mean(errors)), rel=1e-5)


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression", "embedding"])
def test_a_metric_ignores_what_it_says_it_ignores_and_nothing_else(task: Task) -> None:
    rng = np.random.default_rng(5)
    n = 150
    teacher, student = rng.normal(size=(2, n, 4))
    labels = {"classification": rng.integers(0, 4, n), "multilabel": (rng.random((n, 4)) < 0.4).astype(np.int64)}
    known = labels.get(task, rng.normal(size=(n, 4)) if task == "regression" else None)
    changed = {
        "shift": student + rng.normal(size=(n, 1)),
        "scale": student * rng.uniform(0.3, 3, size=(n, 1)),
        "rotation": student @ np.linalg.qr(rng.normal(size=(4, 4)))[0],
    }

    def values(answers: np.ndarray) -> dict[str, float]:
        found = point_values(task, make(task, {"teacher": teacher, "student": answers}, known))
        return {name: by_model["student"] for name, by_model in found.items()}

    before, after = values(student), {change: values(answers) for change, answers in changed.items()}
    for name, value in before.items():
        about = describe(name, task)
        assert about is not None
        assert {c for c in changed if after[c][name] == pytest.approx(value, abs=1e-6)} == about.ignores, name
