"""Embeddings `[N, D]`: whether the student sees the same geometry as the teacher, and as people do."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.errors import SignalError
from tutelage.evaluation.draw import shuffled
from tutelage.evaluation.evidence import Evidence, Floats, PairEvidence, cosine, unit
from tutelage.evaluation.metrics.base import CONSTANT, SHARE, Description, Mean, Metric, RankCorrelation

__all__ = ["DESCRIPTIONS", "HUMAN", "measure", "measure_pairs", "row_pairs", "similarities"]

PAIRS = 20_000
GALLERY = 2_000
NEIGHBOURS = 10

COSINE = Description(
    name="cosine", title="Cosine to the teacher", kind="fidelity", higher_is_better=True, bounds=(-1.0, 1.0),
    needs_same_width=True, ignores=frozenset({"scale"}),
)  # fmt: skip
PAIR_SPEARMAN = Description(
    name="pair_spearman", title="Rank correlation of the similarities of pairs", kind="fidelity",
    higher_is_better=True, bounds=(-1.0, 1.0), ignores=frozenset({"scale", "rotation"}),
)  # fmt: skip
NEIGHBOUR_SHARE = Description(
    name="neighbours", title="Share of nearest neighbours kept", kind="fidelity", higher_is_better=True, unit="%",
    bounds=SHARE, ignores=frozenset({"scale", "rotation"}),
)  # fmt: skip
DESCRIPTIONS = (COSINE, PAIR_SPEARMAN, NEIGHBOUR_SHARE)
HUMAN = Description(
    name="spearman_human", title="Rank correlation with human scores", kind="quality", higher_is_better=True,
    bounds=(-1.0, 1.0),
)  # fmt: skip


def measure(evidence: Evidence) -> list[Metric]:
    """The metrics of `DESCRIPTIONS` that the evidence supports.

    The mean cosine of the student's and the teacher's embedding of a row (where both have one width); Spearman's
    correlation of the teacher's and the student's cosines of up to 20,000 pairs of rows; the share of the teacher's 10
    nearest rows (by cosine, among up to 2,000 rows) that are among the student's 10. The sampled pairs and rows depend
    on nothing but N. The constant answer is the mean direction of the teacher's embeddings: where they all lie in one
    cone, it is near all of them.

    Raises:
        SignalError: The outputs are not `[N, D]`.
    """
    for model, output in evidence.outputs.items():
        if output.ndim != 2:
            raise SignalError(
                f"outputs of {model} on `{evidence.set}`", expected="embeddings [N, D]", found=str(list(output.shape))
            )
    teacher = evidence.outputs["teacher"]
    others = {model: output for model, output in evidence.outputs.items() if model != "teacher"}
    wide: dict[str, NDArray[Any]] = {model: output for model, output in others.items() if output.shape == teacher.shape}
    metrics = []
    if "student" in wide:
        wide[CONSTANT] = np.broadcast_to(unit(teacher).mean(axis=0), teacher.shape)
        cosines = {model: Mean(cosine(output, teacher)) for model, output in wide.items()}
        metrics.append(Metric(about=COSINE, statistics=dict(cosines)))
    if len(evidence) < 3:
        return metrics
    return [*metrics, _pair_spearman(teacher, others, evidence.groups), _neighbours(teacher, others)]


def measure_pairs(evidence: PairEvidence) -> list[Metric]:
    """Spearman's correlation of each model's cosines with the human scores of the pairs.

    A resample draws texts where it is known which they are, else pairs.
    """
    ends, texts = evidence.ends, 0
    if ends is not None:
        ids, place = np.unique(np.concatenate(ends), return_inverse=True)
        first, second = np.split(place.astype(np.int64), 2)
        ends, texts = (first, second), len(ids)
    correlations = {
        model: RankCorrelation(evidence.score, similarity, ends=ends, n=texts)
        for model, similarity in evidence.similarities.items()
    }
    return [Metric(about=HUMAN, statistics=dict(correlations), pairs=None if ends is None else len(evidence))]


def row_pairs(n: int, at_most: int = PAIRS) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs `i != j` of `n` rows: all of them, or about `at_most`, none twice, with each row in equally many.

    The rows are put in a random order on a circle and each is paired with those 1, 2, ... steps ahead.
    """
    if n * (n - 1) // 2 <= at_most:
        first, second = np.triu_indices(n, k=1)
        return first.astype(np.int64), second.astype(np.int64)
    circle = shuffled(n, seed=0)[:at_most]
    steps = range(1, at_most // len(circle) + 1)
    return np.tile(circle, len(steps)), np.concatenate([np.roll(circle, -step) for step in steps])


def similarities(output: NDArray[np.float32], pairs: tuple[NDArray[np.int64], NDArray[np.int64]]) -> Floats:
    """The cosine of the embeddings of each pair of rows, `[P]`."""
    rows = unit(output)
    cosines: Floats = np.einsum("pd,pd->p", rows[pairs[0]], rows[pairs[1]])
    return cosines


def _pair_spearman(
    teacher: NDArray[np.float32], others: dict[str, NDArray[np.float32]], groups: NDArray[np.int64] | None
) -> Metric:
    n = len(teacher)
    pairs = row_pairs(n)
    reference = similarities(teacher, pairs)
    return Metric(
        about=PAIR_SPEARMAN,
        statistics={
            model: RankCorrelation(reference, similarities(output, pairs), ends=pairs, n=n, groups=groups)
            for model, output in others.items()
        },
        costly=True,
    )


def _neighbours(teacher: NDArray[np.float32], others: dict[str, NDArray[np.float32]]) -> Metric:
    n = len(teacher)
    gallery = np.sort(shuffled(n, seed=0)[:GALLERY])
    nearest = _nearest(teacher[gallery])
    shares = {model: Mean(_kept(nearest, _nearest(output[gallery]))) for model, output in others.items()}
    return Metric(about=NEIGHBOUR_SHARE, statistics=dict(shares), rows=gallery, capped=n > GALLERY)


def _kept(teacher: NDArray[np.int64], student: NDArray[np.int64]) -> Floats:
    """The share of the `k` nearest rows kept, with what each row adds to it as one that asks and as one that is found.

    The jackknife's pseudo-values, shifted to have the share as their mean: `n θ - (n - 1) θ_(-i)` of the share without
    row `i`. Where it was among the `k` nearest, the next one moves up.

    Args:
        teacher: `[n, k + 1]`, or `[n, k]` of all other rows.
        student: The same.

    Returns:
        `[n]`.
    """
    n = len(teacher)
    k = min(NEIGHBOURS, n - 1)
    if teacher.shape[1] == k:  # all other rows, with and without any of them
        return np.ones(n)
    (ours, next_), (theirs, their_next) = ((x[:, :k], x[:, k:]) for x in (student, teacher))
    both = theirs[:, :, None] == ours[:, None, :]
    kept_of_teacher, found_by_student = both.any(axis=2), both.any(axis=1)
    moves_up = (their_next == ours).any(axis=1), (next_ == theirs).any(axis=1), (next_ == their_next)[:, 0]
    # A row of both lists is lost and may be made up for by either's next; a row of one list makes place for its next.
    of_teacher = np.where(kept_of_teacher, sum(moves_up, np.full(n, -1))[:, None], moves_up[0][:, None])
    of_student = np.where(found_by_student, 0, moves_up[1][:, None])
    changed = np.bincount(theirs.ravel(), of_teacher.ravel(), n) + np.bincount(ours.ravel(), of_student.ravel(), n)
    kept = kept_of_teacher.mean(axis=1)
    pseudo = kept - changed / k
    values: Floats = kept.mean() + pseudo - pseudo.mean()
    return values


def _nearest(output: NDArray[np.float32]) -> NDArray[np.int64]:
    """The 10 rows nearest to each row and the one after them, `[n, k + 1]` (with few rows, all others).

    Similarities are rounded, so that rows whose embeddings are equal tie, and ties go to the lower row number.
    """
    rows = unit(output)
    similarity = np.round(rows @ rows.T, 9)
    np.fill_diagonal(similarity, -np.inf)
    return np.argsort(-similarity, axis=1, kind="stable")[:, : min(NEIGHBOURS + 1, len(rows) - 1)]
