"""What class a chat model's answer names: read as a person would, and never guessed."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

__all__ = ["label_in"]

_THINKING = "think|thinking|thought|reasoning|reflection|analysis|scratchpad"
_BLOCK = re.compile(rf"<({_THINKING})\b[^>]*>.*?</\1\s*>", re.DOTALL | re.IGNORECASE)
_END = re.compile(rf"</({_THINKING})\s*>|<\|channel\|>\s*final\s*<\|message\|>", re.IGNORECASE)
_OPEN = re.compile(rf"<({_THINKING})\b[^>]*>", re.IGNORECASE)
_FENCE = re.compile(r"```[^\n`]*\n(.*?)```|```(.*?)```", re.DOTALL)
_KEYS = ("label", "class", "category", "answer", "final answer")
_SAID = re.compile(
    rf"^[\s*_#>-]*(?:the\s+)?(?:{'|'.join(reversed(_KEYS))})[\s*_]*(?::|=|\bis\b)[\s*_]*(.+)$", re.IGNORECASE
)
_AROUND = " \t\r\n\"'`*_“”‘’«»"


def label_in(text: str, classes: Sequence[str], *, cut: bool = False) -> int:
    """The number of the class that an answer names.

    It may stand in a code fence, after a block of thinking, in quotes or bold type, in other case, spaces, hyphens or
    underscores, with a full stop, after `Label:`, or as the value of a JSON object (`label`, or its only one) with text
    around it. A class that is merely mentioned is not named: "not spam" and "it may be spam" say nothing of `spam`.

    Args:
        text: The answer.
        classes: Names of the classes.
        cut: Whether its end is missing: then only a whole JSON object counts, for `spam` may be half of `spam risk`.

    Raises:
        ValueError: No class is named, or several are; the message says which.
    """
    text = _without_thinking(text)
    fences = [first or second for first, second in _FENCE.findall(text)]
    parts = [(fence, True) for fence in fences] + [(_FENCE.sub("\n", text), False)]
    named = [_class_of(claim, classes) for part, fenced in parts for claim in _claims(part, classes, fenced, cut)]
    if None in named or not named:
        raise ValueError("an answer that is none of the classes")
    found = sorted({number for number in named if number is not None})
    if len(found) > 1:
        raise ValueError(f"an answer that names several classes ({', '.join(classes[number] for number in found)})")
    return found[0]


def _without_thinking(text: str) -> str:
    """What follows the thinking, whose beginning may stand in the prompt of the model and not in its answer.

    Raises:
        ValueError: The thinking has no end.
    """
    text = _BLOCK.sub("\n", text)
    ends = list(_END.finditer(text))
    text = text[ends[-1].end() :] if ends else text
    if _OPEN.search(text):
        raise ValueError("an answer that ends within its thinking (give it more tokens: settings.max_tokens)")
    return text


def _claims(text: str, classes: Sequence[str], fenced: bool, cut: bool) -> Iterator[Any]:
    """What a part of an answer says that the label is, as often as it says so."""
    if not cut and _class_of(text, classes) is not None:
        yield text
        return
    rest, said = text, []
    for content, chunk in _objects(text):
        rest = rest.replace(chunk, "")
        yield from _of_object(content)
    if not cut:
        said = [match[1] for line in rest.splitlines() if (match := _SAID.match(line))]
    yield from said or ([text] if fenced and "{" not in text and len(text.strip().splitlines()) == 1 else [])


def _objects(text: str) -> Iterator[tuple[dict[Any, Any], str]]:
    """The JSON objects in a text, those in Python's spelling too."""
    at = text.find("{")
    while at >= 0:
        for end in (match.end() for match in re.finditer("}", text[at:])):
            content = _value(chunk := text[at : at + end])
            if isinstance(content, dict):
                yield content, chunk
                at += end - 1
                break
        at = text.find("{", at + 1)


def _of_object(content: dict[Any, Any]) -> Iterator[Any]:
    lower = {str(key).strip().lower(): value for key, value in content.items()}
    keys = [key for key in _KEYS if key in lower]
    if keys or len(lower) == 1:
        yield lower[keys[0]] if keys else next(iter(lower.values()))


def _value(text: str) -> Any:
    """A text as JSON, or as Python's literal; else the text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _class_of(said: Any, classes: Sequence[str]) -> int | None:
    """The class of that name: the very name, or else the only one that differs in case, spaces and signs around it."""
    if isinstance(said, list) and len(said) == 1:
        said = said[0]
    if isinstance(said, bool) or not isinstance(said, str | int):
        return None
    text = str(said).strip()
    if text in classes:
        return list(classes).index(text)
    try:
        spoken = json.loads(text)
    except (ValueError, RecursionError):
        spoken = None
    if isinstance(spoken, str) and spoken in classes:
        return list(classes).index(spoken)
    plain = _plain(text)
    alike = [number for number, name in enumerate(classes) if _plain(name) == plain] if plain else []
    return alike[0] if len(alike) == 1 else None


def _plain(name: str) -> str:
    """A name without case, signs around it and kinds of spaces; signs within it stay: `c` is not `c++`."""
    name = re.sub(r"[.!,;:]+$", "", name.strip(_AROUND)).strip(_AROUND)
    return " ".join(re.split(r"[\s_-]+", name.casefold())).strip()
