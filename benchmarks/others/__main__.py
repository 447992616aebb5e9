"""The losses of other libraries beside those of tutelage: values, gradients, time and memory in one run.

    make compare                                                  # makes the environment, some 6 GB, and runs this
    .venv-others/bin/python benchmarks/others --write docs/comparison.md
    .venv-others/bin/python benchmarks/others --only KDLoss --rounds 31

torchdistill 1.1.5 needs torchvision, which does not import beside the CPU build of torch 2.13.0; hence an environment
of its own. It holds textbrewer 0.2.1 and sentence-transformers 6.2.0 as well, and this package. A library that is not
installed is left out.

For each pair, ours and theirs say what they make of the same random signals in float64, theirs with the trained parts
of ours: the value and the gradients to the student's signals and to the trained parts. Where they are not the same, the
table has a conversion and a sentence that explains it. Time and memory are then measured in float32 as in
`benchmarks/losses.py`: forward and backward in turn, on one thread, at the sizes given there.

The exit status is 1 if a pair differs otherwise than explained, if ours takes more than 1.2 times as long as theirs for
the same loss (a second measurement of four times as many rounds decides, by the lower end of its interval), or if a
library has a loss that the tables know nothing of. It is 2 if none of the libraries is installed.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "losses"))
sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler of the CUDA build says when it starts and stops

import torch
from losses import ALLOWED, keep_freed_memory, measure

from others import with_sentence_transformers, with_textbrewer, with_torchdistill
from others.page import Row, page
from others.pair import Pair, compare

LIBRARIES: tuple[ModuleType, ...] = (with_torchdistill, with_textbrewer, with_sentence_transformers)
INSTALL = "pip install torch==2.14.1 torchvision==0.29.1 " + " ".join(
    f"{library.LIBRARY}=={library.VERSION}" for library in LIBRARIES
)


def measured(pair: Pair, rounds: int) -> Row:
    """Whether the pair agrees, and what both cost."""
    compared, cost = compare(pair), measure(pair.plain(), rounds, "cpu")
    again = pair.same and not pair.slower and cost.ratio > ALLOWED
    if again:
        cost = measure(pair.plain(), 4 * rounds, "cpu")
    return Row(pair, compared, cost, slow=again and cost.low > ALLOWED)


def rows_of(library: ModuleType, only: list[str] | None, rounds: int) -> list[Row]:
    """Prints a line a pair."""
    print(f"\n{library.LIBRARY} {version(library.LIBRARY)}")
    print(f"{'ours':54}{'theirs':54}{'value, converted / theirs':30}{'gradient':10}{'time':22}memory")
    rows = []
    for pair in library.PAIRS:
        if only and not any(name in f"{pair.ours} {pair.theirs}" for name in only):
            continue
        row = measured(pair, rounds)
        values = f"{row.compared.ours:.7g} / {row.compared.theirs:.7g}"
        cost = f"{row.time:22}{row.cost.memory:<8.2f}"
        print(f"{pair.our_text:54.53}{pair.theirs:54.53}{values:30}{row.compared.gradient:<10.0e}{cost}{row.verdict}")
        if notes := " ".join(filter(None, (pair.why, pair.slower))):
            print(f"    {pair.formula}. {notes}")
        sys.stdout.flush()
        rows.append(row)
    return rows


def unknown(library: ModuleType) -> set[str]:
    """The losses of a library that its table neither compares nor names as absent."""
    return library.names() - {pair.theirs.split("(")[0] for pair in library.PAIRS} - set(library.ABSENT)


def is_installed(library: ModuleType) -> bool:
    try:
        version(library.LIBRARY)
    except PackageNotFoundError:
        return False
    return True


def main() -> int:
    """Prints a line a pair; 1 if one is not as explained, or too slow."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="pairs in which one of these occurs")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the page, with all pairs of all libraries")
    options = parser.parse_args()
    there = [library for library in LIBRARIES if is_installed(library)]
    for library in LIBRARIES:
        if library not in there:
            print(f"{library.LIBRARY} is not installed: left out")
    if not there:
        print(f"None of the libraries is installed. Into an environment of its own: {INSTALL}")
        return 2
    if options.write and (options.only or len(there) < len(LIBRARIES)):
        parser.error("the page has all pairs of all libraries: install what is missing, or leave out --write")
    texts = [f"{pair.ours} {pair.theirs}" for library in there for pair in library.PAIRS]
    if missing := [name for name in options.only or () if not any(name in text for text in texts)]:
        parser.error(f"no pair has {', '.join(missing)} in its names")
    torch.set_num_threads(1)
    keep_freed_memory()
    found = {library: rows_of(library, options.only, options.rounds) for library in there}
    surprises = {library.LIBRARY: names for library in there if (names := unknown(library))}
    for name, names in surprises.items():
        print(f"{name} has losses that the table does not know: {', '.join(sorted(names))}")
    if options.write:
        half = options.write.with_suffix(".part")
        half.write_text(page(found, options.rounds), encoding="utf-8")
        half.replace(options.write)
    wrong = [row for rows in found.values() for row in rows if row.slow or not row.compared.agrees]
    print(f"\n{sum(map(len, found.values()))} pairs, {len(wrong)} of them not as explained or too slow")
    return 1 if wrong or surprises else 0


if __name__ == "__main__":
    sys.exit(main())
