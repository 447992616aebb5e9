"""Evidence from populations whose metrics are known, and how often intervals of samples of it hold.

Used by `benchmarks/coverage.py`, for every metric, and by `test_coverage.py`, for the worst of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import chi2

from tutelage.evaluation.evidence import Evidence, PairEvidence
from tutelage.evaluation.metrics import point_values
from tutelage.evaluation.results import Estimate, MetricResult
from tutelage.evaluation.statistics import evaluate
from tutelage.governance.outcome import decide

__all__ = ["KINDS", "MAKERS", "Cell", "Found", "simulate"]

KINDS = ("moderate", "sure", "heavy")
"""Models that err moderately; that are nearly always right, and then far off; whose errors have a heavy tail."""
SIZE = 5
"""Rows a group."""
OF_THE_SAMPLE = ("pair_spearman", "neighbours")
"""Metrics whose true value depends on the number of rows: the mean over samples stands for it."""
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Cell:
    """A population and how it is sampled."""

    task: str
    kind: str
    grouped: bool
    n: int


@dataclass(frozen=True)
class Found:
    """What the intervals of one metric did in one cell.

    Attributes:
        cell: The population and the sampling.
        name: The metric, with ` - teacher` or ` - baseline` for the difference.
        runs: How many samples.
        covered: The share of intervals that hold the true value.
        missed: The share that don't, and make no reservation.
        passed: The share by which a gate exactly at the true value would pass.
        reserved: The share that make a reservation.
        width: Median width, as a multiple of 3.92 standard deviations of the estimate.
    """

    cell: Cell
    name: str
    runs: int
    covered: float
    missed: float
    passed: float
    reserved: float
    width: float

    def excess(self, passed: float = 0.035, missed: float = 0.07) -> list[str]:
        """Which limits are missed by more than three standard errors of the simulation: there are hundreds of cells."""

        def above(found: float, limit: float) -> bool:
            return found > limit + 3 * (limit * (1 - limit) / self.runs) ** 0.5

        return [
            word
            for word, found, limit in (("passes", self.passed, passed), ("misses", self.missed, missed))
            if above(found, limit)
        ]


def simulate(
    cell: Cell, runs: int, *, resamples: int = 400, only: tuple[str, ...] = (), population: int = 300_000
) -> list[Found]:
    """Samples the population of a cell and judges every metric's interval, of the student and of the difference."""
    rng = np.random.default_rng([KINDS.index(cell.kind), cell.grouped, cell.n])
    make = MAKERS[cell.task]
    truth = true_values(cell.task, cell.kind, population)
    estimates: dict[str, list[tuple[MetricResult, Estimate]]] = {}
    for run in range(runs):
        evidence = make(cell.kind, rng, cell.n, cell.grouped)
        for result in evaluate(evidence, resamples=resamples, costly_resamples=100, seed=run):
            if only and result.name not in only:
                continue
            other = next((o for o in ("teacher", "baseline") if f"student - {o}" in result.differences), "")
            estimates.setdefault(result.name, []).append((result, result.models["student"]))
            if other:
                difference = result.differences[f"student - {other}"]
                estimates.setdefault(f"{result.name} - {other}", []).append((result, difference))
    return [_found(cell, name, of, truth.get(name)) for name, of in estimates.items()]


def _found(cell: Cell, name: str, of: list[tuple[MetricResult, Estimate]], truth: float | None) -> Found:
    values = np.array([e.value for _, e in of])
    true = float(values.mean()) if truth is None else truth
    inside = np.array([e.low <= true <= e.high for _, e in of])
    # Older versions made no reservations.
    reserved = np.array([getattr(e, "reservation", "") != "" for _, e in of])
    passed = [decide(e.low, e.high, true, at_least=m.higher_is_better) == "PASS" for m, e in of]
    deviation = 3.92 * values.std()
    widths = np.array([e.high - e.low for _, e in of])
    return Found(
        cell=cell,
        name=name,
        runs=len(of),
        covered=float(inside.mean()),
        missed=float((~inside & ~reserved).mean()),
        passed=float((np.array(passed) & ~reserved).mean()),
        reserved=float(reserved.mean()),
        width=float(np.median(widths) / deviation) if deviation > 0 else np.nan,
    )


@functools.cache
def true_values(task: str, kind: str, population: int) -> dict[str, float]:
    """Each metric of the student, and of its difference, in a population so large that its error doesn't count."""
    evidence = MAKERS[task](kind, np.random.default_rng(0), population, False)
    if task == "embedding":  # its geometry can't be computed for so many rows
        teacher = evidence.outputs["teacher"].astype(np.float64)
        cosine = {m: _cosine(o.astype(np.float64), teacher) for m, o in evidence.outputs.items()}
        return {"cosine": cosine["student"], "cosine - baseline": cosine["student"] - cosine["baseline"]}
    values = point_values(evidence.task if isinstance(evidence, Evidence) else "embedding", evidence)
    found = {}
    for name, of in values.items():
        found[name] = of["student"]
        found |= {f"{name} - {o}": of["student"] - of[o] for o in ("teacher", "baseline") if o in of}
    return found


def _cosine(a: Array, b: Array) -> float:
    return float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).mean())


# --- populations ---


def standard(rng: np.random.Generator, n: int, grouped: bool) -> Array:
    """Standard normal numbers, of whose variance rows of a group share two fifths, `[n]`."""
    own = rng.normal(size=n)
    if not grouped:
        return own
    groups = groups_of(n)
    return np.sqrt(0.4) * rng.normal(size=groups[-1] + 1)[groups] + np.sqrt(0.6) * own


def groups_of(n: int) -> Array:
    return np.repeat(np.arange(-(-n // SIZE)), SIZE)[:n]


def uniform(rng: np.random.Generator, n: int) -> Array:
    """Uniform numbers; in a population they are spread evenly, so that heavy tails are as long as they should be."""
    return rng.random(n) if n < 10_000 else (rng.permutation(n) + rng.random(n)) / n


def noisy(rng: np.random.Generator, common: Array, share: float) -> Array:
    """Noise of unit variance of which all but a share is common to the models."""
    return np.sqrt(1 - share) * common + np.sqrt(share) * rng.normal(size=common.shape)


def evidence_of(task: str, outputs: dict[str, Array], labels: Array | None, n: int, grouped: bool) -> Evidence:
    return Evidence(
        set="test",
        task=task,  # type: ignore[arg-type]
        rows=np.arange(n),
        digests=["d"] * n,
        outputs={model: output.astype(np.float32) for model, output in outputs.items()},
        labels=labels,
        labelled=None if labels is None else np.ones(n, bool),
        groups=groups_of(n) if grouped else None,
    )


def classification(kind: str, rng: np.random.Generator, n: int, grouped: bool) -> Evidence:
    """Four classes; heavy: the scale of a row's logits is log-normal."""
    labels = rng.integers(0, 4, n)
    hard = standard(rng, n, grouped)
    gap, scale = {"moderate": (2.0, 1.2), "sure": (4.6, 4.0), "heavy": (2.5, 1.2)}[kind]
    scales = scale * (np.exp(1.2 * standard(rng, n, grouped)) if kind == "heavy" else np.ones(n))
    common = rng.normal(size=(n, 4))

    def model(noise: float) -> Array:
        logits = (gap + 0.7 * hard)[:, None] * np.eye(4)[labels] + noisy(rng, common, noise)
        return scales[:, None] * logits

    return evidence_of("classification", {"teacher": 1.1 * model(0.2), "student": model(0.5)}, labels, n, grouped)


def multilabel(kind: str, rng: np.random.Generator, n: int, grouped: bool) -> Evidence:
    """Eight labels, rare where the models are sure; heavy: the scale of a row's logits is log-normal."""
    hard = standard(rng, n, grouped)
    rate, gap, scale = {"moderate": (0.3, 1.3, 1.5), "sure": (0.04, 4.0, 3.0), "heavy": (0.2, 1.5, 1.0)}[kind]
    labels = (rng.random((n, 8)) < rate).astype(np.int64)
    scales = scale * (np.exp(1.2 * standard(rng, n, grouped)) if kind == "heavy" else np.ones(n))
    common = rng.normal(size=(n, 8))

    def model(noise: float) -> Array:
        return scales[:, None] * ((gap + 0.5 * hard)[:, None] * (2 * labels - 1) + noisy(rng, common, noise))

    return evidence_of("multilabel", {"teacher": 1.1 * model(0.2), "student": model(0.5)}, labels, n, grouped)


def regression(kind: str, rng: np.random.Generator, n: int, grouped: bool) -> Evidence:
    """Sure: one row in fifty is blundered; heavy: errors with Student's t distribution, 3 degrees of freedom."""
    hard = standard(rng, n, grouped)
    labels = rng.normal(size=n)
    if kind == "moderate":
        spread = 0.3 * np.exp(0.3 * hard)
    elif kind == "sure":
        spread = np.where(rng.random(n) < 0.02 * np.exp(0.5 * hard), 1.0, 0.05)
    else:
        spread = 0.2 * np.exp(0.3 * hard) / np.sqrt(chi2.ppf(uniform(rng, n), 3) / 3)
    common = rng.normal(size=n)
    teacher = labels + 0.9 * spread * noisy(rng, common, 0.2)
    student = labels + spread * noisy(rng, common, 0.5)
    return evidence_of("regression", {"teacher": teacher, "student": student}, labels, n, grouped)


def embedding(kind: str, rng: np.random.Generator, n: int, grouped: bool) -> Evidence:
    """Sixteen numbers; sure: one row in fifty is misunderstood; heavy: the error's scale is log-normal."""
    hard = standard(rng, n, grouped)
    teacher = rng.normal(size=(n, 16))
    if kind == "moderate":
        spread = 0.5 * np.exp(0.2 * hard)
    elif kind == "sure":
        spread = np.where(rng.random(n) < 0.02 * np.exp(0.5 * hard), 2.0, 0.1)
    else:
        spread = 0.3 * np.exp(0.9 * hard)
    common = rng.normal(size=(n, 16))
    student, baseline = (teacher + spread[:, None] * noisy(rng, common, share) for share in (0.5, 0.8))
    return evidence_of("embedding", {"teacher": teacher, "student": student, "baseline": baseline}, None, n, grouped)


def human(kind: str, rng: np.random.Generator, n: int, grouped: bool) -> PairEvidence:
    """Pairs scored by people; in groups: pairs of half as many texts as pairs, that share nothing but the texts."""
    score = rng.normal(size=n)
    if kind == "heavy":
        score /= np.sqrt(chi2.ppf(uniform(rng, n), 2) / 2)
    spread = {"moderate": 0.7, "sure": 0.1, "heavy": 0.5}[kind]
    common = rng.normal(size=n)
    similarities = {m: score + spread * noisy(rng, common, 0.5) for m in ("teacher", "student")}
    if not grouped:
        return PairEvidence(set="ws", score=score, similarities=similarities)
    first = rng.integers(0, n // 2, n)
    second = (first + rng.integers(1, n // 2, n)) % (n // 2)
    return PairEvidence(set="ws", score=score, similarities=similarities, left_id=first, right_id=second)


MAKERS: dict[str, Callable[..., Any]] = {
    maker.__name__: maker for maker in (classification, multilabel, regression, embedding, human)
}
