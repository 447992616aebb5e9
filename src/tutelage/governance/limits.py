"""The budget and the exported file, judged by what was measured of them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tutelage.devices.cost import FROM_RAW, FROM_TENSORS, Cost, Latency, ModelCost, significant
from tutelage.devices.latency import JUDGED_CALLS, MINIMUM_ROUNDS
from tutelage.devices.quantiles import samples_to_decide
from tutelage.devices.statistics import recomputed
from tutelage.governance.outcome import HARDLY, GateResult, Outcome, approximately, decide
from tutelage.governance.policy import Budget

__all__ = ["judge_budget", "judge_export", "judged_calls"]

MB = 1e6


@dataclass(frozen=True)
class Measured:
    """A cost and its interval; `low` and `high` equal `value` for what is counted.

    Attributes:
        value: What was found.
        low: Lower end; None where too little is known to set one.
        high: Upper end, likewise.
        note: What the user should know of how it was found.
        more: For a limit, how many more samples would decide, as a number and as a sentence.
    """

    value: float
    low: float | None
    high: float | None
    note: str = ""
    more: Callable[[float], tuple[int | None, str]] | None = None

    @property
    def known(self) -> bool:
        """Whether all that is there is a finite number."""
        return all(math.isfinite(x) for x in (self.value, self.low, self.high) if x is not None)


@dataclass(frozen=True)
class Limit:
    """How a limit of the budget is read from the measurements and spoken of.

    `forms` are those in which `form: auto` looks for it where the student's own has none.
    """

    title: str
    unit: str
    find: Callable[[Cost, ModelCost, str, int], Measured | None]
    forms: tuple[str, ...] = ()


def judge_budget(budget: Budget, cost: Cost | None, export: dict[str, Any] | None) -> list[GateResult]:
    """One gate for each limit that is set. What was not measured is INCONCLUSIVE.

    Percentiles, ratios and intervals are made anew of the samples.

    Args:
        budget: Checked before (`check_budget`).
        cost: What was measured, or None.
        export: `export.json`: whether there is an ONNX file decides what the form `auto` means.
    """
    form = budget.form
    if form == "auto":
        form = "onnxruntime" if export is not None and export.get("onnx") else "torch"
    found = None if cost is None else recomputed(cost)
    return [_judge_limit(name, limit, found, form, budget) for name, limit in budget.limits().items()]


def judged_calls(budget: Budget) -> dict[int, int]:
    """The calls of the student that judging its time takes, by batch size, for `measure_cost`."""
    if budget.latency_p95_ms is None and budget.latency_vs_teacher is None:
        return {}
    return {budget.batch: 0 if budget.latency_p95_ms is None else JUDGED_CALLS}


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
    most = f"{found:.3g} {onnx['unit']}" if onnx.get("unit") else f"{found:.3g}"
    told = (
        f"On {onnx['rows']:,} rows the outputs of {onnx['file']} differ from the student's by {most} at most "
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


def _judge_limit(name: str, limit: float, cost: Cost | None, form: str, budget: Budget) -> GateResult:
    rule, batch = LIMITS[name], budget.batch
    in_forms = _in_forms(rule, cost, form, batch)
    unit = f" {rule.unit}" if rule.unit else ""
    used = form if form in in_forms or budget.form != "auto" else next(iter(in_forms), form)
    title, found = rule.title.format(form=used, batch=batch), in_forms.get(used)
    if found is None:
        elsewhere = "".join(
            f" In {other} it is {significant(x.value)}{unit}: with `budget.form: {other}` that would be judged."
            for other, x in in_forms.items()
            if other in ("torch", "onnxruntime")
        )
        return GateResult(
            name=name,
            kind="budget",
            requirement=f"student <= {limit:g}{unit}",
            outcome="INCONCLUSIVE",
            threshold=limit,
            explanation=f"The budget limits {title} to {limit:g}{unit}, but it was not measured: INCONCLUSIVE. "
            f"Missing evidence blocks.{elsewhere}",
            unit=rule.unit,
        )
    outcome = _decide(found, limit)
    more, advice = None, ""
    if outcome == "INCONCLUSIVE" and found.more is not None:
        more, advice = found.more(limit)
    exact = found.low == found.high == found.value
    note = found.note if used == form else f" It was not measured in {form}, so it is judged in {used}.{found.note}"
    return GateResult(
        name=name,
        kind="budget",
        requirement=f"student <= {limit:g}{unit}" + ("" if exact else " (95% interval)"),
        outcome=outcome,
        value=found.value,
        low=found.low,
        high=found.high,
        threshold=limit,
        explanation=f"The student's {title.removeprefix('the ')} is {found.value:.4g}{unit}"
        f"{'' if exact else _interval(found)}; the budget allows {limit:g}{unit}: {outcome}.{note}{advice}",
        more_samples=more,
        unit=rule.unit,
    )


def _in_forms(rule: Limit, cost: Cost | None, form: str, batch: int) -> dict[str, Measured]:
    """What was measured, by form: the student's own first, then those in which `auto` looks for it."""
    student = None if cost is None else cost.models.get("student")
    if cost is None or student is None:
        return {}
    found = {each: rule.find(cost, student, each, batch) for each in (form, *rule.forms)}
    return {each: x for each, x in found.items() if x is not None and x.known}


def _decide(found: Measured, limit: float) -> Outcome:
    """The answer of a gate; an end that is not known could lie anywhere."""
    low, high = found.low, found.high
    if low is not None and high is not None:
        return decide(low, high, limit, at_least=False)
    return (
        "FAIL" if low is not None and low > limit else "PASS" if high is not None and high <= limit else "INCONCLUSIVE"
    )


def _interval(found: Measured) -> str:
    low, high = (None if x is None else f"{x:.4g}" for x in (found.low, found.high))
    if low and high:
        return f" (95% interval {low} to {high})"
    return f" (95% interval from {low}, no upper end)" if low else f" (95% interval up to {high})" if high else ""


def _latency(cost: Cost, student: ModelCost, form: str, batch: int) -> Measured | None:
    for latency in student.latencies:
        if (latency.form, latency.batch) == (form, batch):
            note, low = "", latency.p95_low_ms
            if cost.stays_disturbed(form, batch):
                note = f" {_shared(cost, latency)}: calls were slower than on a quiet one, none was quicker."
                low = _quiet_low(cost, latency)
            return Measured(
                latency.p95_ms, low, latency.p95_high_ms, note, functools.partial(_more_calls, latency, note)
            )
    return None


def _quiet_low(cost: Cost, latency: Latency) -> float | None:
    """What a call takes at least, whatever else runs: its CPU time, over the threads that may share it."""
    if latency.p95_low_ms is None or not latency.cpu_ms:
        return None
    return min(latency.p95_low_ms, sum(latency.cpu_ms) / len(latency.cpu_ms) / int(cost.device.get("threads", 1)))


def _more_calls(latency: Latency, disturbed: str, limit: float) -> tuple[int | None, str]:
    rounds = latency.samples_ms
    calls = sum(map(len, rounds))
    if disturbed and latency.p95_ms > limit:
        return None, " Measure on a quiet machine."
    more = samples_to_decide(rounds, 0.95, limit)
    if more is None:
        return None, (
            " The estimate is exactly at the limit: no number of calls would decide while it stays there, but a higher "
            "limit or a faster student would."
        )
    side = "inside" if latency.p95_ms <= limit else "outside"
    if more > HARDLY * calls:
        return more, (
            f" The estimate is {side} the limit, but so near to it that more timed calls will hardly decide it: it "
            f"would take {approximately(more)} more (now {calls:,}); a higher limit or a faster student would."
        )
    return more, (
        f" The estimate is {side} the limit; {approximately(more)} more timed call{'' if more == 1 else 's'}, in "
        f"further rounds, would decide, if it stays where it is (now {calls:,} in {len(rounds):,} rounds): raise "
        "measure.seconds, and measure.rounds."
    )


def _shared(cost: Cost, latency: Latency) -> str:
    kept = cost.disturbed[f"{latency.form}/{latency.batch}"]
    return f"The machine was shared with other work in {kept:,} of {len(latency.samples_ms):,} rounds"


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
    found, key = cost.ratio(form, batch), f"{form}/{batch}"
    if found is None:
        return None
    latency = next(x for x in student.latencies if (x.form, x.batch) == (form, batch))
    rounds = len(latency.samples_ms)
    if not cost.stays_disturbed(form, batch):
        return Measured(found.value, found.low, found.high, "", functools.partial(_more_rounds, found.value, rounds))
    quiet = " Measure on a quiet machine."
    if key not in cost.cpu_ratios:
        note = f" {_shared(cost, latency)}, which slows a long call more than a short one."
    else:
        wall, cpu = (significant(ratios[key].value) for ratios in (cost.ratios, cost.cpu_ratios))
        note = (
            f" {_shared(cost, latency)}, which slows a long call more than a short one: the share is {wall} by wall "
            f"time and {cpu} by CPU time, and is judged by the worse of both."
        )
    return Measured(found.value, found.low, found.high, note, lambda _: (None, quiet))


def _more_rounds(value: float, rounds: int, limit: float) -> tuple[int | None, str]:
    if rounds < MINIMUM_ROUNDS:
        more = MINIMUM_ROUNDS - rounds
        return more, f" The median of {rounds} rounds has no interval: it takes {MINIMUM_ROUNDS}; raise measure.rounds."
    side = "inside" if value <= limit else "outside"
    return None, (
        f" The estimate is {side} the limit; more rounds than {rounds:,} would narrow the interval: raise "
        "measure.seconds, and measure.rounds."
    )


LIMITS = {
    "latency_p95_ms": Limit("the 95th percentile of latency (batch {batch}, {form})", "ms", _latency, ("torch",)),
    "size_mb": Limit("the size of the stored weights", "MB", _size),
    "peak_memory_mb": Limit("the peak memory ({form})", "MB", _memory, ("torch",)),
    "latency_vs_teacher": Limit(
        "the latency as a share of the teacher's (batch {batch}, {form})",
        "",
        _ratio,
        ("torch", FROM_TENSORS, FROM_RAW),
    ),
}
