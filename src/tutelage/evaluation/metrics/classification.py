"""Classification: logits `[N, C]`, one class a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.errors import SignalError
from tutelage.evaluation.evidence import Evidence, Floats
from tutelage.evaluation.metrics.base import SHARE, Description, Mean, Metric, OfMeans, Statistic

__all__ = ["BINS", "DESCRIPTIONS", "bin_of", "kl", "log_softmax", "measure"]

BINS = 15
"""Equal-width bins of confidence in the expected calibration error."""

AGREEMENT = Description(
    name="agreement", title="Agreement", kind="fidelity", higher_is_better=True, unit="%", bounds=SHARE,
    needs_same_width=True,
)  # fmt: skip
KL = Description(
    name="kl", title="KL divergence from the teacher", kind="fidelity", higher_is_better=False, bounds=(0.0, np.inf),
    needs_same_width=True,
)  # fmt: skip
ACCURACY = Description(
    name="accuracy", title="Accuracy", kind="quality", higher_is_better=True, unit="%", bounds=SHARE, needs_labels=True
)
NLL = Description(
    name="nll", title="Negative log-likelihood", kind="quality", higher_is_better=False, bounds=(0.0, np.inf),
    needs_labels=True,
)  # fmt: skip
BRIER = Description(
    name="brier", title="Squared error of the probabilities (Brier score)", kind="quality", higher_is_better=False,
    bounds=(0.0, 2.0), needs_labels=True,
)  # fmt: skip
ECE = Description(
    name="ece", title="Expected calibration error", kind="quality", higher_is_better=False, unit="%", bounds=SHARE,
    needs_labels=True,
)  # fmt: skip
TEACHER_RIGHT = Description(
    name="agreement_teacher_right", title="Agreement where the teacher is right", kind="fidelity",
    higher_is_better=True, unit="%", bounds=SHARE, needs_labels=True, needs_same_width=True,
)  # fmt: skip
TEACHER_WRONG = Description(
    name="agreement_teacher_wrong", title="Share of copied errors (agreement where the teacher is wrong)",
    kind="fidelity", higher_is_better=False, unit="%", bounds=SHARE, needs_labels=True, needs_same_width=True,
)  # fmt: skip
NEGATIVE_FLIPS = Description(
    name="negative_flips", title="Share of negative flips (teacher right, student wrong)", kind="fidelity",
    higher_is_better=False, unit="%", bounds=SHARE, needs_labels=True, needs_same_width=True,
)  # fmt: skip
POSITIVE_FLIPS = Description(
    name="positive_flips", title="Share of positive flips (teacher wrong, student right)", kind="fidelity",
    higher_is_better=True, unit="%", bounds=SHARE, needs_labels=True, needs_same_width=True,
)  # fmt: skip
DESCRIPTIONS = (
    ACCURACY, NLL, BRIER, ECE, AGREEMENT, KL, TEACHER_RIGHT, TEACHER_WRONG, NEGATIVE_FLIPS, POSITIVE_FLIPS,
)  # fmt: skip


def measure(evidence: Evidence) -> list[Metric]:
    """The metrics of `DESCRIPTIONS` that the evidence supports.

    Accuracy; mean negative log-likelihood `-log p(y)`; Brier's score `Σ_c (p_c - [c = y])²` (its original, 0 to 2);
    expected calibration error `Σ_b |Σ_{i in b} (confidence_i - right_i)| / n` over 15 equal bins; top-1 agreement with
    the teacher, also where the teacher is right and where it is wrong; `KL(teacher || student)` in nats; flips as
    shares of all labelled rows. The metrics with labels use the labelled rows, the others all rows.

    A teacher that gives a label alone, or cut-off probabilities, gives classes no mass: -inf. Divergence, agreement,
    Brier's score and calibration are those of the distribution it states; its likelihood, where a label has no mass, is
    infinite and left out.

    Raises:
        SignalError: The outputs are not `[N, C]` with one `C >= 2`, or a label is no class.
    """
    _check(evidence)
    logs = {model: log_softmax(output) for model, output in evidence.outputs.items()}
    others = {model: log_p for model, log_p in logs.items() if model != "teacher"}
    chosen = {model: log_p.argmax(axis=1) for model, log_p in logs.items()}
    metrics = [
        _means(AGREEMENT, others, lambda model: chosen[model] == chosen["teacher"]),
        _means(KL, others, lambda model: kl(logs["teacher"], logs[model])),
    ]
    if not evidence.has_labels or evidence.labels is None or evidence.labelled is None:
        return metrics
    known = np.flatnonzero(evidence.labelled)
    labels = evidence.labels[known].astype(np.int64)
    logs = {model: log_p[known] for model, log_p in logs.items()}
    chosen = {model: classes[known] for model, classes in chosen.items()}

    def likelihood(model: str) -> Floats:
        negative: Floats = -logs[model][np.arange(len(labels)), labels]
        return negative

    judged = [
        _means(ACCURACY, logs, lambda model: chosen[model] == labels),
        _means(NLL, {m: log_p for m, log_p in logs.items() if _gives_mass(log_p, labels)}, likelihood),
        _means(BRIER, logs, lambda model: ((np.exp(logs[model]) - np.eye(logs[model].shape[1])[labels]) ** 2).sum(1)),
        Metric(about=ECE, statistics={model: _ece(log_p, labels) for model, log_p in logs.items()}),
    ]
    quality = [replace(metric, rows=known) for metric in judged]
    return [*quality, *metrics, *_against_teacher(chosen, labels, known)]


def _against_teacher(
    chosen: dict[str, NDArray[np.int64]], labels: NDArray[np.int64], known: NDArray[np.int64]
) -> list[Metric]:
    """Agreement split by whether the teacher is right, and flips; `known` are the positions of the rows."""
    others = {model: classes for model, classes in chosen.items() if model != "teacher"}
    right = {model: classes == labels for model, classes in chosen.items()}
    same = {model: classes == chosen["teacher"] for model, classes in others.items()}
    teacher = right["teacher"]
    split = [
        Metric(about=about, statistics={model: Mean(equal[rows]) for model, equal in same.items()}, rows=known[rows])
        for about, rows in ((TEACHER_RIGHT, teacher), (TEACHER_WRONG, ~teacher))
        if rows.any()
    ]
    flips = [
        _means(NEGATIVE_FLIPS, others, lambda model: teacher & ~right[model]),
        _means(POSITIVE_FLIPS, others, lambda model: ~teacher & right[model]),
    ]
    return [*split, *(replace(metric, rows=known) for metric in flips)]


def log_softmax(logits: NDArray[Any]) -> Floats:
    """`log softmax` over the last axis in float64: `z - max z - log Σ exp(z - max z)`."""
    z = logits.astype(np.float64)
    z -= z.max(axis=-1, keepdims=True)
    z -= np.log(np.exp(z).sum(axis=-1, keepdims=True))
    return z


def kl(log_p: Floats, log_q: Floats) -> Floats:
    """`KL(p || q) = Σ_c p_c (log p_c - log q_c)` a row, in nats; a class without mass in `p` adds nothing."""
    has_mass = log_p > -np.inf
    apart = np.subtract(log_p, log_q, out=np.zeros_like(log_p), where=has_mass)
    divergence: Floats = (np.exp(log_p) * apart).sum(axis=-1)
    return divergence


def bin_of(confidence: Floats) -> NDArray[np.int64]:
    """The number of the bin `(b / 15, (b + 1) / 15]` that each confidence is in."""
    return np.digitize(confidence, np.linspace(0, 1, BINS + 1)[1:-1], right=True)


def _gives_mass(log_p: Floats, labels: NDArray[np.int64]) -> bool:
    """Whether every label has a probability above 0."""
    return bool((log_p[np.arange(len(labels)), labels] > -np.inf).all())


def _ece(log_p: Floats, labels: NDArray[np.int64]) -> Statistic:
    confidence = np.exp(log_p.max(axis=1))
    gap = confidence - (log_p.argmax(axis=1) == labels)
    columns = np.eye(BINS)[bin_of(confidence)] * gap[:, None]
    return OfMeans(columns, lambda means: np.abs(means).sum(axis=1), smooth=False)


def _means(about: Description, models: dict[str, Any], values: Callable[[str], NDArray[Any]]) -> Metric:
    return Metric(about=about, statistics={model: Mean(values(model)) for model in models})


def _check(evidence: Evidence) -> None:
    teacher = evidence.outputs["teacher"]
    for model, output in evidence.outputs.items():
        if output.ndim != 2 or output.shape[1] < 2 or output.shape != teacher.shape:
            raise SignalError(
                f"outputs of {model} on `{evidence.set}`",
                expected=f"logits [N, C] of one C >= 2 for every model; the teacher's are {list(teacher.shape)}",
                found=f"shape {list(output.shape)}",
            )
    if evidence.labels is not None:
        known = evidence.labels[evidence.labelled]
        if evidence.labels.ndim != 1 or evidence.labels.dtype != np.int64:
            found = f"{evidence.labels.dtype} of shape {list(evidence.labels.shape)}"
            raise SignalError(f"labels of `{evidence.set}`", expected="int64 classes [N]", found=found)
        if known.size and not (known.min() >= 0 and known.max() < teacher.shape[1]):
            raise SignalError(
                f"labels of `{evidence.set}`",
                expected=f"classes 0 to {teacher.shape[1] - 1}: the teacher has {teacher.shape[1]} outputs",
                found=f"classes {known.min()} to {known.max()}",
            )
