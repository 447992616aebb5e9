"""Standard errors, studentised intervals, and what a sample says nothing of, against formulas written apart."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from coverage_case import MAKERS, evidence_of

from tutelage.evaluation.draw import shuffled
from tutelage.evaluation.evidence import Evidence
from tutelage.evaluation.intervals import Drawn, value_interval
from tutelage.evaluation.linearised import Linearised
from tutelage.evaluation.metrics import metrics_for
from tutelage.evaluation.metrics.base import Difference, Mean, OfMeans, RankCorrelation, Statistic
from tutelage.evaluation.results import Estimate, MetricResult
from tutelage.evaluation.statistics import draw, evaluate
from tutelage.evaluation.studentised import effective_number, reach_of, rows_of_half
from tutelage.evaluation.unseen import Confusion, unseen_share

ANY = (-np.inf, np.inf)


def statistics_of(task: str, n: int = 150) -> dict[str, Statistic]:
    evidence = MAKERS[task]("moderate", np.random.default_rng(1), n, False)
    return {m.about.name: m.statistics["student"] for m in metrics_for(evidence.task, evidence)}


def jackknife(statistic: Statistic, groups: np.ndarray) -> float:
    """The standard error from leaving out each group in turn."""
    units = groups.max() + 1
    left = statistic.of((groups[None] != np.arange(units)[:, None]).astype(float))
    return math.sqrt((units - 1) / units * ((left - left.mean()) ** 2).sum())


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize(
    ("task", "name"),
    [("regression", "rmse"), ("regression", "r2"), ("regression", "correlation"), ("multilabel", "micro_f1")],
)
def test_a_linearised_error_is_that_of_the_jackknife(task: str, name: str, grouped: bool) -> None:
    statistic = statistics_of(task)[name]
    rows = np.arange(statistic.n)
    # Groups of different sizes: that their number of rows varies is part of the error.
    groups = np.repeat(rows, 2 + rows % 3)[: statistic.n] if grouped else rows
    linear = Linearised.of(statistic, groups if grouped else None)
    assert linear is not None
    ((value,), (error,)) = linear.under(np.ones((1, linear.units)))
    assert value == pytest.approx(statistic.value())
    assert error == pytest.approx(jackknife(statistic, groups), rel=0.08)


def test_the_error_of_a_mean_and_of_a_root_mean_square_is_the_textbooks() -> None:
    x = np.random.default_rng(0).gamma(2.0, size=80)
    mean = Linearised.of(Mean(x))
    root = Linearised.of(OfMeans(x[:, None], lambda means: np.sqrt(means[:, 0])))
    assert mean is not None and root is not None
    textbook = x.std(ddof=1) / math.sqrt(80)
    assert mean.under(np.ones((1, 80)))[1][0] == pytest.approx(textbook)
    assert root.under(np.ones((1, 80)))[1][0] == pytest.approx(textbook / (2 * math.sqrt(x.mean())))


@pytest.mark.parametrize("grouped", [False, True])
def test_the_error_on_a_resample_is_that_of_the_sample_in_which_rows_are_repeated(grouped: bool) -> None:
    rng = np.random.default_rng(4)
    x, y = rng.gamma(1.0, size=(2, 30))
    groups = np.arange(30) // 3 if grouped else np.arange(30)
    units = groups.max() + 1
    counts = np.bincount(rng.integers(0, units, units), minlength=units).astype(float)
    kept = np.repeat(np.arange(units), counts.astype(int))  # the groups that were drawn, one after the other
    rows = np.concatenate([np.flatnonzero(groups == g) for g in kept])
    again = np.repeat(np.arange(units), [int((groups == g).sum()) for g in kept])
    columns = np.stack([x, y, x * y], axis=1)

    def combine(means: np.ndarray) -> np.ndarray:
        return means[:, 2] / np.sqrt(means[:, 0] * means[:, 1])

    for cols, f in ((columns, combine), (x[:, None], lambda means: np.log(means[:, 0]))):
        drawn = Linearised(cols, f, groups if grouped else None).under(counts[None])
        repeated = Linearised(cols[rows], f, again if grouped else None).under(np.ones((1, units)))
        assert drawn[0] == pytest.approx(repeated[0])
        assert drawn[1] == pytest.approx(repeated[1], rel=1e-6)


def test_the_difference_of_two_statistics_is_judged_by_the_error_of_the_difference() -> None:
    rng = np.random.default_rng(2)
    common = rng.gamma(1.0, size=200)
    a, b = (OfMeans((common + 0.1 * rng.normal(size=200))[:, None] ** 2, lambda m: np.sqrt(m[:, 0])) for _ in range(2))
    linear = Linearised.of(Difference(a, b))
    assert linear is not None
    error = linear.under(np.ones((1, 200)))[1][0]
    assert error == pytest.approx(jackknife(Difference(a, b), np.arange(200)), rel=0.08)
    assert error < 0.3 * jackknife(a, np.arange(200))


def test_the_studentised_interval_is_that_of_a_plain_loop_over_resamples() -> None:
    rng = np.random.default_rng(3)
    x = rng.gamma(0.5, size=60)
    (drawn,) = draw([Mean(x)], 60, 1999, seed=5)
    assert drawn.errors is not None
    t = []
    for _ in range(4000):
        again = rng.choice(x, 60)
        t.append((again.mean() - x.mean()) / (again.std(ddof=1) / math.sqrt(60)))
    error = x.std(ddof=1) / math.sqrt(60)
    low, high = np.quantile(t, [0.025, 0.975])
    both = np.quantile(np.abs(t), 0.95)
    below, above = reach_of(drawn.value, drawn.error, drawn.draws, drawn.errors, 0.95)
    assert below == pytest.approx(error * max(high, both), rel=0.12)
    assert above == pytest.approx(error * max(-low, both), rel=0.12)
    assert above > 1.15 * below  # to the long side


def test_resamples_of_equal_rows_count_as_far_off_not_as_no_evidence() -> None:
    # One event in 60 rows: 36% of resamples have none and no spread, so there is no finite upper end.
    x = np.zeros(60)
    x[7] = 1.5
    (drawn,) = draw([Mean(x)], 60, 500, seed=0)
    assert drawn.errors is not None
    assert reach_of(drawn.value, drawn.error, drawn.draws, drawn.errors, 0.95)[1] == math.inf
    within = value_interval(drawn, bounds=(0.0, 2.0), share=False, confidence=0.95, higher_is_better=False)
    assert within is not None
    # Within bounds no value varies more than events at the bounds do: Wilson's limit of a share of 0.025 / 2.
    p, z = 0.0125, 1.959964
    limit = (p + z**2 / 120 + z * math.sqrt(p * (1 - p) / 60 + z**2 / 4 / 60**2)) / (1 + z**2 / 60)
    assert within.high == pytest.approx(2 * limit, rel=1e-4)
    assert within.reservation == ""
    unbounded = value_interval(drawn, bounds=(0.0, np.inf), share=False, confidence=0.95, higher_is_better=False)
    assert unbounded is not None
    assert math.isfinite(unbounded.high)
    assert unbounded.reservation.startswith("1 of 60 rows makes up half of the variance")


def test_the_effective_number_is_that_of_the_events_and_a_third_of_normal_rows() -> None:
    events = np.zeros(5000)
    events[:12] = 1
    assert effective_number(events - events.mean()) == pytest.approx(12, rel=0.01)
    assert effective_number(np.random.default_rng(0).normal(size=30_000)) == pytest.approx(10_000, rel=0.05)
    assert effective_number(np.zeros(9)) == 0
    assert [rows_of_half(np.array(of)) for of in ([3.0, 1, 1, 1], [1.0, 1, 1, 1], [0.0, -5, 0.1])] == [1, 2, 1]


# --- reservations ---


def interval(values: np.ndarray, bounds: tuple[float, float] = (0.0, np.inf), unseen: float = 0.0) -> Estimate:
    (drawn,) = draw([Mean(values)], len(values), 400, seed=0)
    drawn = replace(drawn, unseen=(0.0, unseen))
    found = value_interval(drawn, bounds=bounds, share=False, confidence=0.95, higher_is_better=False)
    assert found is not None
    return found


def test_only_an_interval_that_few_rows_decide_makes_a_reservation() -> None:
    rng = np.random.default_rng(0)
    assert interval(rng.normal(3, 1, 400)).reservation == ""
    heavy = np.exp(2.5 * rng.normal(size=400))
    assert "of 400 rows" in interval(heavy).reservation
    # Within bounds no row can be far off; and what unseen rows might do may be more than the tail.
    bounded = heavy / heavy.max()
    assert effective_number(bounded - bounded.mean()) < 10
    assert interval(bounded, bounds=(0.0, 1.0)).reservation == ""
    far = interval(heavy)
    assert interval(heavy, unseen=far.high - far.value).reservation == ""
    assert interval(heavy, unseen=far.high - far.value).high == pytest.approx(2 * far.high - far.value)


def test_a_reservation_is_made_for_the_end_that_a_good_student_is_judged_by() -> None:
    heavy = np.exp(2.5 * np.random.default_rng(0).normal(size=400))
    (drawn,) = draw([Mean(heavy)], 400, 400, seed=0)
    for unseen, better, reserved in (((-1e6, 0.0), True, False), ((-1e6, 0.0), False, True)):
        found = value_interval(
            replace(drawn, unseen=unseen), bounds=ANY, share=False, confidence=0.95, higher_is_better=better
        )
        assert found is not None
        assert (found.reservation != "") == reserved


def test_equal_rows_prove_nothing_of_others_where_there_is_no_bound() -> None:
    same = interval(np.full(50, 0.2))
    assert (same.low, same.high) == (0.2, 0.2)
    assert same.reservation == "all 50 rows give the same value, which says nothing of others"
    assert interval(np.full(50, 0.2), unseen=0.3).reservation == ""


def test_an_estimate_of_an_older_file_has_no_reservation() -> None:
    result = evaluate(MAKERS["regression"]("moderate", np.random.default_rng(0), 30, False), resamples=50)[0]
    stored = result.to_dict()
    for found in (stored["models"], stored["differences"]):
        for estimate in found.values():
            del estimate["reservation"]
    assert {e.reservation for e in MetricResult.from_dict(stored).models.values()} == {""}


# --- rows that the sample lacks ---


def test_the_unseen_share_is_what_n_rows_without_an_event_leave_possible() -> None:
    for n in (5, 40, 1000):
        assert (1 - unseen_share(n, 0.95)) ** n == pytest.approx(0.025)


def sure(n: int = 60) -> Evidence:
    """Three classes, each row answered right and surely, by the student a little less so."""
    labels = np.arange(n) % 3
    teacher = 12.0 * np.eye(3)[labels]
    return evidence_of("classification", {"teacher": teacher, "student": teacher - 1e-3}, labels, n, False)


def test_a_sure_model_without_an_error_is_not_proven_to_make_none() -> None:
    evidence = sure()
    found = {result.name: result for result in evaluate(evidence, resamples=100)}
    # A confused row has another row's answer: of two thirds of rows it is wrong, and costs 12 nats.
    share, wrong = unseen_share(60, 0.95), 2 / 3
    for name, cost in (("nll", 12.0), ("kl", 12.0), ("brier", 2.0)):
        student = found[name].models["student"]
        assert student.high == pytest.approx(share * wrong * cost, rel=0.1), name
    nll = found["nll"].differences["student - teacher"]
    assert nll.high == pytest.approx(share * wrong * 12, rel=0.1)
    assert nll.low == pytest.approx(-share * wrong * 12, rel=0.1)  # the teacher may err unseen, too
    assert found["accuracy"].models["student"].low == pytest.approx(1 - 3 / 60)  # as ever


def test_a_loss_that_is_nought_or_one_in_each_row_is_not_taken_for_a_share() -> None:
    same = sure()
    same.outputs["student"] = same.outputs["teacher"]
    found = {result.name: result for result in evaluate(same, resamples=100)}
    assert found["kl"].models["student"].value == 0
    assert found["kl"].models["student"].high > 0.4  # not an interval of no width at 0
    labels = np.arange(80) % 20 * 1.0  # whole numbers, of which one answer in four is one too high
    outputs = {"teacher": labels, "student": labels + (np.arange(80) % 4 == 0)}
    (mae,) = (r for r in evaluate(evidence_of("regression", outputs, labels, 80, False)) if r.name == "mae")
    assert mae.models["student"].value == 0.25
    assert mae.models["student"].high > 0.25 + 5 * unseen_share(80, 0.95)  # another row's number is 6.6 off


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression", "embedding"])
def test_confused_rows_move_each_metric_to_the_bad_side_and_in_proportion(task: str) -> None:
    evidence = MAKERS[task]("moderate", np.random.default_rng(0), 120, False)
    confusion = Confusion(evidence)
    for metric in metrics_for(evidence.task, evidence):
        for model in metric.statistics:
            below, above = (confusion.reach(metric.about.name, model, share) for share in (0.01, 0.02))
            bad = 0 if metric.about.higher_is_better else 1
            way = ("ece", "agreement_teacher_wrong", "positive_flips")  # some confusions are for the better
            assert abs(below[1 - bad]) < 1e-9 or metric.about.name in way
            if metric.about.name != "positive_flips":
                assert abs(above[bad]) == pytest.approx(2 * abs(below[bad]), rel=0.1, abs=1e-3), metric.about.name


def test_the_cost_of_a_confusion_is_that_of_other_rows_outputs() -> None:
    evidence = MAKERS["regression"]("moderate", np.random.default_rng(3), 200, False)
    student = evidence.outputs["student"].astype(np.float64)
    labels = np.asarray(evidence.labels)
    squares = ((student - labels) ** 2).mean()
    confused = ((student[:, None] - labels[None]) ** 2).mean()  # of any row's output for any row
    expected = math.sqrt(0.99 * squares + 0.01 * confused) - math.sqrt(squares)
    assert Confusion(evidence).reach("rmse", "student", 0.01)[1] == pytest.approx(expected, rel=0.15)


def test_rows_without_labels_do_not_hide_what_a_confusion_costs() -> None:
    evidence = MAKERS["regression"]("moderate", np.random.default_rng(3), 3000, False)
    # None of them is among the first 500 rows in the order in which rows are looked at.
    few = replace(evidence, labelled=np.isin(np.arange(3000), shuffled(3000, seed=0)[600:640]))
    assert Confusion(few).reach("mae", "student", 0.1)[1] > 0.02


def test_statistics_that_bring_no_error_have_intervals_from_percentiles() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=80)
    rank = RankCorrelation(x, x + rng.normal(size=80))
    drawn = draw([rank, Mean(x), Mean(x > 0)], 80, 200, seed=0)
    assert [d.errors is None for d in drawn] == [True, False, True]  # a share of rows has exact limits
    found = value_interval(drawn[0], bounds=(-1, 1), share=False, confidence=0.95)
    assert found is not None
    assert found.low < rank.value() < found.high


def test_a_resample_is_drawn_for_groups_as_it_is_for_their_rows() -> None:
    rng = np.random.default_rng(0)
    groups = np.arange(60) // 4
    x, y = rng.normal(size=(2, 60))
    rank, mean, ratio = (
        RankCorrelation(x, y),
        Mean(x),
        OfMeans(np.stack([x**2, y**2], 1), lambda m: m[:, 0] / m[:, 1]),
    )
    together: list[Drawn] = draw([rank, mean, ratio], 60, 50, seed=1, groups=groups)
    for statistic, drawn in zip((rank, mean, ratio), together, strict=True):
        (alone,) = draw([statistic], 60, 50, seed=1, groups=groups)
        assert alone.draws == pytest.approx(drawn.draws)
    assert together[0].draws != pytest.approx(draw([rank], 60, 50, seed=1)[0].draws)


@pytest.mark.parametrize("rare", [0.002, 0.02])
def test_a_mean_of_shares_that_are_nearly_all_one_has_an_interval_that_is_short_and_holds(rare: float) -> None:
    rng = np.random.default_rng(5)
    passed, lows = 0, []
    for run in range(300):
        x = 1 - 0.3 * (rng.random(400) < rare)
        (drawn,) = draw([Mean(x)], 400, 300, seed=run)
        found = value_interval(drawn, bounds=(0.0, 1.0), share=True, confidence=0.95)
        assert found is not None
        lows.append(found.low)
        passed += found.low > 1 - 0.3 * rare and not found.reservation
    assert passed <= 0.025 * 300 + 3 * math.sqrt(0.025 * 300)
    assert min(lows) > 0.95


def test_where_few_rows_decide_a_mean_within_bounds_reaches_as_far_as_either_and_another_as_far_as_both() -> None:
    rng = np.random.default_rng(2)
    x = 1 - rng.gamma(0.2, 0.2, size=40).clip(0, 1)
    (drawn,) = draw([Mean(x)], 40, 999, seed=1)
    assert drawn.errors is not None and drawn.influence is not None
    assert effective_number(drawn.influence) < 25
    below, _ = reach_of(drawn.value, drawn.error, drawn.draws, drawn.errors, 0.95)
    assert math.isfinite(below)
    for unseen in (below / 3, below * 2):
        lacking = replace(drawn, unseen=(-unseen, 0.0))
        within = value_interval(lacking, bounds=(0.0, 1.0), share=False, confidence=0.95)
        free = value_interval(lacking, bounds=ANY, share=False, confidence=0.95)
        assert within is not None and free is not None
        assert drawn.value - within.low == pytest.approx(max(below, unseen))
        assert drawn.value - free.low == pytest.approx(below + unseen)
