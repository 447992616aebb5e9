"""How the student's answers lie against the teacher's or the truth: reliability, similarity, prediction."""

from __future__ import annotations

from typing import Any

import numpy as np

from tutelage.evaluation.evidence import Evidence, PairEvidence, cosine
from tutelage.evaluation.plots import plot_data
from tutelage.report.bundle import Bundle
from tutelage.report.charts import Bin, cloud, distribution, reliability
from tutelage.report.markup import Child, Markup, note, section, tag
from tutelage.report.sections.confusion import confusion
from tutelage.report.svg import Legend, Words

__all__ = ["agreement"]

LEDE = "Drawn from the raw predictions in the evidence files, row by row."
TITLE = "Answer by answer"


def agreement(bundle: Bundle) -> Markup:
    """The reliability diagram of a classifier; else the student's answers against the teacher's."""
    parts: list[Child] = []
    if "evidence.parquet" in bundle.absent:
        parts.append(
            note("evidence.parquet is not in the bundle, so there are no raw predictions of the test set to draw.")
        )
    for evidence in bundle.evidence:
        charts = [c for c in (_pairs(evidence) if isinstance(evidence, PairEvidence) else _charts(evidence)) if c]
        if charts and len(bundle.evidence) > 1:
            parts.append(tag("h3", "On the test set" if evidence.set == "test" else f"On {evidence.set}"))
        parts.append(tag("div", charts, class_="charts") if charts else None)
    if not any(parts):
        parts.append(note("There is no chart for answers of this kind."))
    return section("agreement", TITLE, LEDE, *parts)


def _charts(evidence: Evidence) -> list[Markup | None]:
    data = plot_data(evidence)
    charts: list[Markup | None] = []
    if data.get("reliability"):
        charts.append(_reliability(data["reliability"]))
    if evidence.task == "classification":
        charts.append(confusion(evidence))
    if data.get("scatter"):
        charts += _scatters(data["scatter"])
    if evidence.task == "embedding" and evidence.same_width:
        charts.append(_cosines(evidence))
    if evidence.task == "regression":
        charts.append(_residuals(evidence))
    return charts


def _pairs(evidence: PairEvidence) -> list[Markup | None]:
    return [
        cloud(
            Words(
                title=f"{name.capitalize()} against people",
                summary=f"Cosine by the {name} against the human score of {len(evidence):,} pairs",
                footnote=f"{len(evidence):,} pairs; the nearer to one rising curve, the better.",
            ),
            evidence.score.tolist(),
            evidence.similarities[name].tolist(),
            ("human score", f"cosine of the pair, {name}"),
            css=name,
            equal=False,
        )
        for name in ("teacher", "student")
    ]


def _cosines(evidence: Evidence) -> Markup:
    teacher = evidence.outputs["teacher"]
    alike: dict[str, list[float]] = {
        name: cosine(evidence.outputs[name], teacher).tolist()
        for name in ("student", "baseline", "untrained")
        if name in evidence.outputs and evidence.outputs[name].shape == teacher.shape
    }
    words = Words(
        title="Cosine of student and teacher, row by row",
        summary=f"Median {float(np.median(alike['student'])):.3f} over {len(evidence):,} rows",
        footnote=f"Columns: the student, median {float(np.median(alike['student'])):.3f}."
        + (" The outline is the untrained student." if "untrained" in alike else ""),
        legend=[Legend(name, name, line=name != "student") for name in alike],
    )
    return distribution(words, alike, "cosine to the teacher's embedding")


def _residuals(evidence: Evidence) -> Markup:
    teacher = evidence.outputs["teacher"].astype(float).ravel()
    gaps: dict[str, list[float]] = {
        name: (evidence.outputs[name].astype(float).ravel() - teacher).tolist()
        for name in ("student", "baseline")
        if name in evidence.outputs
    }
    words = Words(
        title="Distance from the teacher, row by row",
        summary=f"Median {float(np.median(gaps['student'])):.3g} over {len(teacher):,} values",
        footnote="Left of zero the answer is below the teacher's."
        + (" The outline is the baseline." if len(gaps) > 1 else ""),
        legend=[Legend(name, name, line=name != "student") for name in gaps],
    )
    return distribution(words, gaps, "answer − the teacher's")


def _reliability(models: dict[str, list[dict[str, Any]]]) -> Markup:
    bins: dict[str, list[Bin]] = {
        name: [
            Bin(confidence=b["confidence"], accuracy=b["accuracy"], rows=b["count"])
            for b in models[name]
            if b["count"] and b["confidence"] is not None
        ]
        for name in ("teacher", "student", "baseline")
        if name in models
    }
    words = Words(
        title="Reliability",
        summary="Share of right answers by confidence, for " + ", ".join(bins),
        footnote="On the diagonal, confidence can be taken at its word; below it, the model is too sure. "
        "Small marks are bins of fewer than ten rows. Columns: how many rows have that confidence (student).",
        legend=[Legend(name, name) for name in bins],
    )
    return reliability(words, bins)


def _scatters(scatter: dict[str, Any]) -> list[Markup]:
    quantity, teacher = str(scatter["quantity"]), scatter["teacher"]
    drawn = []
    for name in ("student", "baseline", "untrained"):
        if not scatter.get(name):
            continue
        words = Words(
            title=f"{name.capitalize()} against teacher",
            summary=f"{quantity} by the teacher and by the {name}, {len(teacher):,} points",
            footnote=f"{len(teacher):,} points; on the diagonal, the {name} says what the teacher says.",
        )
        drawn.append(cloud(words, teacher, scatter[name], (f"{quantity}, teacher", f"{quantity}, {name}"), css=name))
    return drawn
