"""HTML that can't be injected into: whatever is not `Markup` already is escaped where it enters the page."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import TypeAlias

__all__ = ["Child", "Markup", "escape", "join", "note", "raw", "section", "tag"]

VOID = frozenset({"br", "hr", "img", "line", "link", "meta", "circle", "rect", "path", "wbr"})
# What no HTML document may contain (and a lone surrogate can't be encoded at all).
FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


class Markup(str):
    """A string that is HTML already. Only the functions of this file and `raw` make one."""

    __slots__ = ()


Child: TypeAlias = "str | Iterable[Child] | None"


def raw(text: str) -> Markup:
    """Text of our own making that is HTML already; never text that comes out of a bundle."""
    return Markup(text)


def escape(text: str) -> Markup:
    """`text` as it can stand in an element or a quoted attribute; forbidden characters become U+FFFD."""
    if isinstance(text, Markup):
        return text
    return Markup(html.escape(FORBIDDEN.sub("\ufffd", text), quote=True))


def join(*children: Child, separator: str = "") -> Markup:
    """All children one after another, nested iterables flattened, `None` left out."""
    return Markup(separator.join(_flatten(children)))


def _flatten(children: Iterable[Child]) -> Iterable[Markup]:
    for child in children:
        if isinstance(child, str):
            yield escape(child)
        elif child is not None:
            yield from _flatten(child)


def tag(element: str, /, *children: Child, **attributes: str | float | bool | None) -> Markup:
    """An element. `class_` is written `class`, `aria_label` `aria-label`; `None` and `False` leave an attribute out."""
    parts = [element]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        label = key.rstrip("_").replace("_", "-")
        # `str` makes plain text of a Markup: what is HTML in an element is not yet safe between quotes.
        parts.append(label if value is True else f'{label}="{escape(str(value))}"')
    opening = f"<{' '.join(parts)}>"
    if element in VOID:
        return Markup(opening if element not in {"circle", "rect", "path", "line"} else opening[:-1] + "/>")
    return Markup(f"{opening}{join(*children)}</{element}>")


def section(identifier: str, title: str, lede: Child, *content: Child) -> Markup:
    """A section of the page: its heading and a sentence on how to read it, then what it shows."""
    heading = tag("div", tag("h2", title), tag("p", lede, class_="lede"), class_="section-head")
    return tag("section", heading, tag("div", *content, class_="section-body"), id=identifier)


def note(*text: Child) -> Markup:
    """A remark, in the place of something that can't be shown or beside what needs a caveat."""
    return tag("p", *text, class_="note")
