"""What is seen first: the verdict and its reason, what the budget allowed, and the numbers at a glance."""

from __future__ import annotations

import math
from typing import Any, Literal

from tutelage.devices.cost import Latency, ModelCost
from tutelage.evaluation.results import MetricResult
from tutelage.report.bundle import Bundle
from tutelage.report.formats import count, date, estimate, factor, milliseconds, size, value
from tutelage.report.markup import Child, Markup, join, raw, tag
from tutelage.report.names import (
    full_title,
    gate_title,
    gate_unit,
    lower_first,
    model_title,
    split_title,
    typeset,
    with_warnings,
    without_outcome,
)
from tutelage.report.sections.benefit import say
from tutelage.report.strips import bars

__all__ = ["glance", "icon", "opening", "quickest"]

WORDS = {"PASS": "Pass", "FAIL": "Fail", "INCONCLUSIVE": "Inconclusive"}
ICONS = {
    "PASS": '<path d="M4 12.5l5 5L20 6.5"/>',
    "FAIL": '<path d="M5.5 5.5l13 13M18.5 5.5l-13 13"/>',
    "INCONCLUSIVE": '<path d="M8 8.6c.4-5 8.6-4.6 8 .2-.4 3-4 2.8-4 6M12 19.4v.2"/>',
    "WARNING": '<path d="M12 4v10.5M12 19.4v.2"/>',
}


def icon(outcome: str) -> Markup:
    """The sign of an outcome: a tick, a cross or a question mark; of a pass with warnings, an exclamation mark."""
    shape = ICONS.get(outcome, ICONS["INCONCLUSIVE"])
    return raw(f'<svg class="icon" viewBox="0 0 24 24" aria-hidden="true">{shape}</svg>')


def opening(bundle: Bundle) -> Markup:
    """The head of the page."""
    outcome = str(bundle.verdict.get("verdict", ""))
    reasons = [str(r) for r in bundle.verdict.get("reasons", [])]
    if not outcome:
        reasons = ["Nothing was judged: verdict.json is not in the bundle."]
    if outcome == "PASS" and not reasons:
        reasons = [_all_pass(bundle)]
    warned = with_warnings(bundle)
    said = WORDS.get(outcome, outcome.capitalize() or "Not judged") + warned
    finding, advice = without_outcome(reasons[0] if reasons else "No reason is given.")
    created = bundle.provenance.get("created")
    pair = [
        tag("span", model_title(bundle, "teacher"), class_="who"),
        tag("span", "teaches", class_="arrow"),
        tag("span", model_title(bundle, "student"), class_="who"),
    ]
    return tag(
        "header",
        tag(
            "p",
            tag("span", bundle.name, class_="run"),
            tag("span", date(created)) if created else None,
            class_="kicker",
        ),
        tag("h1", icon("WARNING" if warned else outcome), tag("span", said), class_="verdict"),
        [tag("p", tag("b", "Warning. "), typeset(warning), class_="warning") for warning in bundle.warnings],
        tag("p", finding, class_="reason"),
        tag("p", advice, class_="advice") if advice else None,
        tag("ul", [tag("li", " ".join(without_outcome(r)).strip()) for r in reasons[1:]], class_="reasons")
        if reasons[1:]
        else None,
        _helps(bundle),
        tag("p", pair, class_="pair"),
        _budget(bundle),
        class_=f"opening {'warned' if warned else outcome.lower() or 'unjudged'}",
    )


def _helps(bundle: Bundle) -> Markup | None:
    """Whether distillation helped, beside the verdict: gates can pass although it did harm."""
    if not bundle.metrics:
        return None
    said = say(bundle)
    link = tag("a", "Does distillation help?", href="#benefit")
    return tag("p", link, " ", tag("b", f"{said.answer}: "), said.short, class_=f"helps {said.css}".strip())


def _all_pass(bundle: Bundle) -> str:
    counts = (
        (len(bundle.gates("quality", "fidelity")), "on quality and fidelity"),
        (len(bundle.gates("budget")), "on the budget"),
        (len(bundle.gates("export")), "on the export"),
    )
    total = len(bundle.gates())
    parts = ", ".join(f"{number} {what}" for number, what in counts if number)
    return f"{'The only gate passes' if total == 1 else f'All {total} gates pass'}: {parts}."


def _budget(bundle: Bundle) -> Markup | None:
    gates = bundle.gates("budget")
    if not gates:
        return None
    return tag(
        "ul", [_chip(bundle, gate) for gate in gates], class_="chips", aria_label="Budget: measured against allowed"
    )


def _chip(bundle: Bundle, gate: dict[str, Any]) -> Markup:
    outcome, unit = str(gate.get("outcome")), gate_unit(gate)
    measured, allowed = gate.get("value"), gate.get("threshold")
    drawn = None
    if measured is not None and allowed and math.isfinite(measured):
        top = max(measured, allowed) * 1.06
        fill, line = 100 * measured / top, 100 * allowed / top
        drawn = tag(
            "span",
            tag("span", class_="fill", style=f"width:{fill:.1f}%"),
            tag("span", class_="limit", style=f"left:{line:.1f}%"),
            class_="gauge",
            aria_hidden="true",
        )
    figures = join(tag("b", value(measured, unit)), " of ", value(allowed, unit), " allowed")
    name = tag("span", icon(outcome), gate_title(bundle, gate), class_="chip-name")
    said = tag("span", outcome.lower(), class_="sr")
    return tag("li", name, tag("span", figures, class_="figures"), drawn, said, class_=f"chip {outcome.lower()}")


def quickest(model: ModelCost | None, *forms: str) -> Latency | None:
    """The model's latency at the smallest batch, in the quickest of the forms given, or of all."""
    found = [lat for lat in model.latencies if not forms or lat.form in forms] if model else []
    return min(found, key=lambda lat: (lat.batch, lat.p50_ms), default=None)


def glance(bundle: Bundle) -> Markup | None:
    """Quality, fidelity, parameters, size and latency: teacher and student to scale."""
    models = bundle.cost.models if bundle.cost else {}
    teacher, student = models.get("teacher"), models.get("student")
    tiles: list[Child] = [_metric(bundle, "quality"), _metric(bundle, "fidelity")]
    if student:
        tiles.append(_compared("Parameters", student.parameters, teacher.parameters if teacher else None, count))
        tiles.append(
            _compared("Size of the weights", student.size_bytes, teacher.size_bytes if teacher else None, size)
        )
        tiles.append(_latency(bundle, teacher, student))
    tiles = [tile for tile in tiles if tile]
    return tag("div", tiles, class_="glance", aria_label="At a glance", id="glance") if tiles else None


def _tile(title: str, figure: Child, drawn: Child, *under: Child) -> Markup:
    return tag(
        "div",
        tag("h3", title),
        tag("p", figure, class_="figure"),
        drawn,
        tag("p", *under, class_="under"),
        class_="tile",
    )


def key(role: str, words: str) -> Markup:
    """A model's name and value, with the colour of its bar."""
    return tag("span", f"{role} {words}", class_=f"key {role}")


def _compared(title: str, ours: float | None, theirs: float | None, words: Any) -> Markup:
    if not theirs or ours is None:
        return _tile(title, words(ours), None, "the student's")
    smaller = f"{factor(theirs / ours)} smaller" if ours < theirs else "no smaller" if ours else ""
    drawn = bars({"teacher": theirs, "student": ours}, f"{title}: teacher {words(theirs)}, student {words(ours)}")
    return _tile(title, words(ours), drawn, key("teacher", words(theirs)), " · ", tag("b", smaller))


def _latency(bundle: Bundle, teacher: ModelCost | None, student: ModelCost) -> Markup | None:
    # A student that is quicker in a form of its own is compared in one that its teacher has too.
    ours = quickest(student, *{lat.form for lat in teacher.latencies} if teacher else ()) or quickest(student)
    if ours is None:
        return None
    theirs = quickest(teacher, ours.form)
    title = f"Latency, batch {ours.batch}"
    if theirs is None:
        return _tile(title, milliseconds(ours.p50_ms), None, f"median, {ours.form}")
    drawn = bars(
        {"teacher": theirs.p50_ms, "student": ours.p50_ms},
        f"{title}: teacher {milliseconds(theirs.p50_ms)}, student {milliseconds(ours.p50_ms)}",
    )
    ratio = bundle.cost.ratio(ours.form, ours.batch) if bundle.cost else None
    speed = 1 / ratio.value if ratio and ratio.value > 0 else theirs.p50_ms / ours.p50_ms
    spread = f"{factor(1 / ratio.high)} to {factor(1 / ratio.low)}, " if ratio and ratio.low and ratio.high else ""
    under = [key("teacher", milliseconds(theirs.p50_ms)), " · ", tag("b", f"{factor(speed)} as fast")]
    return _tile(title, milliseconds(ours.p50_ms), drawn, *under, tag("br"), f"{spread}median, {ours.form}")


def _metric(bundle: Bundle, kind: Literal["quality", "fidelity"]) -> Markup | None:
    metric = bundle.primary(kind)
    if metric is None or "student" not in metric.models:
        return None
    ours = metric.models["student"]
    shown: dict[str, float] = {
        n: metric.models[n].value
        for n in ("teacher", "student", "baseline", "untrained", "constant")
        if n in metric.models
    }
    figure, between = estimate(ours.value, ours.low, ours.high, metric.unit)
    others = [key(name, value(v, metric.unit)) for name, v in shown.items() if name != "student"]
    said = ", ".join(f"{name} {value(v, metric.unit)}" for name, v in shown.items())
    # A share or a similarity is drawn against one, where the student would be the teacher's equal.
    bounded = metric.higher_is_better and all(0 <= v <= 1 for v in shown.values())
    # A bar from zero says nothing of a value below it.
    drawn = (
        bars(shown, f"{metric.title}: {said}", top=1.0 if bounded else None)
        if min(shown.values()) >= 0 or bounded
        else None
    )
    under = [join(*others, separator="  "), tag("br") if others else None, f"interval {between}"]
    if not metric.higher_is_better:
        under.append(", lower is better")
    if ours.reservation:
        under += [tag("br"), "the interval may be too short"]
    return _tile(_heading(metric), figure, drawn, *under)


def _heading(metric: MetricResult) -> str:
    """`Fidelity` only where more is nearer: a difference from the teacher is the contrary of it."""
    title = split_title(full_title(metric))[0]
    if metric.kind == "quality":
        return title
    if metric.higher_is_better:
        return f"Fidelity: {lower_first(title)}"
    return f"Distance from the teacher: {lower_first(title.removesuffix(' from the teacher'))}"
