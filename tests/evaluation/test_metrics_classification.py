from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import log_softmax, rel_entr, softmax
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss

from tutelage.errors import SignalError
from tutelage.evaluation.evidence import Evidence
from tutelage.evaluation.metrics import available_metrics, metrics_for, point_values
from tutelage.evaluation.metrics.classification import bin_of


def make(n: int = 400, classes: int = 5, scale: float = 2.0) -> Evidence:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, classes, n)
    labelled = rng.random(n) < 0.8
    labels[~labelled] = -100
    outputs = {
        model: (rng.normal(size=(n, classes)) + np.eye(classes)[labels % classes] * scale).astype(np.float32)
        for model in ("teacher", "student", "baseline", "untrained")
    }
    return Evidence(
        set="test",
        task="classification",
        rows=np.arange(n),
        digests=["d"] * n,
        outputs=outputs,
        labels=labels,
        labelled=labelled,
    )


EVIDENCE = make()
VALUES = point_values("classification", EVIDENCE)
KNOWN = EVIDENCE.labelled
LABELS = EVIDENCE.labels[KNOWN]  # type: ignore[index]


@pytest.mark.parametrize("model", ["teacher", "student", "baseline", "untrained"])
def test_quality_is_scikit_learns_on_the_labelled_rows_only(model: str) -> None:
    z = EVIDENCE.outputs[model][KNOWN].astype(np.float64)
    p = softmax(z, axis=1)
    assert VALUES["accuracy"][model] == pytest.approx(accuracy_score(LABELS, p.argmax(1)), abs=1e-12)
    assert VALUES["nll"][model] == pytest.approx(log_loss(LABELS, p, labels=range(5)), abs=1e-12)
    brier = brier_score_loss(LABELS, p, labels=range(5), scale_by_half=False)
    assert VALUES["brier"][model] == pytest.approx(brier, abs=1e-12)


def test_ece_is_the_papers_sum_over_bins_open_below_and_closed_above() -> None:
    for model, output in EVIDENCE.outputs.items():
        p = softmax(output[KNOWN].astype(np.float64), axis=1)
        expected = 0.0
        for b in range(15):
            inside = [i for i in range(len(p)) if b / 15 < p[i].max() <= (b + 1) / 15]
            if inside:
                right = np.mean([p[i].argmax() == LABELS[i] for i in inside])
                expected += len(inside) / len(p) * abs(right - np.mean([p[i].max() for i in inside]))
        assert VALUES["ece"][model] == pytest.approx(expected, abs=1e-12)


def test_a_confidence_on_the_edge_of_two_bins_is_in_the_lower_one() -> None:
    edges = np.linspace(0, 1, 16)
    assert bin_of(edges).tolist() == [0, *range(15)]
    assert bin_of(edges[:-1] + 1e-9).tolist() == list(range(15))


def test_kl_is_of_the_teacher_from_the_student_in_nats_over_all_rows() -> None:
    teacher = softmax(EVIDENCE.outputs["teacher"].astype(np.float64), axis=1)
    for model in ("student", "baseline", "untrained"):
        student = softmax(EVIDENCE.outputs[model].astype(np.float64), axis=1)
        assert VALUES["kl"][model] == pytest.approx(rel_entr(teacher, student).sum(1).mean(), abs=1e-12)
    assert "teacher" not in VALUES["kl"]


def test_agreement_and_flips_counted_row_by_row() -> None:
    counts = dict.fromkeys(("same", "negative", "positive", "right", "same_right", "same_wrong"), 0)
    t, s = (EVIDENCE.outputs[m].argmax(1) for m in ("teacher", "student"))
    for a, b, y, known in zip(t, s, EVIDENCE.labels, KNOWN, strict=True):  # type: ignore[arg-type]
        counts["same"] += a == b
        if known:
            counts["right"] += a == y
            counts["negative"] += a == y and b != y
            counts["positive"] += a != y and b == y
            counts["same_right"] += a == y and b == a
            counts["same_wrong"] += a != y and b == a
    n = int(KNOWN.sum())  # type: ignore[union-attr]
    got = {name: by_model["student"] for name, by_model in VALUES.items()}
    assert got["agreement"] == pytest.approx(counts["same"] / len(EVIDENCE))
    assert got["negative_flips"] == pytest.approx(counts["negative"] / n)
    assert got["positive_flips"] == pytest.approx(counts["positive"] / n)
    assert got["agreement_teacher_right"] == pytest.approx(counts["same_right"] / counts["right"])
    assert got["agreement_teacher_wrong"] == pytest.approx(counts["same_wrong"] / (n - counts["right"]))
    # What must hold whatever the data: accuracy changes by the flips.
    gained = got["positive_flips"] - got["negative_flips"]
    assert got["accuracy"] - VALUES["accuracy"]["teacher"] == pytest.approx(gained, abs=1e-12)


def test_logits_of_ten_thousand_give_finite_divergence() -> None:
    teacher = np.array([[1e4, -1e4], [0, 0]], np.float32)
    student = np.array([[-1e4, 1e4], [0, 0]], np.float32)
    evidence = Evidence(
        set="test",
        task="classification",
        rows=np.arange(2),
        digests=["", ""],
        outputs={"teacher": teacher, "student": student},
    )
    assert point_values("classification", evidence)["kl"]["student"] == pytest.approx(1e4)
    assert log_softmax(teacher[0]).tolist() == [0, -2e4]


def test_the_names_told_beforehand_are_the_names_measured() -> None:
    assert {m.about.name: m.about.kind for m in metrics_for("classification", EVIDENCE)} == available_metrics(
        "classification", labels=True
    )
    bare = Evidence(
        set="test",
        task="classification",
        rows=EVIDENCE.rows,
        digests=EVIDENCE.digests,
        outputs=EVIDENCE.outputs,
    )
    assert set(point_values("classification", bare)) == set(available_metrics("classification", labels=False))


def test_a_further_set_does_not_take_the_test_sets_names() -> None:
    further = Evidence(**{**vars(EVIDENCE), "set": "hans"})
    assert "accuracy:hans" in point_values("classification", further)
    assert "accuracy" not in point_values("classification", further)


@pytest.mark.parametrize(
    ("outputs", "labels", "told"),
    [
        (np.zeros((3, 1), np.float32), np.zeros(3, np.int64), "C >= 2"),
        (np.zeros((3, 4, 2), np.float32), np.zeros(3, np.int64), "C >= 2"),
        (np.zeros((3, 2), np.float32), np.array([0, 1, 2]), "classes 0 to 1"),
        (np.zeros((3, 2), np.float32), np.array([0, -100, 1]), "-100"),
        (np.zeros((3, 2), np.float32), np.zeros((3, 2), np.int64), "int64 classes"),
        (np.full((3, 2), np.nan, np.float32), np.zeros(3, np.int64), "NaN or infinity in 3 of 3"),
    ],
)
def test_what_can_not_be_measured_is_refused(outputs: np.ndarray, labels: np.ndarray, told: str) -> None:
    evidence = Evidence(
        set="test",
        task="classification",
        rows=np.arange(3),
        digests=["a"] * 3,
        outputs={"teacher": outputs, "student": outputs},
        labels=labels,
        labelled=np.ones(3, bool),
    )
    with pytest.raises(SignalError, match=told):
        metrics_for("classification", evidence)


def test_a_student_with_other_classes_is_refused_not_compared_by_position() -> None:
    evidence = Evidence(
        set="test",
        task="classification",
        rows=np.arange(3),
        digests=["a"] * 3,
        outputs={"teacher": np.zeros((3, 4), np.float32), "student": np.zeros((3, 5), np.float32)},
    )
    with pytest.raises(SignalError, match="outputs of student"):
        metrics_for("classification", evidence)


def test_a_teacher_without_errors_has_no_copied_errors() -> None:
    labels = np.array([0, 1, 0])
    perfect = np.eye(2, dtype=np.float32)[labels]
    evidence = Evidence(
        set="test",
        task="classification",
        rows=np.arange(3),
        digests=["a"] * 3,
        outputs={"teacher": perfect, "student": perfect},
        labels=labels,
        labelled=np.ones(3, bool),
    )
    values = point_values("classification", evidence)
    assert "agreement_teacher_wrong" not in values
    assert values["agreement_teacher_right"]["student"] == 1
    assert math.isclose(values["kl"]["student"], 0, abs_tol=1e-15)
