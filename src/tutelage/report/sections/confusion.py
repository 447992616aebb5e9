"""Which class the student says in place of which: the answers of teacher and student, counted by class."""

from __future__ import annotations

import numpy as np

from tutelage.evaluation.evidence import Evidence
from tutelage.report.formats import percent
from tutelage.report.markup import Child, Markup, tag
from tutelage.report.strips import bars

__all__ = ["confusion"]

MOST_CLASSES = 14
MOST_PAIRS = 12


def confusion(evidence: Evidence) -> Markup | None:
    """A matrix of disagreements for few classes, the most frequent ones as bars for many."""
    teacher, student = evidence.outputs["teacher"], evidence.outputs["student"]
    if teacher.ndim != 2 or teacher.shape != student.shape:
        return None
    classes = evidence.classes or [str(k) for k in range(teacher.shape[1])]
    counts = np.zeros((len(classes), len(classes)), dtype=int)
    np.add.at(counts, (teacher.argmax(axis=1), student.argmax(axis=1)), 1)
    differ = int(counts.sum() - np.trace(counts))
    content = _matrix(counts, classes) if len(classes) <= MOST_CLASSES else _pairs(counts, classes)
    share = percent(differ / len(teacher))
    caption = tag(
        "figcaption",
        tag("strong", "Which answers differ"),
        tag("p", f"{differ:,} of {len(teacher):,} rows, {share}", class_="y-title"),
    )
    return tag("figure", caption, content, class_="chart")


def _matrix(counts: np.ndarray[tuple[int, int], np.dtype[np.int_]], classes: list[str]) -> Markup:
    off = counts - np.diag(np.diag(counts))
    top = max(int(off.max()), 1)
    head = tag(
        "tr",
        tag("th", "teacher ↓ student →", class_="corner"),
        [tag("th", tag("span", c), scope="col") for c in classes],
    )
    rows = [
        tag("tr", tag("th", name, scope="row"), [_cell(int(n), i == j, top) for j, n in enumerate(counts[i].tolist())])
        for i, name in enumerate(classes)
    ]
    foot = "The diagonal, where they agree, is left blank; the stronger a cell's colour, the more rows."
    table = tag("table", tag("thead", head), tag("tbody", rows), class_="confusion")
    return tag("div", tag("div", table, class_="scroll", tabindex="0"), tag("p", foot, class_="footnote"))


def _cell(rows: int, same: bool, top: int) -> Markup:
    if same or not rows:
        return tag("td", class_="same" if same else None)
    # No darker than the ink can be read on.
    return tag("td", f"{rows:,}", style=f"--s:{8 + 36 * rows / top:.0f}%")


def _pairs(counts: np.ndarray[tuple[int, int], np.dtype[np.int_]], classes: list[str]) -> Markup:
    off = counts - np.diag(np.diag(counts))
    worst = [divmod(int(k), len(classes)) for k in np.argsort(-off, axis=None, kind="stable")[:MOST_PAIRS]]
    top = float(max(off.max(), 1))
    items: list[Child] = []
    for i, j in worst:
        if off[i, j]:
            said = f"teacher {classes[i]}, student {classes[j]}: {off[i, j]}"
            words = tag("span", f"{classes[i]} → ", tag("b", classes[j]), f" {off[i, j]:,}")
            items.append(tag("li", words, bars({"student": float(off[i, j])}, said, top=top)))
    return tag("div", tag("ol", items, class_="swaps"), tag("p", "Teacher → student, rows.", class_="footnote"))
