"""The parts of a chart: scales, ticks, marks and the frame around them.

The drawing is an SVG whose coordinates are percentages, so that it stretches with the page while its strokes and
markers keep their size; the words around it are HTML and keep theirs, from a telephone to a wide screen.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self

from tutelage.report.formats import plain
from tutelage.report.markup import Child, Markup, tag

__all__ = ["Axis", "Hover", "Legend", "Scale", "finite", "marker", "path", "plot", "rule", "share", "swatch"]

SHAPES = {
    "teacher": "M-4.2-4.2h8.4v8.4h-8.4z",
    "student": "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0z",
    "baseline": "M0-5.8L5.8 0L0 5.8L-5.8 0z",
    "untrained": "M0-5.4L5.2 4H-5.2z",
    "constant": "M-6-1.6h12v3.2h-12z",
    "seed": "M-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0z",
    "left": "M8-4.6L1 0L8 4.6",
    "right": "M-8-4.6L-1 0L-8 4.6",
    "flag": "M0 0V-16M0-16L9-12.5L0-9z",
}


def finite(values: Iterable[float | None]) -> list[float]:
    """The values that can be drawn."""
    return [float(v) for v in values if v is not None and math.isfinite(v)]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A mapping of values to the fraction of a side, linear or logarithmic.

    Attributes:
        low: The value at fraction 0.
        high: The value at fraction 1.
        log: Whether equal distances are equal ratios.
        unit: `%` when values are shares to be shown in per cent.
    """

    low: float
    high: float
    log: bool = False
    unit: str = ""

    @classmethod
    def over(cls, values: Iterable[float | None], *, log: bool = False, padding: float = 0.06, unit: str = "") -> Self:
        """The scale that shows all `values` with a margin; of a single value, some room on both its sides."""
        known = finite(values) or [0.0, 1.0]
        log = log and min(known) > 0
        low, high = (math.log(min(known)), math.log(max(known))) if log else (min(known), max(known))
        room = (high - low) * padding
        if high - low < 1e-12 * max(1.0, abs(high)):
            room = 0.5 if log or high == 0 else abs(high) * 0.1
        low, high = low - room, high + room
        return cls(low=math.exp(low) if log else low, high=math.exp(high) if log else high, log=log, unit=unit)

    def at(self, value: float) -> float:
        """The fraction of the side at which `value` is, held within a little of the frame."""
        if self.log:
            fraction = math.log(max(value, 1e-300) / self.low) / math.log(self.high / self.low)
        else:
            fraction = (value - self.low) / (self.high - self.low)
        return min(max(fraction, -0.02), 1.02)

    def ticks(self, about: int = 5) -> list[float]:
        """Round values inside the scale, about as many as asked."""
        if self.log:
            return self._log_ticks(about)
        step = (self.high - self.low) / max(about, 1)
        magnitude = 10.0 ** math.floor(math.log10(step))
        step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= step * (1 - 1e-9))
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [k * step for k in range(first, last + 1)]

    def _log_ticks(self, about: int) -> list[float]:
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        for mantissas in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
            every = [m * 10.0**e for e in range(first, last + 1) for m in mantissas]
            inside = [v for v in every if self.low <= v * (1 + 1e-9) and v <= self.high * (1 + 1e-9)]
            if len(inside) >= 4:
                keep = math.ceil(len(inside) / max(about, 1))
                return inside[::keep]
        return inside or [self.low, self.high]

    def labels(self, ticks: Sequence[float]) -> list[str]:
        """The ticks in words, all with as many decimals as the step between them needs."""
        factor = 100.0 if self.unit == "%" else 1.0
        ending = "%" if self.unit == "%" else ""
        if self.log:
            return [f"{v * factor:,g}{ending}" for v in ticks]
        step = factor * abs(ticks[1] - ticks[0]) if len(ticks) > 1 else factor * (self.high - self.low)
        if step < 1e-4:
            return [f"{v * factor:.1e}{ending}".replace("-", "\u2212") for v in ticks]
        decimals = next((d for d in range(6) if abs(step * 10**d - round(step * 10**d)) < 1e-6), 6)
        return [plain(v * factor, decimals=decimals) + ending for v in ticks]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A side of a chart: what it measures and how."""

    title: str
    scale: Scale
    ticks: int = 5


@dataclass(frozen=True)
class Hover:
    """A point that says something when the pointer is near: fractions from the left and the top."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Legend:
    """One line of the legend: the CSS class of the marks and what they are."""

    css: str
    text: str
    line: bool = False


def share(fraction: float) -> str:
    """A fraction as an SVG percentage."""
    return f"{100 * fraction:.2f}".rstrip("0").rstrip(".") + "%"


def path(points: Sequence[tuple[float, float]], css: str, *, close: bool = False) -> Markup:
    """A line through points given as fractions from the left and the top; it stretches, its stroke does not."""
    steps = " ".join(f"{1000 * x:.1f} {1000 * y:.1f}" for x, y in points)
    drawn = tag("path", d=f"M{steps}{'z' if close else ''}", class_=css, vector_effect="non-scaling-stroke")
    return tag("svg", drawn, viewBox="0 0 1000 1000", preserveAspectRatio="none", overflow="visible")


def marker(x: float, y: float, css: str, shape: str | None = None) -> Markup:
    """A mark of fixed size: a square is the teacher, a disc the student, a diamond the baseline, a bar a constant."""
    drawn = tag("path", d=SHAPES[shape or css.split(maxsplit=1)[0]], class_=f"mark {css}")
    return tag("svg", drawn, x=share(x), y=share(y), overflow="visible")


def rule(x1: float, y1: float, x2: float, y2: float, css: str) -> Markup:
    """A straight line between two points given as fractions from the left and the top."""
    return tag("line", x1=share(x1), y1=share(y1), x2=share(x2), y2=share(y2), class_=css)


def swatch(item: Legend) -> Markup:
    """The sample of a legend: a stroke or a mark, as it is in the chart."""
    if item.line:
        sample, width = tag("line", x1="1", y1="7", x2="25", y2="7", class_=f"line {item.css}"), 26
    else:
        shape = SHAPES.get(item.css.split()[0], SHAPES["student"])
        sample, width = tag("path", d=shape, class_=f"mark {item.css}", transform="translate(7 7)"), 14
    return tag("svg", sample, class_="swatch", width=width, height=14, aria_hidden="true")


@dataclass(frozen=True, kw_only=True)
class Words:
    """What is said around a chart: its title, what it shows in a sentence (for those who don't see it), a footnote."""

    title: str
    summary: str
    footnote: str = ""
    legend: Sequence[Legend] = field(default_factory=tuple)


def plot(
    words: Words,
    x: Axis,
    y: Axis,
    body: Child,
    *,
    labels: Child = None,
    hovers: Sequence[Hover] = (),
    square: bool = False,
) -> Markup:
    """The frame of a chart: title, legend, axes with their grid, and `body` drawn within them."""
    x_ticks, y_ticks = x.scale.ticks(x.ticks), y.scale.ticks(y.ticks)
    x_at = [x.scale.at(v) for v in x_ticks]
    y_at = [1 - y.scale.at(v) for v in y_ticks]
    x_words, y_words = x.scale.labels(x_ticks), y.scale.labels(y_ticks)
    grid = [rule(0, at, 1, at, "grid") for at in y_at] + [rule(at, 1, at, 1.02, "tick") for at in x_at]
    described = join_words(words.title, words.summary)
    drawing = tag(
        "svg",
        tag("title", words.title),
        tag("desc", words.summary),
        grid,
        rule(0, 1, 1, 1, "axis"),
        body,
        role="img",
        aria_label=described,
        class_="drawing",
    )
    data = json.dumps([[round(h.x, 4), round(h.y, 4), h.text] for h in hovers], ensure_ascii=False) if hovers else None
    widest = max(y_words, key=len, default="")
    frame = tag(
        "div",
        tag(
            "div",
            tag("span", widest, class_="sizer"),
            _placed("top", y_at, y_words),
            class_="y-axis",
            aria_hidden="true",
        ),
        tag("div", drawing, labels, class_="area", data_points=data),
        tag("div", _placed("left", x_at, x_words), class_="x-axis", aria_hidden="true"),
        tag("div", x.title, class_="x-title"),
        class_="plot",
    )
    entries = [tag("li", swatch(item), item.text) for item in words.legend]
    caption = tag(
        "figcaption",
        tag("strong", words.title),
        tag("ul", entries, class_="legend") if entries else None,
        tag("div", y.title, class_="y-title"),
    )
    footnote = tag("p", words.footnote, class_="footnote") if words.footnote else None
    return tag("figure", caption, frame, footnote, class_="chart square" if square else "chart")


def join_words(title: str, summary: str) -> str:
    """A title and a sentence as one label."""
    return f"{title}. {summary}" if summary else title


def _placed(side: str, fractions: Sequence[float], words: Sequence[str]) -> list[Markup]:
    return [tag("span", w, style=f"{side}:{share(at)}") for at, w in zip(fractions, words, strict=True)]
