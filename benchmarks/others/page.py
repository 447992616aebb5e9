"""docs/comparison.md, from what a run has measured."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from types import ModuleType

import torch
from losses import ALLOWED, Measured

from others.pair import Compared, Pair
from tutelage.losses import all_losses

HEAD = """# The losses beside those of other libraries

Written by `python benchmarks/others --write docs/comparison.md`, in an environment of its own: torchdistill needs
torchvision, which does not import beside the CPU build of torch 2.13.0. `make compare` makes that environment (some
6 GB) and runs the comparison without writing this page. By hand:

    python3 -m venv .venv-others
    grep -v '^torch==' constraints.txt > .venv-others/constraints.txt
    .venv-others/bin/pip install -c .venv-others/constraints.txt torch==2.14.1 torchvision==0.29.1 \\
        {libraries} pytest -e .
    .venv-others/bin/python benchmarks/others --write docs/comparison.md

Each row is a loss of tutelage and one of theirs on the same random signals, theirs with the trained parts of ours.
Value and gradients (to the student's signals and to the trained parts) are compared in float64. EQUAL: they agree to
nine digits, or to as many as the note says, after a conversion by a constant factor where one is given. DIFFERS: theirs
is another function; the note says which, and why, and theirs agrees with that to nine digits.

Time and memory are ratios, ours by theirs: forward and backward in float32 on one thread, in turn, the median of
{rounds} rounds (or four times as many) with the interval that holds the true median 19 times in 20; memory is the
highest sum of what was allocated at once. It is what `benchmarks/losses.py` measures, with theirs in the place of the
plain expression. Ours includes masks, the weights of rows and the count, which most of theirs have not. Where theirs is
another function the ratios are in brackets. What else ran on the machine widens the intervals.

Measured with torch {torch}, {machine}.
"""


@dataclass(frozen=True)
class Row:
    """A pair, whether it agrees, and what both cost."""

    pair: Pair
    compared: Compared
    cost: Measured
    slow: bool

    @property
    def verdict(self) -> str:
        """In a word or three."""
        if not self.compared.agrees:
            return "UNEXPLAINED"
        if self.slow:
            return "TOO SLOW"
        if self.pair.slower and self.cost.low > ALLOWED:
            return "EQUAL, slower as explained"
        return "EQUAL" if self.pair.same else "DIFFERS as explained"

    @property
    def time(self) -> str:
        """The ratio and its interval."""
        return f"{self.cost.ratio:.2f} ({self.cost.low:.2f} to {self.cost.high:.2f})"


def page(found: dict[ModuleType, list[Row]], rounds: int) -> str:
    """The whole page."""
    libraries = " ".join(f"{library.LIBRARY}=={version(library.LIBRARY)}" for library in found)
    machine = f"{platform.machine()} {platform.system()}, Python {platform.python_version()}"
    head = HEAD.format(libraries=libraries, rounds=rounds, torch=torch.__version__, machine=machine)
    return "\n".join([head, *(section(library, rows) for library, rows in found.items()), alone(found)])


def section(library: ModuleType, rows: list[Row]) -> str:
    """The pairs of a library, the notes on them, and what it has that is not here."""
    lines = [f"## {library.LIBRARY} {version(library.LIBRARY)}", ""]
    lines += ["| | ours | theirs | theirs, from ours | | time | memory |", "|---|---|---|---|---|---|---|"]
    for number, row in enumerate(rows, 1):
        cost = (row.time, f"{row.cost.memory:.2f}")
        time, memory = cost if row.pair.same else (f"[{text}]" for text in cost)
        ours, theirs, formula = row.pair.our_text, row.pair.theirs, row.pair.formula.removeprefix("theirs = ")
        lines.append(f"| {number} | `{ours}` | `{theirs}` | {formula} | {row.verdict} | {time} | {memory} |")
    notes = {n: f"{row.pair.why} {row.pair.slower}".strip() for n, row in enumerate(rows, 1)}
    lines += ["", *(f"* {n}: {note}" for n, note in notes.items() if note), ""]
    lines += [f"{library.LIBRARY} has these too. They have no row:", ""]
    return "\n".join([*lines, *absent(library.ABSENT), ""])


def absent(reasons: dict[str, str]) -> Iterable[str]:
    """One item a reason, with all that have it."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(f"`{name}`")
    return (f"* {', '.join(sorted(those))}: {reason}." for reason, those in names.items())


def alone(libraries: Iterable[ModuleType]) -> str:
    """The losses of tutelage that none of the libraries has."""
    compared = {pair.ours for library in libraries for pair in library.PAIRS}
    rest = ", ".join(f"`{name}`" for name in sorted(set(all_losses()) - compared))
    return f"## Only in tutelage\n\nNone of the three has {rest}.\n"
