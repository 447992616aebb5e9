"""Does distillation help? The student against the same student, trained for as many steps without the teacher."""

from __future__ import annotations

from dataclasses import dataclass

from tutelage.evaluation.benefit import Comparison, Conclusion, compare, conclude
from tutelage.evaluation.results import MetricResult
from tutelage.report.bundle import Bundle
from tutelage.report.formats import difference, estimate, value
from tutelage.report.markup import Child, Markup, note, section, tag
from tutelage.report.names import full_title, lower_first, split_title
from tutelage.report.strips import interval_plot

__all__ = ["Said", "benefit", "say"]

TITLE = "Does distillation help?"
LEDE = (
    "The student is compared with the same student trained for as many steps on the same rows without the teacher. "
    "Only what lies beyond that is owed to distillation."
)
NO_BASELINE = (
    "There is no baseline in this bundle, so it isn't known what the same student would be without the teacher."
)
NO_LABELS = (
    "The rows that it is tested on have no labels: that the student agrees with the teacher better than a student that "
    "never saw it shows what was learnt, not that it is right."
)
CSS = {"yes": "yes", "no": "no", "not shown": "open", "not measured": ""}


@dataclass(frozen=True, kw_only=True)
class Said:
    """The conclusion in words: the answer, a sentence for the head of the page, and all of it."""

    answer: str
    short: str
    text: str
    css: str


def say(bundle: Bundle) -> Said:
    """The conclusion, in words."""
    found = conclude(bundle.metrics, bundle.seeds, {gate.get("name", "") for gate in bundle.gates("quality")})
    if found.lead is None:
        judged = any("student - baseline" in metric.differences for metric in bundle.metrics)
        short = "nothing judges it by labels" if judged else "there is no baseline"
        text = (NO_LABELS if judged else NO_BASELINE) + _against_constant(found)
    else:
        short, text = _compared(found.lead, found)
    return Said(answer=found.answer.capitalize(), short=f"{short}.", text=text, css=CSS[found.answer])


def _compared(lead: Comparison, found: Conclusion) -> tuple[str, str]:
    """The short sentence without its stop, and the whole text."""
    metric, of = lead.metric, lead.seeds or lead.rows
    title = full_title(metric)
    figure, between = estimate(of.value, of.low, of.high, metric.unit, signed=True)
    moved = f"{figure.lstrip('+−')} {'higher' if of.value > 0 else 'lower'} than without the teacher"
    source = f"over {len(lead.by_seed)} seeds" if lead.seeds else f"over {metric.n:,} rows"
    if not lead.seeds and metric.groups is not None and "human" not in metric.name:
        source += f" in {metric.groups:,} groups"
    bracket = f"({100 * metric.confidence:.0f}% interval of the difference, {source}: {between})"
    short = f"{lower_first(split_title(title)[0])} is {moved}"
    text = f"{title} is {moved} {bracket}"
    if lead.standing == "worse":
        text += ": the same student does better alone, so the teacher's signals do harm here."
    elif lead.standing == "better":
        text += "."
    elif lead.rows.reservation and not of.low <= 0 <= of.high:
        short += ", by an interval that can't be relied on"
        text += f", but the interval can't be relied on: {lead.rows.reservation}."
    else:
        short = f"{lower_first(split_title(title)[0])} with and without the teacher can't be told apart"
        text = f"{title} with and without the teacher can't be told apart {bracket}.{_unseen(lead)}"
    if lead.standing == "better" and found.constant in ("worse", "open"):
        short += ", and still " + ("worse" if found.constant == "worse" else "not shown to be better")
        short += " than a constant answer"
    elif found.constant == "worse":
        short += ", and a constant answer is better than the student"
    return short, text + _against_constant(found) + _others(found)


def _unseen(lead: Comparison) -> str:
    """What gain and what loss the interval leaves open: that none was seen does not show that there is none."""
    of, unit = lead.seeds or lead.rows, lead.metric.unit
    sign = 1 if lead.metric.higher_is_better else -1
    low, high = sorted((sign * of.low, sign * of.high))
    ends = [(high, "a gain of up to"), (-low, "a loss of up to")]
    left = [f"{words} {difference(end, unit).lstrip('+')}" for end, words in ends if end > 0]
    return f" That is no proof that it makes no difference: {' or '.join(left)} is possible." if left else ""


def _against_constant(found: Conclusion) -> str:
    """What is to be known of a student that an answer which looks at no input equals."""
    metric = found.metric
    if metric is None or found.constant not in ("worse", "open"):
        return ""
    student, constant = (value(metric.models[name].value, metric.unit) for name in ("student", "constant"))
    figures = f"in {lower_first(full_title(metric))} ({constant} against {student})"
    if found.constant == "worse":
        return (
            f" The best constant answer, which looks at no input, is better than the student {figures}: by this "
            "measure the student is of no use."
        )
    return f" The student is not shown to be better than the best constant answer, which looks at no input, {figures}."


def _others(found: Conclusion) -> str:
    """Metrics that say otherwise."""
    return "".join(
        f" Shown to be {word} than without the teacher: {', '.join(lower_first(_name(x)) for x in metrics)}."
        for word, metrics in (("better", found.also_better), ("worse", found.also_worse))
        if metrics
    )


def _name(metric: MetricResult) -> str:
    return split_title(full_title(metric))[0]


def benefit(bundle: Bundle) -> Markup:
    """The answer in a sentence, then each metric's difference against zero."""
    said = say(bundle)
    parts: list[Child] = [
        tag("p", tag("b", f"{said.answer}. "), said.text, class_=f"answer {said.css}".strip()),
    ]
    against = "baseline"
    found = compare(bundle.metrics, bundle.seeds)
    if not found:
        against = "untrained"
        found = compare(bundle.metrics, bundle.seeds, against)
        if not found:
            return section("benefit", TITLE, LEDE, *parts)
        parts.append(
            note("What follows compares the student with itself before training: it shows that it learned, no more.")
        )
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
    return section(
        "benefit", TITLE, LEDE, *parts, tag("div", table, class_="scroll", tabindex="0"), note(_about(found))
    )


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
