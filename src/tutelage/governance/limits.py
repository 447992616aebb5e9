"""The budget and the exported file, judged by what was measured of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tutelage.devices.cost import FROM_RAW, FROM_TENSORS, Cost, ModelCost
from tutelage.governance.outcome import GateResult, decide
from tutelage.governance.policy import Budget

__all__ = ["judge_budget", "judge_export"]

MB = 1e6


@dataclass(frozen=True)
class Measured:
    """A cost and its interval; `low` and `high` equal `value` for what is counted."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Limit:
    """How a limit of the budget is read from the measurements and spoken of."""

    title: str
    unit: str
    find: Callable[[Cost, ModelCost, str, int], Measured | None]


def judge_budget(budget: Budget, cost: Cost | None, export: dict[str, Any] | None) -> list[GateResult]:
    """One gate for each limit that is set. What was not measured is INCONCLUSIVE.

    Args:
        budget: Checked before (`check_budget`).
        cost: What was measured, or None.
        export: `export.json`: whether there is an ONNX file decides what the form `auto` means.
    """
    form = budget.form
    if form == "auto":
        form = "onnxruntime" if export is not None and export.get("onnx") else "torch"
    return [
        _judge_limit(name, limit, cost, _form_for(name, budget, cost, form), budget.batch)
        for name, limit in budget.limits().items()
    ]


def _form_for(name: str, budget: Budget, cost: Cost | None, form: str) -> str:
    """The form that a limit is judged in: beside a teacher that runs in its own library, the one they share there."""
    if name != "latency_vs_teacher" or budget.form != "auto" or cost is None or f"{form}/{budget.batch}" in cost.ratios:
        return form
    return next((own for own in (FROM_TENSORS, FROM_RAW) if f"{own}/{budget.batch}" in cost.ratios), form)


def judge_export(export: dict[str, Any] | None) -> list[GateResult]:
    """One gate when there is an ONNX file: FAIL when it does not give the student's outputs and classes."""
    onnx = None if export is None else export.get("onnx")
    if not onnx:
        return []
    found, tolerance, agrees = float(onnx["max_abs_difference"]), float(onnx["tolerance"]), bool(onnx["agrees"])
    flips, beyond = onnx.get("flips"), onnx.get("flips_beyond_ties")
    changed = "" if flips is None else f", and {flips:,} predicted classes differ"
    if flips and beyond is not None:
        changed += f", {flips - beyond:,} of them ties (outputs of two classes within the tolerance of each other)"
    told = (
        f"On {onnx['rows']:,} rows the outputs of {onnx['file']} differ from the student's by {found:.3g} at most "
        f"(tolerance {tolerance:.3g}){changed}: {'PASS' if agrees else 'FAIL'}."
    )
    harm = "" if agrees else " What was evaluated is not what the exported file computes."
    return [
        GateResult(
            name="export parity",
            kind="export",
            requirement=f"max |ONNX - student| <= {tolerance:g}" + ("" if flips is None else ", no flips but of ties"),
            outcome="PASS" if agrees else "FAIL",
            value=found,
            low=found,
            high=found,
            threshold=tolerance,
            explanation=told + harm,
        )
    ]


def _judge_limit(name: str, limit: float, cost: Cost | None, form: str, batch: int) -> GateResult:
    rule = LIMITS[name]
    student = None if cost is None else cost.models.get("student")
    found = None if cost is None or student is None else rule.find(cost, student, form, batch)
    if found is not None and not all(map(math.isfinite, (found.value, found.low, found.high))):
        found = None
    unit = f" {rule.unit}" if rule.unit else ""
    title = rule.title.format(form=form, batch=batch)
    if found is None:
        return GateResult(
            name=name,
            kind="budget",
            requirement=f"student <= {limit:g}{unit}",
            outcome="INCONCLUSIVE",
            threshold=limit,
            explanation=f"The budget limits {title} to {limit:g}{unit}, but it was not measured: INCONCLUSIVE. "
            "Missing evidence blocks.",
            unit=rule.unit,
        )
    outcome = decide(found.low, found.high, limit, at_least=False)
    exact = found.low == found.high
    interval = "" if exact else f" (95% interval {found.low:.4g} to {found.high:.4g})"
    advice = " More timing rounds on a quiet machine would narrow the interval." if outcome == "INCONCLUSIVE" else ""
    return GateResult(
        name=name,
        kind="budget",
        requirement=f"student <= {limit:g}{unit}" + ("" if exact else " (95% interval)"),
        outcome=outcome,
        value=found.value,
        low=found.low,
        high=found.high,
        threshold=limit,
        explanation=f"The student's {title.removeprefix('the ')} is {found.value:.4g}{unit}{interval}; the budget "
        f"allows {limit:g}{unit}: {outcome}.{advice}",
        unit=rule.unit,
    )


def _latency(cost: Cost, student: ModelCost, form: str, batch: int) -> Measured | None:
    for latency in student.latencies:
        if (latency.form, latency.batch) == (form, batch):
            return Measured(latency.p95_ms, latency.p95_low_ms, latency.p95_high_ms)
    return None


def _size(cost: Cost, student: ModelCost, form: str, batch: int) -> Measured | None:
    if student.size_bytes is None:
        return None
    size = student.size_bytes / MB
    return Measured(size, size, size)


def _memory(cost: Cost, student: ModelCost, form: str, batch: int) -> Measured | None:
    if form not in student.peak_memory_bytes:
        return None
    memory = student.peak_memory_bytes[form] / MB
    return Measured(memory, memory, memory)


def _ratio(cost: Cost, student: ModelCost, form: str, batch: int) -> Measured | None:
    ratio = cost.ratios.get(f"{form}/{batch}")
    return None if ratio is None else Measured(ratio["value"], ratio["low"], ratio["high"])


LIMITS = {
    "latency_p95_ms": Limit("the 95th percentile of latency (batch {batch}, {form})", "ms", _latency),
    "size_mb": Limit("the size of the stored weights", "MB", _size),
    "peak_memory_mb": Limit("the peak memory ({form})", "MB", _memory),
    "latency_vs_teacher": Limit("the latency as a share of the teacher's (batch {batch}, {form})", "", _ratio),
}
