"""The trainings of a run: the teacher's, if it is trained here, and those of students and baselines."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from tutelage.answers import answers
from tutelage.evaluation.evidence import Evidence
from tutelage.evaluation.metrics import point_values
from tutelage.parts import baseline_losses, build_student, introduce, labelled_order, prepared, supervised_loss
from tutelage.plan import SELECT, Plan, higher_is_better
from tutelage.recipe import Recipe
from tutelage.training import Training
from tutelage.training.checkpoint import latest_step
from tutelage.training.loop import EvaluationRecord, Fit, StepRecord, fit
from tutelage.training.setup import make_accelerator
from tutelage.training.tracking import tracked
from tutelage.transfer import TransferSet
from tutelage.workspace import History, Workspace

__all__ = ["train_baseline", "train_student", "train_teacher"]

Array = np.ndarray[Any, Any]


def _evaluator(
    recipe: Recipe, data: TransferSet, teacher_says: Array | None, device: torch.device
) -> Callable[[nn.Module], dict[str, float]]:
    """Gives the student's metrics on the development split."""
    rows = data.rows("development")
    labelled = data.labelled[rows]

    def evaluate(module: nn.Module) -> dict[str, float]:
        outputs = answers(module, data, rows, device)
        evidence = Evidence(
            set="development",
            task=recipe.task,
            rows=rows,
            digests=[str(row) for row in rows],
            outputs={"teacher": outputs if teacher_says is None else teacher_says, "student": outputs},
            labels=data.labels[rows] if data.labels is not None and labelled.any() else None,
            labelled=labelled if data.labels is not None and labelled.any() else None,
        )
        values = point_values(recipe.task, evidence, plain_names=True)
        return {name: models["student"] for name, models in values.items() if "student" in models}

    return evaluate


def _run(job: Fit, role: str, work: Path, *, progress: bool) -> None:
    """Trains, with a bar, a history and TensorBoard logs reading the records on the main process."""
    if not make_accelerator().is_main_process:
        for _ in fit(job):
            pass
        return
    resumed_at = job.steps if job.done_path.exists() else latest_step(job.folder) or 0
    history = History(job.folder / "history.jsonl", role, job.seed, resumed_at=resumed_at)
    records = tracked(fit(job), work / "tensorboard" / job.folder.name)
    title = f"{role} (seed {job.seed})"
    with tqdm(total=job.steps, initial=resumed_at, desc=title, unit="step", disable=not progress) as bar:
        for record in _shown(records, bar):
            history.write(record)


def _shown(records: Iterator[StepRecord | EvaluationRecord], bar: tqdm[Any]) -> Iterator[StepRecord | EvaluationRecord]:
    """Passes records on and shows them on the bar: loss, rows a second, last evaluation."""
    shown: dict[str, str] = {}
    for record in records:
        if isinstance(record, StepRecord):
            bar.update(record.step - bar.n)
            shown |= {"loss": f"{record.loss:.4g}", "rows/s": f"{record.samples_per_second:.0f}"}
        else:
            name, value = next(iter(record.development.items()))
            shown |= {f"dev {name}": f"{value:.4f}"}
        bar.set_postfix(shown, refresh=False)
        yield record


def train_teacher(plan: Plan, workspace: Workspace, *, progress: bool) -> None:
    """Trains the teacher's module on every training label there is, as `teacher_training` says."""
    recipe, training = plan.recipe, plan.recipe.teacher_training
    module, loss = recipe.teacher.module, supervised_loss(recipe)
    data = plan.teacher_data
    # The plan has seen to all of these.
    assert training is not None and module is not None and loss is not None and data is not None
    losses = prepared([loss], module, data, plan.device, name="teacher")
    order = labelled_order(data, training, seed=0)
    known = _evaluator(recipe, data, None, plan.device)
    select = SELECT[recipe.task][0]
    folder = workspace.stage("teacher", 0)
    job = Fit(
        student=module,
        losses=losses,
        teacher=None,
        make_batch=data.batch,
        order=order,
        training=training,
        steps=training.total_steps(order.steps_per_epoch),
        seed=0,
        folder=folder,
        evaluate=known,
        select=select,
        higher_is_better=higher_is_better(select),
    )
    _run(job, "teacher", workspace.work, progress=progress)
    module.eval()


def _job(plan: Plan, training: Training, seed: int, folder: Path, evaluate: Any, **parts: Any) -> Fit:
    return Fit(
        make_batch=plan.data.batch,
        training=training,
        steps=plan.steps,
        seed=seed,
        folder=folder,
        evaluate=evaluate,
        select=plan.select,
        higher_is_better=plan.higher_is_better,
        **parts,
    )


def train_student(plan: Plan, workspace: Workspace, seed: int, teacher_says: Array, *, progress: bool) -> nn.Module:
    """The student of a seed, trained from its teacher; `teacher_says` are the teacher's development outputs."""
    recipe = plan.recipe
    student = build_student(recipe, seed, plan.device)
    losses = copy.deepcopy(plan.losses)
    introduce(losses, recipe.teacher, plan.data)  # again, for the teacher may have been trained since
    job = _job(
        plan,
        recipe.training,
        seed,
        workspace.stage("student", seed),
        _evaluator(recipe, plan.data, teacher_says, plan.device),
        student=student,
        losses=losses,
        teacher=recipe.teacher,
        order=plan.data.order(recipe.training.batch_size, seed),
    )
    _run(job, "student", workspace.work, progress=progress)
    return student.eval()


def train_baseline(plan: Plan, workspace: Workspace, seed: int, teacher_says: Array, *, progress: bool) -> nn.Module:
    """The same student from the same start for as many steps, on labels alone."""
    recipe = plan.recipe
    student = build_student(recipe, seed, plan.device)
    losses = prepared(baseline_losses(recipe), student, plan.data, plan.device)
    job = _job(
        plan,
        recipe.training,
        seed,
        workspace.stage("baseline", seed),
        _evaluator(recipe, plan.data, teacher_says, plan.device),
        student=student,
        losses=losses,
        teacher=None,
        order=labelled_order(plan.data, recipe.training, seed),
    )
    _run(job, "baseline", workspace.work, progress=progress)
    return student.eval()
