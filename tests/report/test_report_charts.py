"""Where marks are drawn, against positions worked out here."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from tutelage.evaluation.results import Estimate
from tutelage.report.charts import Bin, Line, cloud, distribution, line_chart, reliability
from tutelage.report.strips import bars, dots, histogram, interval_plot
from tutelage.report.svg import Axis, Scale, Words

WORDS = Words(title="Title", summary="Summary")


def numbers(pattern: str, text: str) -> list[float]:
    return [float(found) for found in re.findall(pattern, text)]


def test_a_linear_scale_interpolates() -> None:
    scale = Scale(low=-2.0, high=6.0)
    values = [-2.0, 0.0, 1.7, 6.0]
    np.testing.assert_allclose([scale.at(v) for v in values], np.interp(values, [-2, 6], [0, 1]), atol=1e-12)


def test_a_logarithmic_scale_interpolates_logarithms() -> None:
    scale = Scale(low=0.5, high=200.0, log=True)
    expected = np.interp(np.log([1, 10, 100]), np.log([0.5, 200]), [0, 1])
    np.testing.assert_allclose([scale.at(v) for v in (1, 10, 100)], expected, atol=1e-12)


@pytest.mark.parametrize(
    "scale",
    [
        Scale(low=0.0, high=3000.0), Scale(low=0.8312, high=0.8714, unit="%"), Scale(low=-7e-5, high=2e-4),
        Scale(low=1.9, high=14.0, log=True), Scale(low=0.3, high=4000.0, log=True),
    ],
)  # fmt: skip
def test_ticks_lie_inside_rise_and_are_told_apart(scale: Scale) -> None:
    ticks = scale.ticks()
    labels = scale.labels(ticks)
    assert 2 <= len(ticks) <= 8
    assert ticks == sorted(ticks)
    assert all(-1e-9 <= scale.at(t) <= 1 + 1e-9 for t in ticks)
    assert len(set(labels)) == len(labels)


def test_a_scale_of_one_value_has_room_on_both_sides() -> None:
    for value in (0.0, 3.0, -2.0):
        scale = Scale.over([value])
        assert scale.low < value < scale.high
    assert Scale.over([math.nan, None]).high > Scale.over([]).low


def test_an_interval_that_touches_the_line_is_drawn_touching_it() -> None:
    drawn = interval_plot(0.5, 0.25, 1.0, threshold=0.25, allowed="above", label="a", threshold_label="b")
    x1, _, x2, _ = numbers(r'([\d.]+)%"', re.findall(r'<line [^>]*class="whisker student"/>', drawn)[0])
    line = numbers(r'x1="([\d.]+)%"[^>]*class="threshold"', drawn)[0]
    # From 0.25 to 1 with 22% of that on each side.
    assert line == x1 == pytest.approx(100 * 0.22 / 1.44, abs=0.01)
    assert x2 == pytest.approx(100 * 1.22 / 1.44, abs=0.01)


@pytest.mark.parametrize(("allowed", "left"), [("above", False), ("below", True), (None, None)])
def test_the_allowed_side_is_tinted(allowed: str | None, left: bool | None) -> None:
    drawn = interval_plot(0.0, -1.0, 1.0, threshold=0.5, allowed=allowed, label="a", threshold_label="b")  # type: ignore[arg-type]
    tint = re.findall(r'<rect x="([\d.]+)%"[^>]*width="([\d.]+)%"[^>]*class="allowed"/>', drawn)
    line = numbers(r'x1="([\d.]+)%"[^>]*class="threshold"', drawn)[0]
    if left is None:
        assert tint == []
    else:
        x, width = map(float, tint[0])
        assert (x, width) == (pytest.approx(0 if left else line), pytest.approx(line if left else 100 - line, abs=0.02))


def test_bars_are_to_scale_from_zero() -> None:
    widths = numbers(r'<rect [^>]*width="([\d.]+)%"', bars({"teacher": 40.0, "student": 10.0}, "label"))
    assert widths == [100, 25]


def test_an_untrained_student_far_off_does_not_squeeze_the_others_together() -> None:
    models = {
        "teacher": Estimate(value=0.91, low=0.9, high=0.92),
        "student": Estimate(value=0.90, low=0.89, high=0.91),
        "untrained": Estimate(value=0.1, low=0.09, high=0.11),
    }
    drawn = dots(models, "%", "Accuracy")
    marks = dict(re.findall(r'<svg x="([\d.-]+)%"[^>]*><path [^>]*class="mark (\w+)"', drawn))
    at = {role: float(x) for x, role in marks.items()}
    assert at["untrained"] == 0
    assert at["teacher"] - at["student"] > 20
    assert "untrained 10.0%" in drawn


def test_a_histogram_stands_on_its_counts() -> None:
    values = [1.0] * 6 + [2.0] * 3
    heights = numbers(r'height="([\d.]+)%"', histogram(values, Scale(low=0.5, high=2.5), "student", "label", bins=4))
    assert heights == [100, 50]


def test_a_loss_that_blew_up_interrupts_the_line_and_is_not_joined_across() -> None:
    line = Line(name="loss", css="student", x=[0, 1, 2, 3, 4], y=[1.0, 0.5, math.nan, 0.5, 0.4])
    drawn = line_chart(WORDS, [line], "step", Axis(title="loss", scale=Scale(low=0, high=1)))
    paths = re.findall(r'<path d="M([^"]+)" class="line student"', drawn)
    assert [[float(v) for v in p.split()] for p in paths] == [[0, 0, 250, 500], [750, 500, 1000, 600]]
    assert "nan" not in drawn.lower().replace("andn", "")


def test_the_best_step_is_flagged_where_it_is() -> None:
    line = Line(name="student", css="student", x=[0, 50, 100], y=[0.2, 0.8, 0.6], best=1)
    drawn = line_chart(WORDS, [line], "step", Axis(title="accuracy", scale=Scale(low=0, high=1)))
    flag = re.findall(r'<svg x="([\d.]+)%" y="([\d.]+)%"[^>]*><path [^>]*class="mark student flag"', drawn)
    assert flag == [("50", "20")]


def test_perfect_confidence_lies_on_the_diagonal() -> None:
    bins = [Bin(confidence=c, accuracy=c, rows=10) for c in (0.3, 0.6, 0.9)]
    drawn = reliability(WORDS, {"student": bins})
    marks = re.findall(r'<svg x="([\d.]+)%" y="([\d.]+)%"[^>]*><path [^>]*class="mark student"', drawn)
    assert [float(x) + float(y) for x, y in marks] == pytest.approx([100, 100, 100])


def test_equal_quantities_share_one_scale() -> None:
    drawn = cloud(WORDS, [0.0, 10.0, 2.0], [0.0, 5.0, 2.0], ("teacher", "student"))
    specks = [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)%" cy="([\d.]+)%"', drawn)]
    assert specks[0][0] + specks[0][1] == pytest.approx(100, abs=0.02)
    assert specks[2][0] + specks[2][1] == pytest.approx(100, abs=0.02)
    assert specks[1][0] + specks[1][1] > 100  # below the diagonal


def test_a_cloud_is_thinned_the_same_way_each_time() -> None:
    values = np.random.default_rng(0).normal(size=5001).tolist()
    drawn = [cloud(WORDS, values, values, ("a", "b")) for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert drawn[0].count("<circle") == 1667


def test_the_columns_of_a_distribution_add_up_to_all_rows() -> None:
    values = np.random.default_rng(0).normal(size=400).tolist()
    drawn = distribution(WORDS, {"student": values, "baseline": [v + 1 for v in values]}, "x")
    said = numbers(r"([\d.]+)% of the rows", drawn)
    assert sum(said) == pytest.approx(100, abs=2)
    assert 'class="line baseline"' in drawn


def test_a_chart_has_its_title_and_summary_for_those_who_do_not_see_it() -> None:
    line = Line(name="loss", css="student", x=[0, 1], y=[1.0, 0.5])
    drawn = line_chart(WORDS, [line], "step", Axis(title="loss", scale=Scale(low=0, high=1)))
    assert 'role="img" aria-label="Title. Summary"' in drawn
    assert "<title>Title</title><desc>Summary</desc>" in drawn


def test_the_labels_of_the_axes_stand_at_their_values() -> None:
    line = Line(name="loss", css="student", x=[0, 40], y=[0.2, 0.6])
    drawn = line_chart(WORDS, [line], "step", Axis(title="loss", scale=Scale(low=0, high=1)))
    for side, low, high in (("top", 1.0, 0.0), ("left", 0.0, 40.0)):
        labels = re.findall(rf'<span style="{side}:([\d.]+)%">([\d.]+)</span>', drawn)
        assert len(labels) >= 4
        for at, label in labels:
            assert float(at) == pytest.approx(float(np.interp(float(label), *_rising(low, high))), abs=0.01)


def _rising(at_start: float, at_end: float) -> tuple[list[float], list[float]]:
    """Values and percentages of an axis whose start shows `at_start`, values rising as `np.interp` wants them."""
    pairs = sorted([(at_start, 0.0), (at_end, 100.0)])
    return [p[0] for p in pairs], [p[1] for p in pairs]


def test_a_bin_of_few_rows_is_not_joined_to_the_others() -> None:
    bins = [Bin(confidence=c, accuracy=c, rows=n) for c, n in ((0.2, 3), (0.5, 40), (0.8, 40), (0.9, 9))]
    drawn = reliability(WORDS, {"student": bins})
    assert re.findall(r'<path d="M([^"]+)" class="line student"', drawn) == ["500.0 500.0 800.0 200.0"]
    assert drawn.count("mark student few") == 2
