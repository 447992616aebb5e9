"""Outputs of both models on real rows, before anything is trained on them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from tutelage.checks.probabilities import last_operation, refuse_probabilities
from tutelage.errors import SignalError, within
from tutelage.evaluation.evidence import Evidence
from tutelage.evaluation.metrics import point_values
from tutelage.probe import forward_pass
from tutelage.recipe import Recipe
from tutelage.signals import Request, call, output_of
from tutelage.teachers.chunks import Chunks
from tutelage.teachers.stand_in import with_stand_ins
from tutelage.transfer import TransferSet

__all__ = ["check_answers"]

Array = np.ndarray[Any, Any]
EXAMINED = 8
"""Development rows that both models answer before a run, to see that the metrics can be computed."""


@torch.no_grad()
def check_answers(recipe: Recipe, data: TransferSet, student: nn.Module, device: torch.device) -> None:
    """The metrics can be computed from what both models say about development rows.

    Raises:
        SignalError: They can't; the shapes of outputs and labels are named. Or the student gives probabilities.
    """
    rows = data.rows("development")
    rows = rows[np.argsort(~data.labelled[rows], kind="stable")][:EXAMINED]  # labelled ones first
    batch = data.batch(rows).to(device)
    with within("teacher"), forward_pass("the teacher", batch.inputs):
        teacher = with_stand_ins(recipe.teacher, data.example(2).to(device))
        said = Chunks(recipe.chunk).ask(lambda some: teacher.ask(some, Request(output=True)), batch).dense()
    with within("student"), forward_pass("the student", batch.inputs):
        answered = output_of(call(student.eval(), batch.inputs), "student")
    first = data.example(2).to(device).inputs
    way = dict.fromkeys(("probabilities", "sigmoid"), "take it out of the student's forward")
    refuse_probabilities(
        answered, recipe.task, who="student: output", mend=way, operation=last_operation(student, first), by_size=False
    )
    labelled = data.labelled[rows]
    labels = data.labels[rows] if data.labels is not None and labelled.any() else None
    outputs: dict[str, Array] = {"teacher": said.float().cpu().numpy(), "student": answered.float().cpu().numpy()}
    shapes = {name: array.shape for name, array in outputs.items()}
    try:
        evidence = Evidence(
            set="test",  # plain metric names
            task=recipe.task,
            rows=rows,
            digests=[str(row) for row in rows],
            outputs=outputs,
            labels=labels,
            labelled=None if labels is None else labelled,
        )
        point_values(recipe.task, evidence)
    except SignalError as error:
        shapes |= {} if labels is None else {"labels": labels.shape}
        found = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise SignalError(
            f"task {recipe.task}: {error.key.replace('`test`', 'development rows')}",
            expected=error.expected,
            found=f"{error.found} ({found})",
            harm=error.harm or "the student could not be evaluated",
            mend="give teacher, student and labels the shapes that the task needs",
        ) from error
