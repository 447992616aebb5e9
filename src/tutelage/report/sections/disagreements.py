"""The rows on which student and teacher differ most, as a person would look at them."""

from __future__ import annotations

import re
from typing import Any

from tutelage.report.bundle import Bundle
from tutelage.report.formats import plain
from tutelage.report.markup import Child, Markup, note, section, tag
from tutelage.report.strips import sparkline

__all__ = ["disagreements"]

# Nothing but an image held in the page itself: any other address would be an outside request.
IMAGE = re.compile(r"data:image/(?:png|jpeg|gif|webp);base64,[A-Za-z0-9+/=\s]+")
LEDE = (
    "The test rows on which the student is furthest from the teacher, worst first. Look for what they have in common."
)
SHOWN = 24
DISCRETE = {"classification", "multilabel"}


def disagreements(bundle: Bundle) -> Markup:
    """The worst disagreements as cards."""
    title = "Where they disagree most" if bundle.task in DISCRETE else "Where they differ most"
    if "disagreements.json" in bundle.absent:
        return section("disagreements", title, LEDE, note("disagreements.json is not in the bundle."))
    items = [item for item in bundle.disagreements.get("items", []) if isinstance(item, dict)]
    if not items:
        return section("disagreements", title, LEDE, note("No disagreements were kept."))
    kind = str(bundle.disagreements.get("kind", "text"))
    # Bundles of earlier versions do not say which rows are answered alike.
    differing = [item for item in items if item.get("differ", True)]
    alike = [item for item in items if not item.get("differ", True)]
    parts: list[Child] = []
    if "differing" in bundle.disagreements and bundle.task in DISCRETE:
        parts.append(_counted(bundle))
    if differing:
        parts.append(_cards(differing[:SHOWN], kind))
    if alike:
        parts += [tag("h3", "The same answer, but least alike in their probabilities"), _cards(alike[:SHOWN], kind)]
    beyond = max(len(differing) - SHOWN, 0) + max(len(alike) - SHOWN, 0)
    more = note(f"{beyond} more are in disagreements.json.") if beyond else None
    return section("disagreements", title, LEDE, *parts, more)


def _counted(bundle: Bundle) -> Markup:
    """How often they disagree at all."""
    rows, differing = (int(bundle.disagreements.get(key) or 0) for key in ("rows", "differing"))
    if not differing:
        return tag("p", f"Student and teacher give the same answer on all {rows:,} test rows.")
    return tag("p", f"Student and teacher give different answers on {differing:,} of {rows:,} test rows.")


def _cards(items: list[dict[str, Any]], kind: str) -> Markup:
    cards = [tag("li", _card(item, kind)) for item in items]
    return tag("ol", cards, class_=f"cards {kind if kind in {'image', 'array'} else 'text'}")


def _card(item: dict[str, Any], kind: str) -> Markup:
    score = item.get("score")
    said: list[Child] = []
    for who in ("teacher", "student", "label"):
        answer = item.get(who)
        if answer is not None:
            said += [tag("dt", "label" if who == "label" else who, class_=who), tag("dd", str(answer), dir="auto")]
    about = f"row {item.get('row', '?')}"
    if isinstance(score, int | float):
        about += f" · distance {plain(float(score))}"
    return tag("article", _input(item, kind), tag("dl", said), tag("p", about, class_="about"))


def _input(item: dict[str, Any], kind: str) -> Markup:
    shown = item.get("input")
    if kind == "image" and isinstance(shown, str) and IMAGE.fullmatch(shown):
        return tag("img", src=shown, alt=f"input of row {item.get('row', '?')}", class_="pixels")
    if isinstance(shown, list):
        numbers = [float(v) for v in _flat(shown)]
        return sparkline(numbers, f"input of row {item.get('row', '?')}: {len(numbers)} numbers")
    return tag("blockquote", str(shown), dir="auto")


def _flat(values: list[Any]) -> list[float]:
    flat: list[float] = []
    for v in values:
        if isinstance(v, list):
            flat += _flat(v)
        elif isinstance(v, int | float):
            flat.append(float(v))
    return flat
