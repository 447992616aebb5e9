"""Teacher, student, baseline, untrained student and constant answer: against the labels, and against the teacher."""

from __future__ import annotations

from tutelage.evaluation.results import Estimate, MetricResult
from tutelage.report.bundle import ROLES, Bundle
from tutelage.report.formats import estimate
from tutelage.report.markup import Child, Markup, note, section, tag
from tutelage.report.names import full_title, split_title, typeset
from tutelage.report.strips import dots
from tutelage.report.svg import Legend, swatch

__all__ = ["models_legend", "results"]

WHO = {
    "teacher": "teacher",
    "student": "student",
    "baseline": "baseline: same student, same steps, no teacher",
    "untrained": "untrained: the student before training",
    "constant": "constant: the best answer that is the same for every row",
}
PAIRS = ("student - teacher", "student - baseline", "student - untrained")
MARK = "†"
"""Beside an interval with a reservation."""
KINDS = {
    "quality": ("Against the labels", "Is it right?"),
    "fidelity": ("Against the teacher", "Does it answer as the teacher does?"),
}


def models_legend(names: list[str]) -> Markup:
    """The marks of the models."""
    entries = [tag("li", swatch(Legend(n, n)), WHO.get(n, n)) for n in names]
    return tag("ul", entries, class_="legend")


def results(bundle: Bundle) -> Markup:
    """The tables of quality and fidelity."""
    title = "Quality and fidelity"
    confidence = f"{100 * bundle.metrics[0].confidence:.0f}%" if bundle.metrics else "95%"
    lede = (
        f"Values on held-out data with their {confidence} intervals. Differences are paired, row by row, so they are "
        "surer than the values they are taken from."
    )
    if not bundle.metrics:
        return section("results", title, lede, note("metrics.json is not in the bundle or names no metric."))
    present = [r for r in ROLES if any(r in m.models for m in bundle.metrics)]
    parts: list[Child] = [models_legend(present)]
    for kind, (heading, question) in KINDS.items():
        of_kind = [m for m in bundle.metrics if m.kind == kind]
        if of_kind:
            parts += [tag("h3", heading, " ", tag("span", question, class_="aside")), _table(of_kind)]
            parts += [note(text) for text in _reservations(of_kind)]
        elif kind == "quality":
            parts.append(note("No quality metric: the data has no labels, so only fidelity to the teacher is known."))
    parts += [note(text) for text in bundle.notes]
    return section("results", title, lede, *parts)


def _table(metrics: list[MetricResult]) -> Markup:
    roles = [r for r in ROLES if any(r in m.models for m in metrics)]
    pairs = [p for p in PAIRS if any(p in m.differences for m in metrics)]
    # Beside a baseline, the distance from the untrained student says nothing more.
    pairs = [p for p in pairs if p != "student - untrained" or "student - baseline" not in pairs]
    titles = ["Metric", "On one scale", *(r.capitalize() for r in roles), *(typeset(p).capitalize() for p in pairs)]
    head = tag("tr", [tag("th", t, scope="col", class_="number" if k > 1 else None) for k, t in enumerate(titles)])
    body = [_row(m, roles, pairs) for m in metrics]
    table = tag("table", tag("thead", head), tag("tbody", body), class_="results stack cells")
    return tag("div", table, class_="scroll", tabindex="0")


def _row(metric: MetricResult, roles: list[str], pairs: list[str]) -> Markup:
    better = "higher is better" if metric.higher_is_better else "lower is better"
    noun = "pairs" if "human" in metric.name else "rows"
    title, remark = split_title(full_title(metric))
    about = [
        tag("span", remark, class_="remark") if remark else None,
        tag("span", f"{better}, {metric.n:,} {noun}{_grouped(metric)}", class_="kind"),
    ]
    shown = {r: metric.models[r] for r in roles if r in metric.models}
    return tag(
        "tr",
        tag("th", title, about, scope="row"),
        tag("td", dots(shown, metric.unit, metric.title), class_="drawn"),
        [_cell(metric.models.get(r), metric.unit, r) for r in roles],
        [_cell(metric.differences.get(p), metric.unit, p, signed=True) for p in pairs],
    )


def _grouped(metric: MetricResult) -> str:
    """What intervals resample, where it is not the rows."""
    if metric.groups is None:
        return ""
    if "human" in metric.name:
        return f" of {metric.groups:,} texts; intervals resample texts"
    return f" in {metric.groups:,} groups; intervals resample groups"


def _reservations(metrics: list[MetricResult]) -> list[str]:
    """What is to be known of the intervals that are marked, each reason once."""
    by_reason: dict[str, list[str]] = {}
    for metric in metrics:
        for name, found in {**metric.models, **metric.differences}.items():
            if found.reservation:
                by_reason.setdefault(found.reservation, []).append(
                    f"{split_title(full_title(metric))[0]}, {typeset(name)}"
                )
    return [f"{MARK} {'; '.join(of)}: the interval may be too short, as {why}." for why, of in by_reason.items()]


def _cell(found: Estimate | None, unit: str, name: str, *, signed: bool = False) -> Markup:
    label = typeset(name).capitalize()
    if found is None:
        return tag("td", "—", class_="number none", data_label=label)
    figure, between = estimate(found.value, found.low, found.high, unit, signed=signed)
    if found.reservation:
        between = f"{between} {MARK}"
    figure_ = tag("b" if name == "student" else "span", figure)
    return tag("td", figure_, tag("span", between, class_="ci"), class_="number", data_label=label)
