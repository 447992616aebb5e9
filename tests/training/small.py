"""A small training that a test can compare with one written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tutelage import losses
from tutelage.signals import Batch, Request
from tutelage.taps import observe
from tutelage.teachers import ModuleTeacher
from tutelage.training import Training
from tutelage.training.loop import Fit

ROWS, WIDTH, CLASSES, BATCH = 48, 6, 4, 12


def network(seed: int, dropout: float = 0.0, hidden: int = 16) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(WIDTH, hidden), nn.Tanh(), nn.Dropout(dropout), nn.Linear(hidden, CLASSES))


def table() -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, labels, and which rows are labelled: a third, unevenly spread over the batch."""
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(ROWS, WIDTH, generator=generator)
    labels = torch.randint(CLASSES, (ROWS,), generator=generator)
    labelled = torch.arange(ROWS) % 7 < 2
    return inputs, labels, labelled


class InTurn:
    """The rows in turn, `size` at a time."""

    def __init__(self, size: int) -> None:
        self.size = size

    def batch(self, step: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        rows = np.arange(step * self.size, (step + 1) * self.size) % ROWS
        return rows, np.zeros_like(rows)


def make_batch(rows: np.ndarray[Any, Any], views: np.ndarray[Any, Any]) -> Batch:
    inputs, labels, labelled = table()
    at = torch.as_tensor(rows)
    return Batch(inputs=inputs[at], rows=at, views=torch.as_tensor(views), labels=labels[at], labelled=labelled[at])


def job(folder: Path, training: Training, *, steps: int, dropout: float = 0.0, **changes: Any) -> Fit:
    """A student of 4 classes that learns from a teacher and from few labels, with a hint through a projector."""
    student = network(1, dropout, hidden=12)
    teacher = ModuleTeacher(network(2))
    teacher.load(torch.device("cpu"))
    terms = [
        losses.KLDivergence(2.0, weight=0.7),
        losses.CrossEntropy(weight=0.3),
        losses.Hint({"0": "1"}, weight=0.1),
    ]
    batch = make_batch(np.arange(4), np.zeros(4, dtype=int))
    request = Request(output=True, features=frozenset({"1"}))
    with torch.no_grad():
        student_says = observe(student, batch.inputs, Request(output=True, features=frozenset({"0"})))
    says = teacher.ask(batch, request)
    torch.manual_seed(5)
    for term in terms:
        term.prepare(student_says, says, batch)
    settings: dict[str, Any] = {
        "student": student,
        "losses": terms,
        "teacher": teacher,
        "make_batch": make_batch,
        "order": InTurn(training.batch_size),
        "training": training,
        "steps": steps,
        "seed": 0,
        "folder": folder,
    }
    folder.mkdir(parents=True, exist_ok=True)
    return Fit(**(settings | changes))


def one_sgd_step(pieces: int, steps: int = 1) -> Training:
    """Plain SGD at a constant rate, so that a step can be written by hand."""
    return Training(
        steps=steps,
        batch_size=BATCH,
        micro_batches=pieces,
        optimizer="sgd",
        learning_rate=0.5,
        momentum=0.0,
        schedule="constant",
        warmup=0.0,
        clip_norm=None,
        log_every=1,
    )


def adversary(**arguments: Any) -> losses.CurriculumTemperature:
    """A temperature that is learnt against the student, from the first steps on."""
    settings = {"rise": 0.5, "learning_rate": 0.4, "span": 3.0} | arguments
    return losses.CurriculumTemperature(losses.KLDivergence(1.0), **settings)


def trained_parts(run: Fit) -> dict[str, Tensor]:
    """The weights of the student and of the hint's projector."""
    hint = run.losses[2].state_dict()
    return dict(run.student.state_dict()) | {f"hint.{name}": value for name, value in hint.items()}


def dev_loss(module: nn.Module) -> dict[str, float]:
    """Something that changes as the student learns: its distance to the teacher on all rows."""
    inputs, _, _ = table()
    with torch.no_grad():
        return {"distance": float((module(inputs) - network(2)(inputs)).square().mean())}
