"""Timed calls as they are kept in `cost.json`: in four digits, and packed."""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

__all__ = ["kept", "packed", "unpacked"]

DIGITS = 4
"""Of the median. Calls differ among themselves by far more than one part in 2,000."""
NANOSECOND = 6
"""Decimals of a millisecond."""
MOST_BYTES = 1 << 26
"""Of unpacked text: ten million calls, which no timing makes."""


def kept(samples_ms: Sequence[Sequence[float]]) -> list[list[float]]:
    """The samples in steps of which the median has four digits, and the calls of each round in order of length.

    What is judged is made of these, and so is what `evaluate` makes anew.

    Args:
        samples_ms: `[round][call]`, milliseconds.
    """
    median = float(np.median(np.concatenate(samples_ms)))
    decimals = NANOSECOND if median <= 0 else min(NANOSECOND, DIGITS - 1 - math.floor(math.log10(median)))
    return [sorted(round(float(call), decimals) for call in calls) for calls in samples_ms]


def packed(samples_ms: Sequence[Sequence[float]]) -> dict[str, Any] | list[list[float]]:
    """The samples as plain data: `{"step_ms", "packed"}`, some two characters a sample; `unpacked` gives them back.

    `packed` is Base64 of zlib of JSON: for each round, the first call and then the difference of each from the one
    before, all in whole steps. Samples that are no whole nanoseconds are left as they are.
    """
    calls = [[round(call * 10**NANOSECOND) if math.isfinite(call) else 0 for call in one] for one in samples_ms]
    if any(
        round(whole / 10**NANOSECOND, NANOSECOND) != call
        for whole, call in zip(_flat(calls), _flat(samples_ms), strict=True)
    ):
        return [list(one) for one in samples_ms]
    step = math.gcd(*_flat(calls)) or 1
    steps = [[one[0] // step, *((b - a) // step for a, b in pairwise(one))] if one else [] for one in calls]
    text = json.dumps(steps, separators=(",", ":")).encode()
    return {"step_ms": step / 10**NANOSECOND, "packed": base64.b64encode(zlib.compress(text, 9)).decode()}


def unpacked(stored: Any) -> list[list[float]]:
    """The samples that `packed` was given; bundles of earlier versions have them as lists.

    Raises:
        ValueError: They are damaged.
    """
    if not isinstance(stored, dict):
        return list(stored)
    try:
        unzip = zlib.decompressobj()
        text = unzip.decompress(base64.b64decode(stored["packed"], validate=True), MOST_BYTES)
        if not unzip.eof:
            raise ValueError("cut off, or longer than any timing")
        step = round(stored["step_ms"] * 10**NANOSECOND)
        calls = [[whole * step for whole in accumulate(one)] for one in json.loads(text)]
        return [[round(call / 10**NANOSECOND, NANOSECOND) for call in one] for one in calls]
    except (ValueError, TypeError, OverflowError, RecursionError, zlib.error) as error:
        raise ValueError(f"samples_ms: {error}") from error


def _flat(samples: Sequence[Sequence[Any]]) -> list[Any]:
    return [call for calls in samples for call in calls]
