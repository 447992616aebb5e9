"""Names of classes that a teacher and the data both have: do they stand in one order, however they are written?"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tutelage.errors import DataError

__all__ = ["check_class_names", "same_names"]


def check_class_names(known: Sequence[str], classes: Sequence[str]) -> None:
    """Refuses a class that stands elsewhere among the teacher's than among the data's.

    `Cat`, `cat` and `CAT ` are one name, `polar_bear` and `Polar bear` too, unless a side has two names that differ in
    nothing else. Names that the other side does not have say nothing.

    Raises:
        DataError: It names the order that the data is to have.
    """
    if not known or len(known) != len(classes):
        return
    folded = _folded(known, classes)
    theirs = {name: place for place, name in enumerate(folded[0])}
    elsewhere = [k for k, name in enumerate(folded[1]) if theirs.get(name, k) != k]
    if not elsewhere:
        return
    order = list(known)  # the data's own spelling, where it has the class
    for k, name in enumerate(folded[1]):
        if name in theirs:
            order[theirs[name]] = classes[k]
    raise DataError(
        "classes",
        expected=f"the teacher's order: {', '.join(known)}",
        found=f"the data's order: {', '.join(classes)}",
        harm="labels and the teacher's logits would mean different classes by the same number",
        mend=f"give data.source the argument `classes` in the teacher's order: classes: [{', '.join(order)}]",
    )


def same_names(known: Sequence[str], classes: Sequence[str]) -> bool:
    """Whether two lists have the same names, in any order and however they are written."""
    folded = _folded(known, classes)
    return sorted(folded[0]) == sorted(folded[1])


def _folded(known: Sequence[str], classes: Sequence[str]) -> tuple[list[str], list[str]]:
    """Both lists without case, and without what separates words; as they are, if names of one list then coincide."""
    both = [[re.sub(r"(?<=\w)[\s_-]+(?=\w)", "", name.strip().casefold()) for name in x] for x in (known, classes)]
    if any(len(set(names)) < len(names) for names in both):
        return list(known), list(classes)
    return both[0], both[1]
