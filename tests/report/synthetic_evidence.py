"""Predictions drawn from a seeded generator, and their metrics with plain normal intervals."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from tutelage.evaluation.evidence import Evidence, PairEvidence

Array = np.ndarray[Any, Any]
CLASSES = ["T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
Z = 1.96


def estimate(value: float, half: float) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def _digests(n: int) -> list[str]:
    return [hashlib.sha256(str(k).encode()).hexdigest()[:16] for k in range(n)]


def classification_evidence(draw: np.random.Generator, rows: int, outcome: str) -> Evidence:
    labels = draw.integers(0, 10, rows)
    difficulty = draw.gamma(2.0, 0.9, (rows, 1))
    truth = np.eye(10)[labels] * 5.2
    shared = draw.normal(0, 1, (rows, 10)) * difficulty

    def logits(noise: float, sharpness: float) -> Array:
        return (sharpness * (truth + shared + draw.normal(0, noise, (rows, 10)) * difficulty)).astype(np.float32)

    noise = {"PASS": 0.22, "INCONCLUSIVE": 0.5, "FAIL": 0.95}[outcome]
    outputs = {
        "teacher": logits(0.08, 1.1),
        "student": logits(noise, 1.25),
        "baseline": logits(0.85, 1.9),
        "untrained": draw.normal(0, 0.3, (rows, 10)).astype(np.float32),
    }
    return Evidence(
        set="test",
        task="classification",
        rows=np.arange(rows),
        digests=_digests(rows),
        outputs=outputs,
        labels=labels,
        labelled=np.ones(rows, dtype=bool),
        classes=CLASSES,
    )


def embedding_evidence(draw: np.random.Generator, rows: int, outcome: str) -> Evidence:
    topics = draw.normal(0, 1, (40, 64))
    teacher = topics[draw.integers(0, 40, rows)] * draw.uniform(0.2, 1.4, (rows, 1)) + draw.normal(0, 0.7, (rows, 64))
    student = teacher + draw.normal(0, 0.35 if outcome == "PASS" else 0.7, teacher.shape)
    untrained = 0.5 * teacher + draw.normal(0, 1.1, teacher.shape)
    outputs = {
        n: v.astype(np.float32) for n, v in (("teacher", teacher), ("student", student), ("untrained", untrained))
    }
    return Evidence(set="test", task="embedding", rows=np.arange(rows), digests=_digests(rows), outputs=outputs)


def regression_evidence(draw: np.random.Generator, rows: int, outcome: str) -> Evidence:
    truth = draw.gamma(3.0, 9.0, rows)
    teacher = truth + draw.normal(0, 2.0, rows)
    outputs = {
        "teacher": teacher,
        "student": teacher + draw.normal(0, 1.2, rows),
        "baseline": truth + draw.normal(0, 3.6, rows),
    }
    return Evidence(
        set="test",
        task="regression",
        rows=np.arange(rows),
        digests=_digests(rows),
        outputs={n: v.astype(np.float32) for n, v in outputs.items()},
        labels=truth,
        labelled=np.ones(rows, dtype=bool),
    )


def human_pairs(draw: np.random.Generator) -> PairEvidence:
    score = draw.uniform(0, 10, 353)
    close = {n: np.clip(score / 12 + draw.normal(0, s, 353), -1, 1) for n, s in (("teacher", 0.16), ("student", 0.18))}
    return PairEvidence(set="wordsim353", score=score, similarities=close)


def _metric(name: str, title: str, kind: str, values: dict[str, Array], **other: Any) -> dict[str, Any]:
    """A metric that is a mean over rows, with normal intervals, values and paired differences alike."""

    def about(v: Array) -> dict[str, float]:
        return estimate(float(v.mean()), float(Z * v.std() / np.sqrt(len(v))))

    against = [m for m in ("teacher", "baseline", "untrained") if m in values]
    return {
        "name": name,
        "title": title,
        "kind": kind,
        "set": "test",
        "higher_is_better": True,
        "n": len(values["student"]),
        "models": {m: about(v) for m, v in values.items()},
        "differences": {f"student - {m}": about(values["student"] - values[m]) for m in against},
        "unit": "%",
        "confidence": 0.95,
        "sd_difference": None,
        **other,
    }


def classification_metrics(evidence: Evidence) -> list[dict[str, Any]]:
    right: dict[str, Any] = {}
    same: dict[str, Any] = {}
    nll: dict[str, Any] = {}
    assert evidence.labels is not None
    teacher = evidence.outputs["teacher"].argmax(1)
    for model, logits in evidence.outputs.items():
        z = logits.astype(float)
        logp = z - np.log(np.exp(z - z.max(1, keepdims=True)).sum(1, keepdims=True)) - z.max(1, keepdims=True)
        right[model] = (z.argmax(1) == evidence.labels).astype(float)
        nll[model] = -logp[np.arange(len(z)), evidence.labels]
        if model != "teacher":
            same[model] = (z.argmax(1) == teacher).astype(float)
    flips = {
        "student": right["teacher"] * (1 - right["student"]),
        "baseline": right["teacher"] * (1 - right["baseline"]),
    }
    return [
        _metric("accuracy", "Accuracy", "quality", right),
        _metric("nll", "Negative log-likelihood", "quality", nll, unit="", higher_is_better=False),
        _metric("agreement", "Agreement", "fidelity", same),
        _metric("negative_flips", "Negative flips", "fidelity", flips, higher_is_better=False),
    ]


def embedding_metrics(evidence: Evidence) -> list[dict[str, Any]]:
    unit = {m: v / np.linalg.norm(v, axis=1, keepdims=True) for m, v in evidence.outputs.items()}
    cosine = {m: (unit[m] * unit["teacher"]).sum(1) for m in ("student", "untrained")}
    human = {
        "name": "spearman_human:wordsim353",
        "title": "Spearman with people",
        "kind": "quality",
        "set": "wordsim353",
        "higher_is_better": True,
        "n": 353,
        "unit": "",
        "confidence": 0.95,
        "sd_difference": None,
        "models": {
            "teacher": estimate(0.672, 0.05),
            "student": estimate(0.655, 0.052),
            "untrained": estimate(0.31, 0.08),
        },
        "differences": {"student - teacher": estimate(-0.017, 0.021), "student - untrained": estimate(0.345, 0.07)},
    }
    return [_metric("cosine", "Cosine to the teacher", "fidelity", cosine, unit=""), human]


def regression_metrics(evidence: Evidence) -> list[dict[str, Any]]:
    assert evidence.labels is not None
    error = {m: np.abs(v - evidence.labels) for m, v in evidence.outputs.items()}
    gap = {m: np.abs(v - evidence.outputs["teacher"]) for m, v in evidence.outputs.items() if m != "teacher"}
    return [
        _metric("mae", "Mean absolute error", "quality", error, unit="", higher_is_better=False),
        _metric("rmse_to_teacher", "RMSE to the teacher", "fidelity", gap, unit="", higher_is_better=False),
    ]


EVIDENCE = {
    "classification": classification_evidence,
    "embedding": embedding_evidence,
    "regression": regression_evidence,
}
METRICS = {"classification": classification_metrics, "embedding": embedding_metrics, "regression": regression_metrics}
