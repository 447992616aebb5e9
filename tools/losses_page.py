"""Writes docs/losses.md from the docstrings of the losses: `python tools/losses_page.py`.

What a loss needs is read of the first case of its tests, so the page can't say otherwise than the loss does.
"""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "losses"))

from tutelage.losses import Loss, all_losses
from tutelage.losses.layer_pairs import LayerPairs
from tutelage.losses.wrapped import WrappedLoss

PAGE = Path(__file__).parent.parent / "docs" / "losses.md"
KINDS = {
    "Outputs": "What teacher and student put out is compared.",
    "Inner layers": "Layers of both are compared, pair by pair.",
    "Relations between samples": "What the samples of a batch have to do with each other is compared: these losses are "
    "other losses for other batch sizes.",
    "Wrappers": "Losses that change what another loss is given.",
    "Without a teacher": "Labels, or the student itself.",
}


def example(kind: type[Loss]) -> Loss:
    """The loss as the first case of its tests makes it."""
    module = importlib.import_module(f"test_{kind.__module__.rpartition('.')[2]}")
    return next(loss for case in module.CASES.values() if type(loss := case.make()) is kind)


def group(loss: Loss) -> str:
    """The section that a loss belongs to."""
    if isinstance(loss, WrappedLoss):
        return "Wrappers"
    if not loss.needs.teacher:
        return "Without a teacher"
    if not loss.per_sample:
        return "Relations between samples"
    return "Outputs" if loss.needs.teacher.output and not isinstance(loss, LayerPairs) else "Inner layers"


def needs(loss: Loss) -> str:
    """What it reads, in words."""
    wanted = loss.needs
    words = []
    for name in ("output", "features"):
        sides = [side for side in ("student", "teacher") if getattr(getattr(wanted, side), name)]
        if sides:
            which = {"output": "output", "features": "layers"}[name]
            words.append(f"{which} of both" if len(sides) == 2 else f"the {sides[0]}'s {which}")
    if loss.takes_top_k:
        words[0] += " (the teacher's may be its likeliest classes alone)"
    words += ["labels"] if wanted.labels else []
    words += ["the teacher's own modules"] if loss.borrows else []
    return ", ".join(words)


def part(kind: type[Loss], heading: str) -> str:
    """The paragraph of a docstring that begins with a heading, on one line."""
    found = re.search(rf"{heading}: (.*?)(?:\n\s*\n|\Z)", kind.__doc__ or "", re.DOTALL)
    return cell(found.group(1)) if found else ""


def cell(text: str) -> str:
    """A text that fits a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def formula(kind: type[Loss]) -> str:
    """The first paragraph of the docstring."""
    return cell((kind.__doc__ or "").strip().split("\n\n")[0])


def page() -> str:
    """The whole page."""
    losses = all_losses()
    examples = {name: example(kind) for name, kind in losses.items()}
    lines = [
        "# The losses",
        "",
        f"{len(losses)} losses. This page is written by `python tools/losses_page.py` from their docstrings, which say "
        "more: arguments, shapes, and where a paper and its authors' code differ. Each is checked against an "
        "independent float64 formula and runs through one contract suite ([CONTRIBUTING](../CONTRIBUTING.md)); what it "
        "costs beside the plain tensor expression, `python benchmarks/losses.py` measures.",
        "",
        "`tutelage explain NAME` prints one in the terminal. Any of them takes `weight`, a number or a schedule "
        "`[[share of the training, factor], ...]`, and `Routed` puts other signals in the place of the outputs.",
    ]
    for title, about in KINDS.items():
        names = [name for name, loss in examples.items() if group(loss) == title]
        lines += ["", f"## {title}", "", about, "", "| loss | compares | needs | samples | cost | source |"]
        lines += ["|---|---|---|---|---|---|"]
        for name in sorted(names):
            loss, kind = examples[name], losses[name]
            alone = "each alone" if loss.per_sample else "of a batch together"
            row = [f"`{name}`", formula(kind), needs(loss), alone, part(kind, "Cost"), part(kind, "Source")]
            lines.append(f"| {' | '.join(row)} |")
        lines += ["", *(f"* **{name}**: {part(losses[name], 'When to use it')}" for name in sorted(names))]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE} written")
