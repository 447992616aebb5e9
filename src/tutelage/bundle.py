"""The bundle: the folder that leaves with the student. Written beside its place and renamed when whole."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import tutelage
from tutelage.devices.cost import Cost, significant
from tutelage.evaluation.evidence import Evidence, PairEvidence
from tutelage.evaluation.plots import answers_differ, worst_disagreements
from tutelage.evaluation.results import MetricResult
from tutelage.governance.provenance import digest_files, environment
from tutelage.governance.verdict import Verdict
from tutelage.images import png_data_uri
from tutelage.markdown import plain
from tutelage.report import write_report
from tutelage.sealed import write_sealed
from tutelage.transfer import TransferSet
from tutelage.workspace import Workspace, read_lines, write_json

__all__ = ["Findings", "disagreements", "finish_bundle", "write_findings"]


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a run found, before it is written down.

    Attributes:
        sets: The raw evidence: the test split first, then further sets.
        metrics: What follows from it.
        seeds: Each seed's own test metrics.
        cost: What teacher and student cost.
        export: How the exported forms agree with the student.
        verdict: What follows from all of it.
        notes: What the reader should know.
        doubts: What other rows than those of the test split showed of a teacher that may know nothing.
    """

    sets: Sequence[Evidence | PairEvidence]
    metrics: Sequence[MetricResult]
    seeds: list[dict[str, Any]]
    cost: Cost
    export: dict[str, Any]
    verdict: Verdict
    notes: list[str]
    doubts: list[str]


def write_findings(
    folder: Path, findings: Findings, *, task: str, data: TransferSet, histories: Sequence[Path]
) -> None:
    """Writes evidence, metrics, cost, export, verdict, history and the worst disagreements."""
    for evidence in findings.sets:
        name = "evidence.parquet" if evidence.set == "test" else f"evidence-{evidence.set}.parquet"
        evidence.write(folder / name)
    write_json(
        folder / "metrics.json",
        {
            "task": task,
            "seeds": findings.seeds,
            "metrics": [metric.to_dict() for metric in findings.metrics],
            "notes": findings.notes,
            "doubts": findings.doubts,
        },
    )
    write_json(folder / "cost.json", findings.cost.to_dict())
    write_json(folder / "export.json", findings.export)
    write_json(folder / "verdict.json", findings.verdict.to_dict())
    if data.preprocessing is not None:
        write_json(folder / "preprocessing.json", data.preprocessing)
    lines = [json.dumps(line) for path in histories for line in read_lines(path)]
    (folder / "history.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    test = findings.sets[0]
    assert isinstance(test, Evidence)
    write_json(folder / "disagreements.json", disagreements(test, data))


def disagreements(evidence: Evidence, data: TransferSet, count: int = 12) -> dict[str, Any]:
    """The rows on which student and teacher differ most, as a person would look at them."""
    place = {int(row): index for index, row in enumerate(evidence.rows)}
    differ = answers_differ(evidence)
    items, kind = [], "array"
    neighbours = _Neighbours(evidence, data) if evidence.task == "embedding" else None
    for row, score in worst_disagreements(evidence, count):
        shown = data.display(row)
        kind, index = shown["kind"], place[row]
        if neighbours is not None:
            teacher, student = (neighbours.nearest(model, index) for model in ("teacher", "student"))
        else:
            teacher, student = _answers(evidence, index)
        items.append(
            {
                "row": row,
                "score": float(score),
                "differ": bool(differ[index]),
                "label": shown["label"],
                "teacher": teacher,
                "student": student,
                "input": png_data_uri(shown["input"]) if kind == "image" else shown["input"],
            }
        )
    return {"kind": kind, "items": items, "rows": len(evidence), "differing": int(differ.sum())}


def _answers(evidence: Evidence, index: int) -> tuple[str, str]:
    """The teacher's and the student's answer to one row, values with as many digits as tell them apart."""
    for digits in (4, 6, 9):
        teacher, student = (_answer(evidence, model, index, digits) for model in ("teacher", "student"))
        if teacher != student or evidence.task != "regression":
            break
    return teacher, student


def _answer(evidence: Evidence, model: str, index: int, digits: int) -> str:
    """A model's answer to one row in words: the class and its probability, or the values."""
    output = evidence.outputs[model][index].astype(np.float64)
    if evidence.task == "classification":
        shares = np.exp(output - output.max())
        best = int(output.argmax())
        name = evidence.classes[best] if evidence.classes else f"class {best}"
        return f"{name} ({100 * shares[best] / shares.sum():.0f}%)"
    if evidence.task == "multilabel":
        on = np.flatnonzero(output > 0)
        return ", ".join(evidence.classes[i] if evidence.classes else str(i) for i in on) or "none"
    return ", ".join(f"{value:.{digits}g}" for value in np.atleast_1d(output)[:6])


class _Neighbours:
    """The nearest row of the test split for a model: what an embedding says, in words."""

    def __init__(self, evidence: Evidence, data: TransferSet) -> None:
        self.evidence, self.data = evidence, data
        self.unit = {
            model: evidence.outputs[model] / np.linalg.norm(evidence.outputs[model], axis=1, keepdims=True)
            for model in ("teacher", "student")
        }

    def nearest(self, model: str, index: int) -> str:
        similarity = self.unit[model] @ self.unit[model][index]
        similarity[index] = -np.inf
        best = int(similarity.argmax())
        shown = self.data.display(int(self.evidence.rows[best]))["input"]
        text = shown if isinstance(shown, str) else f"row {int(self.evidence.rows[best])}"
        return f"nearest ({similarity[best]:.2f}): {text}"


def finish_bundle(partial: Path, workspace: Workspace, provenance: dict[str, Any], findings: Findings) -> None:
    """Adds card, provenance with the digest of every file, and the page, and moves the bundle to its place."""
    of_table = (partial / "preprocessing.json").is_file()
    loads = json.loads((partial / "export.json").read_text(encoding="utf-8"))["safetensors"]["loads"]
    card = model_card(provenance, findings, of_table=of_table, loads=loads)
    (partial / "README.md").write_text(card, encoding="utf-8")
    write_sealed(
        partial / "provenance.json",
        {
            "tutelage": tutelage.__version__,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            **provenance,
            "environment": environment(),
            "files": digest_files(partial),
        },
    )
    write_report(partial)  # reads the provenance, so it is not among the digests: it carries its own
    workspace.install(partial)


def licence_line(key: str, record: dict[str, Any]) -> str:
    """What the card says of the terms on which a teacher was learnt from."""
    date = f", {plain(record['date'])}" if record["date"] else ""
    accepted = "; **accepted although it is unknown**" if record["accepted_although_unknown"] else ""
    teacher, use, basis = (plain(record[name]) for name in ("teacher", "use", "basis"))
    return f"Learning from `{key}` ({teacher}): {use} ({basis}{date}){accepted}"


LOADED = """
```python
from tutelage.export import load_student

student = load_student(".")       # a torch module; source="bundle" runs the bundle's own copy of its code
```
"""
FROM_ROWS = """
Rows of a table become the student's inputs by `preprocessing.json`:

```python
import json
from tutelage.transfer import Encoding

encode = Encoding.from_dict(json.load(open("preprocessing.json")))
inputs = encode({"COLUMN": [value, None], ...})     # all columns that it names; None where a cell is missing
```
"""


def model_card(provenance: dict[str, Any], findings: Findings, *, of_table: bool = False, loads: bool = False) -> str:
    """The bundle's README: what the student is, what was found, how to use it."""
    teacher, student = provenance["teacher"], provenance["student"]
    cost = findings.cost.models
    lines = [
        f"# {plain(provenance['name'])}",
        "",
        f"**{plain(findings.verdict.headline)}**. " + " ".join(map(plain, findings.verdict.reasons)),
        *(line for warning in findings.verdict.warnings for line in ("", f"**Warning:** {plain(warning)}")),
        "",
        f"A student distilled from {plain(teacher['description'])} with tutelage {tutelage.__version__}.",
        "",
        f"* Parameters: {student['parameters']['total']:,}"
        + (f" (teacher {teacher['parameters']['total']:,})" if teacher["parameters"] else ""),
    ]
    sizes = {name: model.size_bytes for name, model in cost.items() if model.size_bytes is not None}
    if "student" in sizes:
        theirs = f" (teacher {significant(sizes['teacher'] / 1e6)} MB)" if "teacher" in sizes else ""
        lines.append(f"* Weights: {significant(sizes['student'] / 1e6)} MB{theirs}")
    rows, made = provenance["data"]["rows"], sum(provenance["data"].get("made_training_rows", {}).values())
    lines += [f"* {licence_line(key, record)}" for key, record in provenance.get("licences", {}).items()]
    if classes := provenance["data"].get("classes"):
        shown = ", ".join(f"{number} {plain(name)}" for number, name in enumerate(classes[:40]))
        lines.append(f"* Classes, in the order of the outputs: {shown}{', ...' if len(classes) > 40 else ''}")
    lines += [
        f"* Rows: {rows['train']:,} for training{f' ({made:,} of them made)' if made else ''}, "
        f"{rows['development']:,} for development, {rows['test']:,} held out",
        "",
        "| metric | teacher | student | baseline | constant | n |",
        "|---|---|---|---|---|---|",
    ]
    for metric in findings.metrics:
        cells = [
            f"{e.value:.4f} [{e.low:.4f}, {e.high:.4f}]" if (e := metric.models.get(model)) else ""
            for model in ("teacher", "student", "baseline", "constant")
        ]
        n = f"{metric.n:,}" + (f" in {metric.groups} groups" if metric.groups else "")
        lines.append(f"| {plain(metric.title)} ({plain(metric.name)}) | " + " | ".join(cells) + f" | {n} |")
    lines += [
        "",
        "Intervals are 95% paired bootstrap intervals. `baseline` is the same student, trained for as many steps",
        "without the teacher; `constant` is the best answer that is the same for every row, which looks at no input.",
        "`report.html` shows all of it; `evidence.parquet` holds the raw answers behind it.",
        "",
        "```",
        "tutelage evaluate .      # recompute every metric and the verdict from the raw answers",
        "tutelage measure .       # latency, memory and size on this machine",
        "```",
        *(LOADED.splitlines() if loads else []),
        *(FROM_ROWS.splitlines() if of_table else []),
        "",
        *[f"* Note: {plain(note)}" for note in findings.notes],
    ]
    return "\n".join(lines) + "\n"
