"""The gates: each requirement, what was measured, and the interval drawn against the line it is judged by."""

from __future__ import annotations

from typing import Any

from tutelage.report.bundle import Bundle
from tutelage.report.formats import difference, estimate, value
from tutelage.report.markup import Markup, note, section, tag
from tutelage.report.names import gate_title, gate_unit, typeset, without_outcome
from tutelage.report.sections.opening import icon
from tutelage.report.strips import Direction, interval_plot

__all__ = ["gates"]

HEADINGS = ("Gate", "Requirement", "Interval against the line", "Measured", "Outcome")
LEDE = (
    "A gate passes when the whole interval lies on the tinted side of its line, fails when it lies wholly on the "
    "other, and is inconclusive when the line runs through it or the rows are too few to rely on it: then more test "
    "rows are needed, and it blocks."
)


SIGNS: dict[Direction | None, str] = {"above": "≥", "below": "≤", None: ""}


def gates(bundle: Bundle) -> Markup:
    """The table of gates."""
    found = bundle.gates()
    if not bundle.verdict:
        return section("gates", "Gates", LEDE, note("verdict.json is not in the bundle, so no gate can be shown."))
    if not found:
        return section("gates", "Gates", LEDE, note("The recipe sets no budget and no policy: nothing was required."))
    head = tag("tr", [tag("th", h, scope="col", class_="number" if h == "Measured" else None) for h in HEADINGS])
    body = [_row(bundle, gate) for gate in found]
    table = tag("table", tag("thead", head), tag("tbody", body), class_="gates stack")
    return section("gates", "Gates", LEDE, tag("div", table, class_="scroll"))


def _allowed(requirement: str) -> Direction | None:
    if ">" in requirement or "≥" in requirement or "at least" in requirement:
        return "above"
    if "<" in requirement or "≤" in requirement or "at most" in requirement:
        return "below"
    return None


def _row(bundle: Bundle, gate: dict[str, Any]) -> Markup:
    outcome, unit = str(gate.get("outcome", "INCONCLUSIVE")), gate_unit(gate)
    requirement = str(gate.get("requirement", ""))
    signed = requirement.startswith("student - ")
    words = difference if signed else value
    measured, low, high, threshold = (gate.get(key) for key in ("value", "low", "high", "threshold"))
    if low == high:  # counted, not estimated: there is no interval
        low = high = None
    figure, between = estimate(measured, low, high, unit, signed=signed)
    allowed = _allowed(requirement)
    drawn = tag("span", "—", class_="none")
    if measured is not None and threshold is not None:
        drawn = interval_plot(
            measured,
            low,
            high,
            threshold=threshold,
            allowed=allowed,
            css=f"gate {outcome.lower()}",
            label=f"{gate.get('name')}: {figure}, interval {between or 'none'}, line {words(threshold, unit)}",
            threshold_label=f"{SIGNS[allowed]} {words(threshold, unit)}".strip(),
            log=str(gate.get("kind")) == "export",
        )
    figures = [tag("b", figure), tag("span", between, class_="ci") if between else None]
    return tag(
        "tr",
        tag("th", gate_title(bundle, gate), tag("span", str(gate.get("kind", "")), class_="kind"), scope="row"),
        tag("td", typeset(requirement), tag("p", _explanation(gate), class_="explanation")),
        tag("td", drawn, class_="drawn"),
        tag("td", figures, class_="number"),
        tag("td", tag("span", icon(outcome), outcome.capitalize(), class_=f"outcome {outcome.lower()}")),
    )


def _explanation(gate: dict[str, Any]) -> str:
    """What the plot beside it doesn't say: the circumstances of a cost, the reason of a gate that blocks, a warning."""
    if gate.get("outcome") == "PASS" and gate.get("kind") in {"quality", "fidelity"}:
        return typeset(str(gate.get("warning") or ""))
    finding, advice = without_outcome(str(gate.get("explanation") or ""))
    more = gate.get("more_samples")
    if more and not advice:
        advice = f"About {float(f'{more:.2g}'):,.0f} more rows would decide it."
    return f"{finding} {advice}".strip()
