"""Classification: logits `[N, C]`, one class a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.errors import SignalError
from tutelage.evaluation.evidence import Evidence, Floats
from tutelage.evaluation.metrics.base import CONSTANT, SHARE, Change, Description, Mean, Metric, OfMeans, Statistic
from tutelage.evaluation.metrics.rare import balanced_recall, f1_by_class, roc_area_by_class

__all__ = ["BINS", "DESCRIPTIONS", "bin_of", "kl", "log_softmax", "measure"]

BINS = 15
"""Equal-width bins of confidence in the expected calibration error."""
SHIFTED = frozenset[Change]({"shift"})
RANKED = frozenset[Change]({"shift", "scale"})

AGREEMENT = Description(
    name="agreement", title="Agreement", kind="fidelity", higher_is_better=True, unit="%", bounds=SHARE,
    needs_same_width=True, ignores=RANKED, decisions=True,
)  # fmt: skip
KL = Description(
    name="kl", title="KL divergence from the teacher", kind="fidelity", higher_is_better=False, bounds=(0.0, np.inf),
    needs_same_width=True, ignores=SHIFTED,
)  # fmt: skip
BALANCED_AGREEMENT = Description(
    name="balanced_agreement", title="Agreement (mean over the teacher's classes)", kind="fidelity",
    higher_is_better=True, unit="%", bounds=SHARE, needs_same_width=True, ignores=RANKED, decisions=True,
)  # fmt: skip
ACCURACY = Description(
    name="accuracy", title="Accuracy", kind="quality", higher_is_better=True, unit="%", bounds=SHARE,
    needs_labels=True, ignores=RANKED, decisions=True,
)  # fmt: skip
BALANCED_ACCURACY = Description(
    name="balanced_accuracy", title="Balanced accuracy (mean over the classes)", kind="quality", higher_is_better=True,
    unit="%", bounds=SHARE, needs_labels=True, ignores=RANKED, decisions=True,
)  # fmt: skip
MACRO_F1 = Description(
    name="macro_f1", title="Macro-averaged F1 (classes that occur)", kind="quality", higher_is_better=True, unit="%",
    bounds=SHARE, needs_labels=True, ignores=RANKED, decisions=True,
)  # fmt: skip
AUC = Description(
    name="auc", title="Area under the ROC curve (mean of each class against the rest)", kind="quality",
    higher_is_better=True, unit="%", bounds=SHARE, needs_labels=True, ignores=SHIFTED,
)  # fmt: skip
NLL = Description(
    name="nll", title="Negative log-likelihood", kind="quality", higher_is_better=False, bounds=(0.0, np.inf),
    needs_labels=True, ignores=SHIFTED,
)  # fmt: skip
BRIER = Description(
    name="brier", title="Squared error of the probabilities (Brier score)", kind="quality", higher_is_better=False,
    bounds=(0.0, 2.0), needs_labels=True, ignores=SHIFTED,
)  # fmt: skip
ECE = Description(
    name="ece", title="Expected calibration error", kind="quality", higher_is_better=False, unit="%", bounds=SHARE,
    needs_labels=True, ignores=SHIFTED,
)  # fmt: skip
TEACHER_RIGHT = Description(
    name="agreement_teacher_right", title="Agreement where the teacher is right", kind="fidelity",
    higher_is_better=True, unit="%", bounds=SHARE, needs_labels=True, needs_same_width=True,
    ignores=RANKED, decisions=True,
)  # fmt: skip
TEACHER_WRONG = Description(
    name="agreement_teacher_wrong", title="Share of copied errors (agreement where the teacher is wrong)",
    kind="fidelity", higher_is_better=False, unit="%", bounds=SHARE, needs_labels=True, needs_same_width=True,
    ignores=RANKED, decisions=True,
)  # fmt: skip
NEGATIVE_FLIPS = Description(
    name="negative_flips", title="Share of negative flips (teacher right, student wrong)", kind="fidelity",
    higher_is_better=False, unit="%", bounds=SHARE, needs_labels=True, needs_same_width=True,
    ignores=RANKED, decisions=True,
)  # fmt: skip
POSITIVE_FLIPS = Description(
    name="positive_flips", title="Share of positive flips (teacher wrong, student right)", kind="fidelity",
    higher_is_better=True, unit="%", bounds=SHARE, needs_labels=True, needs_same_width=True,
    ignores=RANKED, decisions=True,
)  # fmt: skip
DESCRIPTIONS = (
    ACCURACY, BALANCED_ACCURACY, MACRO_F1, AUC, NLL, BRIER, ECE, AGREEMENT, BALANCED_AGREEMENT, KL, TEACHER_RIGHT,
    TEACHER_WRONG, NEGATIVE_FLIPS, POSITIVE_FLIPS,
)  # fmt: skip


def measure(evidence: Evidence) -> list[Metric]:
    """The metrics of `DESCRIPTIONS` that the evidence supports.

    Accuracy; balanced accuracy, the mean over classes of the share of their rows that are right; macro-F1; the area
    under the ROC curve of each class against the rest, mean over classes (of two classes both have the same); these
    three over the classes that occur in the labels; mean negative log-likelihood `-log p(y)`; Brier's score
    `Σ_c (p_c - [c = y])²` (its original, 0 to 2); expected calibration error
    `Σ_b |Σ_{i in b} (confidence_i - right_i)| / n` over 15 equal bins; top-1 agreement with the teacher, also where the
    teacher is right and where it is wrong, and as a mean over the teacher's classes; `KL(teacher || student)` in nats;
    flips as shares of all labelled rows. The metrics with labels use the labelled rows, the others all rows.

    The constant answer says the shares of the labels (beside the teacher: its mean probabilities), and so the most
    frequent class: no other has a higher accuracy, or a lower likelihood loss or Brier score.

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
    others[CONSTANT] = _log_shares(np.exp(logs["teacher"]).mean(axis=0), len(evidence))
    chosen[CONSTANT] = np.full(len(evidence), np.bincount(chosen["teacher"]).argmax())
    same = {model: chosen[model] == chosen["teacher"] for model in others}
    metrics = [
        _means(AGREEMENT, others, lambda model: same[model]),
        Metric(
            about=BALANCED_AGREEMENT,
            statistics={model: balanced_recall(equal, chosen["teacher"]) for model, equal in same.items()},
        ),
        _means(KL, others, lambda model: kl(logs["teacher"], others[model])),
    ]
    if not evidence.has_labels or evidence.labels is None or evidence.labelled is None:
        return metrics
    known = np.flatnonzero(evidence.labelled)
    labels = evidence.labels[known].astype(np.int64)
    logs = {model: log_p[known] for model, log_p in logs.items()}
    split = _by_teacher({model: classes[known] for model, classes in chosen.items()}, labels, known)
    logs[CONSTANT] = _log_shares(np.bincount(labels, minlength=logs["teacher"].shape[1]) / len(labels), len(labels))
    chosen = {model: log_p.argmax(axis=1) for model, log_p in logs.items()}

    def likelihood(model: str) -> Floats:
        negative: Floats = -logs[model][np.arange(len(labels)), labels]
        return negative

    judged = [
        _means(ACCURACY, logs, lambda model: chosen[model] == labels),
        Metric(
            about=BALANCED_ACCURACY,
            statistics={model: balanced_recall(classes == labels, labels) for model, classes in chosen.items()},
        ),
        Metric(about=MACRO_F1, statistics={model: f1_by_class(classes, labels) for model, classes in chosen.items()}),
        Metric(about=AUC, statistics={model: roc_area_by_class(log_p, labels) for model, log_p in logs.items()}),
        _means(NLL, {m: log_p for m, log_p in logs.items() if _gives_mass(log_p, labels)}, likelihood),
        _means(BRIER, logs, lambda model: ((np.exp(logs[model]) - np.eye(logs[model].shape[1])[labels]) ** 2).sum(1)),
        Metric(about=ECE, statistics={model: _ece(log_p, labels) for model, log_p in logs.items()}),
    ]
    quality = [replace(metric, rows=known) for metric in judged]
    return [*quality, *metrics, *split, *_flips(chosen, labels, known)]


def _by_teacher(
    chosen: dict[str, NDArray[np.int64]], labels: NDArray[np.int64], known: NDArray[np.int64]
) -> list[Metric]:
    """Agreement split by whether the teacher is right; `known` are the positions of the rows."""
    right = chosen["teacher"] == labels
    same = {model: classes == chosen["teacher"] for model, classes in chosen.items() if model != "teacher"}
    return [
        Metric(about=about, statistics={model: Mean(equal[rows]) for model, equal in same.items()}, rows=known[rows])
        for about, rows in ((TEACHER_RIGHT, right), (TEACHER_WRONG, ~right))
        if rows.any()
    ]


def _flips(chosen: dict[str, NDArray[np.int64]], labels: NDArray[np.int64], known: NDArray[np.int64]) -> list[Metric]:
    """Rows that the teacher has right and another has wrong, and the reverse."""
    right = {model: classes == labels for model, classes in chosen.items()}
    teacher = right.pop("teacher")
    flips = [
        _means(NEGATIVE_FLIPS, right, lambda model: teacher & ~right[model]),
        _means(POSITIVE_FLIPS, right, lambda model: ~teacher & right[model]),
    ]
    return [replace(metric, rows=known) for metric in flips]


def _log_shares(shares: Floats, rows: int) -> Floats:
    """The log-probabilities of one answer to all rows, `[rows, C]`."""
    with np.errstate(divide="ignore"):
        return np.broadcast_to(np.log(shares), (rows, len(shares)))


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
