"""What things are called on the page: models, gates, and requirements set for reading."""

from __future__ import annotations

import re
from typing import Any

from tutelage.evaluation.results import MetricResult
from tutelage.report.bundle import Bundle

__all__ = [
    "full_title",
    "gate_title",
    "gate_unit",
    "lower_first",
    "model_title",
    "split_title",
    "typeset",
    "with_warnings",
    "without_outcome",
]

BUDGET = {
    "latency_p95_ms": "Latency, p95",
    "latency_vs_teacher": "Latency, share of the teacher's",
    "size_mb": "Size",
    "peak_memory_mb": "Peak memory",
    "export parity": "Export parity",
}
MOST_ARGUMENTS = 4


def model_title(bundle: Bundle, role: str) -> str:
    """What the teacher or the student is called: its name, else its folder, else its class and arguments."""
    origin = bundle.provenance.get(role)
    origin = origin if isinstance(origin, dict) else {}
    if origin.get("name"):
        return str(origin["name"])
    made = bundle.recipe.get(role)
    if isinstance(made, dict):
        arguments = made.get("init_args")
        arguments = arguments if isinstance(arguments, dict) else {}
        if isinstance(arguments.get("path"), str):
            return str(arguments["path"]).rstrip("/").rsplit("/", 1)[-1]
        while isinstance(arguments.get("student"), dict):  # a student around another, which is the model
            made = arguments["student"]
            arguments = made.get("init_args") if isinstance(made.get("init_args"), dict) else {}
        name = _construction(arguments.get("module") or made)
        # `<Net made in Python>`: a live object, which a recipe can only mention.
        if not name.startswith("<"):
            return name
        return str(origin.get("description") or name.strip("<>"))
    return str(origin.get("description") or role)


def _construction(made: Any) -> str:
    """`{"class_path": "models.Net", "init_args": {"hidden": 12}}` as `Net (hidden 12)`."""
    if not isinstance(made, dict):
        return str(made).rsplit(".", 1)[-1]
    arguments = made.get("init_args") if isinstance(made.get("init_args"), dict) else {}
    shown = [
        f"{name.replace('_', ' ')} {', '.join(map(str, v)) if isinstance(v, list) else v}"
        for name, v in (arguments or {}).items()
        if isinstance(v, int | float | str | list) and not isinstance(v, bool) and v != []
    ]
    name = str(made.get("class_path", "")).rsplit(".", 1)[-1]
    return f"{name} ({'; '.join(shown[:MOST_ARGUMENTS])})" if shown else name


def full_title(metric: MetricResult) -> str:
    """The metric's title, with the evaluation set unless that is the test set or named already."""
    told = metric.set == "test" or metric.set in metric.title
    return metric.title if told else f"{metric.title} ({metric.set})"


def lower_first(title: str) -> str:
    """A title within a sentence: `Agreement` is `agreement`, but `KL divergence` and `R²` stay."""
    return title[:1].lower() + title[1:] if title[1:2].islower() else title


def split_title(title: str) -> tuple[str, str]:
    """A title and the remark in brackets at its end, if there is one."""
    found = re.fullmatch(r"(.+?) \(([^()]*)\)", title)
    return (found[1], found[2]) if found else (title, "")


def gate_title(bundle: Bundle, gate: dict[str, Any]) -> str:
    """The title of the metric that a gate judges, or what a budget limits."""
    name = str(gate.get("name", ""))
    metric = bundle.metric(name)
    return full_title(metric) if metric is not None else BUDGET.get(name, name)


def gate_unit(gate: dict[str, Any]) -> str:
    """The unit of a gate's numbers; a share of the teacher's latency is shown in per cent."""
    return "%" if gate.get("name") == "latency_vs_teacher" else str(gate.get("unit") or "")


def typeset(text: str) -> str:
    """`student - teacher >= -0.01` with the signs of mathematics in place of those of a keyboard."""
    text = text.replace(">=", "≥").replace("<=", "≤").replace(" - ", " \u2212 ")
    return re.sub(r"(?<![\w.])-(?=\d)", "\u2212", text).replace("1e-", "1e\u2212")


def without_outcome(text: str) -> tuple[str, str]:
    """What an explanation found, without the verdict that stands beside it, and the advice that follows."""
    found = re.search(r": (?:PASS|FAIL|INCONCLUSIVE)\.", text)
    if found is None:
        return typeset(text), ""
    return typeset(f"{text[: found.start()]}."), typeset(text[found.end() :].strip())


def with_warnings(bundle: Bundle) -> str:
    """What follows the word of a PASS that has warnings: it is no plain one."""
    if bundle.verdict.get("verdict") != "PASS" or not bundle.warnings:
        return ""
    return ", with a warning" if len(bundle.warnings) == 1 else f", with {len(bundle.warnings)} warnings"
