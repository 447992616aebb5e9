"""Which answers a run will ask of its cached teachers: exactly these are stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tutelage.cache import Keys, names_of
from tutelage.lessons import Lesson
from tutelage.plan import Plan
from tutelage.recipe import Recipe
from tutelage.signals import Request
from tutelage.teachers import Cached, Teacher, cached_teachers
from tutelage.teachers.stand_in import remote_teachers
from tutelage.training.step import needs_of
from tutelage.transfer import TransferSet

__all__ = ["asked_at_most", "caches_of", "notes_on_caps", "wanted_of"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class _Use:
    """What is asked of a teacher of the recipe about some (row, view) pairs."""

    teacher: Teacher
    request: Request
    rows: Array
    views: Array


def caches_of(recipe: Recipe) -> list[Cached]:
    """Every cached teacher of a recipe in a fixed order, inner ones before those that they are part of."""
    found = [cached for teacher in recipe.teachers().values() for cached in cached_teachers(teacher)]
    return list({id(cached): cached for cached in found}.values())


def wanted_of(plan: Plan) -> list[tuple[Cached, Request, list[Keys]]]:
    """What each cached teacher will be asked: all of it as one request, and the (row, view) pairs by signal.

    What a teacher passes on to those it is made of is learnt by asking it about the first two rows.
    """
    caches = caches_of(plan.recipe)
    requests = {id(cached): Request() for cached in caches}
    keys: dict[int, list[Keys]] = {id(cached): [] for cached in caches}
    example = plan.data.example(2).to(plan.device)
    for use in _uses(plan):
        for cached, request in _passed_on(use, example):
            requests[id(cached)] |= request
            keys[id(cached)].append(Keys(use.rows, use.views, names_of(request)))
    return [(cached, requests[id(cached)], keys[id(cached)]) for cached in caches]


def _passed_on(use: _Use, example: Any) -> Iterator[tuple[Cached, Request]]:
    """What asking a teacher asks of each cached one within it."""
    inside = cached_teachers(use.teacher)
    notes = [cached.note() for cached in inside]
    use.teacher.ask(example, use.request)
    for cached, note in zip(inside, notes, strict=True):
        request = Request()
        for each in note:
            request |= each
        cached.note_no_more()
        if request:
            yield cached, request


def asked_at_most(plan: Plan, teacher: Teacher) -> tuple[int, int]:
    """About how many rows, in how many (row, view) pairs, a run asks a teacher that may be part of others."""
    uses = list(_uses(plan, lambda each: teacher in remote_teachers(each)))
    pairs = np.unique(np.concatenate([use.views * len(plan.data) + use.rows for use in uses]))
    return len(np.unique(pairs % len(plan.data))), len(pairs)


def notes_on_caps(plan: Plan) -> list[str]:
    """The caps of the recipe's teachers that the run is going to reach."""
    remote = {id(x): x for each in plan.recipe.teachers().values() for x in remote_teachers(each)}
    return [note for each in remote.values() for note in each.over_caps(*asked_at_most(plan, each))]


def _uses(plan: Plan, concerns: Callable[[Teacher], object] = cached_teachers) -> Iterator[_Use]:
    """The trainings of all seeds, the evaluations, and the rows that every plan is traced on.

    Args:
        plan: Of the run.
        concerns: Which teachers' trainings are meant.
    """
    recipe, data = plan.recipe, plan.data
    for each in (*plan.assistants, plan):
        for lesson in each.lessons:
            request = needs_of(lesson.losses)[1]
            if request and concerns(lesson.teacher):
                rows, views = _trained_on(lesson, data, each.recipe.seeds)
                yield _Use(lesson.teacher, request, rows, views)
    judged = np.concatenate([data.example(2).rows.numpy(), data.rows("development"), data.rows("test")])
    requests = [Request(output=True)]
    requests += [Request(members={head.teacher: Request(output=True)}) for head in recipe.heads.values()]
    for request in requests:
        yield _Use(recipe.teacher, request, judged, np.zeros_like(judged))


def _trained_on(lesson: Lesson, data: TransferSet, seeds: Sequence[int]) -> tuple[Array, Array]:
    """Every (row, view) pair of a training, once, and the first rows as they are."""
    first = data.example(2).rows.numpy()
    codes = [first]
    for seed in seeds:
        order = lesson.order(data, seed)
        pending: list[Array] = []
        for step in range(lesson.steps):
            rows, views = order.batch(step)
            pending.append(views * len(data) + rows)
            if len(pending) == 1024 or step == lesson.steps - 1:
                codes = [np.unique(np.concatenate([*codes, *pending]))]
                pending = []
    views, rows = np.divmod(np.unique(np.concatenate(codes)), len(data))
    return rows, views
