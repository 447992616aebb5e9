"""The verdict: every gate has three answers, and what is not shown is not passed.

PASS: the whole confidence interval is inside the requirement. FAIL: it is wholly outside. INCONCLUSIVE: neither, or
there is no evidence; it blocks, and says how many more samples would decide. A test that finds no significant
difference is no evidence of equivalence, so nothing here tests for a difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from tutelage.devices.cost import Cost
from tutelage.evaluation.evidence import Evidence, PairEvidence
from tutelage.evaluation.results import MetricResult
from tutelage.governance.constant import constant_reason, constant_warnings
from tutelage.governance.learnt import doubted, not_learnt, nothing_shown
from tutelage.governance.limits import judge_budget, judge_export
from tutelage.governance.outcome import GateResult, Outcome
from tutelage.governance.policy import Budget, Gate, check_budget, check_gates
from tutelage.governance.requirement import judge_gate
from tutelage.governance.swapped import swapped
from tutelage.governance.warnings import constant_ahead, overtaken, warnings_on

__all__ = ["GateResult", "Outcome", "Verdict", "judge"]

NOTHING_STATED = "no budget and no policy was stated, so nothing was judged"
EXIT_STATUS: dict[Outcome, Literal[0, 1, 3]] = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`verdict.json`.

    Attributes:
        verdict: FAIL if any gate failed, else INCONCLUSIVE if any is or there is another reason, else PASS.
        reasons: Why it is not a PASS: the explanations of the gates that did not pass, failures first; where the
            teacher is no measure for a gate that compares with it, and where the student is not told from an answer
            that looks at no input, by the labels or by any gate.
        gates: Every gate that was judged.
        warnings: What it is to be read with: the gates let it pass, but a reader would not. They do not change the
            exit status.
    """

    verdict: Outcome
    reasons: list[str] = field(default_factory=list)
    gates: list[GateResult] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def headline(self) -> str:
        """The verdict in words: a PASS that has warnings is no plain one."""
        if self.verdict != "PASS" or not self.warnings:
            return self.verdict
        return "PASS, with a warning" if len(self.warnings) == 1 else f"PASS, with {len(self.warnings)} warnings"

    @property
    def exit_status(self) -> Literal[0, 1, 3]:
        """0 the student passed, 1 it failed a gate, 3 the evidence is not enough."""
        return EXIT_STATUS[self.verdict]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `verdict.json`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        return cls(**{**data, "gates": [GateResult(**gate) for gate in data["gates"]]})


def judge(
    metrics: Sequence[MetricResult],
    cost: Cost | None,
    policy: Sequence[Gate],
    budget: Budget | None,
    export: dict[str, Any] | None,
    *,
    sets: Sequence[Evidence | PairEvidence] = (),
    doubts: Sequence[str] = (),
) -> Verdict:
    """Judges what was measured against what was demanded.

    Args:
        metrics: Of every evaluation set.
        cost: What the models cost, or None if it was not measured: then a stated budget is inconclusive.
        policy: The gates.
        budget: Limits on cost, or None.
        export: `export.json`. An ONNX file that does not agree with the student fails, whatever was demanded.
        sets: The raw evidence that the metrics are of.
        doubts: What other rows than those of the test split showed of a teacher that may know nothing.

    Raises:
        RecipeError: A gate or a limit makes no sense.
    """
    check_gates(policy)
    check_budget(budget)
    by_name = {metric.name: metric for metric in metrics}
    stated = [judge_gate(gate, by_name.get(gate.metric), policy, metrics) for gate in policy]
    if budget is not None:
        stated += judge_budget(budget, cost, export)
    gates = stated + judge_export(export)
    blocking = [gate for outcome in ("FAIL", "INCONCLUSIVE") for gate in gates if gate.outcome == outcome]
    reasons = [*(gate.explanation for gate in blocking), *overtaken(metrics, policy)]
    if not stated:
        reasons.append(NOTHING_STATED)
    warnings = [] if reasons else constant_warnings(metrics, policy)
    reasons = [*(reasons or constant_reason(metrics, policy)), *not_learnt(metrics, policy)]
    sure, likely = swapped(sets)
    reasons += sure
    unshown = [] if reasons else nothing_shown(metrics)
    if policy:  # a budget alone asks nothing of the answers: there it is a warning
        reasons += [f"{sentence} INCONCLUSIVE." for sentence in unshown]
    ahead = [] if reasons else [*unshown, *doubted(metrics, policy, doubts), *likely, *constant_ahead(metrics, policy)]
    failed = any(gate.outcome == "FAIL" for gate in gates)
    return Verdict(
        verdict="FAIL" if failed else "INCONCLUSIVE" if reasons else "PASS",
        reasons=reasons,
        gates=gates,
        warnings=[*ahead, *warnings, *warnings_on(metrics, policy)],
    )
