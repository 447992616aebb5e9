"""Numbers in words."""

from __future__ import annotations

import math

import pytest

from tutelage.report.formats import (
    count,
    date,
    difference,
    estimate,
    factor,
    interval,
    milliseconds,
    percent,
    plain,
    size,
)

S = "\u202f"  # the narrow space before a unit
M = "\u2212"  # the true minus sign


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (percent(0.934), "93.4%"),
        (percent(0.00427), "0.43%"),
        (percent(1.0), "100.0%"),
        (plain(-0.0004), f"{M}4e{M}4"),
        (plain(3.1e-6), f"3.1e{M}6"),
        (plain(0.8474), "0.847"),
        (plain(12345.6), "12,346"),
        (plain(-0.0001, decimals=2), "0.00"),
        (milliseconds(2.413), f"2.41{S}ms"),
        (milliseconds(0.0421), f"42{S}µs"),
        (milliseconds(0.006811), f"6.8{S}µs"),
        (milliseconds(12_345.0), f"12.3{S}s"),
        (size(999), f"999{S}B"),
        (size(4_418_344), f"4.42{S}MB"),
        (size(999_900), f"1.00{S}MB"),
        (count(1_103_562), f"1.10{S}M"),
        (count(12_345), "12,345"),
        (count(999_700), f"1.00{S}M"),
        (factor(4.358), "4.36×"),
        (difference(0.0123, "%"), f"+1.2{S}points"),
        (difference(-0.0004, "%"), f"{M}0.04{S}points"),
        (difference(0.0, "%"), f"0.0{S}points"),
        (difference(-0.5, ""), f"{M}0.500"),
        (interval(0.9, 0.95, "%"), "90.0% to 95.0%"),
        (interval(None, 0.95, "%"), ""),
        (interval(4.2, None, "ms"), f"4.20{S}ms or more"),
        (date("2026-11-24T04:03:11Z"), "24 November 2026, 04:03 UTC"),
        (date("yesterday"), "yesterday"),
    ],
)
def test_words(found: str, expected: str) -> None:
    assert found == expected


@pytest.mark.parametrize("words", [plain, percent, milliseconds, size, count, factor])
def test_what_was_not_measured_is_a_dash_and_not_a_number(words: object) -> None:
    assert callable(words)
    for missing in (None, math.nan, math.inf):
        assert words(missing) == "—"


def test_a_difference_of_shares_is_in_points_and_not_in_per_cent() -> None:
    assert "%" not in difference(0.02, "%")
    assert estimate(-0.004, -0.012, 0.0041, "%", signed=True) == (f"{M}0.4{S}points", f"{M}1.2 to +0.4")


@pytest.mark.parametrize(
    ("numbers", "unit", "expected"),
    [
        ((0.948, 0.938, 0.958), "%", ("94.8%", "93.8 to 95.8")),  # two points wide: one decimal
        ((0.98527, 0.9812, 0.9889), "%", ("98.53%", "98.12 to 98.89")),  # under one point: two
        ((0.847, 0.742, 0.962), "", ("0.85", "0.74 to 0.96")),
        ((0.94271, 0.94152, 0.94388), "", ("0.9427", "0.9415 to 0.9439")),
    ],
)
def test_digits_are_those_that_the_interval_justifies(
    numbers: tuple[float, float, float], unit: str, expected: tuple[str, str]
) -> None:
    assert estimate(*numbers, unit) == expected
