"""Rows that came together are not independent: intervals resample what was sampled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tutelage.errors import SignalError
from tutelage.evaluation.evidence import Evidence, PairEvidence
from tutelage.evaluation.intervals import difference_interval, effective_rows, value_interval
from tutelage.evaluation.metrics import metrics_for, point_values
from tutelage.evaluation.metrics.base import SHARE, Difference, Mean, RankCorrelation, Statistic
from tutelage.evaluation.results import Estimate, MetricResult
from tutelage.evaluation.statistics import draw, evaluate
from tutelage.sampling import design_effect

Groups = np.ndarray | None


def grouped(task: str, n: int = 120, size: int = 10, **changes: object) -> Evidence:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, n)
    base = 2 * np.eye(3)[labels] + rng.normal(size=(n, 3))
    outputs = {
        m: (base + s * rng.normal(size=base.shape)).astype(np.float32) for m, s in (("teacher", 0.5), ("student", 1.5))
    }
    wanted = {"multilabel": (base > 1).astype(np.int64), "regression": base, "embedding": None}.get(task, labels)
    fields = {
        "set": "test",
        "task": task,
        "rows": np.arange(n),
        "digests": ["d"] * n,
        "outputs": outputs,
        "labels": wanted,
        "labelled": None if wanted is None else np.arange(n) % 4 > 0,
        "groups": rng.permutation(np.repeat(np.arange(n // size) * 7 - 11, size)),
    }
    return Evidence(**{**fields, **changes})  # type: ignore[arg-type]


def intervals(statistics: list[Statistic], groups: Groups, seed: int, *, share: bool) -> Estimate:
    """Of the first, or of the difference when there are two."""
    both = [Difference(*statistics)] if len(statistics) == 2 else []
    one, *two = draw([*statistics, *both], statistics[0].n, 300, seed=seed, groups=groups)
    bounds = SHARE if share else (-np.inf, np.inf)
    estimate = (
        difference_interval(one, two[0], difference=two[1], bounds=bounds, share=share, confidence=0.95)
        if two
        else value_interval(one, bounds=bounds, share=share, confidence=0.95)
    )
    assert estimate is not None
    return estimate


def means(rng: np.random.Generator, groups: np.ndarray) -> tuple[list[Statistic], float]:
    effects = 0.7 * rng.normal(size=groups.max() + 1)
    return [Mean(effects[groups] + rng.normal(size=len(groups)))], 0.0


def shares(rng: np.random.Generator, groups: np.ndarray) -> tuple[list[Statistic], float]:
    chance = rng.beta(3.6, 0.4, groups.max() + 1)
    return [Mean(rng.random(len(groups)) < chance[groups])], 0.9


def lost(rng: np.random.Generator, groups: np.ndarray) -> tuple[list[Statistic], float]:
    """A student that loses rows its teacher has right, in some groups more than in others."""
    chance = rng.beta(0.5, 4.5, groups.max() + 1)
    teacher = rng.random(len(groups)) < 0.9
    return [Mean(teacher & ~(rng.random(len(groups)) < chance[groups])), Mean(teacher)], -0.09


@pytest.mark.parametrize("make", [means, shares, lost])
@pytest.mark.parametrize("count", [12, 30])
def test_a_group_effect_is_covered_by_drawing_groups_and_missed_by_drawing_rows(make, count: int) -> None:
    rng = np.random.default_rng(5)
    by_group, by_row = [], []
    for seed in range(150):
        groups = np.repeat(np.arange(count), rng.integers(5, 36, count))
        statistics, truth = make(rng, groups)
        for hits, of in ((by_group, groups), (by_row, None)):
            estimate = intervals(statistics, of, seed, share=make is not means)
            hits.append(estimate.low <= truth <= estimate.high)
    assert 0.9 <= np.mean(by_group) <= 0.995
    assert np.mean(by_row) <= 0.87


def test_no_event_in_few_groups_is_less_proof_than_in_as_many_rows() -> None:
    estimate = intervals([Mean(np.zeros(240))], np.repeat(np.arange(12), 20), 0, share=True)
    assert (estimate.low, estimate.high) == (0.0, 3 / 12)


def test_the_design_effect_is_that_of_the_one_way_layout() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(400), 8)
    values = rng.normal(size=400)[groups] + rng.normal(size=3200)
    # Kish: 1 + (size - 1) · ρ, and ρ is 1/2.
    assert design_effect(values, groups) == pytest.approx(1 + 7 * 0.5, rel=0.12)
    assert design_effect(values, rng.permutation(groups)) == pytest.approx(1, abs=0.12)
    copied = np.repeat(rng.normal(size=30), 5)
    assert design_effect(copied, np.repeat(np.arange(30), 5)) == pytest.approx(5, rel=0.05)
    # t = 2.201 at 11 degrees of freedom
    few = effective_rows(np.zeros(240), np.repeat(np.arange(12), 20), 0.95)
    assert few == pytest.approx(240 * (1.95996 / 2.20099) ** 2, rel=1e-3)


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression", "embedding"])
def test_every_metric_of_every_task_knows_the_group_of_each_of_its_rows(task: str) -> None:
    evidence = grouped(task)
    for metric in metrics_for(evidence.task, evidence):
        assert metric.n == (len(evidence) if metric.rows is None else len(metric.rows))
    for result in evaluate(evidence, resamples=60, costly_resamples=40):
        assert result.groups is not None and 2 <= result.groups <= 12, result.name
        assert MetricResult.from_dict(result.to_dict()) == result


def test_rows_of_a_metric_are_the_rows_it_is_computed_on() -> None:
    evidence = grouped("classification")
    teacher, student = (evidence.outputs[m].argmax(1) for m in ("teacher", "student"))
    metrics = {metric.about.name: metric for metric in metrics_for("classification", evidence)}
    by_hand = {"accuracy": student == evidence.labels, "agreement_teacher_wrong": student == teacher}
    by_hand["negative_flips"] = (teacher == evidence.labels) & (student != evidence.labels)
    for name, values in by_hand.items():
        statistic = metrics[name].statistics["student"]
        assert isinstance(statistic, Mean)
        assert (statistic.values == values[metrics[name].rows]).all()
    assert (teacher != evidence.labels)[metrics["agreement_teacher_wrong"].rows].all()


def test_groups_of_one_row_are_no_groups() -> None:
    evidence = grouped("classification")
    alone = replace(evidence, groups=np.random.default_rng(0).permutation(len(evidence)) * 3)
    assert evaluate(alone, resamples=50) == evaluate(replace(evidence, groups=None), resamples=50)


def test_the_numbers_of_groups_and_the_order_they_stand_in_mean_nothing() -> None:
    evidence = grouped("classification")
    assert evidence.groups is not None
    assert evaluate(replace(evidence, groups=1000 + 5 * evidence.groups), resamples=50) == evaluate(
        evidence, resamples=50
    )


def test_copies_of_rows_in_groups_add_no_knowledge() -> None:
    once = grouped("classification", groups=None, labelled=np.ones(120, bool))
    again = {name: np.repeat(getattr(once, name), 5, axis=0) for name in ("rows", "labels", "labelled")}
    outputs = {model: np.repeat(output, 5, axis=0) for model, output in once.outputs.items()}
    five = replace(once, **again, outputs=outputs, digests=["d"] * 600, groups=np.repeat(np.arange(120), 5))
    first, copied = ({r.name: r for r in evaluate(e, resamples=400)} for e in (once, five))
    for name in ("accuracy", "nll", "agreement", "ece"):
        a, b = first[name].models["student"], copied[name].models["student"]
        assert (b.low, b.high) == pytest.approx((a.low, a.high), abs=0.04 * (a.high - a.low)), name
    deviation = first["accuracy"].sd_difference
    assert deviation is not None
    assert copied["accuracy"].sd_difference == pytest.approx(deviation * np.sqrt(5), rel=0.01)
    assert (copied["accuracy"].n, copied["accuracy"].groups) == (600, 120)


def test_a_group_drawn_twice_is_not_paired_with_itself() -> None:
    rng = np.random.default_rng(2)
    groups = np.array([0, 0, 1, 1, 2, 2, 3])
    first, second = np.triu_indices(7, 1)
    x, y = rng.normal(size=(2, 21))
    drawn = np.array([2.0, 0, 1, 3])
    by_hand = [
        drawn[groups[i]] if groups[i] == groups[j] else drawn[groups[i]] * drawn[groups[j]]
        for i, j in zip(first, second, strict=True)
    ]
    repeated = np.repeat(np.arange(21), np.array(by_hand, int))
    expected = RankCorrelation(x[repeated], y[repeated]).value()
    got = RankCorrelation(x, y, ends=(first, second), n=7, groups=groups).of(drawn[groups][None])
    assert got[0] == pytest.approx(expected, abs=1e-12)


# --- pairs of texts ---


def pairs(score: np.ndarray, close: np.ndarray, ends: tuple[np.ndarray, np.ndarray]) -> PairEvidence:
    models = {"teacher": close, "student": close}
    return PairEvidence(set="ws", score=score, similarities=models, left_id=ends[0], right_id=ends[1])


def dense(rng: np.random.Generator, n: int) -> PairEvidence:
    """All pairs of `n` texts, of which some are understood and some are not."""
    z = rng.normal(size=(n, 4))
    said = z + 0.7 * rng.normal(size=z.shape) * rng.gamma(1.0, size=(n, 1))
    a, b = np.triu_indices(n, 1)
    return pairs((z[a] * z[b]).sum(1), (said[a] * said[b]).sum(1), (a, b))


def sparse(rng: np.random.Generator, _: int) -> PairEvidence:
    """353 pairs of 437 words, that have nothing in common but the words."""
    a = rng.integers(0, 437, 353)
    score = rng.normal(size=353)
    return pairs(score, score + rng.normal(size=353), (a, (a + rng.integers(1, 437, 353)) % 437))


def covered(found: list[PairEvidence], truth: float) -> tuple[float, float]:
    """Coverage and mean width of the student's intervals."""
    values = [evaluate(p, resamples=150, seed=k)[0].models["student"] for k, p in enumerate(found)]
    return (
        float(np.mean([v.low <= truth <= v.high for v in values])),
        float(np.mean([v.high - v.low for v in values])),
    )


def test_pairs_of_few_texts_are_resampled_by_text() -> None:
    rng = np.random.default_rng(1)
    truth = float(
        np.mean(
            [RankCorrelation(p.score, p.similarities["student"]).value() for p in (dense(rng, 200) for _ in range(15))]
        )
    )
    found = [dense(rng, 50) for _ in range(50)]
    by_text, width = covered(found, truth)
    by_pair, narrow = covered([replace(p, left_id=None, right_id=None) for p in found[:25]], truth)
    assert by_text >= 0.86
    assert by_pair <= 0.7
    assert width > 2.5 * narrow
    result = evaluate(found[0], resamples=50)[0]
    assert (result.n, result.groups) == (1225, 50)


def test_pairs_of_many_texts_are_not_taken_for_less_than_they_are() -> None:
    rng = np.random.default_rng(1)
    found = [sparse(rng, 0) for _ in range(30)]
    _, width = covered(found, 0.7)
    _, apart = covered([replace(p, left_id=None, right_id=None) for p in found], 0.7)
    assert apart * 0.98 <= width <= apart * 1.3


def test_ends_and_groups_survive_their_file_to_the_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    left, right = ({m: rng.normal(size=(9, 4)) for m in ("teacher", "student")} for _ in range(2))
    ends = (list(range(9)), [5] * 9)
    made = PairEvidence.from_embeddings("words", np.arange(9.0), left=left, right=right, ends=ends)
    made.write(tmp_path / "p.parquet")
    back = PairEvidence.read(tmp_path / "p.parquet").ends
    assert back is not None
    assert [side.tolist() for side in back] == [list(range(9)), [5] * 9]
    evidence = grouped("classification")
    evidence.write(tmp_path / "e.parquet")
    groups = Evidence.read(tmp_path / "e.parquet").groups
    assert groups is not None
    assert groups.dtype == np.int64
    assert (groups == evidence.groups).all()


@pytest.mark.parametrize(
    ("groups", "told"), [(np.zeros(120, np.int32), "groups in the evidence"), (np.zeros(9, np.int64), "same number")]
)
def test_groups_that_do_not_fit_are_refused(groups: np.ndarray, told: str) -> None:
    with pytest.raises(SignalError, match=told):
        grouped("classification", groups=groups)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"right_id": None}, "together or neither"),
        ({"left_id": np.zeros(1225, np.int32)}, "left_id"),
        ({"right_id": np.zeros(3, np.int64)}, "right_id"),
    ],
)
def test_ends_that_do_not_fit_are_refused(changes: dict[str, object], told: str) -> None:
    with pytest.raises(SignalError, match=told):
        replace(dense(np.random.default_rng(0), 50), **changes)


def test_plain_names_are_of_any_set_and_an_error_names_the_set() -> None:
    evidence = grouped("classification", set="development")
    plain = point_values("classification", evidence, plain_names=True)
    assert plain == point_values("classification", replace(evidence, set="test"))
    assert "accuracy:development" in point_values("classification", evidence)
    evidence.outputs["student"][0, 0] = np.nan
    with pytest.raises(SignalError, match="student in the evidence of `development`"):
        point_values("classification", evidence, plain_names=True)
