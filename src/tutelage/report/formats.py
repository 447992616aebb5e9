"""Numbers as a reader wants them: few digits, a true minus sign, a unit."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

__all__ = [
    "count",
    "date",
    "difference",
    "estimate",
    "factor",
    "interval",
    "milliseconds",
    "percent",
    "plain",
    "size",
    "value",
]

MISSING = "—"
ROUNDING = 1e-6
MINUS = "\u2212"
NARROW = "\u202f"  # narrow no-break space: a number and its unit stay on one line


def _signed(text: str) -> str:
    # A rounded zero has no sign.
    if text.startswith("-") and not text.strip("-0."):
        text = text[1:]
    return text.replace("-", MINUS)


def plain(number: float | None, *, decimals: int | None = None) -> str:
    """A number without a unit: three decimals below ten, three significant digits above, powers of ten if tiny."""
    if number is None or not math.isfinite(number):
        return MISSING
    size_ = abs(number)
    if decimals is None:
        if 0 < size_ < 0.001:
            mantissa, exponent = f"{number:.1e}".split("e")
            return f"{_signed(mantissa.removesuffix('.0'))}e{_signed(str(int(exponent)))}"
        decimals = 3 if size_ < 10 else 2 if size_ < 100 else 1 if size_ < 1000 else 0
    return _signed(f"{number:,.{decimals}f}")


def percent(share: float | None, *, decimals: int | None = None) -> str:
    """A share in per cent: 0.934 is `93.4%`; two decimals below one per cent."""
    if share is None or not math.isfinite(share):
        return MISSING
    hundredths = 100 * share
    if decimals is None:
        decimals = 2 if 0 < abs(hundredths) < 0.995 else 1
    return f"{_signed(f'{hundredths:.{decimals}f}')}%"


def milliseconds(duration: float | None) -> str:
    """A duration given in milliseconds, in µs, ms or s."""
    if duration is None or not math.isfinite(duration):
        return MISSING
    if duration >= 10_000:
        return f"{duration / 1000:.1f}{NARROW}s"
    if 0 < duration < 0.1:
        return f"{1000 * duration:.{1 if duration < 0.01 else 0}f}{NARROW}µs"
    decimals = 0 if duration >= 100 else 1 if duration >= 10 else 2
    return f"{_signed(f'{duration:.{decimals}f}')}{NARROW}ms"


def size(size_bytes: float | None) -> str:
    """Bytes in B, kB, MB or GB (powers of a thousand)."""
    if size_bytes is None or not math.isfinite(size_bytes):
        return MISSING
    amount, unit = float(size_bytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if abs(amount) < 999.5:
            break
        amount, unit = amount / 1000, larger
    decimals = 0 if unit == "B" or abs(amount) >= 100 else 1 if abs(amount) >= 10 else 2
    return f"{_signed(f'{amount:.{decimals}f}')}{NARROW}{unit}"


def count(number: float | None) -> str:
    """How many: `812`, `12,345`, `1.24 M`, `7.1 B`."""
    if number is None or not math.isfinite(number):
        return MISSING
    for unit, divisor in (("B", 1e9), ("M", 1e6)):
        if abs(number) >= 0.9995 * divisor:
            scaled = number / divisor
            decimals = 0 if abs(scaled) >= 100 else 1 if abs(scaled) >= 10 else 2
            return f"{_signed(f'{scaled:.{decimals}f}')}{NARROW}{unit}"
    return _signed(f"{number:,.0f}")


def factor(ratio: float | None) -> str:
    """How many times: `3.4×`."""
    if ratio is None or not math.isfinite(ratio):
        return MISSING
    return f"{ratio:,.{0 if ratio >= 100 else 1 if ratio >= 10 else 2}f}×"


def value(number: float | None, unit: str) -> str:
    """A measured value in its unit: `%` (of a share), `ms`, `bytes`, `parameters`, another word, or none."""
    if unit == "%":
        return percent(number)
    if unit == "ms":
        return milliseconds(number)
    if unit in {"bytes", "B", "MB"}:
        return size(number * 1e6 if unit == "MB" and number is not None else number)
    if unit == "parameters":
        return count(number)
    if unit in {"x", "×"}:
        return factor(number)
    text = plain(number)
    return text if not unit or text == MISSING else f"{text}{NARROW}{unit}"


def difference(number: float | None, unit: str, *, with_unit: bool = True) -> str:
    """A signed difference; of shares it is in percentage points (`+1.2 points`), not in per cent."""
    if number is None or not math.isfinite(number):
        return MISSING
    if unit == "%":
        hundredths = 100 * number
        text = _signed(f"{hundredths:.{2 if 0 < abs(hundredths) < 0.995 else 1}f}")
        ending = f"{NARROW}points" if with_unit else ""
    else:
        text, ending = value(number, unit), ""
    sign = "" if text.startswith(MINUS) or not any(c in "123456789" for c in text) else "+"
    return f"{sign}{text}{ending}"


def interval(low: float | None, high: float | None, unit: str, *, signed: bool = False) -> str:
    """Both ends of an interval: `92.1% to 94.4%`; `92.1% or more` without an upper one; empty without a lower one."""
    if low is None or not math.isfinite(low) or (high is not None and not math.isfinite(high)):
        return ""
    words = [difference(end, unit, with_unit=False) if signed else value(end, unit) for end in (low, high)]
    return f"{words[0]} or more" if high is None else f"{words[0]} to {words[1]}"


def estimate(
    number: float | None, low: float | None, high: float | None, unit: str, *, signed: bool = False
) -> tuple[str, str]:
    """A value and its interval, all with the digits that the width of the interval justifies: `94.8%`, `93.8 to 95.8`.

    Of a `signed` share (a difference) the value is in points: `−0.4 points`, `−1.2 to +0.4`.
    """
    known = None not in (number, low, high) and all(math.isfinite(v or 0.0) for v in (number, low, high))
    if not known or number is None or low is None or high is None or unit not in {"", "%"}:
        words = difference if signed else value
        return words(number, unit), interval(low, high, unit, signed=signed)
    factor_ = 100 if unit == "%" else 1
    width = factor_ * (high - low)
    decimals = min(max(1 - math.floor(math.log10(width)), 1), 6) if width > 0 else None
    if 0 < width < ROUNDING and abs(factor_ * number) < ROUNDING:  # what is left of zero by rounding has no digits
        decimals = 3

    def words_of(v: float) -> str:
        text = plain(factor_ * v, decimals=decimals) if decimals else plain(factor_ * v)
        return f"+{text}" if signed and not text.startswith(MINUS) and any(c in "123456789" for c in text) else text

    ending = "" if unit == "" else f"{NARROW}points" if signed else "%"
    return words_of(number) + ending, f"{words_of(low)} to {words_of(high)}"


def date(moment: Any) -> str:
    """An ISO time as `24 November 2026, 04:03 UTC`; what can't be read as one stays as it is."""
    try:
        parsed = datetime.fromisoformat(str(moment))
    except ValueError:
        return str(moment)
    zone = parsed.strftime(" %Z") if parsed.tzinfo else ""
    return f"{parsed.day} {parsed:%B %Y, %H:%M}{zone}"
