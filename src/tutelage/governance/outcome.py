"""The three answers of a gate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

__all__ = ["HARDLY", "GateResult", "Kind", "Outcome", "approximately", "decide"]

Outcome = Literal["PASS", "FAIL", "INCONCLUSIVE"]
Kind = Literal["quality", "fidelity", "budget", "export"]


@dataclass(frozen=True, kw_only=True)
class GateResult:
    """One gate, judged.

    Attributes:
        name: The metric or the limit.
        kind: What was judged: a metric of quality or fidelity, the budget, or the exported file.
        requirement: The demand, as a formula.
        outcome: The answer.
        value: What was found; None when nothing was.
        low: Lower end of its interval.
        high: Upper end; both equal `value` for what is counted, not estimated.
        threshold: What `value` is compared with.
        explanation: Sentences for people.
        more_samples: How many more samples would decide, should the estimates stay as they are. None when the gate
            is decided, or the number can't be told, or no number would do.
        warning: What the outcome is to be read with, as a sentence; it is in the explanation too.
        unit: `"%"` for shares (as fractions), `"ms"`, `"MB"`, or `""`.
    """

    name: str
    kind: Kind
    requirement: str
    outcome: Outcome
    threshold: float
    explanation: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    more_samples: int | None = None
    unit: str = ""
    warning: str = ""


HARDLY = 100
"""So many times what is there decides hardly anything: nobody will bring it, and the estimate will not stay so long."""


def approximately(count: int) -> str:
    """A count that rests on an estimate, in two digits, rounded up: 235 is `about 240`, 197,009 `about 200,000`."""
    unit: int = 10 ** max(0, len(str(count)) - 2)
    return f"about {-(-count // unit) * unit:,}"


def decide(low: float, high: float, threshold: float, *, at_least: bool) -> Outcome:
    """PASS when all of `low` to `high` meets the requirement, FAIL when none of it does, else INCONCLUSIVE.

    Meeting the threshold exactly is enough. Ends that are not finite decide nothing.
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        return "INCONCLUSIVE"
    if at_least:
        return "PASS" if low >= threshold else "FAIL" if high < threshold else "INCONCLUSIVE"
    return "PASS" if high <= threshold else "FAIL" if low > threshold else "INCONCLUSIVE"
