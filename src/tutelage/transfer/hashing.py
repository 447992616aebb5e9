"""Digests of rows, and random numbers that are a function of what they are for.

Both make chance reproducible without a state: a row's split depends on the row alone, and a view on its numbers.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

__all__ = ["array_digests", "mixed", "normalised", "splitmix64", "text_digests"]

Digests = np.ndarray[Any, np.dtype[np.uint64]]

_BYTES = 16
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def array_digests(array: np.ndarray[Any, Any]) -> Digests:
    """BLAKE2b of each row of `array` (its bytes, in C order), `[N, 2]` uint64.

    Negative zeros count as zeros, so that rows that compare equal have the same digest.
    """
    values = np.ascontiguousarray(array + 0.0 if array.dtype.kind == "f" else array)
    size = values.nbytes // max(len(values), 1)
    view = values.reshape(-1).view(np.uint8).data
    return bytes_digests(view[at : at + size] for at in range(0, len(view), size))


def text_digests(texts: Sequence[str]) -> Digests:
    """BLAKE2b of each text as UTF-8, `[N, 2]` uint64."""
    return bytes_digests(text.encode("utf-8", "surrogatepass") for text in texts)


def bytes_digests(parts: Iterable[bytes | memoryview]) -> Digests:
    """BLAKE2b of each piece, `[N, 2]` uint64."""
    joined = b"".join(hashlib.blake2b(part, digest_size=_BYTES).digest() for part in parts)
    return np.frombuffer(joined, dtype="<u8").astype(np.uint64).reshape(-1, 2)


def normalised(text: str) -> str:
    """`text` without what a tokenizer may not see: case, width and form of characters, spacing."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def splitmix64(state: Digests) -> Digests:
    """The SplitMix64 generator's output for each `state`: a bijection of 64-bit numbers with full avalanche.

    Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014, in the constants of
    Vigna's reference code.
    """
    z = state + _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def mixed(seed: int, *keys: np.ndarray[Any, Any]) -> Digests:
    """A 64-bit number for each combination of keys: `h = splitmix64(seed)`, then `h = splitmix64(h + key)` for each.

    The order of the keys matters; arrays broadcast.
    """
    state = splitmix64(np.asarray([seed % 2**64], dtype=np.uint64))
    for key in keys:
        state = splitmix64(state + np.asarray(key).astype(np.uint64))
    return state
