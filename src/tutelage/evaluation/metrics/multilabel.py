"""Multilabel: logits `[N, C]`, each label on or off by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.errors import SignalError
from tutelage.evaluation.evidence import Evidence, Floats
from tutelage.evaluation.metrics.base import CONSTANT, SHARE, Change, Description, Mean, Metric, Statistic
from tutelage.evaluation.metrics.rare import f1_by_label, mean_average_precision, micro_f1

__all__ = ["DESCRIPTIONS", "binary_kl", "measure"]

SCALED = frozenset[Change]({"scale"})
RANKED = frozenset[Change]({"shift", "scale"})

MICRO_F1 = Description(
    name="micro_f1", title="Micro-averaged F1", kind="quality", higher_is_better=True, unit="%", bounds=SHARE,
    needs_labels=True, ignores=SCALED, decisions=True,
)  # fmt: skip
MACRO_F1 = Description(
    name="macro_f1", title="Macro-averaged F1 (labels that occur)", kind="quality", higher_is_better=True, unit="%",
    bounds=SHARE, needs_labels=True, ignores=SCALED, decisions=True,
)  # fmt: skip
JACCARD = Description(
    name="jaccard", title="Jaccard index (mean over rows)", kind="quality", higher_is_better=True, unit="%",
    bounds=SHARE, needs_labels=True, ignores=SCALED, decisions=True,
)  # fmt: skip
MAP = Description(
    name="map", title="Mean average precision (labels that occur)", kind="quality", higher_is_better=True, unit="%",
    bounds=SHARE, needs_labels=True,
)  # fmt: skip
TOP1 = Description(
    name="top1", title="Likeliest label is right (rows with a label on)", kind="quality", higher_is_better=True,
    unit="%", bounds=SHARE, needs_labels=True, ignores=RANKED,
)  # fmt: skip
EXACT_MATCH = Description(
    name="exact_match", title="Exact match", kind="quality", higher_is_better=True, unit="%", bounds=SHARE,
    needs_labels=True, ignores=SCALED, decisions=True,
)  # fmt: skip
NLL = Description(
    name="nll", title="Negative log-likelihood (each label)", kind="quality", higher_is_better=False,
    bounds=(0.0, np.inf), needs_labels=True,
)  # fmt: skip
F1_TO_TEACHER = Description(
    name="f1_to_teacher", title="Micro-averaged F1 to the teacher's decisions", kind="fidelity", higher_is_better=True,
    unit="%", bounds=SHARE, needs_same_width=True, ignores=SCALED, decisions=True,
)  # fmt: skip
JACCARD_TO_TEACHER = Description(
    name="jaccard_to_teacher", title="Jaccard index to the teacher's decisions (mean over rows)", kind="fidelity",
    higher_is_better=True, unit="%", bounds=SHARE, needs_same_width=True, ignores=SCALED, decisions=True,
)  # fmt: skip
MAP_TO_TEACHER = Description(
    name="map_to_teacher", title="Mean average precision to the teacher's decisions (labels that it has on)",
    kind="fidelity", higher_is_better=True, unit="%", bounds=SHARE, needs_same_width=True,
)  # fmt: skip
TOP1_AGREEMENT = Description(
    name="top1_agreement", title="Agreement on the likeliest label", kind="fidelity", higher_is_better=True, unit="%",
    bounds=SHARE, needs_same_width=True, ignores=RANKED,
)  # fmt: skip
AGREEMENT = Description(
    name="agreement", title="Agreement (each label)", kind="fidelity", higher_is_better=True, unit="%", bounds=SHARE,
    needs_same_width=True, ignores=SCALED, decisions=True,
)  # fmt: skip
KL = Description(
    name="kl", title="KL divergence from the teacher (each label)", kind="fidelity", higher_is_better=False,
    bounds=(0.0, np.inf), needs_same_width=True,
)  # fmt: skip
DESCRIPTIONS = (
    MICRO_F1, MACRO_F1, JACCARD, MAP, TOP1, EXACT_MATCH, NLL, F1_TO_TEACHER, JACCARD_TO_TEACHER,
    MAP_TO_TEACHER, TOP1_AGREEMENT, AGREEMENT, KL,
)  # fmt: skip


def measure(evidence: Evidence) -> list[Metric]:
    """The metrics of `DESCRIPTIONS` that the evidence supports; a label is on where its logit is above 0.

    Against the labels, and against the teacher's decisions (`truth` is either):

    * micro-F1 `2 TP / (2 TP + FP + FN)` over all labels of all rows, undefined where nothing is on; macro-F1, the mean
      of it over the labels that some row has on in truth;
    * Jaccard's index `|on ∩ truth| / |on ∪ truth|`, mean over rows; of a row where both are empty it is 1;
    * mean average precision: how far up in the order of the logits the rows are that have a label on in truth, mean
      over the labels that some row has on; undefined where there is none;
    * top-1: whether the label of the highest logit is on in truth, of the rows with a label on; beside the teacher,
      whether it is the teacher's likeliest, of all rows.

    And the exact match of all labels of a row; the negative log-likelihood of its labels, mean over labels and rows;
    the share of labels decided as the teacher decides them; the KL divergence of the teacher's and the student's
    Bernoulli distributions in nats, mean over labels and rows. Where labels are rare, a model that says no to all
    of them is near 1 in the exact match, in Jaccard's index and in the agreement: `constant` says how near.

    Raises:
        SignalError: The outputs are not `[N, C]` with one `C`, or the labels are not `[N, C]` of 0 and 1.
    """
    _check(evidence)
    teacher = evidence.outputs["teacher"]
    others = {model: output for model, output in evidence.outputs.items() if model != "teacher"}
    decided, likeliest = teacher > 0, teacher.argmax(axis=1)
    agreement = {model: Mean(((output > 0) == decided).mean(axis=1)) for model, output in others.items()}
    agreement[CONSTANT] = Mean((decided == (decided.mean(axis=0) > 0.5)).mean(axis=1))
    divergence = {model: Mean(binary_kl(teacher, output).mean(axis=1)) for model, output in others.items()}
    divergence[CONSTANT] = Mean(binary_kl(teacher, _mean_logits(teacher)).mean(axis=1))
    same = {model: Mean(output.argmax(axis=1) == likeliest) for model, output in others.items()}
    same[CONSTANT] = Mean(likeliest == np.bincount(likeliest).argmax())
    metrics = [
        Metric(about=F1_TO_TEACHER, statistics=_micro_f1(others, decided)),
        Metric(about=JACCARD_TO_TEACHER, statistics=_jaccard(others, decided)),
        Metric(about=MAP_TO_TEACHER, statistics=_average_precision(others, decided)),
        Metric(about=TOP1_AGREEMENT, statistics=dict(same)),
        Metric(about=AGREEMENT, statistics=dict(agreement)),
        Metric(about=KL, statistics=dict(divergence)),
    ]
    if not evidence.has_labels or evidence.labels is None or evidence.labelled is None:
        return metrics
    known = np.flatnonzero(evidence.labelled)
    labels = evidence.labels[known] > 0.5
    outputs = {model: output[known] for model, output in evidence.outputs.items()}
    some = labels.any(axis=1)
    first = {model: output[some].argmax(axis=1) for model, output in outputs.items()}
    first[CONSTANT] = np.full(some.sum(), labels.sum(axis=0).argmax())
    right = {model: Mean(labels[some, label]) for model, label in first.items()}
    quality = [
        Metric(about=MICRO_F1, statistics=_micro_f1(outputs, labels), rows=known),
        Metric(about=MACRO_F1, statistics=_macro_f1(outputs, labels), rows=known),
        Metric(about=JACCARD, statistics=_jaccard(outputs, labels), rows=known),
        Metric(about=MAP, statistics=_average_precision(outputs, labels), rows=known),
        *([Metric(about=TOP1, statistics=dict(right), rows=known[some])] if some.any() else []),
        Metric(about=EXACT_MATCH, statistics=_exact_match(outputs, labels), rows=known),
        Metric(about=NLL, statistics=_likelihood(outputs, labels), rows=known),
    ]
    return [*quality, *metrics]


Outputs = dict[str, NDArray[np.float32]]
Booleans = NDArray[np.bool_]


def _micro_f1(outputs: Outputs, truth: Booleans) -> dict[str, Statistic]:
    """The best constant answer has the `k` most frequent labels on: `2 Σ_k n_c / (k n + Σ_c n_c)` is largest."""
    counts = truth.sum(axis=0)
    order = np.argsort(-counts, kind="stable")
    best = np.argmax(np.cumsum(counts[order]) / (np.arange(1, len(order) + 1) * len(truth) + counts.sum()))
    on = {model: output > 0 for model, output in outputs.items()}
    on[CONSTANT] = np.broadcast_to(np.isin(np.arange(len(order)), order[: best + 1]), truth.shape)
    return {model: micro_f1(decided, truth) for model, decided in on.items()}


def _macro_f1(outputs: Outputs, truth: Booleans) -> dict[str, Statistic]:
    """The best constant answer has every label on."""
    on = {model: output > 0 for model, output in outputs.items()}
    on[CONSTANT] = np.ones_like(truth)
    return {model: f1_by_label(decided, truth) for model, decided in on.items()}


def _jaccard(outputs: Outputs, truth: Booleans) -> dict[str, Statistic]:
    """Beside it, the best of the constant answers that have the `k` most frequent labels on, none included."""
    order = np.argsort(-truth.sum(axis=0), kind="stable")
    sizes = truth.sum(axis=1)
    shared, best = np.zeros(len(truth)), (sizes == 0).astype(float)
    for k, label in enumerate(order, start=1):
        shared += truth[:, label]
        best = max(best, shared / (sizes + k - shared), key=np.mean)
    indices = {model: _overlap(output > 0, truth) for model, output in outputs.items()}
    return {model: Mean(index) for model, index in {**indices, CONSTANT: best}.items()}


def _overlap(on: Booleans, truth: Booleans) -> Floats:
    both, either = (on & truth).sum(axis=1), (on | truth).sum(axis=1)
    index: Floats = np.divide(both, either, out=np.ones(len(truth)), where=either > 0)
    return index


def _average_precision(outputs: Outputs, truth: Booleans) -> dict[str, Statistic]:
    """Of a constant answer every row ties: its precision is the share of rows that have the label on."""
    averages = {model: mean_average_precision(output, truth) for model, output in outputs.items()}
    return {**averages, CONSTANT: mean_average_precision(np.zeros(truth.shape), truth)}


def _exact_match(outputs: Outputs, truth: Booleans) -> dict[str, Statistic]:
    """The best constant answer is the most frequent set of labels."""
    sets, counts = np.unique(truth, axis=0, return_counts=True)
    on = {model: output > 0 for model, output in outputs.items()}
    on[CONSTANT] = np.broadcast_to(sets[counts.argmax()], truth.shape)
    return {model: Mean((decided == truth).all(axis=1)) for model, decided in on.items()}


def _likelihood(outputs: Outputs, truth: Booleans) -> dict[str, Statistic]:
    """`-log σ(z)` of labels that are on, `-log σ(-z)` of others; the best constant answer says the share of each."""
    side = np.where(truth, -1.0, 1.0)
    losses = {model: np.logaddexp(0, side * output) for model, output in outputs.items()}
    shares = truth.mean(axis=0)
    losses[CONSTANT] = -np.log(np.where(truth, shares, 1 - shares))
    return {model: Mean(loss.mean(axis=1)) for model, loss in losses.items()}


def _mean_logits(logits: NDArray[Any]) -> Floats:
    """The logit of each label's mean probability, `[1, C]`: of the constant answers the one with the least KL."""
    z = logits.astype(np.float64)
    on, off = (np.exp(-np.logaddexp(0, side)).mean(axis=0, keepdims=True) for side in (-z, z))
    tiny = np.finfo(np.float64).tiny
    mean: Floats = np.log(np.maximum(on, tiny)) - np.log(np.maximum(off, tiny))
    return mean


def binary_kl(teacher: NDArray[Any], student: NDArray[Any]) -> Floats:
    """`p log(p / q) + (1 - p) log((1 - p) / (1 - q))` of each label, `p = σ(teacher)`, `q = σ(student)`, `[N, C]`."""
    t, s = teacher.astype(np.float64), student.astype(np.float64)
    log_p, log_not_p, log_q, log_not_q = (-np.logaddexp(0, -z) for z in (t, -t, s, -s))
    divergence: Floats = np.exp(log_p) * (log_p - log_q) + np.exp(log_not_p) * (log_not_p - log_not_q)
    return divergence


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
