"""How deep lists and objects of JSON lie in each other, counted before a reader that would crash sees them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tutelage.errors import DataError

__all__ = ["MOST_DEPTH", "JsonDepth"]

MOST_DEPTH = 100
"""Lists and objects of JSON that lie in each other. Arrow's reader ends the process at some thousands."""

Array = np.ndarray[Any, Any]
_QUOTE, _BACKSLASH = b'"\\'
_OPEN, _CLOSE = b"[{", b"]}"


class JsonDepth:
    """Counts the brackets of a JSON text that comes in pieces; those within texts do not count.

    Args:
        file: What the message names.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.depth = 0
        self._within = False
        self._rest = b""

    def read(self, piece: bytes) -> None:
        """Counts on.

        Raises:
            DataError: They lie more than `MOST_DEPTH` deep, or there is a backslash outside of texts: no JSON has one,
                and where texts begin could not be told.
        """
        piece = self._rest + piece
        odd = (len(piece) - len(piece.rstrip(b"\\"))) % 2
        self._rest = b"\\" * odd  # what it escapes is in the next piece
        data = np.frombuffer(piece, np.uint8)[: len(piece) - odd]
        quotes = data == _QUOTE
        slashes = data == _BACKSLASH
        if slashes.any():
            quotes &= ~_escaped(slashes)
        inside = np.bitwise_xor.accumulate(quotes) ^ self._within if len(data) else quotes
        if (slashes & ~inside).any():
            raise DataError(
                str(self.file), expected="JSON", found="a backslash outside of a text", mend="check how it was written"
            )
        opens = (data == _OPEN[0]) | (data == _OPEN[1])
        places = np.flatnonzero((opens | (data == _CLOSE[0]) | (data == _CLOSE[1])) & ~inside)
        if len(places):
            depths = self.depth + np.cumsum(np.where(opens[places], 1, -1))
            depths -= np.minimum(np.minimum.accumulate(depths), 0)  # one too many is closed: the reader says so
            if depths.max() > MOST_DEPTH:
                raise DataError(
                    str(self.file),
                    expected=f"JSON whose lists and objects lie at most {MOST_DEPTH} deep in each other",
                    found="deeper ones",
                    harm="the reader would end the process",
                    mend="take the rows out of what is around them, or leave such columns out",
                )
            self.depth = int(depths[-1])
        self._within = bool(inside[-1]) if len(data) else self._within


def _escaped(slashes: Array) -> Array:
    """Which bytes stand after an odd number of backslashes."""
    places = np.arange(len(slashes), dtype=np.int32)
    other = np.maximum.accumulate(np.where(slashes, np.int32(-1), places))  # the last byte that is none
    odd: Array = np.zeros(len(slashes), dtype=bool)
    odd[1:] = (places - other)[:-1] % 2 == 1
    return odd
