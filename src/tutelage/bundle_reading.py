"""Bundles that are there: evaluated again, measured here, their page written anew."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tutelage.devices.cost import Cost
from tutelage.errors import DataError, UserError
from tutelage.evaluation.evidence import read_evidence
from tutelage.evaluation.results import MetricResult
from tutelage.evaluation.statistics import evaluate as evaluate_evidence
from tutelage.export import measure_bundle
from tutelage.governance.changes import changed_verdict, same
from tutelage.governance.provenance import PAGE, changed_files
from tutelage.governance.verdict import Verdict, judge
from tutelage.recipe_file import policy_of
from tutelage.report import write_report

__all__ = ["evaluate", "measure", "read_json", "report", "sound_fields"]


def evaluate(bundle: str | Path) -> tuple[Verdict, list[str]]:
    """Recomputes a bundle's metrics and verdict from its raw pairs, and the digests of its files.

    Returns:
        The verdict as recomputed, and what differs from what the bundle says: nothing, if it is sound.

    Raises:
        DataError: The folder is not a bundle, or lacks its record or its evidence.
    """
    folder = find_bundle(bundle)
    differences = changed_files(folder)
    sets = [read_evidence(path) for path in _evidence_files(folder)]
    metrics = [metric for evidence in sets for metric in evaluate_evidence(evidence)]
    policy, budget = policy_of(folder / "recipe.yaml")
    with sound_fields(folder):
        written = read_json(folder / "metrics.json")
        stored = {m["name"]: MetricResult.from_dict(m) for m in written["metrics"]}
        doubts = [str(doubt) for doubt in written.get("doubts", [])]  # earlier bundles have none
        cost = Cost.from_dict(read_json(folder / "cost.json"))
        export = read_json(folder / "export.json")
        verdict = judge(metrics, cost, policy, budget, export, sets=sets, doubts=doubts)
        stored_verdict = read_json(folder / "verdict.json")
        said = Verdict.from_dict({"warnings": verdict.warnings, **stored_verdict})  # earlier bundles have none
    for metric in metrics:
        before = stored.pop(metric.name, None)
        if before is None or not same(before.to_dict(), metric.to_dict()):
            differences.append(f"{metric.name}: stored {_values(before)}, recomputed {_values(metric)}")
    differences += [f"{name}: stored, but does not follow from the evidence" for name in stored]
    return verdict, [*differences, *changed_verdict(said, verdict)]


def measure(bundle: str | Path, *, device: str = "cpu:1", batch_sizes: Sequence[int] = (1, 32)) -> Cost:
    """What the bundle's student costs on this machine."""
    return measure_bundle(find_bundle(bundle), device=device, batch_sizes=batch_sizes)


def report(bundle: str | Path) -> Path:
    """Writes a bundle's page again, from the bundle's files alone.

    Raises:
        DataError: The folder is not a bundle, or another file than the page is not the one that was judged.
    """
    folder = find_bundle(bundle)
    if changed := [line for line in changed_files(folder) if not line.startswith(f"{PAGE}:")]:
        raise DataError(
            str(folder),
            expected="the files that were judged",
            found="; ".join(changed[:6]),
            harm="the page would say what was not found",
            mend="restore them; `tutelage evaluate` says what follows from the evidence",
        )
    return write_report(folder)


def find_bundle(folder: str | Path) -> Path:
    """The bundle in a folder, which may be that of its run.

    Raises:
        DataError: There is none.
    """
    for path in (Path(folder), Path(folder) / "bundle"):
        if (path / "verdict.json").is_file():
            return path
    raise DataError(
        str(folder),
        expected="a bundle, or the folder of a run that is complete",
        found="no verdict.json in it" if Path(folder).is_dir() else "no such folder",
        mend="give the folder `bundle` that `tutelage distill` wrote",
    )


def read_json(path: Path) -> Any:
    """The data of a bundle's file.

    Raises:
        DataError: It is missing, or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            str(path),
            expected="a JSON file of a bundle",
            found=str(error),
            mend="make the bundle again, or restore the file",
        ) from error


@contextmanager
def sound_fields(folder: Path) -> Iterator[None]:
    """Names the bundle when its files lack fields."""
    try:
        yield
    except UserError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(
            str(folder), expected="the fields of a bundle's files", found=f"{type(error).__name__}: {error}"
        ) from error


def _evidence_files(folder: Path) -> list[Path]:
    return [folder / "evidence.parquet", *sorted(folder.glob("evidence-*.parquet"))]


def _values(metric: MetricResult | None) -> str:
    if metric is None:
        return "nothing"
    return ", ".join(f"{model} {estimate.value:.6g}" for model, estimate in metric.models.items())
