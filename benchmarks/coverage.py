"""Whether intervals hold: coverage by simulation, for every metric.

    python benchmarks/coverage.py                            # some 15 minutes on one core
    python benchmarks/coverage.py --only regression --runs 1000
    python benchmarks/coverage.py --write docs/intervals.md

A sample is drawn many times from a population whose metrics are known, and every metric is evaluated as in a run, with
fewer resamples. What populations there are is in `tests/evaluation/coverage_case.py`.

The exit status is 1 if a gate exactly at the true value passes in more than 3.5% of runs (2.5% is nominal), or if more
than 7% of intervals miss the true value without a reservation, in either case by more than three standard errors of the
simulation.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "evaluation"))

from coverage_case import KINDS, MAKERS, Cell, Found, simulate

ROWS = (40, 200, 2000)
COSTLY = {("embedding", 200): 40, ("embedding", 2000): 0, ("human", 2000): 60}
"""Runs of cells whose resamples rank many pairs; 0: left out, as a run takes half a minute."""
START, END = "<!-- coverage -->", "<!-- end of coverage -->"


def cells(tasks: list[str]) -> list[Cell]:
    """Every population and way to sample it."""
    return [Cell(*of) for of in itertools.product(tasks, KINDS, (False, True), ROWS)]


def runs_of(cell: Cell, runs: int) -> int:
    """How many samples are drawn: fewer of what takes long."""
    return COSTLY.get((cell.task, cell.n), runs // 3 if cell.n == ROWS[-1] else runs)


def table(found: list[Found]) -> list[str]:
    """A table a task: a row a metric and population, a column each way to sample."""
    lines = []
    for task in dict.fromkeys(f.cell.task for f in found):
        of = [f for f in found if f.cell.task == task]
        columns = list(dict.fromkeys((f.cell.grouped, f.cell.n) for f in of))
        heads = [f"{n:,} {'in groups' if grouped else 'rows'}" for grouped, n in columns]
        lines += ["", f"### {task.capitalize()}", "", f"| | | {' | '.join(heads)} |", "|---" * (len(columns) + 2) + "|"]
        by_place = {(f.name, f.cell.kind, f.cell.grouped, f.cell.n): f for f in of}
        for name, kind in dict.fromkeys((f.name, f.cell.kind) for f in sorted(of, key=lambda f: f.name)):
            places = [by_place.get((name, kind, *column)) for column in columns]
            lines.append(f"| {name} | {kind} | {' | '.join('' if p is None else words(p) for p in places)} |")
    return lines


def words(found: Found) -> str:
    """Coverage, false passes, reservations and width."""
    text = f"{100 * found.covered:.0f} / {100 * found.passed:.1f} / {100 * found.reserved:.0f} / {found.width:.1f}"
    return f"**{text}**" if found.excess() else text


def main() -> int:
    """Prints a line a metric and cell, and writes the tables; 1 if a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(MAKERS), default=list(MAKERS), metavar="TASK")
    parser.add_argument("--runs", type=int, default=300, help="samples a cell; a third of it at 2,000 rows")
    parser.add_argument("--write", type=Path, metavar="FILE", help=f"put the tables between its marks `{START}`")
    options = parser.parse_args()
    found: list[Found] = []
    print(f"{'':50}covered  passed  missed  reserved  width")
    for cell in cells(options.only):
        runs = runs_of(cell, options.runs)
        for f in simulate(cell, runs) if runs else []:
            found.append(f)
            place = f"{cell.task[:8]:9}{cell.kind:9}{'groups' if cell.grouped else 'rows':7}{cell.n:5} {f.name}"
            numbers = f"{f.covered:9.1%}{f.passed:8.1%}{f.missed:8.1%}{f.reserved:9.0%}{f.width:8.2f}"
            print(f"{place:50}{numbers}  {'TOO MANY ' + ' and '.join(f.excess()) if f.excess() else ''}", flush=True)
    if options.write:
        text = options.write.read_text()
        before, after = text[: text.index(START) + len(START)], text[text.index(END) :]
        options.write.write_text("\n".join([before, *table(found), "", after]))
    return 1 if any(f.excess() for f in found) else 0


if __name__ == "__main__":
    sys.exit(main())
