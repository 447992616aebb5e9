"""What a loss leaves free in the student's outputs is what its formula, written apart, does not look at."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from loss_case import Case, prepared, with_trained
from loss_contract import CASES

OWN_PARTS = ("EmbeddingCosine-projected", "EmbeddingMSE-projected", "CurriculumTemperature-instance")
"""A trained part reads the outputs as they are: a map to the teacher's width, or what sets the temperature of a row. It
is no target, but the value depends on it."""
READING = {
    name: case for name, case in CASES.items() if "output" in case.student and not name.startswith(OWN_PARTS)
}  # fmt: skip


@pytest.mark.parametrize("case", READING.values(), ids=READING.keys())
def test_a_loss_is_blind_to_what_it_leaves_free_and_to_nothing_else(case: Case) -> None:
    numbers = case.draw(1)
    loss = prepared(case, numbers)
    numbers = with_trained(numbers, loss)
    output, rng = numbers.student["output"], np.random.default_rng(0)
    rows = (len(output),) + (1,) * (output.ndim - 1)
    changed = {"shift": output + rng.normal(size=rows), "scale": output * rng.uniform(0.5, 2, size=rows)}
    if output.ndim == 2 and output.shape[1] > 1:  # of one value it is a sign
        changed["rotation"] = output @ np.linalg.qr(rng.normal(size=(output.shape[1],) * 2))[0]
    before = case.golden(numbers)
    blind = {
        change
        for change, values in changed.items()
        if np.allclose(case.golden(replace(numbers, student={**numbers.student, "output": values})), before, atol=1e-9)
    }
    assert blind == loss.leaves_free & set(changed)


def test_every_loss_that_reads_outputs_has_a_case() -> None:
    assert {name.partition("-")[0] for name in READING} == {
        type(case.make()).__name__ for case in CASES.values() if case.make().needs.student.output
    }
