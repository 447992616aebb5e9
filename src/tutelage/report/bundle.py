"""The files of a bundle, read for the page. A file that isn't there is noted; one that can't be read is an error."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from tutelage.devices.cost import Cost
from tutelage.errors import DataError
from tutelage.evaluation.benefit import lead_metric
from tutelage.evaluation.evidence import Evidence, PairEvidence, read_evidence
from tutelage.evaluation.results import MetricResult

__all__ = ["ROLES", "Bundle", "read_bundle"]

T = TypeVar("T")

ROLES = ("teacher", "student", "baseline", "untrained", "constant")
# What a run always writes; without one of the first two there is nothing to report.
EXPECTED = (
    "verdict.json",
    "metrics.json",
    "recipe.yaml",
    "cost.json",
    "export.json",
    "history.jsonl",
    "evidence.parquet",
    "disagreements.json",
    "provenance.json",
)


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """What the files say; the empty value of its type where a file is absent (see `absent`)."""

    folder: Path
    recipe_text: str
    recipe: dict[str, Any]
    task: str
    metrics: list[MetricResult]
    seeds: list[dict[str, Any]]
    notes: list[str]
    verdict: dict[str, Any]
    cost: Cost | None
    export: dict[str, Any]
    history: list[dict[str, Any]]
    evidence: list[Evidence | PairEvidence]
    disagreements: dict[str, Any]
    provenance: dict[str, Any]
    asking: dict[str, Any]
    absent: tuple[str, ...]

    @property
    def name(self) -> str:
        """The run's name: the recipe's, else the folder's."""
        return str(self.recipe.get("name") or self.folder.resolve().name)

    @property
    def warnings(self) -> list[str]:
        """What the verdict is to be read with."""
        return [str(warning) for warning in self.verdict.get("warnings", [])]

    def metric(self, name: str) -> MetricResult | None:
        """The metric of that name."""
        return next((m for m in self.metrics if m.name == name), None)

    def gates(self, *kinds: str) -> list[dict[str, Any]]:
        """The gates of the given kinds (all of them without one), as `verdict.json` has them."""
        return [g for g in self.verdict.get("gates", []) if not kinds or g.get("kind") in kinds]

    def primary(self, kind: str) -> MetricResult | None:
        """The metric of `kind` that a gate judges, else the first on the test set, else the first."""
        return lead_metric(self.metrics, kind, {gate.get("name", "") for gate in self.gates(kind)})


def read_bundle(folder: Path) -> Bundle:
    """Reads a bundle folder.

    Raises:
        DataError: The folder isn't a bundle, or a file of it can't be read.
    """
    absent = tuple(name for name in EXPECTED if not (folder / name).is_file())
    if {"verdict.json", "metrics.json"} <= set(absent):
        raise DataError(
            str(folder),
            expected="a bundle folder, with metrics.json and verdict.json",
            found="neither of them" if folder.is_dir() else "no such folder",
            mend="give the folder that `tutelage distill RECIPE --out FOLDER` wrote",
        )
    metrics = _json(folder / "metrics.json")
    recipe_text = _text(folder / "recipe.yaml")
    cost = _json(folder / "cost.json")
    return Bundle(
        folder=folder,
        recipe_text=recipe_text,
        recipe=_recipe(folder / "recipe.yaml", recipe_text),
        task=str(metrics.get("task", "")),
        metrics=_parsed(
            folder / "metrics.json", lambda: [MetricResult.from_dict(m) for m in metrics.get("metrics", [])]
        ),
        seeds=list(metrics.get("seeds", [])),
        notes=[str(n) for n in metrics.get("notes", [])],
        verdict=_json(folder / "verdict.json"),
        cost=_parsed(folder / "cost.json", lambda: Cost.from_dict(cost)) if cost else None,
        export=_json(folder / "export.json"),
        history=_lines(folder / "history.jsonl"),
        evidence=[read_evidence(path) for path in _evidence_files(folder)],
        disagreements=_json(folder / "disagreements.json"),
        provenance=_json(folder / "provenance.json"),
        asking=_json(folder / "asking.json"),
        absent=absent,
    )


def _evidence_files(folder: Path) -> list[Path]:
    """The test set first, then the further sets."""
    first = folder / "evidence.parquet"
    return [p for p in (first, *sorted(folder.glob("evidence-*.parquet"))) if p.is_file()]


def _text(path: Path) -> str:
    if not path.is_file():
        return ""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(str(path), expected="a text in UTF-8", found=str(error), mend="run again") from error


def _parsed(path: Path, parse: Callable[[], T]) -> T:
    try:
        return parse()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            str(path),
            expected="the content that this version of tutelage writes",
            found=f"{type(error).__name__}: {error}",
            harm="the page would show numbers that nobody measured",
            mend="restore the file, or run `tutelage evaluate` on the bundle again",
        ) from error


def _json(path: Path) -> dict[str, Any]:
    text = _text(path)

    def parse() -> dict[str, Any]:
        found = json.loads(text)
        if not isinstance(found, dict):
            raise TypeError(f"a {type(found).__name__} where an object should be")
        return found

    return _parsed(path, parse) if text or path.is_file() else {}


def _lines(path: Path) -> list[dict[str, Any]]:
    lines = [line for line in _text(path).splitlines() if line.strip()]
    return _parsed(path, lambda: [dict(json.loads(line)) for line in lines])


def _recipe(path: Path, text: str) -> dict[str, Any]:
    try:
        found = yaml.safe_load(text) if text else {}
    except yaml.YAMLError as error:
        raise DataError(str(path), expected="a recipe in YAML", found=str(error), mend="restore the file") from error
    return found if isinstance(found, dict) else {}
