"""Outputs of a teacher on labelled rows: are they those of the labels, of other labels, or of none?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tutelage.checks.order import Fit, columns_of, find_order, midranks
from tutelage.errors import DataError
from tutelage.evaluation.crossed import ENOUGH, at_most, crossings
from tutelage.recipe import Task

__all__ = ["Found", "look_at"]

Array = np.ndarray[Any, Any]
FEWEST = 8
"""Rows below which nothing is said; below `ENOUGH` nothing is refused."""
FEW_OF_CLASS = 3
"""Rows of a class below which it is not seen that the teacher calls it by another's name."""
BELOW, ABOVE = 1e-3, 0.01
"""Probability of so few right answers, or so many, by guessing: the first refuses a teacher, the second trusts it."""

GOOD_KAPPA, GOOD = 0.5, 0.6
"""What an order has to come to before it is called the teacher's: agreement, and separation or correlation."""
USELESS, EXPLAINED = 0.1, 0.5
"""R² of values that say nothing as they are, and of a line through them that shows that they are of another unit."""


@dataclass(kw_only=True)
class Found:
    """What was found of a teacher: how good it is, and what may not be as it was meant.

    Attributes:
        line: How good it is on the labels.
        rows: How many labelled rows that was found on.
        notes: What may not be as it was meant.
        guesses: Says, if so, that its outputs go with no label.
        useless: Whether they surely do not: a teacher that knows little would hardly go with them so badly.
        crossed: Whether some classes mostly get each other's names: more rows would tell.
    """

    line: str
    rows: int
    notes: list[str] = field(default_factory=list)
    guesses: DataError | None = None
    useless: bool = False
    crossed: bool = False


def look_at(
    task: Task, outputs: Array, labels: Array, classes: Sequence[str], shares: Callable[[Array], Array]
) -> Found | None:
    """Holds outputs against labels; None where they can't be compared, or the rows are too few to say anything.

    Args:
        task: What both mean.
        outputs: `[n, ...]`: logits, or values.
        labels: `[n]` class numbers, `[n, K]` of 0 and 1, `[n]` or `[n, K]` values. Every other row is a half in which
            each class is found.
        classes: Names of the classes, or of the labels of a row; empty where there are none.
        shares: How often classes are among all labelled rows.

    Raises:
        DataError: They stand in another order, or the outputs are surely worse than guessing. That they are no better
            is for the caller to raise, who may have more rows to ask about.
    """
    if len(labels) < FEWEST or not np.isfinite(np.where(np.isneginf(outputs), 0, outputs)).all():
        return None
    if task == "classification":
        fits = outputs.ndim == 2 and labels.ndim == 1 and labels.dtype.kind == "i" and labels.max() < outputs.shape[1]
        return _of_classes(outputs, labels, classes, shares) if fits else None
    outputs, labels = outputs.reshape(len(outputs), -1), labels.reshape(len(labels), -1)
    if outputs.shape != labels.shape:
        return None
    if task == "multilabel":
        return _of_labels(outputs, labels, classes)
    return _of_values(outputs, labels) if task == "regression" else None


def _of_classes(outputs: Array, labels: Array, classes: Sequence[str], shares: Callable[[Array], Array]) -> Found:
    n, width = outputs.shape
    chosen = np.unique(labels)
    right = outputs.argmax(1) == labels
    weight = shares(chosen)
    accuracy = float(np.average([right[labels == each].mean() for each in chosen], weights=weight))
    # What answers of these classes, given to rows at random, would have right.
    chance = float(sum(np.mean(labels == each) * np.mean(outputs.argmax(1) == each) for each in chosen))
    said = f"about {accuracy:.1%} right on {n} labelled rows"
    found = Found(line=said + _looked_at(labels, shares(np.arange(width))), rows=n)
    if len(chosen) < 2:
        return found
    circles = crossings(outputs.argmax(1), labels)
    found.crossed = bool(circles)
    others = np.setdiff1d(np.arange(width), chosen)
    columns = np.concatenate([chosen, others])
    logs = outputs - np.logaddexp.reduce(outputs.astype(np.float64), axis=1, keepdims=True)
    fit = find_order(columns_of(labels, chosen), midranks(logs[:, columns]))
    places = columns[fit.order]  # the output that goes best with each of the chosen classes
    would_be = _right_as(outputs, labels, chosen, places, weight)
    names = _names(classes, width)
    falls = (
        ": its outputs fall where they should rise"
        if len(fit.turned) == len(chosen)
        else f"; with {_pairs(chosen, places, names)} it would be on {would_be:.1%}"
        if fit.better
        else ""
    )
    by_guessing = at_most(int(right.sum()), n, chance)
    if fit.permuted and _is_good(outputs.argmax(1), labels, chosen, places, fit):
        error = _other_order(chosen, places, names, said, would_be)
        _refuse_or_note(found, n, error, sure=by_guessing < BELOW)
    elif by_guessing < BELOW:
        _refuse_or_note(
            found,
            n,
            DataError(
                "classes",
                expected="a teacher that is right more often than guessing would be",
                found=f"one that is {said}, where its answers in any order would be on {chance:.1%}{falls}",
                harm="the student would learn to be wrong, and pass every gate that compares it with its teacher",
                mend="see that labels and rows belong together, and what the teacher's outputs are",
            ),
        )
    elif sure := [circle for circle in circles if circle.is_sure]:
        to = {each: then for circle in sure for each, then in circle.moves}
        places = np.array([to.get(each, each) for each in chosen.tolist()])
        would_be = _right_as(outputs, labels, chosen, places, weight)
        _refuse_or_note(found, n, _other_order(chosen, places, names, said, would_be))
    elif not fit.informed and 1 - at_most(int(right.sum()) - 1, n, chance) > ABOVE:
        found.guesses = _guesses("classes", f"{said}, no better than guessing ({chance:.1%})")
        found.useless = fit.useless(np.sqrt(_rank_variance(columns_of(labels, chosen))))
    elif fit.better:
        found.notes.append(
            f"{said}; with {_pairs(chosen, places, names)} it would be {would_be:.1%}: see that the classes stand in "
            "its order"
        )
    elif likely := [circle for circle in circles if circle.is_likely]:
        told = "; ".join(circle.describe(names) for circle in likely)
        found.notes.append(f"{said}; it names {told}: do their names stand in another order?")
    return found


def _right_as(outputs: Array, labels: Array, chosen: Array, places: Array, weight: Array) -> float:
    """The share of right answers if the output of each chosen class stood at its place."""
    said = outputs.argmax(1)
    right = [(said == place)[labels == each].mean() for each, place in zip(chosen, places, strict=True)]
    return float(np.average(right, weights=weight))


def _looked_at(labels: Array, shares: Array) -> str:
    """Which classes were not looked at, or hardly: of these two may have changed places, and nobody would see it."""
    looked, counts = np.unique(labels, return_counts=True)
    there = int(np.count_nonzero(shares))
    of_all = f", of {len(looked):,} of {there:,} classes" if there > len(looked) else ""
    few = int((counts < FEW_OF_CLASS).sum())
    seldom = f"; too few of {few:,} classes to see whether two changed places" if few and len(looked) > 2 else ""
    return of_all + seldom


def _is_good(said: Array, labels: Array, chosen: Array, places: Array, fit: Fit) -> bool:
    """Whether the order that was found makes a good teacher: any other network goes with some order a little.

    In the classes that it moves the answers have to agree with the labels (Cohen's kappa), or the scores to separate
    them.
    """
    moved = np.isin(labels, chosen[fit.moved])
    place = dict(zip(chosen.tolist(), places.tolist(), strict=True))
    meant = np.array([place[each] for each in labels[moved].tolist()])
    right = float(np.mean(said[moved] == meant))
    chance = float(np.mean([np.mean(said == each) for each in meant]))
    kappa = (right - chance) / max(1 - chance, 1e-12)
    return kappa >= GOOD_KAPPA or _separation(fit.best, columns_of(labels, chosen))[fit.moved].mean() >= GOOD


def _separation(correlation: Array, columns: Array) -> Array:
    """`2 AUC - 1` of scores whose ranks have these correlations with columns of 0 and 1, `[K]`."""
    separation: Array = correlation / np.sqrt(_rank_variance(columns))
    return separation


def _rank_variance(columns: Array) -> Array:
    """`3 p (1 - p)` of columns with a share `p` of ones: its root is the correlation of perfect ranks."""
    share = columns.mean(0)
    variance: Array = np.maximum(3 * share * (1 - share), 1e-12)
    return variance


def _refuse_or_note(found: Found, n: int, error: DataError, *, sure: bool = False) -> None:
    """Raises the error, or makes a note of it where the rows are too few to refuse a teacher for, unless it is sure."""
    if n >= ENOUGH or sure:
        raise error
    found.notes.append(f"{error.found} (expected {error.expected}; {n} rows are too few to be sure)")


def _guesses(key: str, found: str) -> DataError:
    return DataError(
        key,
        expected="a teacher that knows more of the labels than guessing would",
        found=found,
        harm="there is nothing to learn from it, and a student that has learnt nothing would agree with it",
        mend="see that its weights are the trained ones, and that rows and labels belong together; to copy it all the "
        "same, leave the labels out of the data",
    )


def _other_order(chosen: Array, places: Array, names: Sequence[str], said: str, would_be: float) -> DataError:
    width = len(names)
    if len(chosen) == width:
        order = [""] * width
        for label, output in zip(chosen, places, strict=True):
            order[output] = names[label]
        how = f"with its outputs taken as {', '.join(order)}"
        numbered = ", ".join(
            f"{label} becomes {output}" for label, output in zip(chosen, places, strict=True) if label != output
        )
        mend = f"give data.source `classes: [{', '.join(order)}]`, the order of the teacher's outputs"
        # Class numbers are not put in order by the names that they are given.
        mend = (
            f"number the labels as the teacher does: {numbered}"
            if all(name == str(i) for i, name in enumerate(names))
            else f"{mend}; labels that are numbers are to be numbered anew ({numbered})"
        )
    else:
        how = f"with {_pairs(chosen, places, names)}"
        mend = "give data.source the argument `classes` in the order of the teacher's outputs"
    return DataError(
        "classes",
        expected=f"the order of the teacher's outputs; the data has {', '.join(names[:20])}",
        found=f"a teacher that is {said}, but {how} on {would_be:.1%}",
        harm="labels and the teacher's logits would mean different classes by the same number: the student would be "
        "as wrong as its teacher",
        mend=mend,
    )


def _pairs(chosen: Array, places: Array, names: Sequence[str]) -> str:
    moved = [f"output {j} as {names[k]}" for k, j in zip(chosen, places, strict=True) if j != k]
    return ", ".join(moved[:10]) + (f" and {len(moved) - 10} more" if len(moved) > 10 else "")


def _names(classes: Sequence[str], width: int) -> list[str]:
    return [*classes, *(str(i) for i in range(len(classes), width))]


def _of_labels(outputs: Array, labels: Array, classes: Sequence[str]) -> Found:
    n, count = labels.shape
    on, true = outputs > 0, labels > 0
    both = 2 * int((on & true).sum())
    f1 = both / max(int(on.sum()) + int(true.sum()), 1)
    found = Found(line=f"micro F1 {f1:.1%} on {n} labelled rows", rows=n)
    fit = find_order(labels.astype(np.float64), midranks(outputs))
    _refuse_columns(found, fit, _names(classes, count), "label", _separation(np.stack([fit.own, fit.best]), labels > 0))
    if not fit.informed and not found.notes:
        found.guesses = _guesses("labels", f"{found.line}, and outputs that go with no label")
        found.useless = fit.useless(np.sqrt(_rank_variance(labels > 0)))
    return found


def _of_values(outputs: Array, labels: Array) -> Found:
    n, count = labels.shape
    outputs, labels = outputs.astype(np.float64), labels.astype(np.float64)
    spread = np.maximum(labels.var(0), 1e-300)
    r2 = 1 - ((labels - outputs) ** 2).mean(0) / spread
    found = Found(line=f"R² {r2.mean():.3g} on {n} labelled rows", rows=n)
    fit = find_order(midranks(labels), midranks(outputs))
    names = [str(i) for i in range(count)]
    _refuse_columns(found, fit, names, "target", np.stack([fit.own, fit.best]))
    if found.notes:
        return found
    if not fit.informed and r2.mean() < USELESS:
        found.guesses = _guesses("labels", f"{found.line}, and values that go with no target")
        found.useless = fit.useless(np.ones(count))
    for k in np.flatnonzero(r2 < USELESS):
        varied = outputs[:, k].var()
        slope = float(np.cov(outputs[:, k], labels[:, k], bias=True)[0, 1] / varied) if varied > 0 else 0.0
        explained = slope**2 * varied / spread[k]
        shift = float(labels[:, k].mean() - slope * outputs[:, k].mean())
        which = f" of target {k}" if count > 1 else ""
        if explained >= EXPLAINED:
            _refuse_or_note(
                found,
                n,
                DataError(
                    "labels",
                    expected=f"the teacher's values{which} in the unit of the labels",
                    found=f"R² {r2[k]:.3g} on {n} labelled rows; that of {slope:.4g} x value {shift:+.4g} is "
                    f"{explained:.2f}",
                    harm="the student would learn values in the teacher's unit, and be judged by labels in another",
                    mend="give labels in the teacher's unit, or a teacher that answers in the labels'",
                ),
            )
        elif r2[k] < 0:
            found.notes.append(f"R²{which} is {r2[k]:.3g} on {n} labelled rows: worse than the labels' mean would be")
    return found


def _refuse_columns(found: Found, fit: Fit, names: Sequence[str], what: str, strength: Array) -> None:
    """Columns that stand in another order, or fall where they should rise.

    Args:
        found: What is found so far.
        fit: How outputs go with labels.
        names: Of the labels.
        what: What a label is called.
        strength: `[2, K]`: how well outputs go with the labels of their numbers, and with those that fit best.
    """
    n = round(fit.slack**-2)
    turned_ones = fit.turned[strength[0][fit.turned] <= -GOOD]
    harm = f"the student would learn other {what}s than it is judged by"
    if fit.permuted and strength[1][fit.moved].mean() >= GOOD:
        order = [""] * len(names)
        for k, output in enumerate(fit.order):
            order[output] = names[k]
        _refuse_or_note(
            found,
            n,
            DataError(
                f"{what}s",
                expected=f"the order of the teacher's outputs; the data has {', '.join(names[:20])}",
                found=f"{found.line}; the outputs go with the {what}s {', '.join(order)}",
                harm=harm,
                mend=f"give data.source the {what}s in that order",
            ),
        )
    elif len(turned_ones):
        turned = ", ".join(names[k] for k in turned_ones[:10])
        _refuse_or_note(
            found,
            n,
            DataError(
                f"{what}s",
                expected=f"outputs that rise with their {what}",
                found=f"{found.line}; outputs that fall where it rises, of {what} {turned}",
                harm=f"the student would learn the contrary of the {what}",
                mend="see what the teacher's outputs are, and turn their sign in its forward",
            ),
        )
    elif fit.better:
        moved = ", ".join(f"output {j} as {what} {names[k]}" for k, j in enumerate(fit.order) if j != k)
        found.notes.append(f"{found.line}; {moved} would fit better: see that they stand in its order")
