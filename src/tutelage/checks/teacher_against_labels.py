"""The teacher's answers to some rows, held against their labels: do its outputs mean what the labels mean?

A teacher whose classes stand in another order is right nowhere, and a student can be as wrong and pass every gate that
compares the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from tutelage import beat
from tutelage.checks.label_fit import Found, look_at
from tutelage.checks.probabilities import last_operation, refuse_log_odds_of_classes, refuse_probabilities
from tutelage.errors import within
from tutelage.governance.learnt import TELLING
from tutelage.probe import forward_pass
from tutelage.recipe import Recipe, Task
from tutelage.signals import Request
from tutelage.teachers import Cached, Ensemble, SeveralTeachers, Teacher
from tutelage.teachers.chunks import Chunks
from tutelage.teachers.stand_in import remote_teachers, with_stand_ins
from tutelage.training.step import needs_of
from tutelage.transfer import TransferSet

__all__ = ["Looks", "look_at_teachers"]

Array = np.ndarray[Any, Any]
ROWS, MORE_ROWS = 200, 2000
"""Labelled rows that a teacher is asked about, and that one is asked about which knows nothing of the first."""
CLASSES = 50
"""Of how many classes at most, so that there are some rows of each."""
FEW = "so few rows can't tell a weak teacher from one that knows nothing; no gate that compares with it passes plainly"
"""What is said of a teacher that may know nothing."""
PIECE = 32
"""Rows in a question."""


@dataclass(kw_only=True)
class Looks:
    """What was found of the teachers of a recipe.

    Attributes:
        lines: How good each is on the labels, by its key.
        notes: What may not be as it was meant.
        later: Keys of the teachers that could not be asked yet: they are trained in the run, or a question costs
            something and its answer is not stored.
        doubts: Those of teachers that are to know something: where no labelled test row judges a teacher, the verdict
            repeats what few labelled rows of other splits showed.
    """

    lines: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    later: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class _Subject:
    """A teacher that answers itself, what its outputs are to mean, and the cache in front of it.

    `main` says whether it is the recipe's teacher, not a part of it; `trained`, whether the run trains it;
    `counted`, whether the run counts its answers, since it chooses what to ask; `early`, whether it teaches in an
    earlier stage alone, and may be one that does not know much yet.
    """

    key: str
    teacher: Teacher
    task: Task
    labels: Array | None
    classes: tuple[str, ...]
    cache: Cached | None = None
    main: bool = True
    trained: bool = False
    counted: bool = False
    early: bool = False


def look_at_teachers(
    recipe: Recipe, data: TransferSet, device: torch.device, *, before: bool = True, only: list[str] | None = None
) -> Looks:
    """Asks each teacher about some labelled rows: are its outputs logits, and are they those of the labels?

    Members of ensembles are asked each by itself: in a mean, one that is wrong does not show.

    Args:
        recipe: The recipe, whose teachers are loaded and have met the data.
        data: The rows. Those of the development split come first, then those of training; test rows are looked at where
            no other row has a label.
        device: Where teachers are asked.
        before: Whether nothing was labelled or trained yet. Then teachers whose questions cost something are asked
            about no row that is not stored, and teachers that are trained in the run about none.
        only: Keys of the teachers that are meant; None: all.

    Raises:
        UserError: Outputs are probabilities that are taken for logits, or they go with the labels in another order,
            or no better than guesses.
    """
    looks = Looks()
    for subject in _subjects(recipe, data):
        if only is not None and subject.key not in only:
            continue
        # All of the development split is asked about anyway; a teacher of the run has learnt the training labels.
        rows = _rows(subject, data, development_alone=_costly(subject) or subject.trained)
        ask = None if before and subject.trained else _way_to_ask(subject, data, rows, device, before=before)
        if ask is None:
            looks.later.append(subject.key)
            ask, rows = _traced(subject, data, device), data.example(2).rows.numpy()
        with within(subject.key):
            found = _look(subject, data, rows, ask, device, chunk=recipe.chunk)
            if found is not None and (found.guesses is not None or found.crossed):
                found = _look_again(subject, data, found, ask, device, chunk=recipe.chunk)
        if found is not None and subject.key not in looks.later:
            looks.lines += [found.line if subject.main else f"{subject.key}: {found.line}"]
            notes = [f"{subject.key}: {note}" for note in found.notes]
            looks.notes += notes
            looks.doubts += [] if subject.early else notes
    return looks


def _subjects(recipe: Recipe, data: TransferSet) -> Iterator[_Subject]:
    teachers = {"teacher": recipe.teacher}
    for index, stage in enumerate(recipe.earlier_stages):  # one that lends its layers alone may answer anything
        if stage.teacher is not None and needs_of(stage.losses)[1].output:
            teachers[f"earlier_stages[{index}].teacher"] = stage.teacher
    for key, teacher in teachers.items():
        base = _Subject(
            key=key,
            teacher=teacher,
            task=recipe.task,
            labels=data.labels,
            classes=data.classes,
            main=key == "teacher",
            trained=key == "teacher" and recipe.teacher_training is not None,
            counted=recipe.asking is not None,
            early=key != "teacher",
        )
        yield from _leaves(base, recipe, data)


def _leaves(subject: _Subject, recipe: Recipe, data: TransferSet) -> Iterator[_Subject]:
    """The teachers that a teacher is made of, down to those that answer themselves."""
    teacher = subject.teacher
    if isinstance(teacher, Cached):
        key = subject.key if subject.main else f"{subject.key}.teacher"
        yield from _leaves(replace(subject, key=key, teacher=teacher.teacher, cache=teacher), recipe, data)
    elif isinstance(teacher, Ensemble):
        for index, member in enumerate(teacher.members):
            key = f"{subject.key}.members[{index}]"
            yield from _leaves(replace(subject, key=key, teacher=member, main=False), recipe, data)
    elif isinstance(teacher, SeveralTeachers):
        of_heads = {head.teacher: head for head in recipe.heads.values()}
        for name, member in teacher.teachers.items():
            own = replace(subject, key=f"{subject.key}.teachers.{name}", teacher=member, main=False)
            if name in of_heads and name != teacher.main:
                head = of_heads[name]
                known = data.tasks[head.labels] if head.labels is not None else None
                own = replace(
                    own,
                    task=head.task,
                    labels=None if known is None else known.values,
                    classes=() if known is None else known.classes,
                )
            yield from _leaves(own, recipe, data)
    else:
        yield subject


def _costly(subject: _Subject) -> bool:
    paid = bool(remote_teachers(subject.teacher)) or (subject.cache is not None and subject.cache.lazy)
    return paid or subject.counted


def _way_to_ask(
    subject: _Subject, data: TransferSet, rows: Array, device: torch.device, *, before: bool
) -> Teacher | None:
    """Whom to ask about the rows: the teacher, or the answers that are stored; None if that would cost something."""
    if not _costly(subject):
        return subject.teacher
    asked: Teacher = subject.cache if subject.cache is not None else subject.teacher
    if not before:
        return asked
    stored = subject.cache is not None and subject.cache.has(data.batch(rows), Request(output=True))
    return asked if stored else None


def _traced(subject: _Subject, data: TransferSet, device: torch.device) -> Teacher:
    """Who answers about the first two rows, which every plan asks about."""
    first = data.example(2).to(device)
    return with_stand_ins(subject.cache if subject.cache is not None else subject.teacher, first)


def _rows(subject: _Subject, data: TransferSet, *, development_alone: bool, count: int = ROWS) -> Array:
    """Rows to ask about: labelled ones of the development split, then of training, some of each class; else any.

    Test rows are asked about where none but they have labels: it is the teacher that is looked at, not the student.
    Rows of a class stand together, so that every other row is a half with all classes in it.
    """
    development = data.rows("development")
    draw = np.random.default_rng(0)  # sources are often sorted
    rows = draw.permutation(development)
    if not development_alone:
        rows = np.concatenate([rows, draw.permutation(data.rows("train"))])
    labelled = rows[data.labelled[rows]]
    if subject.labels is not None and not _labelled_before_test(data):
        labelled = (test := draw.permutation(data.rows("test")))[data.labelled[test]]
    if subject.labels is None or not len(labelled):
        return rows[:count]
    if subject.task != "classification" or subject.labels.ndim != 1:
        some: Array = labelled[:count]
        return some
    own: Array = subject.labels[labelled]
    classes, counts = np.unique(own, return_counts=True)
    chosen = np.sort(classes[np.argsort(-counts, kind="stable")][:CLASSES])
    spread: Array = np.concatenate([labelled[own == each][: -(-count // len(chosen))] for each in chosen])
    return spread


def _look(
    subject: _Subject, data: TransferSet, rows: Array, asked: Teacher, device: torch.device, *, chunk: int | None
) -> Found | None:
    outputs, heard, chunks = [], [], Chunks(chunk)
    with forward_pass("the teacher"):
        for at in range(0, len(rows), PIECE):
            beat.at(f"{subject.key} is held against labels, {at:,} of {len(rows):,} rows")
            batch = data.batch(rows[at : at + PIECE]).to(device)
            says = chunks.ask(lambda some: asked.ask(some, Request(output=True)), batch)
            outputs.append(says.dense().detach().cpu())
            silent = torch.zeros(len(batch), dtype=torch.bool) if says.silent is None else says.silent.cpu()
            heard.append(~silent.reshape(len(batch), -1).all(1))
        output, known = torch.cat(outputs), torch.cat(heard)
        output, rows = output[known], rows[known.numpy()]
        if says.top is None:
            module = subject.teacher.module
            operation = "" if module is None else last_operation(module, data.example(2).to(device).inputs)
            refuse_probabilities(output, subject.task, who="output", mend=_mend(subject), operation=operation)
            if getattr(subject.teacher, "gives", "") == "sigmoid":
                refuse_log_odds_of_classes(output, subject.task, who="output")
    told = output.float().numpy()
    here = data.labelled[rows]
    if subject.labels is None or not here.any():
        return None
    share = _shares(subject, data)
    return look_at(subject.task, told[here], subject.labels[rows[here]], subject.classes, share)


def _look_again(
    subject: _Subject, data: TransferSet, found: Found, ask: Teacher, device: torch.device, *, chunk: int | None
) -> Found:
    """A second look, on more rows where they cost nothing: what was doubtful on the first is plain on these.

    A teacher that is paid has been asked about too few rows to be refused for what has been paid, and one that may know
    a little is not refused where the verdict will judge it by labelled test rows.

    Raises:
        DataError: It knows nothing of these rows either, and they are enough to say so; or its classes stand in another
            order.
    """
    if not _costly(subject):
        rows = _rows(subject, data, development_alone=subject.trained, count=MORE_ROWS)
        found = _look(subject, data, rows, ask, device, chunk=chunk) or found
    if found.guesses is not None:
        test = data.rows("test")
        judged = subject.main and int(data.labelled[test].sum()) >= TELLING
        sure = found.useless or not judged
        if found.rows >= TELLING and sure and not subject.early and not _costly(subject):
            raise found.guesses
        why = "an early stage may have such a teacher" if subject.early else FEW
        found.notes.append(f"{found.guesses.found} ({why})")
    return found


def _labelled_before_test(data: TransferSet) -> bool:
    rows = np.concatenate([data.rows("development"), data.rows("train")])
    return bool(data.labelled[rows].any())


def _shares(subject: _Subject, data: TransferSet) -> Callable[[Array], Array]:
    """How often each of some classes is among the labelled rows that are not for testing."""
    rows = np.concatenate([data.rows("development"), data.rows("train")])
    rows = rows[data.labelled[rows]] if _labelled_before_test(data) else data.rows("test")
    labels = subject.labels
    assert labels is not None
    known = labels[rows[data.labelled[rows]]]
    return lambda chosen: np.array([np.mean(known == each) for each in chosen])


def _mend(subject: _Subject) -> dict[str, str]:
    """What to do about probabilities, by what they are."""
    if subject.trained:
        return dict.fromkeys(
            ("probabilities", "sigmoid"), "take it out of the module's forward: the run trains it on its logits"
        )
    if not hasattr(subject.teacher, "gives"):
        return dict.fromkeys(("probabilities", "sigmoid"), "have the teacher answer with logits")
    return {name: f"write `gives: {name}` among its init_args" for name in ("probabilities", "sigmoid")}
