"""Text that comes from data, as Markdown shows it: no name of a class or a column can be read as markup."""

from __future__ import annotations

import re

__all__ = ["plain"]

_MARKS = re.compile(r"[\\`*\[\]<>|~&]|(?<!\w)_|_(?!\w)")


def plain(text: str) -> str:
    """The text in one line, with what Markdown or HTML would read as markup escaped by a backslash."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return _MARKS.sub(lambda match: f"\\{match[0]}", line)
