"""The charts of the page: lines over steps, points, and how far confidence can be believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tutelage.report.formats import count, percent
from tutelage.report.markup import Child, Markup, tag
from tutelage.report.svg import Axis, Hover, Scale, Words, finite, marker, path, plot, rule, share

__all__ = ["Bin", "Line", "Point", "cloud", "distribution", "line_chart", "point_chart", "reliability"]

MOST_HOVERS = 160
FEW = 10  # rows: the share of right answers among fewer is mostly luck


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line over steps: `css` gives its colour and dash, `best` the index of the point to be flagged."""

    name: str
    css: str
    x: Sequence[float]
    y: Sequence[float]
    best: int | None = None
    dots: bool = False


@dataclass(frozen=True, kw_only=True)
class Point:
    """A point with a whisker each way where there is an interval; without a name it has no label."""

    name: str
    text: str
    css: str
    x: float
    y: float
    x_high: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Bin:
    """The rows whose confidence lies in one bin: their mean confidence, their accuracy, their number."""

    confidence: float
    accuracy: float
    rows: int


def line_chart(words: Words, lines: Sequence[Line], x_title: str, y: Axis) -> Markup:
    """Lines over a common x axis from zero; points that can't be drawn (NaN) interrupt a line."""
    x = Axis(title=x_title, scale=_from_zero([v for line in lines for v in line.x]))
    body: list[Child] = []
    hovers: list[Hover] = []
    for line in lines:
        places = [_place(x.scale, y.scale, a, b) for a, b in zip(line.x, line.y, strict=True)]
        for piece in _pieces(places):
            body.append(path(piece, f"line {line.css}") if len(piece) > 1 else marker(*piece[0], line.css, "seed"))
        every = max(1, -(-len(places) // MOST_HOVERS))
        for k, at in enumerate(places):
            if at is None:
                continue
            if line.dots:
                body.append(marker(*at, line.css, "seed"))
            if k % every == 0 or k == line.best:
                shown = y.scale.labels([line.y[k]])[0] if y.scale.unit else f"{line.y[k]:.4g}"
                best = ", best" if k == line.best else ""
                hovers.append(Hover(*at, f"{line.name}: {shown} at step {line.x[k]:,.0f}{best}"))
        if line.best is not None and (flagged := places[line.best]) is not None:
            body.append(marker(*flagged, f"{line.css} flag", "flag"))
    return plot(words, x, y, body, hovers=hovers)


def _from_zero(values: Sequence[float]) -> Scale:
    top = max(finite(values), default=1.0)
    return Scale(low=0.0, high=max(top, 1e-9))


def _place(x: Scale, y: Scale, a: float, b: float) -> tuple[float, float] | None:
    if len(finite([a, b])) < 2 or (y.log and b <= 0):
        return None
    return x.at(a), 1 - y.at(b)


def _pieces(places: Sequence[tuple[float, float] | None]) -> list[list[tuple[float, float]]]:
    pieces: list[list[tuple[float, float]]] = [[]]
    for at in places:
        if at is None:
            pieces.append([])
        else:
            pieces[-1].append(at)
    return [piece for piece in pieces if piece]


def point_chart(words: Words, points: Sequence[Point], x: Axis, y: Axis) -> Markup:
    """Few points, with their names beside them."""
    body: list[Child] = []
    labels: list[Child] = []
    hovers: list[Hover] = []
    for point in points:
        at_x, at_y = x.scale.at(point.x), 1 - y.scale.at(point.y)
        if point.low is not None and point.high is not None:
            body.append(rule(at_x, 1 - y.scale.at(point.low), at_x, 1 - y.scale.at(point.high), f"whisker {point.css}"))
        if point.x_high is not None:
            body.append(rule(at_x, at_y, x.scale.at(point.x_high), at_y, f"whisker {point.css}"))
        body.append(marker(at_x, at_y, point.css))
        side = "right" if at_x > 0.55 else "left"
        place = f"right:{share(1 - at_x)}" if side == "right" else f"left:{share(at_x)}"
        if point.name:
            labels.append(tag("span", point.name, class_="name", style=f"{place};top:{share(at_y)}"))
        hovers.append(Hover(at_x, at_y, point.text))
    return plot(words, x, y, body, labels=labels, hovers=hovers)


def cloud(
    words: Words,
    x_values: Sequence[float],
    y_values: Sequence[float],
    axes: tuple[str, str],
    *,
    css: str = "student",
    equal: bool = True,
    most: int = 2000,
) -> Markup:
    """Many points, at most `most` of them: when there are more, every k-th is drawn, the same ones each time.

    Two quantities that should be `equal` have equal scales and the diagonal is drawn.
    """
    pairs = np.column_stack([np.asarray(x_values, dtype=float), np.asarray(y_values, dtype=float)])
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    both = Scale.over(pairs.ravel().tolist(), padding=0.03)
    x, y = (both, both) if equal else (Scale.over(pairs[:, k].tolist(), padding=0.03) for k in (0, 1))
    drawn = pairs[:: max(1, -(-len(pairs) // most))]
    body = [rule(0, 1, 1, 0, "diagonal")] if equal else []
    body += [
        tag("circle", cx=share(x.at(a)), cy=share(1 - y.at(b)), r="2", class_=f"speck {css}") for a, b in drawn.tolist()
    ]
    return plot(words, Axis(title=axes[0], scale=x), Axis(title=axes[1], scale=y), body, square=True)


def reliability(words: Words, models: Mapping[str, Sequence[Bin]]) -> Markup:
    """How often an answer of some confidence is right; on the diagonal, confidence can be taken at its word.

    Bins of fewer than ten rows are small marks that no line joins. The columns at the foot show how many rows have that
    confidence (the student's).
    """
    scale = Scale(low=0.0, high=1.0, unit="%")
    body: list[Child] = [_columns(models.get("student", ()))]
    body.append(rule(0, 1, 1, 0, "diagonal"))
    hovers: list[Hover] = []
    for name, bins in models.items():
        places = [(scale.at(b.confidence), 1 - scale.at(b.accuracy)) for b in bins]
        firm = [at for at, b in zip(places, bins, strict=True) if b.rows >= FEW]
        if len(firm) > 1:
            body.append(path(firm, f"line {name}"))
        for at, b in zip(places, bins, strict=True):
            body.append(marker(*at, name) if b.rows >= FEW else marker(*at, f"{name} few", "seed"))
            said = f"{name}: confidence {percent(b.confidence)}, right {percent(b.accuracy)} of {count(b.rows)} rows"
            hovers.append(Hover(*at, said))
    x, y = Axis(title="confidence", scale=scale), Axis(title="share that is right", scale=scale)
    return plot(words, x, y, body, hovers=hovers, square=True)


def _columns(bins: Sequence[Bin]) -> list[Child]:
    top = max((b.rows for b in bins), default=0) or 1
    width = 0.7 / max(len(bins), 10)
    return [
        tag(
            "rect",
            x=share(max(b.confidence - width / 2, 0)),
            width=share(width),
            y=share(1 - 0.22 * b.rows / top),
            height=share(0.22 * b.rows / top),
            class_="column",
        )
        for b in bins
        if b.rows
    ]


def distribution(words: Words, models: Mapping[str, Sequence[float]], x_title: str, *, bins: int = 40) -> Markup:
    """Histograms over one scale: the student's as columns, the others' as outlines."""
    known = {name: finite(values) for name, values in models.items()}
    every = [v for values in known.values() for v in values]
    low, high = np.quantile(every, [0.002, 0.998]) if every else (0.0, 1.0)
    x = Scale.over([float(low), float(high)], padding=0.02)
    body: list[Child] = []
    shares = {
        n: np.histogram([x.at(v) for v in of], bins=bins, range=(-0.02, 1.02))[0] / max(len(of), 1)
        for n, of in known.items()
    }
    y = Scale(low=0.0, high=1.08 * max(float(s.max()) for s in shares.values()) or 1.0, unit="%")
    edges = np.linspace(-0.02, 1.02, bins + 1).clip(0, 1).tolist()
    spans = list(pairwise(edges))
    hovers: list[Hover] = []
    for name, heights in shares.items():
        tops = [1 - y.at(float(h)) for h in heights]
        if name == "student":
            body += [_column(a, b - a, t) for (a, b), t in zip(spans, tops, strict=True) if t < 1]
            hovers = [
                Hover((a + b) / 2, t, f"{percent(float(h))} of the rows")
                for (a, b), t, h in zip(spans, tops, heights, strict=True)
                if h
            ]
        else:
            steps = [(end, t) for span, t in zip(spans, tops, strict=True) for end in span]
            body.append(path([(0, 1), *steps, (1, 1)], f"line {name}"))
    axes = Axis(title=x_title, scale=x), Axis(title="share of the rows", scale=y, ticks=4)
    return plot(words, *axes, body, hovers=hovers)


def _column(left: float, width: float, top: float) -> Markup:
    size = {"width": share(0.94 * width), "height": share(1 - top)}
    return tag("rect", x=share(left), y=share(top), **size, class_="bar student")
