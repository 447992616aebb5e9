"""Classes that a teacher calls by each other's names: two that changed places, or some that moved on in a circle.

Among fifty classes two hardly move the share of right answers, nor the fit of an order as a whole: they are looked for
by themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["ENOUGH", "Crossing", "at_most", "crossings"]

Array = np.ndarray[Any, Any]
ENOUGH = 20
"""Fewer labelled rows than this say nothing for sure of the order of classes."""
OFTEN = 0.5
"""Share of a class's rows that get one other name before that name is looked at."""
CONFUSED = 0.2
"""How often a sound teacher takes a class for one other at the worst, where few rows are all there is."""
SURE, LIKELY = 1e-3, 0.05
"""Probability of so many crossed answers by chance, whichever classes they are: below it they are refused, or noted."""


@dataclass(frozen=True)
class Crossing:
    """Classes `c_1, ..., c_m`: rows of each mostly get the name of the next, those of the last that of the first.

    Attributes:
        classes: `[m]`, two or more.
        crossed: `[m]`: how many rows of each get the next one's name.
        straight: `[m]`: how many get their own.
        rows: `[m]`: how many rows each has.
        places: How many circles of `m` classes there are, among which this one was found.
    """

    classes: tuple[int, ...]
    crossed: tuple[int, ...]
    straight: tuple[int, ...]
    rows: tuple[int, ...]
    places: float

    @property
    def is_sure(self) -> bool:
        """Whether names stand in another order: nearly all answers are crossed, and chance would not do it.

        A sign test of answers with the next name against those with their own: classes that a teacher can't tell apart
        get either with equal probability.
        """
        nearly_all = all(own <= over / 5 for own, over in zip(self.straight, self.crossed, strict=True))
        crossed, straight = sum(self.crossed), sum(self.straight)
        return nearly_all and self.places * at_most(straight, crossed + straight, 0.5) < SURE

    @property
    def is_likely(self) -> bool:
        """Whether a teacher that takes one class for another in a fifth of its rows would hardly cross so many.

        Nor one that can't tell them apart: twice as many get the next one's name as get their own.
        """
        crossed, rows = sum(self.crossed), sum(self.rows)
        return crossed >= 2 * sum(self.straight) and self.places * at_most(rows - crossed, rows, 1 - CONFUSED) < LIKELY

    @property
    def moves(self) -> list[tuple[int, int]]:
        """Each class with the one whose name it gets."""
        return list(zip(self.classes, [*self.classes[1:], self.classes[0]], strict=True))

    def describe(self, names: Sequence[str]) -> str:
        """The counts in words: `B for 4 of 4 rows of A, A for 3 of 4 rows of B`."""
        return ", ".join(
            f"{names[then]} for {over} of {rows} rows of {names[each]}"
            for (each, then), over, rows in zip(self.moves, self.crossed, self.rows, strict=True)
        )


def crossings(said: Array, labels: Array) -> list[Crossing]:
    """The circles of classes in which half the rows of each or more get the name of the next.

    Args:
        said: `[n]`: the class that the teacher names.
        labels: `[n]`: the class that a row has.
    """
    present = np.unique(labels)
    counts = {int(each): np.bincount(said[labels == each], minlength=int(present[-1]) + 1) for each in present}
    following = {
        each: to
        for each, told in counts.items()
        if (to := int(told.argmax())) != each and to in counts and told[to] >= OFTEN * told.sum()
    }
    found: list[Crossing] = []
    seen: set[int] = set()
    for start in following:
        walk: list[int] = []
        at = start
        while at in following and at not in seen:
            seen.add(at)
            walk.append(at)
            at = following[at]
        if at not in walk:
            continue
        circle = walk[walk.index(at) :]
        m, k = len(circle), len(present)
        found.append(
            Crossing(
                classes=tuple(circle),
                crossed=tuple(int(counts[each][following[each]]) for each in circle),
                straight=tuple(int(counts[each][each]) for each in circle),
                rows=tuple(int(counts[each].sum()) for each in circle),
                places=math.perm(k, m) / m,
            )
        )
    return found


def at_most(count: int, n: int, chance: float) -> float:
    """`P(X <= count)` of a binomial of `n` trials with probability `chance`."""
    if chance <= 0 or chance >= 1:
        return 1.0 if chance <= 0 or count >= n else 0.0
    logs = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(chance)
        + (n - k) * math.log1p(-chance)
        for k in range(count + 1)
    ]  # fmt: skip
    return min(math.fsum(math.exp(x) for x in logs), 1.0)
