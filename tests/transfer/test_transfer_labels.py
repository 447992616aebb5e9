from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.errors import DataError
from tutelage.transfer import read_labels
from tutelage.transfer.labels import Labels, choose_labelled


def test_texts_are_classes_in_alphabetical_order_or_in_the_order_given() -> None:
    labels = read_labels(["cat", "ant", None, "cat", "", " "], "k")
    assert labels.classes == ("ant", "cat")
    assert labels.labelled is not None
    assert labels.labelled.tolist() == [True, True, False, True, False, False]
    assert labels.values[labels.labelled].tolist() == [1, 0, 1]
    assert read_labels(np.array(["cat", "ant"]), "k", classes=["cat", "ant"]).values.tolist() == [0, 1]
    with pytest.raises(DataError, match=r"row 1(.|\n)*did you mean `cat`"):
        read_labels(["cat", "cta"], "k", classes=["cat", "ant"])


def test_whole_numbers_are_class_numbers_as_they_stand() -> None:
    labels = read_labels(np.array([0, 3, -1, 1], dtype=np.int16), "k")
    assert labels.values.dtype == np.int64
    assert labels.classes == ("0", "1", "2", "3")
    assert labels.labelled is not None
    assert labels.labelled.tolist() == [True, True, False, True]
    assert read_labels([1, None, 0], "k").labelled.tolist() == [True, False, True]  # type: ignore[union-attr]
    assert read_labels([2, None, -1, 0], "k").labelled.tolist() == [True, False, False, True]  # type: ignore[union-attr]
    assert read_labels(np.array([0, 1]), "k").labelled is None


def test_a_class_number_below_minus_one_or_past_the_classes_is_refused() -> None:
    with pytest.raises(DataError, match="row 2"):
        read_labels(np.array([0, 1, -2]), "k")
    with pytest.raises(DataError, match="from 0 to 1"):
        read_labels(np.array([0, 1, 2]), "k", classes=["a", "b"])


def test_truth_values_are_two_classes() -> None:
    assert read_labels([True, False, None], "k").classes == ("false", "true")
    assert read_labels(np.array([True, False]), "k").values.tolist() == [1, 0]


def test_other_numbers_are_values_and_nan_is_missing() -> None:
    labels = read_labels(np.array([0.5, np.nan, 2.0]), "k")
    assert labels.values.dtype == np.float32
    assert labels.values.tolist() == [0.5, 0.0, 2.0]
    assert labels.labelled is not None
    assert labels.labelled.tolist() == [True, False, True]
    assert labels.classes == ()
    assert read_labels([0.5, None], "k").labelled.tolist() == [True, False]  # type: ignore[union-attr]
    assert read_labels(np.array([3, -1]), "k", values=True).values.tolist() == [3.0, -1.0]
    for infinite in (np.inf, 1e300):
        with pytest.raises(DataError, match="row 1"):
            read_labels(np.array([0.0, infinite]), "k")


def test_floats_are_class_numbers_when_classes_are_named() -> None:
    labels = read_labels(np.array([1.0, np.nan, 0.0]), "k", classes=["a", "b"])
    assert labels.values.dtype == np.int64
    assert labels.labelled is not None
    assert labels.values[labels.labelled].tolist() == [1, 0]
    with pytest.raises(DataError, match="row 0"):
        read_labels(np.array([0.5]), "k", classes=["a", "b"])


def test_several_labels_a_row_are_values_and_a_row_with_a_gap_has_none() -> None:
    labels = read_labels(np.array([[1, 0], [0, np.nan], [1, 1]]), "k")
    assert labels.values.shape == (3, 2)
    assert labels.labelled is not None
    assert labels.labelled.tolist() == [True, False, True]


@pytest.mark.parametrize("raw", [[None, ""], np.array([-1, -1]), np.array([np.nan])])
def test_labels_that_are_all_missing_are_refused(raw: object) -> None:
    with pytest.raises(DataError, match="all are missing"):
        read_labels(raw, "k")  # type: ignore[arg-type]


def test_labels_of_other_shapes_and_kinds_are_refused() -> None:
    with pytest.raises(DataError, match="one label a row"):
        read_labels(np.zeros((2, 2, 2)), "k")
    with pytest.raises(DataError, match="dict"):
        read_labels([{}, 1.5], "k")


@settings(max_examples=60, deadline=None)
@given(strata=st.lists(st.integers(0, 4), min_size=5, max_size=200), share=st.floats(0.05, 1.0), seed=st.integers(0, 9))
def test_labelled_rows_are_spread_over_the_classes_and_more_contain_fewer(
    strata: list[int], share: float, seed: int
) -> None:
    n = len(strata)
    classes, rows = np.array(strata), np.arange(n) * 2 + 1
    order = np.random.default_rng(seed).integers(0, 2**63, n).astype(np.uint64)
    count = max(round(share * n), len(set(strata)))
    chosen = choose_labelled(rows, classes, order, count)
    assert len(set(chosen.tolist())) == count
    sizes = np.bincount(classes)
    found = np.bincount(classes[np.isin(rows, chosen)], minlength=len(sizes))
    assert (found[sizes > 0] >= 1).all()
    # Where the cut is at position t, a class of m rows has m·t of them to within a row; so all have n·t to within a row
    # for each class, by which `count` misses n·t at most.
    assert (np.abs(found - sizes * count / n) <= 1 + (sizes > 0).sum() * sizes / n).all()
    assert set(choose_labelled(rows, classes, order, count - 1).tolist()) <= set(chosen.tolist())


def test_which_rows_are_labelled_depends_on_their_digests_and_not_on_their_place() -> None:
    rng = np.random.default_rng(0)
    order, classes = rng.integers(0, 2**63, 60).astype(np.uint64), np.arange(60) % 3
    shuffle = rng.permutation(60)
    chosen = order[choose_labelled(np.arange(60), classes, order, 12)]
    again = order[shuffle][choose_labelled(np.arange(60), classes[shuffle], order[shuffle], 12)]
    assert set(chosen.tolist()) == set(again.tolist())


def named(labels: Labels) -> list[str | None]:
    """The name of each row's class, None where it has none."""
    has = np.ones(len(labels.values), bool) if labels.labelled is None else labels.labelled
    return [labels.classes[value] if known else None for value, known in zip(labels.values, has, strict=True)]


@pytest.mark.parametrize("kind", [list, np.array, lambda cells: [str(cell) for cell in cells], np.float64])
def test_digits_in_classes_are_names_and_not_class_numbers(kind: Callable[[list[int]], Any]) -> None:
    labels = read_labels(kind([3, 8, 5, 3]), "k", classes=["3", "5", "8"])
    assert named(labels) == ["3", "8", "5", "3"]
    assert named(read_labels(kind([1, 0]), "k", classes=["1", "0"])) == ["1", "0"]
    assert named(read_labels(kind([1, 0, 2]), "k", classes=["ant", "bee", "cow"])) == ["bee", "ant", "cow"]
    # Stars 1 to 5 as names of the numbers 0 to 4: 0 is no name, so all are numbers.
    assert named(read_labels(kind([0, 4, 1]), "k", classes=list("12345"))) == ["1", "5", "2"]


def test_digits_that_are_names_and_numbers_are_said_to_be_read_as_names() -> None:
    labels = read_labels([1, 2, 3], "k", classes=list("12345"))
    assert named(labels) == ["1", "2", "3"]
    assert "`1` is read as the class of that name" in labels.notes[0]
    assert not read_labels([0, 1, 2], "k", classes=list("012")).notes


def test_codes_whose_zeros_are_lost_are_refused_and_not_taken_for_numbers() -> None:
    with pytest.raises(DataError, match=r"found: +`7`"):
        read_labels([7, 10, 21], "k", classes=["007", "010", "021"])
    assert named(read_labels(["021", "007"], "k")) == ["021", "007"]


@pytest.mark.parametrize("others", [[1], [0], [0, 1]])
def test_minus_one_beside_one_or_two_classes_is_refused_with_both_readings(others: list[int]) -> None:
    cells = [-1, *others, -1]
    with pytest.raises(DataError, match=r'classes: \["-1"(.|\n)*unlabelled: -1'):
        read_labels(cells, "k")
    assert named(read_labels(cells, "k", unlabelled=-1)) == [None, *map(str, others), None]
    every = [str(n) for n in sorted({*cells})]
    assert named(read_labels(cells, "k", classes=every)) == [str(n) for n in cells]
    others_named = ["no", "yes"]
    assert named(read_labels(cells, "k", classes=others_named)) == [None, *(others_named[n] for n in others), None]


def test_minus_one_is_no_label_where_it_can_mean_nothing_else() -> None:
    whole = read_labels([0, 1, -1, -1], "k", split=["train", "train", "test", "test"])
    assert named(whole) == ["0", "1", None, None]
    with pytest.raises(DataError, match="-1 in 2 rows"):
        read_labels([0, -1, 1, -1], "k", split=["train", "train", "test", "test"])
    many = read_labels([0, 1, 2, -1], "k")
    assert named(many) == ["0", "1", "2", None]
    assert 'classes: ["-1", ...]' in many.notes[0]


@pytest.mark.parametrize("cells", [["a", "?", "b"], ["1.5", "?", "2.5"], [1.5, -999, 2.5]])
def test_a_marker_of_the_source_is_a_missing_label(cells: list[Any]) -> None:
    values = cells[0] != "a"
    labels = read_labels(cells, "k", values=values, unlabelled=cells[1])
    assert labels.labelled is not None
    assert labels.labelled.tolist() == [True, False, True]
    assert labels.values.dtype == (np.float32 if values else np.int64)
    # A marker that is a text does not make texts of numbers, whose order would be 10 before 2.
    assert read_labels(["2", "?", "10", "0", *map(str, range(11))], "k", unlabelled="?").classes[2] == "2"


def test_the_task_decides_whether_numbers_are_values_or_classes() -> None:
    assert read_labels(np.array([250_000, -1]), "k", values=True).values.tolist() == [250_000.0, -1.0]
    assert read_labels(["3", 4.5, True], "k", values=True).values.tolist() == [3.0, 4.5, 1.0]
    assert named(read_labels(np.array([1.0, np.nan, 0.0]), "k", values=False)) == ["1", None, "0"]
    with pytest.raises(DataError, match=r"row 1(.|\n)*`cat`(.|\n)*classification"):
        read_labels(["1", "cat"], "k", values=True)
    with pytest.raises(DataError, match=r"row 1(.|\n)*regression"):
        read_labels(np.array([1.0, 0.5]), "k", values=False)


def test_whole_numbers_with_gaps_say_how_to_make_names_of_them() -> None:
    assert "if the labels begin at 1" in read_labels([1, 2, 3], "k").notes[0]
    assert 'classes: ["3", "5", "8"]' in read_labels([3, 5, 8], "k").notes[0]
    assert not read_labels([0, 2, 1], "k").notes
    with pytest.raises(DataError, match="350,001 outputs"):
        read_labels([350_000, 1], "k")


def test_names_that_look_missing_or_alike_are_said() -> None:
    labels = read_labels(["nan", "a", "A"], "k")
    assert labels.classes == ("A", "a", "nan")
    assert "`nan` is a class" in labels.notes[0]
    assert "`A` and `a` differ by case alone" in labels.notes[1]
