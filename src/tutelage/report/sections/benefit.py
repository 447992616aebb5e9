"""Does distillation help? The student against the same student, trained for as many steps without the teacher."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from tutelage.evaluation.results import Estimate, MetricResult
from tutelage.evaluation.seeds import seed_spread
from tutelage.report.bundle import Bundle
from tutelage.report.formats import estimate
from tutelage.report.markup import Child, Markup, note, section, tag
from tutelage.report.names import full_title, split_title
from tutelage.report.strips import interval_plot

__all__ = ["benefit"]

Answer = Literal["yes", "no", "not shown"]
# Two-sided 95% quantiles of Student's t for 1 to 30 degrees of freedom; 1.96 is near enough beyond.
T_95 = (
    12.706,
    4.303,
    3.182,
    2.776,
    2.571,
    2.447,
    2.365,
    2.306,
    2.262,
    2.228,
    2.201,
    2.179,
    2.160,
    2.145,
    2.131,
    2.120,
    2.110,
    2.101,
    2.093,
    2.086,
    2.080,
    2.074,
    2.069,
    2.064,
    2.060,
    2.056,
    2.052,
    2.048,
    2.045,
    2.042,
)
LEDE = (
    "The student is compared with the same student trained for as many steps on the same rows without the teacher. "
    "Only what lies beyond that is owed to distillation."
)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The student less another on one metric: over rows (the shipped seed) and, with two or more, over seeds."""

    metric: MetricResult
    rows: Estimate
    seeds: Estimate | None
    by_seed: list[float]

    @property
    def answer(self) -> Answer:
        """Yes or no only when every interval there is lies on one side of zero, and yes by none with a reservation."""
        sign = 1 if self.metric.higher_is_better else -1
        known = [e for e in (self.rows, self.seeds) if e]
        if all(min(sign * e.low, sign * e.high) > 0 and not e.reservation for e in known):
            return "yes"
        if all(max(sign * e.low, sign * e.high) < 0 for e in known):
            return "no"
        return "not shown"


def benefit(bundle: Bundle) -> Markup:
    """The answer in a sentence, then each metric's difference against zero."""
    title = "Does distillation help?"
    against = "baseline"
    found = _comparisons(bundle, against)
    parts: list[Child] = []
    if not found:
        against = "untrained"
        found = _comparisons(bundle, against)
        why = (
            "There is no baseline in this bundle, so it isn't known what the same student would be without the teacher."
        )
        parts.append(tag("p", tag("b", "Not measured. "), why, class_="answer"))
        if not found:
            return section("benefit", title, LEDE, *parts)
        parts.append(
            note("What follows compares the student with itself before training: it shows that it learned, no more.")
        )
    else:
        parts.append(_sentence(_lead(bundle, found)))
    titles = ["Metric", f"Student − {against}", "Difference"]
    if any(c.seeds for c in found):
        titles.append("Over seeds")
    head = tag("tr", [tag("th", t, scope="col", class_="number" if k > 1 else None) for k, t in enumerate(titles)])
    table = tag(
        "table",
        tag("thead", head),
        tag("tbody", [_row(c, against, len(titles) > 3) for c in found]),
        class_="benefit stack",
    )
    return section("benefit", title, LEDE, *parts, tag("div", table, class_="scroll"), note(_about(found)))


def _comparisons(bundle: Bundle, against: str) -> list[Comparison]:
    found = []
    spread = seed_spread(bundle.seeds) if len(bundle.seeds) > 1 else {}
    for metric in bundle.metrics:
        rows = metric.differences.get(f"student - {against}")
        if rows is None:
            continue
        by_seed = [
            s["metrics"][metric.name]["student"] - s["metrics"][metric.name]["baseline"]
            for s in bundle.seeds
            if against == "baseline" and {"student", "baseline"} <= set(s.get("metrics", {}).get(metric.name, {}))
        ]
        across = spread.get(metric.name, {}).get("student - baseline") if against == "baseline" else None
        found.append(
            Comparison(metric=metric, rows=rows, seeds=_over_seeds(across), by_seed=by_seed if len(by_seed) > 1 else [])
        )
    return found


def _over_seeds(spread: dict[str, float] | None) -> Estimate | None:
    if not spread or spread["n"] < 2:
        return None
    freedom = int(spread["n"]) - 1
    half = (T_95[freedom - 1] if freedom <= len(T_95) else 1.96) * spread["sd"] / math.sqrt(spread["n"])
    return Estimate(value=spread["mean"], low=spread["mean"] - half, high=spread["mean"] + half)


def _lead(bundle: Bundle, found: list[Comparison]) -> Comparison:
    for kind in ("quality", "fidelity"):
        primary = bundle.primary(kind)
        for comparison in found:
            if primary and comparison.metric.name == primary.name:
                return comparison
    return found[0]


def _sentence(lead: Comparison) -> Markup:
    metric, found = lead.metric, lead.seeds or lead.rows
    title = full_title(metric)
    figure, between = estimate(found.value, found.low, found.high, metric.unit, signed=True)
    amount = figure.lstrip("+\u2212")
    source = f"over {len(lead.by_seed)} seeds" if lead.seeds else f"over {metric.n:,} rows"
    if not lead.seeds and metric.groups is not None and "human" not in metric.name:
        source += f" in {metric.groups:,} groups"
    bracket = f"({100 * metric.confidence:.0f}% interval of the difference, {source}: {between})"
    moved = "higher" if found.value > 0 else "lower"
    if lead.answer == "yes":
        text = f"{title} is {amount} {moved} than without the teacher {bracket}."
        return tag("p", tag("b", "Yes. "), text, class_="answer yes")
    if lead.answer == "no":
        text = (
            f"{title} is {amount} {moved} than without the teacher {bracket}: the same student does better "
            "alone, so the teacher's signals do harm here."
        )
        return tag("p", tag("b", "No. "), text, class_="answer no")
    if lead.rows.reservation:
        text = (
            f"{title} is {amount} {moved} than without the teacher {bracket}, but the interval can't be relied on: "
            f"{lead.rows.reservation}."
        )
        return tag("p", tag("b", "Not shown. "), text, class_="answer open")
    text = (
        f"{title} with and without the teacher can't be told apart {bracket}. The same student trained "
        "without the teacher is, as far as this test can tell, as good."
    )
    return tag("p", tag("b", "Not shown. "), text, class_="answer open")


def _row(comparison: Comparison, against: str, several: bool) -> Markup:
    metric, rows, seeds = comparison.metric, comparison.rows, comparison.seeds
    figure, between = estimate(rows.value, rows.low, rows.high, metric.unit, signed=True)
    drawn = interval_plot(
        rows.value,
        rows.low,
        rows.high,
        threshold=0.0,
        allowed="above" if metric.higher_is_better else "below",
        label=f"{metric.title}, student − {against}: {figure}, interval {between}",
        threshold_label="no difference",
        points=comparison.by_seed,
    )
    spread: list[Child] = ["—"]
    if seeds:
        sign = 1 if metric.higher_is_better else -1
        ahead = sum(sign * d > 0 for d in comparison.by_seed)
        mean, around = estimate(seeds.value, seeds.low, seeds.high, metric.unit, signed=True)
        spread = [
            mean,
            tag("span", around, class_="ci"),
            tag("span", f"better in {ahead} of {len(comparison.by_seed)}", class_="ci"),
        ]
    title, remark = split_title(full_title(metric))
    return tag(
        "tr",
        tag("th", title, tag("span", remark or metric.kind, class_="kind"), scope="row"),
        tag("td", drawn, class_="drawn"),
        tag("td", tag("b", figure), tag("span", between, class_="ci"), class_="number"),
        tag("td", spread, class_="number", data_label="Over seeds") if several else None,
    )


def _about(found: list[Comparison]) -> str:
    text = "The tinted side is where the student is better. The bar is the interval over rows, for the seed that ships."
    if any(c.seeds for c in found):
        text += " Rings are single seeds; the column of seeds gives their mean with its 95% t-interval."
    return text
