from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, rel_entr
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import f1_score, mean_absolute_error, r2_score, root_mean_squared_error
from sklearn.metrics.pairwise import cosine_similarity

from tutelage.errors import SignalError
from tutelage.evaluation.evidence import Evidence, PairEvidence, Task
from tutelage.evaluation.metrics import available_metrics, metrics_for, point_values
from tutelage.evaluation.metrics.base import Mean, RankCorrelation
from tutelage.evaluation.metrics.embedding import row_pairs

RNG = np.random.default_rng(5)


def make(task: Task, outputs: dict[str, np.ndarray], labels: np.ndarray | None = None) -> Evidence:
    n = len(outputs["teacher"])
    labelled = None if labels is None else np.random.default_rng(0).random(n) < 0.7
    return Evidence(
        set="test",
        task=task,
        rows=np.arange(n),
        digests=["d"] * n,
        outputs={model: output.astype(np.float32) for model, output in outputs.items()},
        labels=labels,
        labelled=labelled,
    )


def noisy(base: np.ndarray) -> dict[str, np.ndarray]:
    return {m: base + s * RNG.normal(size=base.shape) for m, s in (("teacher", 0.3), ("student", 0.6), ("baseline", 1))}


def test_multilabel_is_scikit_learns_and_scipys() -> None:
    labels = (RNG.random((200, 6)) < 0.3).astype(np.int64)
    evidence = make("multilabel", noisy(2.0 * labels - 1), labels)
    values = point_values("multilabel", evidence)
    known, t = evidence.labelled, evidence.outputs["teacher"].astype(np.float64)
    for model, output in evidence.outputs.items():
        on = output[known] > 0
        assert values["micro_f1"][model] == pytest.approx(f1_score(labels[known], on, average="micro"), abs=1e-12)
        assert values["exact_match"][model] == pytest.approx((labels[known] == on).all(1).mean(), abs=1e-12)
        if model != "teacher":
            s = output.astype(np.float64)
            divergence = rel_entr(expit(t), expit(s)) + rel_entr(expit(-t), expit(-s))
            assert values["kl"][model] == pytest.approx(divergence.mean(), abs=1e-9)
            assert values["agreement"][model] == pytest.approx(((t > 0) == (s > 0)).mean(), abs=1e-12)
    assert set(values) == set(available_metrics("multilabel", labels=True))


def test_multilabel_refuses_labels_of_another_shape_or_other_numbers() -> None:
    outputs = {m: np.zeros((4, 2)) for m in ("teacher", "student")}
    for labels in (np.zeros(4, np.int64), np.full((4, 2), 2)):
        with pytest.raises(SignalError, match="0 or 1"):
            point_values("multilabel", make("multilabel", outputs, labels))


@pytest.mark.parametrize("width", [None, 1, 3])
def test_regression_is_scikit_learns_and_scipys_also_far_from_zero(width: int | None) -> None:
    shape = (150,) if width is None else (150, width)
    labels = 1e5 + RNG.normal(size=shape)
    evidence = make("regression", noisy(labels), labels)
    values = point_values("regression", evidence)
    known = evidence.labelled
    y = labels.reshape(150, -1)[known]
    teacher = evidence.outputs["teacher"].astype(np.float64).reshape(150, -1)
    for model, output in evidence.outputs.items():
        every = output.astype(np.float64).reshape(150, -1)
        p = every[known]
        pooled = root_mean_squared_error(y.ravel(), p.ravel())
        assert values["rmse"][model] == pytest.approx(pooled, abs=1e-9)
        assert values["mae"][model] == pytest.approx(mean_absolute_error(y, p), abs=1e-9)
        assert values["r2"][model] == pytest.approx(r2_score(y, p), abs=1e-8)
        if model != "teacher":
            distance = root_mean_squared_error(teacher.ravel(), every.ravel())
            assert values["rmse_to_teacher"][model] == pytest.approx(distance, abs=1e-9)
            expected = np.mean([pearsonr(a, b).statistic for a, b in zip(teacher.T, every.T, strict=True)])
            assert values["correlation"][model] == pytest.approx(expected, abs=1e-8)
    assert set(values) == set(available_metrics("regression", labels=True, several=width == 3))


def test_a_constant_student_has_no_correlation_rather_than_a_number() -> None:
    values = point_values(
        "regression", make("regression", {"teacher": RNG.normal(size=20), "student": np.full(20, 0.1)})
    )
    assert "correlation" not in values
    assert "rmse_to_teacher" in values


def test_regression_refuses_labels_of_another_width() -> None:
    outputs = {m: np.zeros((4, 2)) for m in ("teacher", "student")}
    with pytest.raises(SignalError, match="the labels"):
        point_values("regression", make("regression", outputs, np.zeros(4)))


def test_embedding_is_brute_force() -> None:
    base = RNG.normal(size=(60, 8))
    evidence = make("embedding", noisy(base))
    values = point_values("embedding", evidence)
    t = cosine_similarity(evidence.outputs["teacher"].astype(np.float64))
    upper = np.triu_indices(60, 1)
    for model in ("student", "baseline"):
        output = evidence.outputs[model].astype(np.float64)
        s = cosine_similarity(output)
        direct = np.diag(cosine_similarity(evidence.outputs["teacher"].astype(np.float64), output))
        assert values["cosine"][model] == pytest.approx(direct.mean(), abs=1e-9)
        assert values["pair_spearman"][model] == pytest.approx(spearmanr(t[upper], s[upper]).statistic, abs=1e-9)
        kept = 0
        for i in range(60):
            near_t = sorted((j for j in range(60) if j != i), key=lambda j, i=i: -t[i, j])[:10]
            near_s = sorted((j for j in range(60) if j != i), key=lambda j, i=i, s=s: -s[i, j])[:10]
            kept += len(set(near_t) & set(near_s))
        assert values["neighbours"][model] == pytest.approx(kept / 600, abs=1e-12)
    assert set(values) == set(available_metrics("embedding", labels=False))


@pytest.mark.parametrize("n", [9, 12, 40])
def test_a_row_counts_for_the_rows_that_find_it_as_well_as_for_those_that_it_finds(n: int) -> None:
    rng = np.random.default_rng(n)
    base = rng.normal(size=(n, 3))
    outputs = {"teacher": base, "student": base + 0.5 * rng.normal(size=base.shape)}

    def kept(rows: np.ndarray) -> float:
        t, s = (cosine_similarity(outputs[m].astype(np.float32)[rows].astype(float)) for m in ("teacher", "student"))
        np.fill_diagonal(t, -2)
        np.fill_diagonal(s, -2)
        k = min(10, len(base) - 1)  # as many as of all rows
        near = (np.argsort(-x, axis=1, kind="stable")[:, :k] for x in (t, s))
        return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(*near, strict=True)]))

    (metric,) = (m for m in metrics_for("embedding", make("embedding", outputs)) if m.about.name == "neighbours")
    statistic = metric.statistics["student"]
    assert isinstance(statistic, Mean)
    assert statistic.value() == pytest.approx(kept(np.arange(n)))
    if n > 11:  # else a row that goes leaves fewer than are asked for
        left = np.array([kept(np.delete(np.arange(n), i)) for i in range(n)])
        jackknife = np.sqrt((n - 1) / n * ((left - left.mean()) ** 2).sum())
        assert statistic.values.std(ddof=1) / np.sqrt(n) == pytest.approx(jackknife)
        assert statistic.values - statistic.values.mean() == pytest.approx(-(n - 1) * (left - left.mean()))


def test_widths_that_differ_have_no_cosine_but_the_geometry() -> None:
    values = point_values(
        "embedding", make("embedding", {"teacher": RNG.normal(size=(30, 8)), "student": RNG.normal(size=(30, 5))})
    )
    assert set(values) == set(available_metrics("embedding", labels=False, same_width=False))


def test_a_rotated_student_keeps_pairs_and_neighbours_wholly() -> None:
    base = RNG.normal(size=(50, 6))
    rotation = np.linalg.qr(RNG.normal(size=(6, 6)))[0]
    values = point_values("embedding", make("embedding", {"teacher": base, "student": base @ rotation}))
    assert values["pair_spearman"]["student"] == pytest.approx(1, abs=1e-6)
    assert values["neighbours"]["student"] == pytest.approx(1)
    assert values["cosine"]["student"] < 0.9


@pytest.mark.parametrize("n", [2, 200, 201, 202, 5_000, 30_000])
def test_sampled_pairs_are_distinct_and_balanced(n: int) -> None:
    first, second = row_pairs(n)
    assert (first != second).all()
    pairs = {frozenset(pair) for pair in zip(first.tolist(), second.tolist(), strict=True)}
    assert len(pairs) == len(first) == (n * (n - 1) // 2 if n <= 200 else 20_000 // min(n, 20_000) * min(n, 20_000))
    times = np.bincount(np.concatenate([first, second]), minlength=n)
    assert len(set(times[times > 0])) == 1


def test_human_similarity_is_scipys_spearman_with_ties() -> None:
    score = RNG.integers(0, 6, 80).astype(np.float64)
    similarities = {m: np.round(score / 6 + RNG.normal(size=80), 1) for m in ("teacher", "student", "baseline")}
    values = point_values("embedding", PairEvidence(set="ws", score=score, similarities=similarities))
    assert list(values) == list(available_metrics("embedding", labels=False, sets=["ws"]))[-1:]
    for model, similarity in similarities.items():
        expected = spearmanr(score, similarity).statistic
        assert values["spearman_human:ws"][model] == pytest.approx(expected, abs=1e-12)


def test_weighted_ranks_are_those_of_the_repeated_items() -> None:
    x = RNG.integers(0, 8, 40).astype(np.float64)
    y = np.round(x + 3 * RNG.normal(size=40))
    counts = RNG.integers(0, 4, (5, 40))
    got = RankCorrelation(x, y).of(counts.astype(np.float64))
    for weights, value in zip(counts, got, strict=True):
        repeated = np.repeat(np.arange(40), weights)
        assert value == pytest.approx(spearmanr(x[repeated], y[repeated]).statistic, abs=1e-12)


def test_rows_drawn_twice_count_in_all_their_pairs_and_never_with_themselves() -> None:
    x, y = RNG.normal(size=(12, 3)), RNG.normal(size=(12, 3))
    first, second = row_pairs(12)
    sx, sy = (cosine_similarity(z)[first, second] for z in (x, y))
    drawn = RNG.integers(0, 12, 12)
    pairs = [(a, b) for i, a in enumerate(drawn) for b in drawn[i + 1 :] if a != b]
    expected = spearmanr(
        [cosine_similarity(x)[a, b] for a, b in pairs], [cosine_similarity(y)[a, b] for a, b in pairs]
    ).statistic
    counts = np.bincount(drawn, minlength=12)[None].astype(np.float64)
    got = RankCorrelation(sx, sy, ends=(first, second), n=12).of(counts)[0]
    assert got == pytest.approx(expected, abs=1e-9)
