"""Rows that the sample happens not to show: what a metric would be if a few rows were answered as if they were others.

A model that errs on one row in a hundred, and badly, makes no such error in 40 rows two times in three. Nothing in
those rows tells, and no resample of them can. But `n` rows without an event leave room for a share of up to
`1 - (α / 2)^(1 / n)` of rows with it (3.7 / n at 95%, the limit of Clopper and Pearson, the "rule of three"), and what
an error costs can be measured: a row is given the model's output for another row, and the metric is taken of a mixture
in which that share of rows is so confused. Each interval reaches at least as far. It fades with 1 / n: with 2,000 rows
the sample's own spread decides, but for a model that is almost never wrong. Shares of rows have exact limits.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tutelage.evaluation.draw import shuffled
from tutelage.evaluation.evidence import Evidence, PairEvidence
from tutelage.evaluation.metrics import Metric, metrics_for

__all__ = ["Confusion", "unseen_share"]

ROWS = 500
"""Rows on which the cost of a confusion is measured, at most."""
STEPS = 9
"""Shares of confused rows that are tried, 0 among them."""


def unseen_share(n: float, confidence: float) -> float:
    """The share of rows that `n` independent ones without it leave possible: `1 - (α / 2)^(1 / n)`."""
    return float(1 - ((1 - confidence) / 2) ** (1 / n))


class Confusion:
    """How far each metric of each model moves when a share of the rows gets the outputs of other rows.

    Args:
        evidence: The shipped models' outputs; up to 500 rows of it are looked at.
    """

    def __init__(self, evidence: Evidence | PairEvidence) -> None:
        n = len(evidence)
        rows = shuffled(n, seed=0)
        if isinstance(evidence, Evidence) and evidence.labelled is not None:  # few may be: they come first
            rows = rows[np.argsort(~evidence.labelled[rows], kind="stable")]
        rows = rows[:ROWS]
        self.rows = len(rows)
        task = evidence.task if isinstance(evidence, Evidence) else "embedding"
        students, teacher = (_doubled(evidence, rows, teacher=confused) for confused in (False, True))
        self._metrics = {metric.about.name: metric for metric in metrics_for(task, students)}
        self._of_teacher = {metric.about.name: metric for metric in metrics_for(task, teacher)}

    def reach(self, metric: str, model: str, share: float) -> tuple[float, float]:
        """How far below and above its value up to that share puts it, `(<= 0, >= 0)`; 0 where it is undefined."""
        found = (self._of_teacher if model == "teacher" else self._metrics).get(metric)
        if found is None or model not in found.statistics:
            return 0.0, 0.0
        statistic, confused = found.statistics[model], self._confused(found)
        # Up to it: a calibration error falls to 0 on the way, before it rises.
        shares = np.linspace(0.0, share, STEPS)[:, None]
        moved = statistic.of(np.where(confused, shares, 1 - shares))
        moved -= moved[0]
        return (float(moved.min()), float(moved.max())) if np.isfinite(moved).all() else (0.0, 0.0)

    def _confused(self, metric: Metric) -> np.ndarray:
        positions = np.arange(metric.n) if metric.rows is None else metric.rows
        return positions >= self.rows


def _doubled(evidence: Evidence | PairEvidence, rows: np.ndarray, *, teacher: bool) -> Evidence | PairEvidence:
    """The rows as they are, then the same rows with the models' outputs for other rows.

    The teacher, as the others' reference, keeps its outputs; with `teacher`, when it is judged itself, it doesn't.
    """
    same, other = np.concatenate([rows, rows]), np.concatenate([rows, np.roll(rows, 1)])
    if isinstance(evidence, PairEvidence):
        similarities = {model: values[other] for model, values in evidence.similarities.items()}
        return PairEvidence(set=evidence.set, score=evidence.score[same], similarities=similarities)
    kept = {m: v for m, v in evidence.outputs.items() if m in ("teacher", "student")} if teacher else evidence.outputs
    return replace(
        evidence,
        rows=np.arange(len(same)),
        digests=[""] * len(same),
        outputs={m: values[other if teacher or m != "teacher" else same] for m, values in kept.items()},
        labels=None if evidence.labels is None else evidence.labels[same],
        labelled=None if evidence.labelled is None else evidence.labelled[same],
        groups=None,
    )
