"""Asking in rounds: the students of the rounds are trained, audited, and choose what is asked next."""

from __future__ import annotations

import copy
import functools
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from tutelage.answers import TeacherSays, answers, teacher_answers
from tutelage.asking import Asking, Round, gain_per_1000, k_centre, uncertainty
from tutelage.errors import RunError
from tutelage.evaluation.intervals import wilson
from tutelage.lessons import order_of
from tutelage.plan import Plan
from tutelage.sealed import unsealed, write_sealed
from tutelage.signals import Request
from tutelage.stages import train_student
from tutelage.taps import observe
from tutelage.training.processes import decided
from tutelage.training.setup import make_accelerator
from tutelage.transfer import evaluation_batches, in_original_order
from tutelage.workspace import Workspace

__all__ = ["RECORD", "asking_record", "first_round", "limited", "run_rounds"]

Array = np.ndarray[Any, Any]

RECORD = "asking.json"
"""The rounds so far, in the folder of the work; and those of the run, in the bundle."""
_STREAM = 7
"""Of the generator that draws rows, so that another seed draws others."""


def run_rounds(
    plan: Plan,
    workspace: Workspace,
    teacher_says: TeacherSays,
    *,
    label: Callable[[Plan], object] = lambda plan: None,
    progress: bool,
) -> tuple[Plan, list[Round]]:
    """Asks in rounds, and gives the plan whose training rows are those that were asked about.

    A round that is on record is not gone through again, so a run that was killed goes on where it was.

    Args:
        plan: Of the run.
        workspace: Where the rounds and the checkpoints of their students go.
        teacher_says: The teacher's outputs on the development split.
        label: Has answers stored, of the training rows of the plan that it is given, before they are used.
        progress: Show a bar.
    """
    asking = plan.recipe.asking
    assert asking is not None
    accelerator = make_accelerator()
    path = workspace.work / RECORD
    rounds = decided(lambda: _read(path))
    if rounds and progress:
        tqdm.write(f"tutelage: asking goes on after round {len(rounds)} of {asking.rounds}", file=sys.stderr)
    while len(rounds) < asking.rounds and not (rounds and rounds[-1].stopped):
        student, audit = None, np.zeros(0, dtype=np.int64)
        if rounds:
            asked = _asked(rounds)
            label(limited(plan, asked))
            student = _student_of(plan, workspace, rounds, teacher_says, progress=progress)
            audit = _audit(plan, asking, rounds)
            label(limited(plan, np.concatenate([asked, audit])))
        # Two devices may order two scores of almost the same size in two ways.
        rounds.append(decided(functools.partial(_next, plan, asking, rounds, student, audit)))
        if accelerator.is_main_process:
            write_sealed(path, {"rounds": [one.to_dict() for one in rounds]})
    taught = limited(plan, _asked(rounds))
    label(taught)
    return taught, rounds


def first_round(plan: Plan) -> Plan:
    """The plan with the training rows of the first round alone."""
    assert plan.recipe.asking is not None
    return limited(plan, _drawn(plan, plan.recipe.asking.per_round, 1, []))


def asking_record(plan: Plan, rounds: list[Round]) -> dict[str, Any]:
    """What `asking.json` says: the strategy, each round with its rows, and what evaluation asked beside them."""
    asking = plan.recipe.asking
    assert asking is not None
    return {
        "strategy": asking.strategy,
        "training_rows": len(plan.data.rows("train")),
        "asked": rounds[-1].asked,
        "asked_by_the_plan": len(plan.data.example()),
        "asked_for_evaluation": {name: len(plan.data.rows(name)) for name in ("development", "test")},
        "stopped": rounds[-1].stopped,
        "stop_gain": asking.stop_gain,
        "rounds": [one.to_dict() for one in rounds],
    }


def limited(plan: Plan, rows: Array) -> Plan:
    """The plan with these training rows alone; lessons that are given in epochs have fewer steps."""
    data = plan.data.limited_to(rows)
    lessons = []
    for lesson in plan.lessons:
        order = order_of(lesson.losses, lesson.training, data, 0)
        lessons.append(replace(lesson, steps=lesson.training.total_steps(order.steps_per_epoch)))
    return replace(plan, data=data, lessons=lessons)


def _read(path: Path) -> list[Round]:
    if not path.exists():
        return []
    try:
        stored = json.loads(path.read_bytes())
        listed = stored if isinstance(stored, list) else unsealed(stored)["rounds"]  # a list: of an earlier version
        return [Round(**one) for one in listed]
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is damaged ({error}): restore it, or give --fresh to begin anew") from error


def _asked(rounds: Iterable[Round]) -> Array:
    return np.array(sorted(row for one in rounds for row in (*one.audit, *one.chosen)), dtype=np.int64)


def _student_of(
    plan: Plan, workspace: Workspace, rounds: list[Round], teacher_says: TeacherSays, *, progress: bool
) -> nn.Module:
    """The student that has learnt from all rows asked about so far."""
    asking = plan.recipe.asking
    if asking is not None and asking.training is not None:
        main = copy.copy(plan.lessons[-1])
        main.training = asking.training
        plan = replace(plan, lessons=[*plan.lessons[:-1], main])
    role, seed = f"round {len(rounds)}", plan.recipe.seeds[0]
    return train_student(limited(plan, _asked(rounds)), workspace, seed, teacher_says, role=role, progress=progress)


def _drawn(plan: Plan, count: int, number: int, before: Sequence[int] | Array) -> Array:
    """Rows that were not asked about, at random."""
    random = np.random.default_rng([plan.recipe.seeds[0], _STREAM, number])
    rows: Array = random.permutation(np.setdiff1d(plan.data.rows("train"), before))[:count]
    return rows


def _audit(plan: Plan, asking: Asking, rounds: list[Round]) -> Array:
    """The rows by which the present student is judged."""
    return _drawn(plan, asking.audited, len(rounds) + 1, _asked(rounds))


def _next(plan: Plan, asking: Asking, rounds: list[Round], student: nn.Module | None, audit: Array) -> Round:
    """The next round: what its audit says, and what the strategy chooses."""
    number, before = len(rounds) + 1, _asked(rounds)
    if student is None:
        chosen = _drawn(plan, asking.per_round, number, before)
        return Round(number=number, audit=[], chosen=_listed(chosen), asked=len(chosen))
    agreement = _agreement(plan, student, audit)
    low, high = wilson(agreement, len(audit), 0.95)
    gain = gain_per_1000(agreement, rounds[-1].agreement, len(rounds[-1].audit) + len(rounds[-1].chosen))
    stopped = asking.stop_gain is not None and gain is not None and gain < asking.stop_gain
    centres = np.concatenate([before, audit])
    rest = np.setdiff1d(plan.data.rows("train"), centres)
    count = 0 if stopped else min(asking.per_round - len(audit), len(rest))
    chosen = rest[_choice(plan, asking, student, rest=rest, centres=centres, count=count, number=number)]
    return Round(
        number=number,
        audit=_listed(audit),
        chosen=_listed(chosen),
        asked=len(before) + len(audit) + len(chosen),
        agreement=agreement,
        low=low,
        high=high,
        gain_per_1000=gain,
        stopped=stopped,
    )


def _agreement(plan: Plan, student: nn.Module, rows: Array) -> float:
    """Share of the rows with an answer of the teacher to which the student gives its class."""
    theirs = teacher_answers(plan.recipe.teacher, plan.data, rows, plan.device, plan.chunk)
    ours = answers(student, plan.data, rows, plan.device, plan.chunk).argmax(1)
    same = (theirs.outputs.argmax(1) == ours)[theirs.heard]
    return float(same.mean()) if len(same) else 0.0


def _choice(
    plan: Plan,
    asking: Asking,
    student: nn.Module,
    *,
    rest: Array,
    centres: Array,
    count: int,
    number: int,
) -> Array:
    """`[count]` positions in `rest` that the strategy prefers."""
    if count == 0:
        return np.zeros(0, dtype=np.int64)
    if asking.strategy == "random":
        random = np.random.default_rng([plan.recipe.seeds[0], _STREAM + 1, number])
        return random.permutation(len(rest))[:count]
    if asking.strategy == "k_centre":
        points, taken = (_features(plan, asking, student, rows) for rows in (rest, centres))
        return k_centre(points, taken, count)
    logits = torch.from_numpy(answers(student, plan.data, rest, plan.device, plan.chunk))
    scores = uncertainty(logits, asking.strategy).numpy()
    order: Array = np.argsort(-scores, kind="stable")
    return order[:count]


@torch.no_grad()
def _features(plan: Plan, asking: Asking, student: nn.Module, rows: Array) -> Tensor:
    """`[n, D]`: what distances are measured of."""

    def of(inputs: Any) -> Tensor:
        if asking.features == "inputs":
            found: Tensor = inputs
        elif asking.features == "output":
            said = observe(student.eval(), inputs, Request(output=True), model="student").output
            assert said is not None
            found = said
        else:
            request = Request(features=frozenset({asking.features}))
            found = observe(student.eval(), inputs, request, model="student").features[asking.features]
        return found.flatten(1).float().cpu()

    batches = evaluation_batches(plan.data, rows, plan.chunk)
    return in_original_order((at, of(batch.to(plan.device).inputs)) for at, batch in batches)


def _listed(rows: Array) -> list[int]:
    return [int(row) for row in rows]
