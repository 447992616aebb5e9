"""Rows that teach nothing: a training with them among its batches is the training without them, and says how many."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import BATCH, CLASSES, InTurn, job, make_batch, network, table
from torch import Tensor

from tutelage.losses import CrossEntropy, KLDivergence, SoftCrossEntropy
from tutelage.signals import Batch, Request, Signals
from tutelage.teachers.black_box import top_of_probabilities
from tutelage.training import Training
from tutelage.training.loop import StepRecord, fit
from tutelage.workspace import notes_on_training

SILENT = np.arange(48) % 5 == 3


class Refusing:
    """A teacher that gives probabilities, and none of the rows in `SILENT`."""

    def ask(self, batch: Batch, request: Request) -> Signals:
        with torch.no_grad():
            p = network(2)(batch.inputs).softmax(-1)
        return Signals(top=top_of_probabilities(p, ~torch.as_tensor(SILENT)[batch.rows]))


class WithoutThem(InTurn):
    """The same batches, from which the silent rows are gone."""

    def batch(self, step: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        rows, views = super().batch(step)
        return rows[~SILENT[rows]], views[~SILENT[rows]]


def weights(folder: Path, order: InTurn, pieces: int, losses: list[Any]) -> tuple[dict[str, Tensor], list[StepRecord]]:
    training = Training(
        steps=6, batch_size=BATCH, micro_batches=pieces, optimizer="sgd", learning_rate=0.5, clip_norm=None, log_every=3
    )
    run = job(folder, training, steps=6, losses=losses, teacher=Refusing(), order=order)
    records = [record for record in fit(run) if isinstance(record, StepRecord)]
    return run.student.state_dict(), records


@pytest.mark.parametrize("loss", [KLDivergence, SoftCrossEntropy])
@pytest.mark.parametrize("pieces", [1, 2, 4])
def test_rows_without_an_answer_neither_teach_nor_make_the_others_count_for_less(
    tmp_path: Path, loss: Any, pieces: int
) -> None:
    found, records = weights(tmp_path / "a", InTurn(BATCH), pieces, [loss(1.0)])
    expected, others = weights(tmp_path / "b", WithoutThem(BATCH), 1, [loss(1.0)])
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)
    assert [record.loss for record in records] == pytest.approx([record.loss for record in others], rel=1e-5)
    drawn = [np.concatenate([InTurn(BATCH).batch(step)[0] for step in steps]) for steps in (range(3), range(3, 6))]
    assert [record.unanswered for record in records] == [int(SILENT[rows].sum()) for rows in drawn]
    assert [record.rows for record in records] == [36, 36]
    assert [record.unanswered for record in others] == [0, 0]


def test_labels_teach_a_row_that_the_teacher_left_unanswered(tmp_path: Path) -> None:
    """Only what the teacher would say of it is missing."""
    run = job(
        tmp_path,
        Training(
            steps=1, batch_size=BATCH, optimizer="sgd", learning_rate=0.5, momentum=0.0, warmup=0.0, clip_norm=None
        ),
        steps=1,
        losses=[KLDivergence(1.0), CrossEntropy()],
        teacher=Refusing(),
    )
    student = network(1, hidden=12).double()
    inputs, labels, labelled = table()
    x, y, known = inputs[:BATCH].double(), labels[:BATCH], labelled[:BATCH]
    assert (known.numpy() & SILENT[:BATCH]).any()
    log_q, p = student(x).log_softmax(1), network(2)(inputs[:BATCH]).softmax(1).double().detach()
    heard = ~torch.as_tensor(SILENT[:BATCH])
    divergence = ((p * (p.log() - log_q)).sum(1) * heard).sum() / heard.sum()
    entropy = (-log_q[torch.arange(BATCH), y] * known).sum() / known.sum()
    (divergence + entropy).backward()
    list(fit(run))
    for name, value in student.named_parameters():
        found = run.student.state_dict()[name].double()
        torch.testing.assert_close(found, value - 0.5 * value.grad, rtol=0, atol=1e-6)


def test_a_batch_that_nobody_answers_changes_nothing(tmp_path: Path) -> None:
    class Nobody:
        def ask(self, batch: Batch, request: Request) -> Signals:
            none = torch.zeros(len(batch), dtype=torch.bool)
            return Signals(top=top_of_probabilities(torch.full((len(batch), CLASSES), 0.25), none))

    training = Training(steps=2, batch_size=BATCH, micro_batches=2, optimizer="sgd", log_every=1)
    run = job(tmp_path, training, steps=2, losses=[KLDivergence(1.0)], teacher=Nobody())
    before = {name: value.clone() for name, value in run.student.state_dict().items()}
    records = list(fit(run))
    assert [(r.loss, r.unanswered) for r in records if isinstance(r, StepRecord)] == [(0.0, BATCH)] * 2
    assert all(torch.equal(value, before[name]) for name, value in run.student.state_dict().items())


def test_rows_without_a_token_are_counted_and_teach_nothing(tmp_path: Path) -> None:
    def masked(rows: np.ndarray[Any, Any], views: np.ndarray[Any, Any]) -> Batch:
        batch = make_batch(rows, views)
        vars(batch)["mask"] = torch.as_tensor(~SILENT[rows])[:, None].expand(-1, 3)
        return batch

    results = []
    for order in (InTurn(BATCH), WithoutThem(BATCH)):
        training = Training(steps=4, batch_size=BATCH, optimizer="sgd", learning_rate=0.5, log_every=4)
        run = job(tmp_path / type(order).__name__, training, steps=4, make_batch=masked, order=order)
        results.append(([r.empty for r in fit(run)], run.student.state_dict()))
    (empty, found), (none, expected) = results
    assert empty == [int(SILENT.sum())] and none == [0]
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)


def test_the_note_adds_up_the_records_of_each_role_and_takes_histories_of_before(tmp_path: Path) -> None:
    lines = [
        {"role": "student", "step": 1, "loss": 1.0},  # written before rows were counted
        {"role": "student", "step": 2, "rows": 1200, "unanswered": 11, "empty": 0},
        {"role": "student", "step": 2, "development": {"accuracy": 1.0}},
        {"role": "baseline", "step": 2, "rows": 800, "unanswered": 0, "empty": 2},
    ]
    for number, line in enumerate(lines):
        (tmp_path / f"{number}.jsonl").write_text(json.dumps(line) + "\n")
    found = notes_on_training([tmp_path / f"{number}.jsonl" for number in range(4)])
    assert [note.partition(")")[0] for note in found] == [
        "student: 11 of the 1,200 rows in its batches (0.92%",
        "baseline: 2 of the 800 rows in its batches (0.25%",
    ]
