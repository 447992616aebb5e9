"""Several seeds: the same recipe trained again, so that luck is told from method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from tutelage.errors import DataError
from tutelage.evaluation.evidence import Evidence, PairEvidence, shipped
from tutelage.evaluation.metrics import point_values

__all__ = ["seed_spread", "seed_summary"]

TRAINED = ("student", "baseline")


def seed_summary(sets: Sequence[Evidence | PairEvidence]) -> list[dict[str, Any]]:
    """The value of each metric for each seed's student and baseline: `seeds` of `metrics.json`.

    Args:
        sets: Every evaluation set of one run; `student@1` is the student of seed 1.

    Returns:
        The shipped seed first: `{"seed": 0, "shipped": True, "metrics": {"accuracy": {"student": 0.9, ...}}}`.

    Raises:
        DataError: The sets disagree about which seed was shipped, or a seed is both the shipped and another one.
    """
    if len({evidence.seed for evidence in sets}) > 1:
        found = ", ".join(f"{evidence.set}: {evidence.seed}" for evidence in sets)
        raise DataError("evidence", expected="one shipped seed in all evaluation sets", found=found)
    seeds: dict[int, dict[str, dict[str, float]]] = {}
    for evidence in sets:
        task = evidence.task if isinstance(evidence, Evidence) else "embedding"
        for metric, by_model in point_values(task, evidence).items():
            for model, value in by_model.items():
                role, _, number = model.partition("@")
                if role not in TRAINED:
                    continue
                if number and int(number) == evidence.seed:
                    raise DataError(
                        f"`{model}` in the evidence of `{evidence.set}`",
                        expected=f"`{role}` alone for the shipped seed {evidence.seed}",
                        found="a column named as another seed's",
                    )
                seed = evidence.seed if shipped(model) else int(number)
                seeds.setdefault(seed, {}).setdefault(metric, {})[role] = value
    first = sets[0].seed if sets else 0
    return [
        {"seed": seed, "shipped": seed == first, "metrics": seeds[seed]}
        for seed in sorted(seeds, key=lambda seed: (seed != first, seed))
    ]


def seed_spread(seeds: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Mean and standard deviation over seeds, by metric and model, from what `seed_summary` gives.

    `student - baseline` is the difference seed by seed. With one seed the deviation (`sd`) is left out: one run says
    nothing about the spread.
    """
    spread: dict[str, dict[str, dict[str, float]]] = {}
    for metric in dict.fromkeys(name for seed in seeds for name in seed["metrics"]):
        values: dict[str, list[float]] = {}
        for by_model in (seed["metrics"][metric] for seed in seeds if metric in seed["metrics"]):
            for model in TRAINED:
                if model in by_model:
                    values.setdefault(model, []).append(by_model[model])
            if all(model in by_model for model in TRAINED):
                values.setdefault("student - baseline", []).append(by_model["student"] - by_model["baseline"])
        spread[metric] = {
            model: {"mean": fmean(of), "n": len(of)} | ({"sd": stdev(of)} if len(of) > 1 else {})
            for model, of in values.items()
        }
    return spread
