"""Which weights are kept where the selected metric does not move: the likelier, then the later."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small import job

from tutelage.training import Training
from tutelage.training.loop import EvaluationRecord, Fit, fit
from tutelage.training.progress import rank

TIES = {"kl": False}
ACCURACY = [0.96] * 6
FALLING = [0.9, 0.5, 0.3, 0.4, 0.3, 0.6]


def run(folder: Path, values: dict[str, list[float]], **settings: Any) -> Fit:
    """A training whose evaluations, one a step, give these values; NaN stands for one that is not defined."""
    many = len(next(iter(values.values())))

    def evaluate(module: torch.nn.Module) -> dict[str, float]:
        evaluate.times += 1  # type: ignore[attr-defined]
        found = {name: series[evaluate.times - 1] for name, series in values.items()}  # type: ignore[attr-defined]
        return {name: value for name, value in found.items() if not math.isnan(value)}

    evaluate.times = 0  # type: ignore[attr-defined]
    training = Training(steps=many, batch_size=8, evaluate_every=1, log_every=100, **settings)
    choice = {"evaluate": evaluate, "select": "accuracy", "higher_is_better": True, "ties": TIES}
    return job(folder, training, steps=many, **choice)


def kept(made: Fit) -> int:
    list(fit(made))
    return int(json.loads(made.done_path.read_text())["best_step"])


@pytest.mark.parametrize(
    ("accuracy", "kl", "step"),
    [
        (ACCURACY, FALLING, 5),  # equal in all with step 3: the later one
        (ACCURACY, [0.5] * 6, 6),
        ([0.9, 0.96, 0.95, 0.96, 0.96, 0.9], FALLING, 5),
        ([0.97, *ACCURACY[1:]], FALLING, 1),  # a lower KL never makes up for the metric itself
        ([math.nan, 0.9, math.nan, math.nan, 0.9, math.nan], FALLING, 5),
        ([math.nan] * 6, FALLING, 5),  # F1 where neither says yes: the KL alone
    ],
)
def test_ties_go_to_the_lower_kl_and_then_to_the_later_step(
    tmp_path: Path, accuracy: list[float], kl: list[float], step: int
) -> None:
    assert kept(run(tmp_path, {"accuracy": accuracy, "kl": kl})) == step


def test_a_tie_metric_that_is_better_when_higher_is_not_turned_round(tmp_path: Path) -> None:
    made = run(tmp_path, {"accuracy": ACCURACY, "pair_spearman": FALLING})
    made.ties = {"pair_spearman": True}
    assert kept(made) == 1


def test_the_weights_are_those_of_the_step_that_is_said_to_be_kept(tmp_path: Path) -> None:
    made = run(tmp_path, {"accuracy": ACCURACY, "kl": FALLING})
    at_step = {}
    for record in fit(made):
        if isinstance(record, EvaluationRecord):
            at_step[record.step] = {name: value.clone() for name, value in made.student.state_dict().items()}
            assert record.best == (record.step in (1, 2, 3, 5))
    for name, value in load_file(made.best_path).items():
        assert torch.equal(value, at_step[5][name])


def test_patience_counts_a_lower_kl_as_a_gain_and_an_equal_one_not(tmp_path: Path) -> None:
    falling = run(tmp_path / "falling", {"accuracy": [0.96] * 8, "kl": [8, 7, 6, 5, 5, 5, 1, 1.0]}, patience=2)
    list(fit(falling))
    done = json.loads(falling.done_path.read_text())
    assert (done["step"], done["best_step"]) == (6, 6)  # two evaluations without a gain, the later of which is kept
    level = run(tmp_path / "level", {"accuracy": [0.96] * 8, "kl": [1.0] * 8}, patience=2)
    list(fit(level))
    assert json.loads(level.done_path.read_text())["step"] == 3


@pytest.mark.parametrize("cut", [2, 3, 4, 5])
def test_a_resumed_run_still_knows_the_tie_metric_of_the_best(tmp_path: Path, cut: int) -> None:
    values = {"accuracy": ACCURACY, "kl": FALLING}
    whole = run(tmp_path / "whole", values, checkpoint_seconds=0.0)
    assert kept(whole) == 5
    folder = tmp_path / "cut"
    first = fit(run(folder, values, checkpoint_seconds=0.0))
    for record in first:
        if isinstance(record, EvaluationRecord) and record.step == cut:
            break
    first.close()  # type: ignore[attr-defined]
    again = run(folder, {name: series[cut - 1 :] for name, series in values.items()}, checkpoint_seconds=0.0)
    again.steps = again.training.steps = 6
    assert kept(again) == 5  # the step after the last checkpoint is evaluated again
    for name, value in load_file(whole.best_path).items():
        assert torch.equal(value, load_file(again.best_path)[name])


def test_a_checkpoint_of_an_earlier_version_is_resumed(tmp_path: Path) -> None:
    values = {"accuracy": ACCURACY, "kl": FALLING}
    first = fit(run(tmp_path, values, checkpoint_seconds=0.0))
    for record in first:
        if isinstance(record, EvaluationRecord) and record.step == 4:
            break
    first.close()  # type: ignore[attr-defined]
    state = max(tmp_path.glob("step-*/state.json"))
    stored = json.loads(state.read_text())
    del stored["sha256"], stored["tensors"], stored["progress"]["best_sha256"]
    assert set(stored["progress"]) == {"step", "best", "best_step", "best_development", "without_gain"}
    stored["progress"] |= {
        "best": 0.96,
        "best_step": 1,
        "best_development": {"accuracy": 0.96, "kl": 0.9},
    }
    state.write_text(json.dumps(stored))
    again = run(tmp_path, {name: series[3:] for name, series in values.items()}, checkpoint_seconds=0.0)
    again.steps = again.training.steps = 6
    assert kept(again) == 5


def test_what_is_not_defined_ranks_below_any_value() -> None:
    directions = {"accuracy": True, "kl": False}
    ranks = [rank(values, directions) for values in ({}, {"kl": 9.0}, {"accuracy": -1e9}, {"accuracy": 0.5, "kl": 1.0})]
    assert ranks == sorted(ranks) and len(set(ranks)) == 4
