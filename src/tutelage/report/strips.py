"""Charts of one line, to stand in a table or beside a number: intervals, dots, bars, small histograms, sparklines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from tutelage.evaluation.results import Estimate
from tutelage.report.formats import interval, value
from tutelage.report.markup import Child, Markup, join, tag
from tutelage.report.svg import Scale, finite, marker, path, rule, share

__all__ = ["bars", "dots", "histogram", "interval_plot", "sparkline"]

Direction = Literal["above", "below"]


def _strip(drawing: Child, label: str, *, height: int = 22, css: str = "strip") -> Markup:
    inside = tag("svg", tag("title", label), drawing, role="img", aria_label=label, class_="drawing")
    return tag("div", inside, class_=css, style=f"height:{height}px")


def _whisker(
    scale: Scale, low: float | None, high: float | None, at: float, css: str, *, capped: bool = True
) -> Markup:
    """An interval; an end that is not known runs to the edge, without a cap."""
    left, right = 0.0 if low is None else scale.at(low), 1.0 if high is None else scale.at(high)
    if not capped:
        return rule(left, at, right, at, f"whisker {css}")
    # Caps are drawn in pixels about the line, whatever the height of the strip.
    cap = tag("path", d="M0-4V4", class_=f"whisker {css}")
    ends = [x for x, end in ((left, low), (right, high)) if end is not None]
    caps = [tag("svg", cap, x=share(x), y=share(at), overflow="visible") for x in ends]
    return join(rule(left, at, right, at, f"whisker {css}"), caps)


def interval_plot(
    estimate: float | None,
    low: float | None,
    high: float | None,
    *,
    threshold: float,
    allowed: Direction | None,
    label: str,
    threshold_label: str,
    css: str = "student",
    points: Sequence[float] = (),
    log: bool = False,
) -> Markup:
    """An estimate and its interval against a threshold, whose allowed side is tinted.

    Args:
        estimate: The dot.
        low: Lower end of the interval; None where it has none.
        high: Upper end of the interval, likewise.
        threshold: The line it is judged by.
        allowed: The side of the line that passes; None draws the line alone.
        label: The whole in words, for those who don't see it.
        threshold_label: What stands under the line.
        css: Class of the marks.
        points: Further single values (one a seed), drawn as small rings.
        log: Logarithmic scale, when all is positive.
    """
    scale = Scale.over([estimate, low, high, threshold, *points], padding=0.22, log=log)
    line, middle = scale.at(threshold), 0.34 if points else 0.5
    drawn: list[Child] = []
    if allowed:
        x, width = (line, 1 - line) if allowed == "above" else (0.0, line)
        drawn.append(tag("rect", x=share(x), y="0", width=share(width), height="100%", class_="allowed"))
    drawn.append(rule(line, 0, line, 1, "threshold"))
    drawn.extend(marker(scale.at(v), 0.78, "seed", "seed") for v in finite(points))
    ends = [end for end in (low, high) if end is not None]
    if ends and finite(ends) == ends:
        drawn.append(_whisker(scale, low, high, middle, css))
    drawn.extend(marker(scale.at(v), middle, css, "student") for v in finite([estimate]))
    words = tag("span", threshold_label, class_=f"under {'start' if line < 0.5 else 'end'}", style=_anchor(line))
    return tag("div", _strip(drawn, label, height=34 if points else 22), words, class_="interval")


def _anchor(at: float) -> str:
    return f"left:{share(at)}" if at < 0.5 else f"right:{share(1 - at)}"


def dots(models: Mapping[str, Estimate], unit: str, label: str) -> Markup:
    """One row a model on a common scale, with intervals; the teacher's value runs through as a line.

    The untrained student and the constant answer are mostly so far off that the others would be one blot: then they are
    arrows at the edge.
    """
    trained = {name: e for name, e in models.items() if name not in ("untrained", "constant")}
    shown = trained if len(trained) > 1 else models
    scale = Scale.over([v for e in shown.values() for v in (e.value, e.low, e.high)], padding=0.14)
    drawn: list[Child] = []
    if "teacher" in models:
        at = scale.at(models["teacher"].value)
        drawn.append(rule(at, 0, at, 1, "reference"))
    for row, (name, estimate) in enumerate(models.items()):
        y = (row + 0.5) / len(models)
        if not scale.low <= estimate.value <= scale.high:
            beyond = estimate.value > scale.high
            drawn.append(marker(float(beyond), y, name, "right" if beyond else "left"))
            continue
        drawn.append(_whisker(scale, estimate.low, estimate.high, y, name, capped=False))
        drawn.append(marker(scale.at(estimate.value), y, name))
    said = "; ".join(f"{n} {value(e.value, unit)} ({interval(e.low, e.high, unit)})" for n, e in models.items())
    return _strip(drawn, f"{label}: {said}", height=15 * len(models) + 4, css="strip dots")


def bars(amounts: Mapping[str, float], label: str, *, top: float | None = None) -> Markup:
    """Bars to scale from zero, one a model, as long as their share of the longest or of `top`."""
    drawn = [rule(1, 0, 1, 1, "base")] if top else []
    top = top or max(finite(amounts.values()), default=0) or 1.0
    drawn += [
        tag(
            "rect",
            x="0",
            y=share((row + 0.12) / len(amounts)),
            width=share(max(amount / top, 0.004)),
            height=share(0.76 / len(amounts)),
            rx="1.5",
            class_=f"bar {name}",
        )
        for row, (name, amount) in enumerate(amounts.items())
    ]
    return _strip(drawn, label, height=9 * len(amounts), css="strip bars")


def histogram(values: Sequence[float], scale: Scale, css: str, label: str, *, bins: int = 48) -> Markup:
    """A small histogram on a scale shared with its neighbours; the median as a line."""
    known = finite(values)
    places = np.clip([scale.at(v) for v in known], 0, 1)
    counts, _ = np.histogram(places, bins=bins, range=(0, 1))
    top = max(int(counts.max(initial=0)), 1)
    drawn: list[Child] = [
        tag(
            "rect",
            x=share(k / bins),
            width=share(0.86 / bins),
            y=share(1 - n / top),
            height=share(n / top),
            class_=f"bar {css}",
        )
        for k, n in enumerate(counts.tolist())
        if n
    ]
    drawn.append(rule(0, 1, 1, 1, "base"))
    if known:
        median = scale.at(float(np.median(known)))
        drawn.append(rule(median, 0, median, 1, "median"))
    return _strip(drawn, label, height=30, css="strip histogram")


def sparkline(values: Sequence[float], label: str) -> Markup:
    """A series of numbers as a line, with zero marked when it is inside; a few numbers as columns."""
    known = finite(values)
    scale = Scale.over(known, padding=0.08)
    drawn: list[Child] = []
    if scale.low < 0 < scale.high:
        drawn.append(rule(0, 1 - scale.at(0), 1, 1 - scale.at(0), "base"))
    last = max(len(known) - 1, 1)
    if len(known) > 1:
        drawn.append(path([(k / last, 1 - scale.at(v)) for k, v in enumerate(known)], "line spark"))
    return _strip(drawn, label, height=64, css="strip sparkline")
