"""The paired bootstrap: every metric of every model on the same resamples of rows.

All models answer the same rows, so a difference between two of them is judged on differences row by row: a resample
draws rows, and every model is measured on the rows drawn. Rows are taken to be independent (near-duplicates in a test
set make intervals too short) unless the evidence says which of them came together: then whole groups are drawn. Of
pairs of texts, the texts are drawn where the evidence says which they are.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tutelage.evaluation.draw import bootstrap_counts
from tutelage.evaluation.evidence import Evidence, Floats, PairEvidence, shipped
from tutelage.evaluation.intervals import Drawn, difference_interval, value_interval
from tutelage.evaluation.metrics import Metric, metrics_for
from tutelage.evaluation.metrics.base import Mean, RankCorrelation, Statistic
from tutelage.evaluation.results import Estimate, MetricResult
from tutelage.sampling import design_effect

__all__ = ["evaluate", "resample"]

Groups = NDArray[np.int64] | None


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
    drawn: dict[str, dict[str, Drawn]] = {}
    for (n, costly, _), members in alike.items():
        statistics = [statistic for metric, _ in members for statistic in metric.statistics.values()]
        groups = members[0][1]
        draws = iter(resample(statistics, n, costly_resamples if costly else resamples, seed=seed, groups=groups))
        for metric, _ in members:
            drawn[metric.about.name] = {
                model: Drawn(statistic, next(draws), groups, _by_pair(metric, statistic, resamples, seed))
                for model, statistic in metric.statistics.items()
            }
    results = (_result(metric, drawn[metric.about.name], evidence.set, confidence) for metric in metrics)
    return [result for result in results if result is not None]


def resample(statistics: Sequence[Statistic], n: int, resamples: int, *, seed: int, groups: Groups = None) -> Floats:
    """Each statistic on the same resamples of `n` rows, or of the groups they are in, `[statistics, resamples]`.

    Args:
        statistics: All over the same `n` rows.
        n: Rows.
        resamples: How many.
        seed: Of the draws.
        groups: `[n]` numbers from 0 of the group of each row; a resample draws as many groups as there are.
    """
    width = max((len(s.x.group) for s in statistics if isinstance(s, RankCorrelation)), default=n)
    drawn = n if groups is None else int(groups.max()) + 1
    pieces = [
        np.stack([statistic.of(counts if groups is None else counts[:, groups]) for statistic in statistics])
        for counts in bootstrap_counts(drawn, resamples, seed=seed, width=width)
    ]
    return np.concatenate(pieces, axis=1)


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
    draws: Floats = resample([statistic.of_independent_pairs()], metric.pairs, resamples, seed=seed)[0]
    return draws


def _result(metric: Metric, drawn: dict[str, Drawn], name: str, confidence: float) -> MetricResult | None:
    about, groups = metric.about, drawn["student"].groups

    def of(model: str) -> Estimate | None:
        return value_interval(drawn[model], bounds=about.bounds, share=about.unit == "%", confidence=confidence)

    def difference(other: str) -> Estimate | None:
        return difference_interval(
            drawn["student"], drawn[other], bounds=about.bounds, share=about.unit == "%", confidence=confidence
        )

    models = {model: estimate for model in drawn if (estimate := of(model)) is not None}
    if "student" not in models or ("teacher" in drawn and "teacher" not in models):
        return None
    others = [model for model in ("teacher", "baseline", "untrained") if model in models]
    differences = {f"student - {o}": estimate for o in others if (estimate := difference(o)) is not None}
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
