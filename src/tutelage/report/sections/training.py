"""The course of training: losses by term, and what was measured on the development rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tutelage.report.bundle import Bundle
from tutelage.report.charts import Line, line_chart
from tutelage.report.formats import plain
from tutelage.report.markup import Child, Markup, note, section, tag
from tutelage.report.svg import Axis, Legend, Scale, Words, finite

__all__ = ["training"]

MOST_POINTS = 240
FIRST = 4
LEDE = "Losses are means over short stretches of steps. The flag marks the step whose weights were kept."
HEADINGS = {
    "student": "Student",
    "baseline": "Baseline, without the teacher",
    "teacher": "Teacher, trained in this run",
}


def training(bundle: Bundle) -> Markup:
    """One chart of losses a model, one chart a development metric."""
    if not bundle.history:
        why = "history.jsonl is not in the bundle" if "history.jsonl" in bundle.absent else "history.jsonl is empty"
        return section("training", "Training", LEDE, note(why, ", so the course of training can't be shown."))
    seed = _shipped(bundle)
    records = [r for r in bundle.history if r.get("seed", seed) == seed or _once(str(r.get("role")))]
    roles = dict.fromkeys([*HEADINGS, *(str(r.get("role")) for r in records)])
    losses = [_losses(role, [r for r in records if r.get("role") == role and "loss" in r]) for role in roles]
    developments = [_development(bundle, name, records) for name in _ranked(bundle, records)]
    first, further = developments[:FIRST], developments[FIRST:]
    fold = tag("details", tag("summary", f"{len(further)} further metrics"), tag("div", further, class_="charts"))
    seeds = {r.get("seed") for r in bundle.history}
    several = note(f"Seed {seed}, the one that ships, is shown; {len(seeds)} were run.") if len(seeds) > 1 else None
    parts: list[Child] = [
        tag("h3", "On the development rows") if developments else None,
        tag("div", first, class_="charts"),
        fold if further else None,
        tag("h3", "Losses"),
        tag("div", losses, class_="charts"),
        several,
    ]
    return section("training", "Training", LEDE, *parts)


def _once(role: str) -> bool:
    """Whether a training is made once a run, whatever the seeds: teachers, assistants and students of rounds."""
    return role.startswith(("teacher", "assistant", "round"))


def _heading(role: str) -> str:
    """What a training is called; stages, assistants and several teachers are called as the run called them."""
    return HEADINGS.get(role, role.capitalize())


def _ranked(bundle: Bundle, records: list[dict[str, Any]]) -> list[str]:
    """The development metrics, those that a gate judges first, then those that the page leads with."""
    names = {name for r in records for name in r.get("development") or {}}
    leading = [m.name for kind in ("quality", "fidelity") if (m := bundle.primary(kind))]
    first = [*(str(g.get("name")) for g in bundle.gates("quality", "fidelity")), *leading]
    return sorted(names, key=lambda name: (first.index(name) if name in first else len(first), name))


def _shipped(bundle: Bundle) -> Any:
    shipped = [s.get("seed") for s in bundle.seeds if s.get("shipped")]
    return shipped[0] if shipped else bundle.history[0].get("seed", 0)


def _thinned(steps: list[float], values: list[float]) -> tuple[list[float], list[float]]:
    """Means over stretches of equal length, so that a long run is as legible as a short one."""
    if len(steps) <= MOST_POINTS:
        return steps, values
    pieces = np.array_split(np.arange(len(steps)), MOST_POINTS)
    x, y = np.asarray(steps), np.asarray(values, dtype=float)
    # A stretch with a NaN stays NaN: a loss that blew up must be seen.
    return [float(x[p].mean()) for p in pieces], [float(y[p].mean()) for p in pieces]


def _losses(role: str, records: list[dict[str, Any]]) -> Markup | None:
    if not records:
        return None
    terms = sorted({name for r in records for name in r.get("terms") or {}})
    named: list[tuple[str, str, list[float]]] = [("total", _colour(role), [_number(r["loss"]) for r in records])]
    if len(terms) > 1:
        named += [
            (t, f"term-{k % 6}", [_number((r.get("terms") or {}).get(t)) for r in records]) for k, t in enumerate(terms)
        ]
    steps = [float(r.get("step", 0)) for r in records]
    lines = []
    for name, css, values in named:
        x, y = _thinned(steps, values)
        lines.append(Line(name=name, css=css, x=x, y=y))
    known = [v for line in lines for v in finite(line.y)]
    log = bool(known) and min(known) > 0 and max(known) > 30 * min(known)
    total = finite(lines[0].y)
    summary = (
        f"{_heading(role)}: the total loss goes from {plain(total[0])} to {plain(total[-1])} in {steps[-1]:,.0f} steps."
        if total
        else ""
    )
    legend = [Legend(line.css, "loss" if len(lines) == 1 else line.name, line=True) for line in lines]
    broken = (
        f"{len(steps)} steps, some without a finite loss."
        if any(len(finite(v)) < len(v) for _, _, v in named[:1])
        else ""
    )
    words = Words(title=_heading(role), summary=summary, legend=legend, footnote=broken)
    title = "loss (logarithmic)" if log else "loss"
    scale = Scale.over(known, log=True) if log else Scale(low=min([0.0, *known]), high=1.06 * max([1e-9, *known]))
    return line_chart(words, lines, "step", Axis(title=title, scale=scale))


def _colour(role: str) -> str:
    """The style of a training's line: a teacher's, the baseline's, else the student's."""
    return next((known for known in HEADINGS if role.split(" ", maxsplit=1)[0] == known), "student")


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _development(bundle: Bundle, name: str, records: list[dict[str, Any]]) -> Markup:
    metric = bundle.metric(name)
    unit = metric.unit if metric else ""
    title = metric.title if metric else name.replace("_", " ").capitalize()
    lines = []
    # The teacher's agreement with itself says nothing.
    roles = ("student", "baseline") if metric and metric.kind == "fidelity" else ("student", "baseline", "teacher")
    for role in roles:
        evaluated = [r for r in records if r.get("role") == role and name in (r.get("development") or {})]
        if not evaluated:
            continue
        best = [k for k, r in enumerate(evaluated) if r.get("best")]
        lines.append(
            Line(
                name=role,
                css=role,
                x=[float(r.get("step", 0)) for r in evaluated],
                y=[_number(r["development"][name]) for r in evaluated],
                best=best[-1] if best else None,
                dots=True,
            )
        )
    scale = Scale.over([v for line in lines for v in line.y], unit=unit)
    kept = [f"{line.name}: step {line.x[line.best]:,.0f} was kept" for line in lines if line.best is not None]
    words = Words(
        title=title,
        summary="; ".join(kept),
        footnote="; ".join(kept).capitalize() + "." if kept else "",
        legend=[Legend(line.css, line.name, line=True) for line in lines],
    )
    where = (
        "development rows"
        if not metric
        else f"development rows, {'higher' if metric.higher_is_better else 'lower'} is better"
    )
    return line_chart(words, lines, "step", Axis(title=where, scale=scale))
