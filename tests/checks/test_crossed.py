"""Two classes among many that a teacher calls by each other's names: too few to move the fit of an order as a whole."""

from __future__ import annotations

import re

import numpy as np
import pytest
from test_label_fit import look, refused

from tutelage.evaluation.crossed import crossings

Rows = np.ndarray
NAMES = [f"class {k}" for k in range(50)]


def answers(rng: np.random.Generator, labels: Rows, classes: int, right: float, neighbour: float) -> Rows:
    """Logits of a teacher that takes a class for its neighbour in a share of the rows, and for any in the rest."""
    u = rng.random(len(labels))
    said = np.where(u < right, labels, np.where(u < right + neighbour, labels ^ 1, rng.integers(0, classes, len(u))))
    logits = rng.normal(size=(len(labels), classes))
    logits[np.arange(len(labels)), labels ^ 1] += 1.5
    logits[np.arange(len(labels)), said] += 4
    return logits


def moved(*circle: int) -> list[int]:
    """The outputs of 50 classes, those of a circle standing at the next one's place."""
    order = list(range(50))
    for here, there in zip(circle, (*circle[1:], circle[0]), strict=True):
        order[there] = here
    return order


@pytest.mark.parametrize("circle", [(4, 31), (7, 8, 9, 10), (20, 3, 41)], ids=len)
def test_few_rows_of_each_of_fifty_classes_raise_a_doubt_and_more_name_the_order(
    circle: tuple[int, ...],
) -> None:
    few, many = np.repeat(np.arange(50), 4), np.repeat(np.arange(50), 40)
    rng = np.random.default_rng(0)
    found = look(answers(rng, few, 50, 1, 0)[:, moved(*circle)], few, names=NAMES)
    assert found.crossed
    (note,) = found.notes
    first, then = sorted(circle)[0], circle[(circle.index(sorted(circle)[0]) + 1) % len(circle)]
    assert re.search(f"{NAMES[then]} for [34] of 4 rows of {NAMES[first]}[^0-9]", note)
    assert "names stand in another order?" in note
    said = refused(answers(rng, many, 50, 0.85, 0.1)[:, moved(*circle)], many, names=NAMES)
    assert f"classes: [{', '.join(NAMES[k] for k in moved(*circle))}]" in said


def test_classes_that_are_taken_for_each_other_are_not_said_to_have_changed_places() -> None:
    """Shirts and T-shirts: a fifth of either gets the other's name; and classes that can't be told apart at all."""
    for classes, rows in ((10, 20), (10, 200), (50, 40)):
        labels = np.repeat(np.arange(classes), rows)
        for seed in range(4):
            rng = np.random.default_rng(seed)
            assert not look(answers(rng, labels, classes, 0.79, 0.2), labels).notes
            alike = look(answers(rng, labels, classes, 0.5, 0.5), labels)
            assert not any("another order?" in note for note in alike.notes)


def test_crossings_are_the_circles_of_commonest_answers_with_their_counts() -> None:
    labels = np.repeat([0, 1, 2, 3, 4], 6)
    said = np.array([1] * 6 + [0] * 5 + [1] + [3] * 4 + [2] * 2 + [2] * 3 + [3] * 3 + [0] * 6)
    # Class 4 gets the name 0, which is no way back; 3 gets 2's name as often as its own: it is asked about more rows.
    pairs = {x.classes: x for x in crossings(said, labels)}
    assert set(pairs) == {(0, 1), (2, 3)}
    assert (pairs[0, 1].crossed, pairs[0, 1].straight, pairs[0, 1].rows) == ((6, 5), (0, 1), (6, 6))
    assert pairs[0, 1].places == 10  # pairs among five
    assert pairs[0, 1].is_likely and not pairs[2, 3].is_likely and not pairs[0, 1].is_sure
    more = {x.classes: x for x in crossings(np.tile(said, 3), np.tile(labels, 3))}
    assert more[0, 1].is_sure and not more[2, 3].is_sure


def test_which_classes_were_looked_at_stands_beside_how_good_the_teacher_is() -> None:
    labels = np.repeat(np.arange(50), 4)
    logits = answers(np.random.default_rng(0), labels, 50, 1, 0)
    assert look(logits, labels).line.endswith("on 200 labelled rows")
    some = np.isin(labels, [0, 1]) | (np.arange(200) % 2 == 0)
    assert "too few of 48 classes to see whether two changed places" in look(logits[some], labels[some]).line


def test_classes_of_which_many_rows_keep_their_name_did_not_change_places() -> None:
    """Chance would not cross so many of so many rows; but names that stand in another order leave none straight."""
    labels = np.repeat([0, 1, 2], 400)
    for straight, sure in ((130, False), (40, True)):
        said = np.where(labels == 2, 2, 1 - labels)
        for each in (0, 1):
            said[np.flatnonzero(labels == each)[:straight]] = each
        (circle,) = crossings(said, labels)
        assert (circle.classes, circle.is_sure) == ((0, 1), sure)
