"""What a report draws, as plain data, and the rows on which the student is furthest from the teacher."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.evaluation.draw import shuffled
from tutelage.evaluation.evidence import Evidence, Floats, cosine, unit
from tutelage.evaluation.metrics.classification import BINS, bin_of, kl, log_softmax
from tutelage.evaluation.metrics.embedding import row_pairs, similarities
from tutelage.evaluation.metrics.multilabel import binary_kl

__all__ = ["answers_differ", "plot_data", "worst_disagreements"]

POINTS = 2_000
LANDMARKS = 500
PLOTTED = ("teacher", "student", "baseline")


def plot_data(evidence: Evidence) -> dict[str, Any]:
    """Data for the figures of a report, ready for JSON.

    Returns:
        `reliability` (classification with labels): for each model a list of 15 bins `{"low", "high", "count",
        "confidence", "accuracy"}`, the last two None in an empty bin. `scatter` (embeddings, regression): `quantity`,
        a title, and for each model up to 2,000 numbers in the same order, those of `teacher` for the x axis.
    """
    models = {model: evidence.outputs[model] for model in PLOTTED if model in evidence.outputs}
    if evidence.task == "classification" and evidence.has_labels and evidence.labels is not None:
        labels = evidence.labels[evidence.labelled].astype(np.int64)
        known = {model: output[evidence.labelled] for model, output in models.items()}
        return {"reliability": {model: _reliability(output, labels) for model, output in known.items()}}
    if evidence.task == "embedding" and len(evidence) > 1:
        pairs = row_pairs(len(evidence), POINTS)
        points = {model: similarities(output, pairs).tolist() for model, output in models.items()}
        return {"scatter": {"quantity": "cosine similarity of two rows", **points}}
    if evidence.task == "regression":
        rows = np.sort(shuffled(len(evidence), seed=0)[:POINTS])
        values = {model: output.reshape(len(output), -1)[rows, 0].tolist() for model, output in models.items()}
        width = evidence.outputs["teacher"].reshape(len(evidence), -1).shape[1]
        return {"scatter": {"quantity": "value" if width == 1 else f"the first of {width} values", **values}}
    return {}


def worst_disagreements(evidence: Evidence, k: int = 20) -> list[tuple[int, float]]:
    """The `k` rows on which the student is furthest from the teacher, worst first.

    The score is `KL(teacher || student)` in nats (multilabel: summed over labels), the length of the difference of the
    values, or 1 - cosine of the embeddings; for embeddings of different widths the mean absolute difference of the
    row's cosines with up to 500 other rows.

    A row on which both give the same class, or the same labels, comes after all on which they do not.

    Returns:
        Row numbers in the data set and scores. Rows with equal scores come in their order in the evidence.
    """
    score, differ = _disagreement(evidence), answers_differ(evidence)
    worst = np.lexsort((-score, ~differ))[:k]
    return [(int(evidence.rows[i]), float(score[i])) for i in worst]


def answers_differ(evidence: Evidence) -> NDArray[np.bool_]:
    """Whether student and teacher give different answers, row by row: another class, other labels, other values."""
    teacher, student = evidence.outputs["teacher"], evidence.outputs["student"]
    if evidence.task == "classification":
        differ: NDArray[np.bool_] = teacher.argmax(axis=1) != student.argmax(axis=1)
    elif evidence.task == "multilabel":
        differ = ((teacher > 0) != (student > 0)).any(axis=1)
    else:
        differ = _disagreement(evidence) > 0
    return differ


def _disagreement(evidence: Evidence) -> Floats:
    teacher, student = evidence.outputs["teacher"], evidence.outputs["student"]
    match evidence.task:
        case "classification":
            return kl(log_softmax(teacher), log_softmax(student))
        case "multilabel":
            summed: Floats = binary_kl(teacher, student).sum(axis=1)
            return summed
        case "regression":
            difference = (student.astype(np.float64) - teacher).reshape(len(evidence), -1)
            lengths: Floats = np.linalg.norm(difference, axis=1)
            return lengths
        case "embedding":
            if evidence.same_width:
                return 1 - cosine(student, teacher)
            landmarks = shuffled(len(evidence), seed=0)[:LANDMARKS]
            ours, theirs = unit(student), unit(teacher)
            gaps: Floats = np.abs(ours @ ours[landmarks].T - theirs @ theirs[landmarks].T).mean(axis=1)
            return gaps


def _reliability(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> list[dict[str, float | int | None]]:
    log_p = log_softmax(logits)
    confidence, right = np.exp(log_p.max(axis=1)), log_p.argmax(axis=1) == labels
    bins = bin_of(confidence)
    edges = np.linspace(0, 1, BINS + 1).tolist()

    def of(b: int) -> dict[str, float | int | None]:
        inside = bins == b
        count = int(inside.sum())
        return {
            "low": edges[b],
            "high": edges[b + 1],
            "count": count,
            "confidence": float(confidence[inside].mean()) if count else None,
            "accuracy": float(right[inside].mean()) if count else None,
        }

    return [of(b) for b in range(BINS)]
