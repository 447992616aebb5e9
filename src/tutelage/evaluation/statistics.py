"""The paired bootstrap: every metric of every model on the same resamples of rows.

All models answer the same rows, so a difference between two of them is judged on differences row by row: a resample
draws rows, and every model is measured on the rows drawn. Rows are taken to be independent (near-duplicates in a test
set make intervals too short) unless the evidence says which of them came together: then whole groups are drawn. Of
pairs of texts, the texts are drawn where the evidence says which they are.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.evaluation.draw import bootstrap_counts
from tutelage.evaluation.evidence import Evidence, Floats, PairEvidence, shipped
from tutelage.evaluation.intervals import (
    Drawn,
    difference_interval,
    value_interval,
    zero_or_one,
)
from tutelage.evaluation.linearised import Linearised
from tutelage.evaluation.metrics import CONSTANT, Metric, metrics_for
from tutelage.evaluation.metrics.base import Difference, Mean, OfMeans, RankCorrelation, Statistic
from tutelage.evaluation.results import Estimate, MetricResult
from tutelage.evaluation.unseen import Confusion, unseen_share
from tutelage.sampling import design_effect

__all__ = ["draw", "evaluate"]

Groups = NDArray[np.int64] | None
OTHERS = ("teacher", "baseline", "untrained", CONSTANT)


def evaluate(
    evidence: Evidence | PairEvidence,
    *,
    resamples: int = 2000,
    costly_resamples: int = 500,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[MetricResult]:
    """Every metric that the evidence supports, with intervals (`intervals.py` says how) and paired differences.

    The result depends on the evidence and the arguments only, not on the machine (but for rounding).

    Args:
        evidence: Other seeds' outputs in it are ignored (`seeds.py` summarises them).
        resamples: Bootstrap resamples.
        costly_resamples: Those of rank correlations over pairs of rows.
        confidence: Coverage of the intervals.
        seed: Of the resamples.

    Returns:
        One result a metric. A value that is undefined (a correlation with a constant, errors of a teacher that makes
        none, a single row) is left out; when the student has none, or there is a teacher's to be compared with and it
        is missing, the whole metric is.

    Raises:
        SignalError: Outputs are not finite, or do not have the shape that the task needs.
    """
    evidence = _of_shipped_seed(evidence)
    metrics = metrics_for(evidence.task if isinstance(evidence, Evidence) else "embedding", evidence)
    alike: dict[tuple[int, bool, bytes], list[tuple[Metric, Groups]]] = defaultdict(list)
    for metric in metrics:
        groups = _groups(metric, evidence)
        alike[metric.n, metric.costly, b"" if groups is None else groups.tobytes()].append((metric, groups))
    confusion = Confusion(evidence)
    drawn: dict[str, dict[str, Drawn]] = {}
    for (n, costly, _), members in alike.items():
        compared = [(s, metric.about.unit == "%") for metric, of in members for s in _compared(metric, of).values()]
        statistics, shares = zip(*compared, strict=True)
        groups, times = members[0][1], costly_resamples if costly else resamples
        resampled = iter(draw(statistics, n, times, seed=seed, groups=groups, shares=shares))
        for metric, _ in members:
            drawn[metric.about.name] = {name: next(resampled) for name in _compared(metric, groups)}
            for model, statistic in metric.statistics.items():
                alone = drawn[metric.about.name][model]
                drawn[metric.about.name][model] = replace(
                    alone,
                    by_pair=_by_pair(metric, statistic, resamples, seed),
                    unseen=_unseen(metric, model, alone, confusion, confidence),
                )
    results = (_result(metric, drawn[metric.about.name], evidence.set, confidence) for metric in metrics)
    return [result for result in results if result is not None]


def draw(
    statistics: Sequence[Statistic],
    n: int,
    resamples: int,
    *,
    seed: int,
    groups: Groups = None,
    shares: Sequence[bool] | None = None,
) -> list[Drawn]:
    """Each statistic on the same resamples of `n` rows, or of the groups they are in; with standard errors if known.

    Args:
        statistics: All over the same `n` rows.
        n: Rows.
        resamples: How many.
        seed: Of the draws.
        groups: `[n]` numbers from 0 of the group of each row; a resample draws as many groups as there are.
        shares: Whether each is a share, which has exact limits where every row is 0 or 1 and by itself; None: all are.
    """
    shares = [True] * len(statistics) if shares is None else shares
    units = n if groups is None else int(groups.max()) + 1
    smooth = [
        None if units == 1 or (share and _has_exact_limits(statistic, groups)) else Linearised.of(statistic, groups)
        for statistic, share in zip(statistics, shares, strict=True)
    ]
    width = max((len(s.x.group) for s in statistics if isinstance(s, RankCorrelation)), default=n)
    pieces: list[list[tuple[Floats, Floats]]] = [[] for _ in statistics]
    for counts in bootstrap_counts(units, resamples, seed=seed, width=width):
        by_row = counts if groups is None or all(smooth) else counts[:, groups]
        for piece, statistic, linear in zip(pieces, statistics, smooth, strict=True):
            piece.append((statistic.of(by_row), counts[:, 0]) if linear is None else linear.under(counts))
    drawn = []
    for piece, statistic, linear in zip(pieces, statistics, smooth, strict=True):
        values, errors = (np.concatenate(part) for part in zip(*piece, strict=True))
        of = Drawn(statistic, values, groups)
        if linear is not None:
            error = float(linear.under(np.ones((1, units)))[1][0])
            single = Linearised.of(statistic) or linear
            of = replace(of, errors=errors, error=error, influence=single.influence())
        drawn.append(replace(of, independent=_independent(statistic, groups, of.influence)))
    return drawn


def _compared(metric: Metric, groups: Groups) -> dict[str, Statistic]:
    """The statistic of each model and, where its standard error is known, of each difference."""
    of = metric.statistics
    differences = {f"{ours} - {theirs}": Difference(of[ours], of[theirs]) for ours, theirs in _pairs_of(of)}
    return {
        **metric.statistics,
        **{
            name: difference
            for name, difference in differences.items()
            if difference.as_means() is not None
            and not (metric.about.unit == "%" and _has_exact_limits(difference, groups))
        },
    }


def _pairs_of(models: Collection[str]) -> list[tuple[str, str]]:
    """The models that are compared: the student with each, and the teacher with a constant answer."""
    pairs = [("student", other) for other in OTHERS] + [("teacher", CONSTANT)]
    return [(ours, theirs) for ours, theirs in pairs if ours in models and theirs in models]


def _unseen(metric: Metric, model: str, drawn: Drawn, confusion: Confusion, confidence: float) -> tuple[float, float]:
    """How far rows that the sample lacks may move a metric of a model; shares of rows have exact limits instead."""
    is_share = metric.about.unit == "%" and _is_zero_or_one(drawn.statistic)
    if isinstance(drawn.statistic, Mean) and (drawn.errors is None or is_share):
        return 0.0, 0.0
    share = unseen_share(drawn.independent or drawn.statistic.n, confidence)
    below, above = confusion.reach(metric.about.name, model, share)
    if isinstance(drawn.statistic, OfMeans) and not drawn.statistic.smooth and metric.about.unit == "%":
        below = min(below, -share)  # gaps of either sign: unseen ones may make up for those that were seen
    return below, above


def _independent(statistic: Statistic, groups: Groups, influence: Floats | None) -> float:
    """How many independent rows show as much of what rows are like.

    It is `n` over the design effect of the rows that matter most: the tenth with the greatest influence (on a
    calibration error: gap). For rank correlations it isn't known, and is `n`.
    """
    if isinstance(statistic, OfMeans) and influence is None:
        influence = np.abs(statistic.columns).sum(axis=1)
    if groups is None or influence is None:
        return statistic.n
    size = np.abs(influence)
    return statistic.n / design_effect((size > np.quantile(size, 0.9)).astype(np.float64), groups)


def _has_exact_limits(statistic: Statistic, groups: Groups) -> bool:
    """Whether each row is 0 or 1, and a row by itself: what a group adds is graded."""
    return groups is None and _is_zero_or_one(statistic)


def _is_zero_or_one(statistic: Statistic) -> bool:
    """Whether each row is 0 or 1, or the difference of two such."""
    if isinstance(statistic, Difference):
        return _is_zero_or_one(statistic.ours) and _is_zero_or_one(statistic.theirs)
    return isinstance(statistic, Mean) and zero_or_one(statistic.values)


def _groups(metric: Metric, evidence: Evidence | PairEvidence) -> Groups:
    """The group of each of the metric's rows, numbered from 0; None where each row is a group by itself."""
    if isinstance(evidence, PairEvidence) or evidence.groups is None:
        return None
    ids = evidence.groups if metric.rows is None else evidence.groups[metric.rows]
    groups: NDArray[np.int64] = np.unique(ids, return_inverse=True)[1].astype(np.int64)
    return None if int(groups.max()) + 1 == len(groups) else groups


def _by_pair(metric: Metric, statistic: Statistic, resamples: int, seed: int) -> Floats | None:
    """The statistic on resamples of pairs, where those of the metric draw texts."""
    if metric.pairs is None or not isinstance(statistic, RankCorrelation):
        return None
    return draw([statistic.of_independent_pairs()], metric.pairs, resamples, seed=seed)[0].draws


def _result(metric: Metric, drawn: dict[str, Drawn], name: str, confidence: float) -> MetricResult | None:
    about, groups = metric.about, drawn["student"].groups

    limits: dict[str, Any] = {
        "bounds": about.bounds,
        "share": about.unit == "%",
        "confidence": confidence,
        "higher_is_better": about.higher_is_better,
    }

    def difference(ours: str, theirs: str) -> Estimate | None:
        apart = drawn.get(f"{ours} - {theirs}")
        return difference_interval(drawn[ours], drawn[theirs], difference=apart, **limits)

    models = {
        model: found for model in metric.statistics if (found := value_interval(drawn[model], **limits)) is not None
    }
    if "student" not in models or ("teacher" in metric.statistics and "teacher" not in models):
        return None
    differences = {f"{a} - {b}": found for a, b in _pairs_of(models) if (found := difference(a, b)) is not None}
    return MetricResult(
        name=about.name,
        title=about.title,
        kind=about.kind,
        set=name,
        higher_is_better=about.higher_is_better,
        unit=about.unit,
        n=metric.pairs or metric.n,
        groups=metric.n if metric.pairs else None if groups is None else int(groups.max()) + 1,
        confidence=confidence,
        models=models,
        differences=differences,
        sd_difference=None if metric.capped else _deviation(metric.statistics, groups),
    )


def _deviation(statistics: dict[str, Statistic], groups: Groups) -> float | None:
    """The standard deviation of a row's `student - teacher`, or of the student's value where the teacher has none.

    In groups it is `√design effect` times that: what a row adds to the knowledge of the mean.
    """
    student, teacher = statistics["student"], statistics.get("teacher")
    if not isinstance(student, Mean):
        return None
    values = student.values - teacher.values if isinstance(teacher, Mean) else student.values
    effect = 1.0 if groups is None else design_effect(values, groups)
    return float(values.std(ddof=1)) * math.sqrt(effect)


def _of_shipped_seed(evidence: Evidence | PairEvidence) -> Evidence | PairEvidence:
    if isinstance(evidence, PairEvidence):
        kept = {model: values for model, values in evidence.similarities.items() if shipped(model)}
        return replace(evidence, similarities=kept)
    return replace(evidence, outputs={model: values for model, values in evidence.outputs.items() if shipped(model)})
