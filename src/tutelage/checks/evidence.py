"""What the test split can show at best: known before training from its rows and groups alone."""

from __future__ import annotations

import math

import numpy as np

from tutelage.evaluation.intervals import FEW_GROUPS, FEW_ROWS, expansion
from tutelage.evaluation.metrics import describe
from tutelage.governance.policy import Gate
from tutelage.recipe import Recipe
from tutelage.transfer import TransferSet

__all__ = ["notes_on_evidence"]

TOLD_OF = 20
"""Fewer groups than this are told of: their intervals are more than 9% longer than those of many."""
_CONFIDENCE = 0.95
"""Of the intervals that gates are judged by."""


def notes_on_evidence(recipe: Recipe, data: TransferSet) -> list[str]:
    """What few rows or few groups of a split mean for the gates, and which gates the best student would not pass.

    Below 12 groups none is passed: `evaluation/intervals.py` says why.
    Rows of a group are not independent, so intervals rest on the number of groups. Of a share of rows, such as the
    accuracy, the interval of a student without one mistake reaches 3 / n ("rule of three"), n rows or groups.
    """
    test = data.rows("test")
    groups = data.groups(test)
    notes = []
    if groups is not None and (count := len(np.unique(groups))) < TOLD_OF:
        notes.append(
            f"the test split has {len(test):,} rows in {_groups(count)}, and what is judged rests on groups: "
            + _width(count)
        )
    development = data.groups(data.rows("development"))
    if development is not None and len(np.unique(development)) == 1:
        notes.append("the development split is one group: the best weights are those for this group")
    return notes + [note for index, gate in enumerate(recipe.policy) if (note := _beyond(gate, index, recipe, data))]


def _groups(count: int) -> str:
    return "one group" if count == 1 else f"{count} groups"


def _width(count: int) -> str:
    """What so few groups do to an interval."""
    if count < FEW_ROWS:
        return "there will be no interval, and no gate can pass or fail; give rows of more groups"
    if count < FEW_GROUPS:
        return f"no gate can pass on fewer than {FEW_GROUPS} groups, as those that are missing may be unlike these"
    longer = expansion(count, _CONFIDENCE)
    return (
        f"an interval is {longer:.2g} times as long as the same spread between many groups would make it, and of a "
        f"share of rows without one mistake it reaches {_reach(count):.2g}; more groups shorten it, more rows of these "
        "do not"
    )


def _reach(count: int) -> float:
    return min(3 / count, 1.0)


def _beyond(gate: Gate, index: int, recipe: Recipe, data: TransferSet) -> str:
    """Why a gate on a share of rows would not be passed by the best student; empty where it would."""
    about = describe(gate.metric, recipe.task)
    rows = data.rows("test")
    if about is None or about.unit != "%" or ":" in gate.metric:
        return ""
    if about.kind == "quality":
        rows = rows[data.labelled[rows]]
    groups = data.groups(rows)
    count = len(rows) if groups is None else len(np.unique(groups))
    if gate.margin is not None:
        room, demand = gate.margin, f"within {gate.margin:g} of the teacher's"
    elif gate.at_least is not None:
        room, demand = 1 - gate.at_least, f">= {gate.at_least:g}"
    else:
        room, demand = gate.at_most or 0.0, f"<= {gate.at_most or 0.0:g}"
    told = groups is not None and count < FEW_GROUPS  # of all gates at once
    if told or count < FEW_ROWS or room >= 3 / count - 1e-9:
        return ""
    unit = "rows" if groups is None else "groups"
    needed = f"; {math.ceil(3 / room - 1e-9):,} {unit} or more could show it" if room > 0 else ""
    return (
        f"policy[{index}]: {gate.metric} {demand} would not be shown by a student without one mistake: on a test split "
        f"of {count:,} {unit} its interval reaches {_reach(count):.2g}{needed}"
    )
