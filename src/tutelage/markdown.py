"""Text that comes from data, as Markdown shows it: no name of a class or a column can be read as markup."""

from __future__ import annotations

import re

__all__ = ["plain"]

_MARKS = re.compile(r"(`[\w.,=:/ -]+`)|[\\`*\[\]<>|~&]|(?<!\w)_|_(?!\w)")
"""What is read as markup; a span of code that holds nothing but words is let be."""


def plain(text: str) -> str:
    """The text in one line, with what Markdown or HTML would read as markup escaped by a backslash."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return _MARKS.sub(lambda match: match[1] or f"\\{match[0]}", line)
