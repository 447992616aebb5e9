"""What is demanded of a student: gates on its metrics and a budget for what it may cost. Both are data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Literal, get_args

from tutelage.errors import RecipeError, did_you_mean
from tutelage.evaluation.evidence import Task
from tutelage.evaluation.metrics import Description, describe

__all__ = ["Budget", "Gate", "check_budget", "check_gates", "check_timed"]

Form = Literal["auto", "torch", "onnxruntime"]
HOW = ("form", "batch")
"""Fields of a budget that say how it is measured; all others are limits."""


@dataclass(frozen=True)
class Gate:
    """One demand on one metric. Exactly one of the three is given; shares are fractions (one point is 0.01).

    Attributes:
        metric: Its name, such as `accuracy` or `spearman_human:wordsim353`.
        margin: How much worse than the teacher the student may be (non-inferiority): `student - teacher >= -margin`,
            or `<= margin` for a metric that is better when lower.
        at_least: The student's own value must not be lower.
        at_most: The student's own value must not be higher.
    """

    metric: str
    margin: float | None = None
    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True)
class Budget:
    """What the student may cost on the device it was measured on.

    Attributes:
        latency_p95_ms: 95th percentile of the latency of a call, milliseconds.
        size_mb: The stored weights, in MB of 10⁶ bytes.
        peak_memory_mb: Resident memory the model adds to a fresh process, in MB of 10⁶ bytes.
        latency_vs_teacher: The student's latency as a share of the teacher's: 0.5 is half. With a teacher that is
            neither a torch module nor an ONNX file it is judged (`form: auto`) of the two in one process, from the
            same input tensors or raw columns on; the verdict says which.
        form: The runtime that is judged; `auto` is onnxruntime when the student was exported to ONNX, else torch. What
            was not measured in onnxruntime (the teacher does not export, it lacks the device) is judged in torch then.
        batch: Rows a call.
    """

    latency_p95_ms: float | None = None
    size_mb: float | None = None
    peak_memory_mb: float | None = None
    latency_vs_teacher: float | None = None
    form: Form = "auto"
    batch: int = 1

    def limits(self) -> dict[str, float]:
        """The limits that are set, by name, in the order of the fields; empty when nothing is limited."""
        names = (f.name for f in fields(self) if f.name not in HOW)
        return {name: value for name in names if (value := getattr(self, name)) is not None}


CRITERIA = tuple(f.name for f in fields(Gate) if f.name != "metric")


def check_gates(policy: Sequence[Gate], available: Iterable[str] | None = None, task: Task | None = None) -> None:
    """Refuses gates that can't be judged, before anything is computed.

    Args:
        policy: The gates.
        available: Names of the metrics that this recipe will have (`available_metrics`); None checks only the numbers.
        task: The recipe's, by which a metric of another task is told.

    Raises:
        RecipeError: Naming the gate by its place, `policy[0].metric`.
    """
    known = None if available is None else list(available)
    for place, gate in enumerate(policy):
        key = f"policy[{place}]"
        _check_form(key, gate)
        if known is not None and gate.metric not in known:
            _refuse_metric(f"{key}.metric", gate.metric, known, task)
        about = describe(gate.metric)
        if about is not None:
            _check_direction(key, gate, about)
            _check_range(key, gate, about)


def check_budget(budget: Budget | None) -> None:
    """Refuses a budget that can't be met or judged.

    Raises:
        RecipeError: Naming the key, `budget.size_mb`.
    """
    if budget is None:
        return
    for name, limit in budget.limits().items():
        if not (math.isfinite(limit) and limit > 0):
            raise RecipeError(f"budget.{name}", expected="a number above 0", found=str(limit))
    if budget.batch < 1:
        raise RecipeError("budget.batch", expected="at least 1", found=str(budget.batch))
    if budget.form not in get_args(Form):
        mend = did_you_mean(str(budget.form), get_args(Form))
        raise RecipeError("budget.form", expected=" or ".join(get_args(Form)), found=repr(budget.form), mend=mend)


def check_timed(budget: Budget, forms: Sequence[str], *, teacher: str, device: str) -> None:
    """Refuses a limit on the latency beside the teacher's, where the teacher can't be timed in the form that is judged.

    Args:
        budget: Checked before.
        forms: In which both can be timed (`devices.served.timed_forms`).
        teacher: How to name it.
        device: Where it would be timed.

    Raises:
        RecipeError: Naming the key.
    """
    if budget.latency_vs_teacher is None or (forms and budget.form in ("auto", *forms)):
        return
    key = "budget.latency_vs_teacher"
    mend = f"remove {key}; budget.latency_p95_ms limits the student's own latency"
    if forms:
        found, mend = f"{budget.form}; {teacher} is timed {' and '.join(forms)}", "write budget.form: auto"
        raise RecipeError("budget.form", expected="a form in which the teacher can be timed", found=found, mend=mend)
    raise RecipeError(
        key,
        expected=f"a teacher that can be timed on {device}",
        found=f"{teacher}: it answers elsewhere, may not be asked for timing (`lazy`), or does not run there",
        harm="this budget could not be judged",
        mend=mend,
    )


def _refuse_metric(key: str, metric: str, known: list[str], task: Task | None) -> None:
    about = describe(metric)
    if about is not None and task is not None and describe(metric, task) is None:
        others = " or ".join(each for each in get_args(Task) if describe(metric, each) is not None)
        expected = f"a metric of task {task}"
        mend = f"`{metric}` is one of task {others}: mend `task`, or {did_you_mean('', known)}"
    elif about is not None and about.needs_labels:
        expected, mend = "a metric that this recipe measures", "it needs labels on the test split: give some"
    elif about is not None and about.needs_same_width:
        expected = "a metric that this recipe measures"
        mend = f"it needs outputs of one width from teacher and student; {did_you_mean('', known)}"
    else:
        expected, mend = "the name of a metric that this recipe measures", did_you_mean(metric, known)
    harm = "the gate would have no evidence and block every student"
    raise RecipeError(key, expected=expected, found=repr(metric), harm=harm, mend=mend)


def _check_form(key: str, gate: Gate) -> None:
    given = {name: value for name in CRITERIA if (value := getattr(gate, name)) is not None}
    if len(given) != 1:
        raise RecipeError(
            key,
            expected="exactly one of margin, at_least, at_most",
            found=" and ".join(f"{name}: {value}" for name, value in given.items()) or "none of them",
            mend="two demands on one metric are two gates" if given else f"say what is demanded of `{gate.metric}`",
        )
    name, value = next(iter(given.items()))
    if not math.isfinite(value):
        raise RecipeError(f"{key}.{name}", expected="a finite number", found=str(value))
    if name == "margin" and value < 0:
        raise RecipeError(
            f"{key}.margin",
            expected="how much worse than the teacher is allowed, 0 or more",
            found=str(value),
            mend=f"write margin: {-value}",
        )


def _check_direction(key: str, gate: Gate, about: Description) -> None:
    right, wrong = ("at_least", "at_most") if about.higher_is_better else ("at_most", "at_least")
    if gate.margin is not None and about.kind == "fidelity":
        raise RecipeError(
            f"{key}.margin",
            expected=f"`{right}`: `{gate.metric}` compares the student with the teacher already",
            found=f"margin: {gate.margin}",
            mend=f"replace `margin` by `{right}`",
        )
    if getattr(gate, wrong) is not None:
        raise RecipeError(
            f"{key}.{wrong}",
            expected=f"`{right}`: `{gate.metric}` is better when {'higher' if about.higher_is_better else 'lower'}",
            found=f"{wrong}: {getattr(gate, wrong)}",
            harm="the gate would fail good students and pass bad ones",
            mend=f"replace `{wrong}` by `{right}`",
        )


def _check_range(key: str, gate: Gate, about: Description) -> None:
    low, high = about.bounds
    widest = high - low
    if gate.margin is not None and gate.margin >= widest:
        harm = "no student could fail this gate"
        mend = f"one point is 0.01: write margin: {gate.margin / 100}" if about.unit == "%" else ""
        raise RecipeError(
            f"{key}.margin", expected=f"less than {widest:g}", found=str(gate.margin), harm=harm, mend=mend
        )
    for name in ("at_least", "at_most"):
        value = getattr(gate, name)
        if value is not None and not low <= value <= high:
            mend = f"95% is 0.95: write {name}: {value / 100}" if about.unit == "%" and 1 < value <= 100 else ""
            raise RecipeError(f"{key}.{name}", expected=f"between {low:g} and {high:g}", found=str(value), mend=mend)
