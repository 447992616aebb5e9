"""What a stored verdict says otherwise than the one that follows from the evidence."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from tutelage.governance.outcome import GateResult
from tutelage.governance.verdict import Verdict

__all__ = ["changed_verdict", "same"]


def changed_verdict(stored: Verdict, recomputed: Verdict) -> list[str]:
    """A sentence for each gate whose answer or numbers differ, for the verdict itself, and for lost warnings.

    Sentences are not compared: they may be another version's.
    """
    differences = _changed_gates(stored.gates, recomputed.gates)
    if stored.verdict != recomputed.verdict:
        differences.append(f"verdict: stored {stored.verdict}, recomputed {recomputed.verdict}")
    if len(stored.warnings) != len(recomputed.warnings):
        before, after = (found.warnings or "none" for found in (stored, recomputed))
        differences.append(f"warnings: stored {before}, recomputed {after}")
    return differences


def same(a: Any, b: Any) -> bool:
    """Whether plain data is equal, numbers to 1e-6: other machines round otherwise."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9)
    return bool(a == b)


def _changed_gates(stored: Sequence[GateResult], recomputed: Sequence[GateResult]) -> list[str]:
    differences = []
    for before, after in itertools.zip_longest(map(_answer, stored), map(_answer, recomputed)):
        if not same(before, after):
            name = (before or after or {})["name"]
            differences.append(f"gate {name}: stored {_numbers(before)}, recomputed {_numbers(after)}")
    return differences


def _answer(gate: GateResult) -> dict[str, Any]:
    return {name: getattr(gate, name) for name in ("name", "outcome", "value", "low", "high", "threshold")}


def _numbers(answer: dict[str, Any] | None) -> str:
    if answer is None:
        return "nothing"
    value, low, high, limit = (
        "nothing" if answer[name] is None else f"{answer[name]:.6g}" for name in ("value", "low", "high", "threshold")
    )
    return f"{answer['name']} {answer['outcome']}, {value} [{low}, {high}] against {limit}"
