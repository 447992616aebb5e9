"""The trainings of a run: the teacher's, if it is trained here, and those of students and baselines."""

from __future__ import annotations

import copy
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from tutelage.answers import EVALUATION_BATCH, TeacherSays, answers
from tutelage.balance import share_of_constant
from tutelage.beat import Phase
from tutelage.evaluation.evidence import Evidence
from tutelage.evaluation.metrics import available_metrics, point_values
from tutelage.parts import (
    baseline_losses,
    build_student,
    head_taught_by,
    introduce,
    labelled_order,
    prepared,
    teacher_loss,
)
from tutelage.plan import Plan
from tutelage.recipe import Task
from tutelage.selection import Selection, choose
from tutelage.training.kept import sound_step
from tutelage.training.loop import EvaluationRecord, Fit, StepRecord, fit
from tutelage.training.setup import make_accelerator
from tutelage.training.surroundings import record_surroundings, surroundings
from tutelage.training.tracking import tracked
from tutelage.transfer import TransferSet
from tutelage.workspace import History, Workspace

__all__ = ["train_assistants", "train_baseline", "train_student", "train_teacher", "trainings"]

Array = np.ndarray[Any, Any]
Record = StepRecord | EvaluationRecord


def _evaluator(
    task: Task,
    data: TransferSet,
    teacher_says: TeacherSays | None,
    device: torch.device,
    labels: Array | None,
    *,
    chunk: int = EVALUATION_BATCH,
) -> Callable[[nn.Module], dict[str, float]]:
    """Gives a module's metrics on the development split; `labels` are those of all rows."""
    rows = data.rows("development")
    labelled = data.labelled[rows]
    known = labels is not None and bool(labelled.any())

    def evaluate(module: nn.Module) -> dict[str, float]:
        outputs = answers(module, data, rows, device, chunk)
        evidence = Evidence(
            set="development",
            task=task,
            rows=rows,
            digests=[str(row) for row in rows],
            outputs={"teacher": outputs if teacher_says is None else teacher_says.outputs, "student": outputs},
            labels=labels[rows] if labels is not None and known else None,
            labelled=labelled if known else None,
        )
        if teacher_says is not None and not teacher_says.heard.all():
            evidence = evidence.only(teacher_says.heard)
        values = point_values(task, evidence, plain_names=True)
        return {name: models["student"] for name, models in values.items() if "student" in models}

    return evaluate


def _run(job: Fit, role: str, work: Path, *, progress: bool) -> None:
    """Trains, with a bar, a history and TensorBoard logs reading the records on the main process."""
    if not make_accelerator().is_main_process:
        for _ in fit(job):
            pass
        return
    resumed_at = job.steps if job.done_path.exists() else sound_step(job.folder, _tell) or 0
    history = History(job.folder / "history.jsonl", role, job.seed, resumed_at=resumed_at)
    records = tracked(fit(job), work / "tensorboard" / job.folder.name)
    title = f"{role} (seed {job.seed})"
    if job.done_path.exists():
        said = [f"{title}: was trained before, its weights are used"]
    else:
        said = [f"{title}: goes on from the checkpoint of step {resumed_at:,} of {job.steps:,}"] if resumed_at else []
        here = surroundings(chunk=job.chunk)
        said += filter(None, [record_surroundings(work, here, f"{title}, step {resumed_at:,}")])
    for line in said if progress else ():
        tqdm.write(f"tutelage: {line}", file=sys.stderr)
    lines = progress and not sys.stderr.isatty()  # a log gets lines: a bar would write itself into it hundreds of times
    bar = tqdm(total=job.steps, initial=resumed_at, desc=title, unit="step", disable=lines or not progress)
    with bar, Phase(title, on=lines) as phase:
        shown = _shown(records, bar, job.select)
        for record in _told(shown, title, job.select, phase) if lines else shown:
            history.write(record)


def _tell(text: str) -> None:
    tqdm.write(f"tutelage: {text}", file=sys.stderr)


def _told(records: Iterator[Record], title: str, select: str, phase: Phase) -> Iterator[Record]:
    """Passes records on and writes a line to standard error for each evaluation; the phase says the others."""
    for record in records:
        step = f"step {record.step:,} of {record.steps:,}"
        if isinstance(record, EvaluationRecord):
            said = " ".join(f"dev {name} {value:.4f}" for name, value in _selected(record, select))
            print(f"tutelage: {title}: {step}, {said}", file=sys.stderr, flush=True)
            phase.spoke()
        else:
            phase.at(f"{step}, loss {record.loss:.4g}, {record.samples_per_second:.0f} rows/s")
        yield record


def _selected(record: EvaluationRecord, select: str) -> list[tuple[str, float]]:
    """The metric that the weights are kept by and its value, where it is defined."""
    return [(name, value) for name, value in record.development.items() if name == select]


def _shown(records: Iterator[Record], bar: tqdm[Any], select: str) -> Iterator[Record]:
    """Passes records on and shows them on the bar: loss, rows a second, last evaluation."""
    shown: dict[str, str] = {}
    for record in records:
        if isinstance(record, StepRecord):
            bar.update(record.step - bar.n)
            shown |= {"loss": f"{record.loss:.4g}", "rows/s": f"{record.samples_per_second:.0f}"}
        else:
            shown |= {f"dev {name}": f"{value:.4f}" for name, value in _selected(record, select)}
        bar.set_postfix(shown, refresh=False)
        yield record


def train_teacher(plan: Plan, workspace: Workspace, *, progress: bool) -> None:
    """Trains each of the teacher's modules on every training label there is, as `teacher_training` says."""
    recipe, training, data = plan.recipe, plan.recipe.teacher_training, plan.teacher_data
    assert training is not None and data is not None  # the plan has seen to it
    for number, (name, module) in enumerate(recipe.teacher.modules.items()):
        head, loss = head_taught_by(recipe, name), teacher_loss(recipe, name)
        assert loss is not None
        task = recipe.task if head is None else head.task
        labels = data.labels if head is None or head.labels is None else data.tasks[head.labels].values
        known = [name for name, kind in available_metrics(task, labels=True).items() if kind == "quality"]
        assert labels is not None  # the plan has seen to it
        development = labels[data.rows("development")[data.labelled[data.rows("development")]]]
        selection = choose(task, [loss], known, share=share_of_constant(task, development))
        role = f"teacher {name}".rstrip()
        order = labelled_order(data, training, seed=number)
        job = _job(
            data,
            selection,
            _evaluator(task, data, None, plan.device, labels, chunk=plan.chunk),
            student=module,
            losses=prepared([loss], module, data, plan.device, name="teacher"),
            teacher=None,
            order=order,
            training=training,
            steps=training.total_steps(order.steps_per_epoch),
            seed=number,
            folder=workspace.stage(role, 0),
        )
        _run(job, role, workspace.work, progress=progress)
        module.eval()


def train_assistants(plan: Plan, workspace: Workspace, teacher_says: TeacherSays, *, progress: bool) -> None:
    """Trains the models between teacher and student in turn; each then teaches the next."""
    seed = plan.recipe.seeds[0]
    for number, (assistant, pupil) in enumerate(itertools.pairwise([*plan.assistants, plan]), start=1):
        role = f"assistant {number}"
        trained = train_student(assistant, workspace, seed, teacher_says, role=role, progress=progress)
        assert pupil.guide.module is not None
        pupil.guide.module.load_state_dict(trained.state_dict())


def train_student(
    plan: Plan, workspace: Workspace, seed: int, teacher_says: TeacherSays, *, role: str = "student", progress: bool
) -> nn.Module:
    """The student of a seed after all its lessons, as it is delivered.

    Args:
        plan: Of the run, or of an assistant.
        workspace: Where checkpoints go.
        seed: Of everything random.
        teacher_says: The teacher's outputs on the development split.
        role: How the trainings are named.
        progress: Show a bar.
    """
    student = build_student(plan.recipe, seed, plan.device)
    evaluate = _evaluator(plan.recipe.task, plan.data, teacher_says, plan.device, plan.data.labels, chunk=plan.chunk)
    for number, lesson in enumerate(plan.lessons, start=1):
        named = role if lesson is plan.lessons[-1] else f"{role} stage {number}"
        losses = copy.deepcopy(lesson.losses)
        introduce(losses, lesson.teacher, plan.data)  # again, for the teacher may have been trained since
        job = _job(
            plan.data,
            lesson.select,
            evaluate,
            training=lesson.training,
            steps=lesson.steps,
            seed=seed,
            folder=workspace.stage(named, seed),
            student=student,
            losses=losses,
            teacher=lesson.teacher,
            chunk=plan.recipe.chunk,
            order=lesson.order(plan.data, seed),
        )
        _run(job, named, workspace.work, progress=progress)
    return plan.recipe.student.deliver(student).eval()


def train_baseline(
    plan: Plan, workspace: Workspace, seed: int, teacher_says: TeacherSays, *, progress: bool
) -> nn.Module:
    """The same student from the same start for as many steps, on labels alone; what was learnt before is left out."""
    recipe = plan.recipe
    student = build_student(recipe, seed, plan.device, from_nothing=True)
    job = _job(
        plan.data,
        plan.baseline_selection,
        _evaluator(recipe.task, plan.data, teacher_says, plan.device, plan.data.labels, chunk=plan.chunk),
        training=recipe.training,
        steps=plan.steps,
        seed=seed,
        folder=workspace.stage("baseline", seed),
        student=student,
        losses=prepared(baseline_losses(recipe), student, plan.data, plan.device),
        teacher=None,
        order=labelled_order(plan.data, recipe.training, seed),
    )
    _run(job, "baseline", workspace.work, progress=progress)
    return recipe.student.deliver(student).eval()


def trainings(plan: Plan) -> list[tuple[str, int]]:
    """The role and the seed of every training of a run, in their order."""
    recipe = plan.recipe
    names = recipe.teacher.modules if recipe.teacher_training is not None else ()
    found = [(f"teacher {name}".rstrip(), 0) for name in names]
    found += [(f"assistant {number}", recipe.seeds[0]) for number in range(1, len(plan.assistants) + 1)]
    for seed in recipe.seeds:
        found += [(f"student stage {number}", seed) for number in range(1, len(plan.lessons))]
        found += [("student", seed), *([("baseline", seed)] if plan.has_baseline else [])]
    return found


def _job(
    data: TransferSet, select: Selection | None, evaluate: Callable[[nn.Module], dict[str, float]], **parts: Any
) -> Fit:
    """A training that keeps its best weights as `select` tells them, or its last ones where that is None."""
    if select is None:
        return Fit(make_batch=data.batch, **parts)
    (metric, higher), *ties = select.directions.items()
    best: dict[str, Any] = {"evaluate": evaluate, "select": metric, "higher_is_better": higher, "ties": dict(ties)}
    return Fit(make_batch=data.batch, **best, **parts)
