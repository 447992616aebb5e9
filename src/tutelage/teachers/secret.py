"""An API key in what a server says: found in whatever form it comes back, so that it is neither shown nor stored."""

from __future__ import annotations

import base64
import binascii
import codecs
import contextlib
import html
import quopri
import re
import unicodedata
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

__all__ = ["Secret"]

HIDDEN = "[key]"
LEFT_OUT = f"(what it said is left out: it repeats the {HIDDEN})"
SHORTEST = 6
"""Letters and digits of a piece of the key that count as the key, where a half of it is no more."""
DEPTH = 3
"""How many encodings may lie in each other."""
LONGEST = 200_000
"""Characters that are searched at once; a longer text is searched in overlapping pieces."""
DECODED = 8_000_000
"""Characters of a text that are decoded: what an accident repeats a key in is short, and decoding takes time."""
_ESCAPE = re.compile(
    r"\\(?:u([0-9a-fA-F]{4})|[uU]\{?([0-9a-fA-F]{1,8})\}?|x([0-9a-fA-F]{2})|([0-7]{3})|(.))", re.DOTALL
)
_RUN = re.compile(r"[A-Za-z0-9+/_-]{8,}={0,2}")
_LETTER = re.compile("[A-Za-z]")
_NO_ASCII = dict.fromkeys([0, 9, 10, 13, *range(32, 127)])
"""What `str.translate` leaves of a text: the characters that are not of ASCII, or that control."""
_HEX = re.compile(r"(?:[0-9a-fA-F]{2}[\s:,-]?){4,}")
_NUMBERS = re.compile(r"(?<![\d.])\d{2,3}(?:\s*[,;\s]\s*\d{2,3}){5,}(?![\d.])")
_ADOBE = re.compile(r"<~(.{8,200}?)~>")
_WORD = re.compile(r"[^\s\"']{8,200}")


class Secret:
    """An API key, as something to look for.

    Args:
        key: The key; None where there is none, so that nothing is looked for.
    """

    def __init__(self, key: str | None) -> None:
        self._key = key
        plain = _squeezed(key or "")
        size = min(len(plain), max(SHORTEST, -(-len(plain) // 2)))
        self._pieces = {plain[at : at + size] for at in range(len(plain) - size + 1)} - {""}

    def hidden(self, text: str) -> str:
        """The text with the key taken out; a text that holds it in another form, or a half of it, is left out whole."""
        if not self._key:
            return text
        text = text.replace(self._key, HIDDEN)
        return LEFT_OUT if self.is_in(text) else text

    def hidden_in(self, value: Any) -> Any:
        """Plain data with every text in it looked through, names too."""
        if isinstance(value, str):
            return self.hidden(value)
        if isinstance(value, list):
            return [self.hidden_in(each) for each in value]
        if isinstance(value, dict):
            return {self.hidden(str(name)): self.hidden_in(each) for name, each in value.items()}
        return value

    def is_in(self, text: str) -> bool:
        """Whether the key, or a half of it, is in a text: in other case, split, escaped, in base64, hex and so on.

        Beyond the first 8 million characters it is looked for as it is, split and in other case alone.
        """
        if not self._pieces:
            return False
        starts = range(0, max(len(text), 1), LONGEST - 2000)
        parts = ((text[at : at + LONGEST], DEPTH if at < DECODED else 0) for at in starts)
        return any(piece in found for part, deep in parts for found in _readings(part, deep) for piece in self._pieces)


def _squeezed(text: str) -> str:
    """Letters and digits alone, in one case: what is left of a text however it is broken, quoted or masked."""
    if not text.isascii():  # full-width letters and the like
        text = unicodedata.normalize("NFKC", text)
    return "".join(letter for letter in text.casefold() if letter.isalnum())


def _readings(text: str, depth: int) -> Iterator[str]:
    """A text squeezed, backwards too, and so each text that it may be an encoding of."""
    plain = _squeezed(text)
    yield plain
    yield plain[::-1]
    if depth == DEPTH:
        yield codecs.decode(plain, "rot13")
    if depth:
        for decoded in {each for each in _decoded(text) if each != text}:
            yield from _readings(decoded, depth - 1 if _is_text(decoded) else 0)


def _decoded(text: str) -> Iterator[str]:
    """What a text may stand for."""
    yield _ESCAPE.sub(_unescaped, text)
    yield unquote(text)
    yield html.unescape(text)
    if "=" in text:
        yield quopri.decodestring(text.encode("utf-8", "replace")).decode("utf-8", "replace")
    # Digits alone are base64 and base32 of bytes that are no ASCII: the numbers of an answer are passed over.
    pieces = [each for run in _RUN.findall(text) if _LETTER.search(run) for each in _of_base64(run)]
    for kind in (True, False):  # apart, for what was no base64 or began elsewhere is not decoded further
        yield " ".join(each for each in pieces if _is_text(each) is kind)
    yield " ".join(_of_numbers(text))
    yield " ".join(_of_base85(text))
    pairs = [re.sub(r"[^0-9a-fA-F]", "", found.group()) for found in _HEX.finditer(text)]
    if pairs:
        yield " ".join(bytes.fromhex(each[: len(each) // 2 * 2]).decode("latin-1") for each in pairs)


def _of_numbers(text: str) -> Iterator[str]:
    """Lists of the numbers of bytes: `[115, 107, 45, ...]`."""
    for found in _NUMBERS.finditer(text):
        codes = [int(each) for each in re.findall(r"\d+", found.group())]
        yield "".join(chr(code) for code in codes if code < 256)


def _of_base85(text: str) -> Iterator[str]:
    """Words as base85, of Python's and git's alphabet or of Adobe's."""
    adobe = ((base64.a85decode, word) for word in _ADOBE.findall(text))
    for decode, word in (*adobe, *((base64.b85decode, word.rstrip(",")) for word in _WORD.findall(text))):
        with contextlib.suppress(ValueError):
            if _is_text(decoded := decode(word).decode("latin-1")):
                yield decoded


def _is_text(decoded: str) -> bool:
    """Whether at least three of four characters are of a text; of random bytes about one of three is."""
    return 4 * len(decoded.translate(_NO_ASCII)) <= len(decoded)


def _unescaped(found: re.Match[str]) -> str:
    four, more, byte, octal, letter = found.groups()
    code = int(octal, 8) if octal else int(four or more or byte or "0", 16)
    if letter is not None:
        return {"n": "\n", "t": "\t", "r": "\r"}.get(letter, letter)
    return chr(code) if code <= 0x10FFFF and not 0xD800 <= code < 0xE000 else ""


def _of_base64(run: str) -> Iterator[str]:
    """A run of letters as base64 and base32, from each of the places where the encoding may begin."""
    plain = run.rstrip("=").replace("-", "+").replace("_", "/")
    for begin in range(4):
        piece = plain[begin:]
        yield base64.b64decode(piece[: len(piece) // 4 * 4]).decode("latin-1") if len(piece) >= 4 else ""
        rest = len(piece) % 4
        if rest > 1:
            yield base64.b64decode(piece + "=" * (4 - rest)).decode("latin-1")
    try:
        whole = run.rstrip("=").upper()
        yield base64.b32decode(whole + "=" * (-len(whole) % 8)).decode("latin-1")
    except (binascii.Error, ValueError):
        pass
