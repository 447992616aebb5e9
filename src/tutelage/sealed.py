"""Plain data that carries its own digest, so that a file that is no longer what was written is not believed.

The digest is SHA-256 over the data as canonical JSON, under the key `sha256`. It tells of damage and of edits; it is no
signature: who edits a file can compute it anew. Data without one is of an earlier version, and is taken as it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tutelage.files import replacing

__all__ = [
    "SEAL",
    "Damaged",
    "is_sound_text",
    "read_sealed",
    "sealed",
    "sealed_lines",
    "sealed_text",
    "unsealed",
    "unsealed_lines",
    "write_sealed",
]

SEAL = "sha256"


class Damaged(ValueError):
    """What was read is not what was written."""


def sealed(data: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """The data with its digest.

    Args:
        data: Plain data with text keys.
        before: The digest of the line before, in a file of lines: none can be dropped or moved unseen.
    """
    return {**data, SEAL: _digest(data, before)}


def unsealed(data: Any, before: str = "") -> dict[str, Any]:
    """The inverse of `sealed`.

    Raises:
        Damaged: It is no mapping, or its digest is another.
    """
    if not isinstance(data, dict):
        raise Damaged(f"a {type(data).__name__}, not a mapping")
    rest = {key: value for key, value in data.items() if key != SEAL}
    if data.get(SEAL, found := _digest(rest, before)) != found:
        raise Damaged("its digest is not that of what it holds")
    return rest


def write_sealed(path: Path, data: Mapping[str, Any]) -> None:
    """Writes plain data with its digest as JSON, atomically."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(sealed(data), indent=1) + "\n", encoding="utf-8")


def read_sealed(path: Path) -> dict[str, Any]:
    """The data of a JSON file, without its digest.

    Raises:
        Damaged: It is not what was written.
        OSError: It can't be read.
    """
    try:
        return unsealed(json.loads(path.read_bytes()))
    except (ValueError, RecursionError) as error:
        raise error if isinstance(error, Damaged) else Damaged(str(error)) from error


def unsealed_lines(text: str) -> Iterator[dict[str, Any]]:
    """The data of lines that each carry a digest of themselves and the line before; one that was cut off is dropped.

    Raises:
        Damaged: A line is not what was written, or one is missing.
    """
    before = ""
    *whole, _ = text.split("\n")
    for number, line in enumerate(whole, start=1):
        try:
            data = json.loads(line)
            yield unsealed(data, before)
        except (ValueError, RecursionError) as error:
            raise Damaged(f"line {number}: {error}") from error
        before = data.get(SEAL, "")


def sealed_lines(lines: Iterable[Mapping[str, Any]], before: str = "") -> Iterator[tuple[str, str]]:
    """Each of the data as a line of JSON with its digest, and that digest, to go on from."""
    for line in lines:
        data = sealed(line, before)
        before = data[SEAL]
        yield json.dumps(data) + "\n", before


def sealed_text(text: str, before: str = "") -> str:
    """A page of HTML with its digest in a last line, a comment.

    Args:
        text: The page.
        before: The digest of what the page belongs to.
    """
    return f"{text}\n<!-- {SEAL} {hashlib.sha256((before + text).encode()).hexdigest()} -->\n"


def is_sound_text(text: str, before: str = "") -> bool:
    """Whether a page is as `sealed_text` gave it."""
    content, _, _ = text.removesuffix("\n").rpartition("\n")
    return text == sealed_text(content, before)


def _digest(data: Mapping[str, Any], before: str) -> str:
    return hashlib.sha256((before + json.dumps(data, sort_keys=True)).encode()).hexdigest()
