"""Multilabel: logits `[N, C]`, each label on or off by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.errors import SignalError
from tutelage.evaluation.evidence import Evidence, Floats
from tutelage.evaluation.metrics.base import SHARE, Description, Mean, Metric, OfMeans, Statistic

__all__ = ["DESCRIPTIONS", "binary_kl", "measure"]

MICRO_F1 = Description(
    name="micro_f1", title="Micro-averaged F1", kind="quality", higher_is_better=True, unit="%", bounds=SHARE,
    needs_labels=True,
)  # fmt: skip
EXACT_MATCH = Description(
    name="exact_match", title="Exact match", kind="quality", higher_is_better=True, unit="%", bounds=SHARE,
    needs_labels=True,
)  # fmt: skip
AGREEMENT = Description(
    name="agreement", title="Agreement (each label)", kind="fidelity", higher_is_better=True, unit="%", bounds=SHARE,
    needs_same_width=True,
)  # fmt: skip
KL = Description(
    name="kl", title="KL divergence from the teacher (each label)", kind="fidelity", higher_is_better=False,
    bounds=(0.0, np.inf), needs_same_width=True,
)  # fmt: skip
DESCRIPTIONS = (MICRO_F1, EXACT_MATCH, AGREEMENT, KL)


def measure(evidence: Evidence) -> list[Metric]:
    """The metrics of `DESCRIPTIONS` that the evidence supports; a label is on where its logit is above 0.

    Micro-F1 `2 TP / (2 TP + FP + FN)` over all labels of all labelled rows (undefined where nothing is on); exact
    match of all labels of a row; the share of labels decided as the teacher decides them; the KL divergence of the
    teacher's and the student's Bernoulli distributions in nats, mean over labels and rows.

    Raises:
        SignalError: The outputs are not `[N, C]` with one `C`, or the labels are not `[N, C]` of 0 and 1.
    """
    _check(evidence)
    teacher = evidence.outputs["teacher"]
    others = {model: output for model, output in evidence.outputs.items() if model != "teacher"}
    agreement = {model: Mean(((output > 0) == (teacher > 0)).mean(axis=1)) for model, output in others.items()}
    divergence = {model: Mean(binary_kl(teacher, output).mean(axis=1)) for model, output in others.items()}
    metrics = [
        Metric(about=AGREEMENT, statistics=dict(agreement)),
        Metric(about=KL, statistics=dict(divergence)),
    ]
    if not evidence.has_labels or evidence.labels is None or evidence.labelled is None:
        return metrics
    known = np.flatnonzero(evidence.labelled)
    labels = evidence.labels[known] > 0.5
    on = {model: output[known] > 0 for model, output in evidence.outputs.items()}
    return [
        Metric(
            about=MICRO_F1,
            statistics={model: _micro_f1(decided, labels) for model, decided in on.items()},
            rows=known,
        ),
        Metric(
            about=EXACT_MATCH,
            statistics={model: Mean((decided == labels).all(axis=1)) for model, decided in on.items()},
            rows=known,
        ),
        *metrics,
    ]


def binary_kl(teacher: NDArray[Any], student: NDArray[Any]) -> Floats:
    """`p log(p / q) + (1 - p) log((1 - p) / (1 - q))` of each label, `p = σ(teacher)`, `q = σ(student)`, `[N, C]`."""
    t, s = teacher.astype(np.float64), student.astype(np.float64)
    log_p, log_not_p, log_q, log_not_q = (-np.logaddexp(0, -z) for z in (t, -t, s, -s))
    divergence: Floats = np.exp(log_p) * (log_p - log_q) + np.exp(log_not_p) * (log_not_p - log_not_q)
    return divergence


def _micro_f1(on: NDArray[np.bool_], labels: NDArray[np.bool_]) -> Statistic:
    columns = np.stack([(on & labels).sum(axis=1), (on ^ labels).sum(axis=1)], axis=1)
    return OfMeans(columns, lambda means: 2 * means[:, 0] / (2 * means[:, 0] + means[:, 1]))


def _check(evidence: Evidence) -> None:
    shape = evidence.outputs["teacher"].shape
    for model, output in evidence.outputs.items():
        if output.ndim != 2 or output.shape != shape:
            raise SignalError(
                f"outputs of {model} on `{evidence.set}`",
                expected=f"logits [N, C] of one C for every model; the teacher's are {list(shape)}",
                found=f"shape {list(output.shape)}",
            )
    labels = evidence.labels
    if labels is not None and (labels.shape != shape or not np.isin(labels[evidence.labelled], (0, 1)).all()):
        raise SignalError(
            f"labels of `{evidence.set}`",
            expected=f"0 or 1 for each label, shape {list(shape)}",
            found=f"shape {list(labels.shape)}, values {np.unique(labels[evidence.labelled])[:5].tolist()}",
        )
