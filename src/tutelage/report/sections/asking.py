"""Which inputs the teacher was asked about: the rounds, and what the audits found."""

from __future__ import annotations

from typing import Any

from tutelage.report.bundle import Bundle
from tutelage.report.formats import count, difference, estimate
from tutelage.report.markup import Markup, note, section, tag

__all__ = ["asking"]

HEADINGS = ("Round", "Drawn at random", "Chosen", "Asked so far", "Agreement on the audit", "Gain for 1,000")
LEDE = (
    "The teacher was asked about a part of the training rows. An audit is drawn at random from the rows not yet asked "
    "about: how often the student of the round before agrees with the teacher on it, with a 95% interval."
)


def asking(bundle: Bundle) -> Markup | None:
    """The table of rounds; nothing where all training rows were asked about."""
    found = bundle.asking
    if not found:
        return None
    head = tag("tr", [tag("th", h, scope="col", class_="number") for h in HEADINGS])
    body = [_row(one) for one in found.get("rounds", [])]
    table = tag("table", tag("thead", head), tag("tbody", body), class_="results stack")
    beside = found.get("asked_for_evaluation", {})
    evaluated = ", ".join(f"{count(number)} {name}" for name, number in beside.items())
    text = (
        f"{count(found.get('asked'))} of {count(found.get('training_rows'))} training rows were asked about, by the "
        f"strategy {found.get('strategy')}; beside them the rows of the evaluation ({evaluated})."
    )
    if found.get("stopped"):
        text += f" It stopped because the gain was below {difference(found.get('stop_gain'), '%')} for 1,000 questions."
    return section("asking", "What was asked", LEDE, tag("div", table, class_="scroll", tabindex="0"), note(text))


def _row(one: dict[str, Any]) -> Markup:
    figure, between = "—", ""
    if one.get("agreement") is not None:
        figure, between = estimate(one["agreement"], one.get("low"), one.get("high"), "%")
    gain = one.get("gain_per_1000")
    audit, chosen = len(one.get("audit", [])), len(one.get("chosen", []))
    if one.get("agreement") is None:
        audit, chosen = chosen, audit  # the first round is drawn at random
    cells = [count(audit), count(chosen), count(one.get("asked"))]
    return tag(
        "tr",
        tag("th", str(one.get("number")), scope="row"),
        [tag("td", cell, class_="number") for cell in cells],
        tag("td", figure, tag("span", between, class_="ci"), class_="number"),
        tag("td", "—" if gain is None else difference(gain, "%"), class_="number"),
    )
