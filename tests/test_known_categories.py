"""One equality of categories: what a cell is among those that are known, whatever type keeps it."""

from __future__ import annotations

import datetime
import decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tutelage.categories import KnownCategories, category, spellings

DAY = datetime.date(2024, 1, 1)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("ant", "ant"),
        ("007", "007"),
        (np.str_("ant"), "ant"),
        (7, 7),
        (np.int8(7), 7),
        (7.0, 7),
        (np.float32(0.5), 0.5),
        (decimal.Decimal("2.00"), 2),
        (decimal.Decimal("0.5"), 0.5),
        (True, True),
        (np.bool_(False), False),
        (DAY, "2024-01-01"),
        (datetime.datetime(2024, 1, 1), "2024-01-01"),
        (pd.Timestamp("2024-01-01 10:30"), "2024-01-01 10:30:00"),
        (np.datetime64("2024-01-01T10:30:00", "ns"), "2024-01-01 10:30:00"),
        *(
            (nothing, None)
            for nothing in ("", None, float("nan"), np.float32("nan"), pd.NA, pd.NaT, np.datetime64("NaT"))
        ),
    ],
)
def test_the_plain_form_of_a_cell_does_not_depend_on_its_reader(cell: Any, expected: Any) -> None:
    found = category(cell)
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize("cell", [float("inf"), 2.0**53, b"ant", [1], {"a": 1}, datetime.timedelta(1)])
def test_what_is_no_category_is_refused(cell: Any) -> None:
    with pytest.raises(ValueError, match=r".+"):
        category(cell)


SAME: list[tuple[list[Any], Any, Any]] = [
    ([1.0, 2.0, 10.0], 1, 1.0),
    ([1, 2], "1", 1),
    ([1, 2], "1.0", 1),
    ([1, 7], "007", 7),
    ([0.5, 1.0], "0.50", 0.5),
    ([0.5, 1e17], 10**17, 1e17),
    (["1", "2"], 1, "1"),
    (["1.0", "2.0"], 1, "1.0"),
    (["1", "1.0"], 1, "1"),
    ([False, True], "TRUE", True),
    ([False, True], "false", False),
    ([False, True], 0, False),
    (["false", "true"], True, "true"),
    (["False", "True"], 1, "True"),
    ([np.datetime64("2024-01-01")], "2024-01-01T00:00:00", np.datetime64("2024-01-01")),
    ([pd.Timestamp("2024-01-01")], "2024-01-01", pd.Timestamp("2024-01-01")),
    (["2024-01-01 00:00:00"], DAY, "2024-01-01 00:00:00"),
    ([None, float("nan"), "a"], "a", "a"),
    ([12345678901234567890], "12345678901234567890", 12345678901234567890),
    ([2**60, 2**60 + 1], str(2**60 + 1), 2**60 + 1),
]
DIFFERENT: list[tuple[list[Any], Any]] = [
    (["ant"], "Ant"),
    (["ant"], " ant"),
    (["1", "2"], "1.0"),  # two texts are equal letter by letter
    (["1"], "01"),
    (["01", "02"], 1),  # a code with zeros before it is no number
    (["1.0", "1.00"], 1),  # either
    (["1", "true"], True),  # either
    (["1.0", "0.0"], "True"),
    ([1, 2], "one"),
    ([1, 2], "1_0"),
    ([10], "1_0"),
    ([1, 2], "nan"),
    (["a", None], None),
    (["2024-01-01"], "2024-01-01 10:00:00"),
    ([np.datetime64("2024-01-01")], "2024-13-01"),
]


@pytest.mark.parametrize(("known", "cell", "expected"), SAME)
def test_a_cell_is_the_known_category_that_it_spells(known: list[Any], cell: Any, expected: Any) -> None:
    found = KnownCategories(known).find(cell)
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(("known", "cell"), DIFFERENT)
def test_a_cell_that_may_be_two_or_is_another_text_is_none_of_the_known_ones(known: list[Any], cell: Any) -> None:
    assert KnownCategories(known).find(cell) is None


def test_a_word_for_nothing_is_nothing_unless_it_is_known() -> None:
    assert KnownCategories(["NA", "DE"]).match("NA") == "NA"
    assert KnownCategories(["DE", "FR"]).match("NA") is None
    assert KnownCategories(["DE", "FR"]).match("IT") == "IT"


def test_spellings_are_those_of_frames_that_became_texts() -> None:
    for cell in (1, 0, 10, 0.5, True, False):
        series = pd.Series([cell])
        assert {str(cell), *series.astype(float).astype(str)} <= set(spellings(cell))
        assert spellings(cell)[0] == str(cell)
    assert {"True", "true", "TRUE", "1"} <= set(spellings(True))
    assert {"007", "7", "7.0"} <= set(spellings("007"))
    assert {"2024-01-01", str(pd.Timestamp("2024-01-01"))} <= set(spellings("2024-01-01"))
    assert set(spellings("ant")) == {"ant"}
    assert len({len(spellings(cell)) for cell in (1, 0.5, True, "ant", "2024-01-01", "1e999", 10**400)}) == 1
