"""What the trainings of a run will take, from a few steps of each on copies."""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from tutelage.losses import Loss
from tutelage.parts import baseline_losses, build_student, labelled_order, prepared, teacher_loss
from tutelage.signals import Batch, Request, Signals, call
from tutelage.teachers.chunks import Chunks
from tutelage.teachers.stand_in import remote_teachers
from tutelage.timed_teachers import TimedTeacher, TimedTeachers
from tutelage.training import Training
from tutelage.training.loop import BatchOrder, Fit, fit
from tutelage.training.step import needs_of
from tutelage.transfer import TransferSet

if TYPE_CHECKING:
    from tutelage.plan import Plan

__all__ = ["EVALUATION_BATCH", "Forecast", "make_forecast"]

EVALUATION_BATCH = 128
"""Rows that a model is asked about at once when it is evaluated."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What training will cost, from a few timed steps.

    Attributes:
        step_seconds: Median seconds of a step of the student's main training: batch, teacher, losses, gradients,
            optimiser.
        teacher_share: Share of such a step that the teacher takes.
        student_seconds: Training all students of all seeds and rounds, with their earlier stages.
        assistant_seconds: Training the models between teacher and student.
        baseline_seconds: The same for the baselines.
        teacher_seconds: Training the teacher, where the recipe does.
        evaluation_seconds: The forward passes of all evaluations on the development split, and the last on the test
            split.
        untimed: The teachers whose answers were not waited for, because each question costs something.
        teacher_row_seconds: What an answer of the teacher takes, where it is so slow that it was asked about a few rows
            alone; else 0.
    """

    step_seconds: float
    teacher_share: float
    student_seconds: float
    assistant_seconds: float
    baseline_seconds: float
    teacher_seconds: float
    evaluation_seconds: float
    untimed: tuple[str, ...] = ()
    teacher_row_seconds: float = 0.0

    @property
    def training_seconds(self) -> float:
        """All of it."""
        models = self.student_seconds + self.assistant_seconds + self.baseline_seconds + self.teacher_seconds
        return models + self.evaluation_seconds


def make_forecast(plan: Plan, timed_steps: int) -> Forecast:
    """Times a few steps of each training and a batch of each evaluation; nothing that is kept is trained.

    Teachers whose questions cost something are not timed: what they said about the first rows stands for the rest. Nor
    are cached ones, which are asked before all training (`tutelage.labelling`), nor slow ones for long.
    """
    recipe, data, training, seeds = plan.recipe, plan.data, plan.recipe.training, len(plan.recipe.seeds)
    student = build_student(recipe, recipe.seeds[0], plan.device).eval()
    student_pass = _pass_seconds(lambda batch: call(student, batch.inputs), plan)
    batches = sum(lesson.training.batch_size for lesson in (*plan.lessons, plan.lessons[-1]))
    teachers = TimedTeachers(data, plan.device, rows=4 * (plan.chunk + batches), chunk=recipe.chunk)
    teacher, guide = teachers.of(recipe.teacher), teachers.of(plan.guide)
    chunks = Chunks(recipe.chunk)

    def ask_of(timed: TimedTeacher, batch: Batch, request: Request) -> Signals:
        return chunks.ask(lambda some: timed.teacher.ask(some, request), batch)

    teacher_pass = _pass_seconds(lambda batch: ask_of(teacher, batch, Request(output=True)), plan, teacher)
    order = plan.lessons[-1].order(data, 0)
    asked, request = data.batch(*order.batch(0)).to(plan.device), needs_of(plan.losses)[1]
    ask = _seconds(lambda: ask_of(guide, asked, request), guide, len(asked)) if request else 0.0
    steps = _lesson_steps(plan, timed_steps, teachers)
    trainings = seeds * (2 if plan.has_baseline else 1)
    development, test = len(data.rows("development")), len(data.rows("test"))
    student_rows = trainings * (_evaluations(training, plan.lessons[-1].steps) * development + test)
    teacher_seconds, teacher_evaluations = _teacher_training(plan, timed_steps)
    teacher_rows = (1 + teacher_evaluations) * development + test
    return Forecast(
        step_seconds=steps[-1],
        teacher_share=min(1.0, ask / steps[-1]),
        student_seconds=(seeds + (recipe.asking.rounds - 1 if recipe.asking else 0)) * _total(plan, steps),
        assistant_seconds=sum(
            _total(assistant, _lesson_steps(assistant, timed_steps, teachers)) for assistant in plan.assistants
        ),
        baseline_seconds=seeds * plan.steps * _baseline_step(plan, timed_steps) if plan.has_baseline else 0.0,
        teacher_seconds=teacher_seconds,
        evaluation_seconds=student_pass * student_rows + teacher_pass * teacher_rows,
        untimed=tuple(remote.describe() for remote in remote_teachers(recipe.teacher)),
        teacher_row_seconds=guide.row_seconds,
    )


def _total(plan: Plan, step_seconds: list[float]) -> float:
    return sum(lesson.steps * seconds for lesson, seconds in zip(plan.lessons, step_seconds, strict=True))


def _lesson_steps(plan: Plan, timed_steps: int, teachers: TimedTeachers) -> list[float]:
    """Seconds of a step in each of a student's lessons."""
    return [
        _step_seconds(
            build_student(plan.recipe, plan.recipe.seeds[0], plan.device),
            copy.deepcopy(lesson.losses),
            data=plan.data,
            order=lesson.order(plan.data, 0),
            training=lesson.training,
            steps=lesson.steps,
            timed_steps=timed_steps,
            chunk=plan.recipe.chunk,
            teacher=teachers.of(lesson.teacher) if needs_of(lesson.losses)[1] else None,
        )
        for lesson in plan.lessons
    ]


def _baseline_step(plan: Plan, timed_steps: int) -> float:
    recipe, data = plan.recipe, plan.data
    student = build_student(recipe, recipe.seeds[0], plan.device)
    return _step_seconds(
        student,
        prepared(baseline_losses(recipe), student, data, plan.device),
        data=data,
        order=labelled_order(data, recipe.training, 0),
        training=recipe.training,
        steps=plan.steps,
        timed_steps=timed_steps,
    )


def _teacher_training(plan: Plan, timed_steps: int) -> tuple[float, int]:
    """Seconds of the training of the teacher's modules, and its evaluations."""
    recipe, training, data = plan.recipe, plan.recipe.teacher_training, plan.teacher_data
    if training is None or data is None:
        return 0.0, 0
    order = labelled_order(data, training, 0)
    steps = training.total_steps(order.steps_per_epoch)
    seconds, evaluations = 0.0, 0
    for name, module in copy.deepcopy(recipe.teacher.modules).items():
        loss = teacher_loss(recipe, name)
        assert loss is not None
        losses = prepared([loss], module, data, plan.device, name="teacher")
        step = _step_seconds(
            module, losses, data=data, order=order, training=training, steps=steps, timed_steps=timed_steps
        )
        seconds += steps * step
        evaluations += _evaluations(training, steps)
    return seconds, evaluations


def _evaluations(training: Training, steps: int) -> int:
    """How often a training is evaluated, as `training.loop` does it."""
    return math.ceil(steps / (training.evaluate_every or max(1, math.ceil(steps / 10))))


def _step_seconds(
    module: nn.Module,
    losses: list[Loss],
    *,
    data: TransferSet,
    order: BatchOrder,
    training: Training,
    steps: int,
    timed_steps: int,
    teacher: TimedTeacher | None = None,
    chunk: int | None = None,
) -> float:
    """Median seconds of a real step of a training that is thrown away; the first step is not counted."""
    quick = replace(training, log_every=1, checkpoint_seconds=math.inf, compile=False)
    with tempfile.TemporaryDirectory() as folder:
        job = Fit(
            student=module,
            losses=losses,
            teacher=teacher.teacher if teacher else None,
            chunk=chunk,
            make_batch=data.batch,
            order=order,
            training=quick,
            steps=max(steps, timed_steps + 2),  # it is left before its end
            seed=0,
            folder=Path(folder),
        )
        times = []
        with contextlib.closing(cast("Generator[object]", fit(job))) as records:
            begin = time.perf_counter() - _uncounted(teacher)
            for _ in itertools.islice(records, timed_steps + 1):
                times.append(time.perf_counter() - _uncounted(teacher) - begin)
                begin = time.perf_counter() - _uncounted(teacher)
    return statistics.median(times[1:]) + _row_seconds(teacher) * len(order.batch(0)[0])


def _pass_seconds(ask: Callable[[Batch], object], plan: Plan, teacher: TimedTeacher | None = None) -> float:
    """Seconds a row of a forward pass takes, in a batch of the development split."""
    batch = plan.data.batch(plan.data.rows("development")[: plan.chunk]).to(plan.device)
    return _seconds(lambda: ask(batch), teacher, len(batch)) / len(batch)


@torch.no_grad()
def _seconds(work: Callable[[], object], teacher: TimedTeacher | None, rows: int) -> float:
    """Median seconds of three calls, after one that is not counted, and what a slow teacher takes for so many rows."""
    times = list[float]()
    for _ in range(4):
        begin = time.perf_counter() - _uncounted(teacher)
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - _uncounted(teacher) - begin)
    return statistics.median(times[1:]) + _row_seconds(teacher) * rows


def _uncounted(teacher: TimedTeacher | None) -> float:
    return 0.0 if teacher is None else teacher.uncounted


def _row_seconds(teacher: TimedTeacher | None) -> float:
    return 0.0 if teacher is None else teacher.row_seconds
