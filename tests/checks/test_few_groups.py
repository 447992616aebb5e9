"""A test split of few groups, or few rows, is told of with what it means for the gates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import tutelage as tt
from tutelage.evaluation.evidence import Evidence
from tutelage.evaluation.statistics import evaluate


def plan(rows: int, groups: int | None, *gates: tt.Gate) -> tt.plan.Plan:
    """A plan whose test split has so many rows in so many groups; each other split has 30 rows in 30 groups."""
    split = ["train"] * 30 + ["development"] * 30 + ["test"] * rows
    names = [f"other {i}" for i in range(60)] + [f"voice {i % (groups or 1)}" for i in range(rows)]
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(len(split), 4)).astype(np.float32)
    labels = np.arange(len(split)) % 3
    torch.manual_seed(0)
    return tt.make_plan(
        tt.Recipe(
            name="voices",
            task="classification",
            data=tt.Data(source=tt.Arrays(inputs, labels, split=split, group=names if groups else None)),
            teacher=tt.ModuleTeacher(nn.Linear(4, 3)),
            student=tt.ModuleStudent(lambda: nn.Linear(4, 3)),
            losses=[tt.losses.KLDivergence()],
            training=tt.Training(steps=2, batch_size=8),
            policy=list(gates),
        )
    )


def told(made: tt.plan.Plan, start: str) -> list[str]:
    return [note for note in made.notes if note.startswith(start)]


def test_few_groups_are_told_of_with_the_length_that_they_give_an_interval() -> None:
    """√(16/15) · 2.131 / 1.960 = 1.12 times (Student's t with 15 degrees of freedom, from a table)."""
    (note,) = told(plan(32, 16), "the test split")
    assert "32 rows in 16 groups" in note and "1.1 times as long" in note
    assert all("no gate can pass" in told(plan(30, groups), "the test split")[0] for groups in (1, 3, 11))
    assert told(plan(60, 30), "the test split") == []
    assert told(plan(30, None), "the test split") == []


@pytest.mark.parametrize(("rows", "groups"), [(30, None), (30, 3), (60, 30), (45, 15)])
@pytest.mark.parametrize("gate", [{"at_least": 0.9}, {"at_least": 0.75}, {"margin": 0.15}, {"margin": 0.05}])
def test_a_gate_is_told_of_where_the_interval_of_a_student_without_a_mistake_does_not_reach_it(
    rows: int, groups: int | None, gate: dict[str, float]
) -> None:
    """Held against the evaluation itself, of a student and a teacher that are right on every row."""
    labels = np.arange(rows) % 3
    outputs = 9.0 * np.eye(3, dtype=np.float32)[labels]
    evidence = Evidence(
        set="test",
        task="classification",
        rows=np.arange(rows),
        digests=[str(row) for row in range(rows)],
        outputs={"teacher": outputs, "student": outputs},
        labels=labels,
        labelled=np.ones(rows, dtype=bool),
        groups=None if groups is None else np.arange(rows) % groups,
    )
    (found,) = [metric for metric in evaluate(evidence, resamples=50) if metric.name == "accuracy"]
    if groups is not None and groups < 12:
        assert found.models["student"].reservation and not told(
            plan(rows, groups, tt.Gate("accuracy", **gate)), "policy[0]"
        )
        return
    if "at_least" in gate:
        passes = found.models["student"].low >= gate["at_least"] - 1e-9
    else:
        passes = found.differences["student - teacher"].low >= -gate["margin"] - 1e-9
    notes = told(plan(rows, groups, tt.Gate(metric="accuracy", **gate)), "policy[0]")
    assert len(notes) == (0 if passes else 1)
