"""Names of classes on both sides."""

from __future__ import annotations

import pytest

from tutelage.checks.class_names import check_class_names, same_names
from tutelage.errors import DataError


@pytest.mark.parametrize(
    ("known", "classes", "order"),
    [
        (["b", "a"], ["a", "b"], "b, a"),
        (["Dog", "CAT "], ["cat", "dog"], "dog, cat"),
        (["polar bear", "Brown-Bear"], ["brown_bear", "Polar_bear"], "Polar_bear, brown_bear"),
        (["cat", "dog", "bird"], ["bird", "cat", "frog"], "cat, dog, bird"),
        (["1", "-1"], ["-1", "1"], "1, -1"),
    ],
)
def test_one_name_at_two_places_is_refused_with_the_order_in_the_datas_own_spelling(
    known: list[str], classes: list[str], order: str
) -> None:
    with pytest.raises(DataError, match=rf"classes: \[{order}\]"):
        check_class_names(known, classes)


@pytest.mark.parametrize(
    ("known", "classes"),
    [
        (["a", "b"], ["a", "b"]),
        (["Cat", "Dog"], ["cat", "dog"]),
        (["-1", "1"], ["-1", "1"]),
        (["a", "A"], ["b", "A"]),  # where names of a side differ by case alone, case counts
        (["positive", "negative"], ["0", "1"]),
        ([], ["a", "b"]),
        (["b", "a", "c"], ["a", "b"]),  # of other widths: other checks name that
    ],
)
def test_names_that_do_not_contradict_each_other_are_let_be(known: list[str], classes: list[str]) -> None:
    check_class_names(known, classes)


def test_names_are_the_same_in_any_order_and_spelling_and_others_are_not() -> None:
    assert same_names(["Dog", "polar bear"], ["polar_bear", "dog"])
    assert not same_names(["dog", "cat"], ["dog", "frog"])
    assert not same_names(["-1", "1"], ["1", "1"])
