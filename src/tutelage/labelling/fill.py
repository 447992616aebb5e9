"""Filling caches: before a training, and alone."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from tutelage.beat import Phase, duration
from tutelage.cache import Built, Job, Keys
from tutelage.errors import RecipeError, RunError
from tutelage.forecast import EVALUATION_BATCH
from tutelage.labelling.wanted import caches_of, wanted_of
from tutelage.plan import Plan
from tutelage.signals import Batch, Request
from tutelage.teachers import Cached, cached_teachers
from tutelage.teachers.stand_in import remote_teachers
from tutelage.timed_teachers import LONGEST
from tutelage.transfer import TransferSet
from tutelage.transfer.order import by_length

__all__ = ["Fill", "Here", "Workers", "batches_of", "describe_caches", "fill_caches", "open_caches", "require_fillable"]

Array = np.ndarray[Any, Any]
LOSS = 300.0
"""Seconds of asking that a kill may cost before the doctor mentions it."""


@dataclass(frozen=True, kw_only=True)
class Fill:
    """What filling one cache did.

    Attributes:
        folder: Of the cache.
        asked: (row, view) pairs that the teacher was asked about.
        stored: That are stored now.
        bytes: Of all shards.
        seconds: That the asking and the writing took.
        errors: Of the form, for each signal.
    """

    folder: str
    asked: int
    stored: int
    bytes: int
    seconds: float
    errors: dict[str, str]

    def __str__(self) -> str:
        did = f"{self.asked:,} answers, {self.asked / max(self.seconds, 1e-9):,.0f} rows/s" if self.asked else ""
        lossy = "; ".join(f"{name}: {error}" for name, error in self.errors.items())
        return (
            f"{self.folder}: {did or 'nothing to label'}; "
            f"{self.stored:,} stored in {self.bytes / 1e6:,.1f} MB{f'; {lossy}' if lossy else ''}"
        )


class Workers(Protocol):
    """Who does the jobs of a cache."""

    def do(self, cached: Cached, jobs: Sequence[Job], tell: Callable[[int], None]) -> Iterator[Built]:
        """The shards as they get ready, in any order, after telling how many rows were answered."""


class Here:
    """The jobs one after the other, in this process."""

    def __init__(self, data: TransferSet, chunk: int) -> None:
        self.data, self.chunk = data, chunk

    def do(self, cached: Cached, jobs: Sequence[Job], tell: Callable[[int], None]) -> Iterator[Built]:
        """See `Workers`."""
        for job in jobs:
            yield cached.answer(job, batches_of(self.data, job, tell, self.chunk))


def batches_of(
    data: TransferSet, job: Job, tell: Callable[[int], None], chunk: int = EVALUATION_BATCH
) -> Iterator[tuple[Array, Batch]]:
    """The batches in which a job is asked, which depend on the job alone: whoever does it gets the same answers."""
    for positions in by_length(len(job.rows), chunk, data.lengths(job.rows)):
        yield positions, data.batch(job.rows[positions], job.views[positions])
        tell(len(positions))


def fill_caches(plan: Plan, workers: Workers | None = None, *, progress: bool = True) -> list[Fill]:
    """Asks the cached teachers of a plan what they will be asked and have not answered yet.

    Called again after a kill, it goes on where it was.

    Raises:
        CacheError: A folder can't be used.
        RunError: Another process is filling it, or the disk is full; what was answered is kept.
    """
    open_caches(plan)
    done = []
    for cached, _, wanted in wanted_of(plan):
        done.append(_fill(cached, wanted, Here(plan.data, plan.chunk), workers, progress=progress))
        cached.opened()
    return done


def open_caches(plan: Plan) -> None:
    """Opens every cache for the teacher as it is now: what other processes stored is read.

    Raises:
        CacheError: A folder holds the answers of another teacher.
    """
    for cached in caches_of(plan.recipe):
        cached.opened()


def _fill(cached: Cached, wanted: list[Keys], here: Here, workers: Workers | None, *, progress: bool) -> Fill:
    """Fills one cache; the folder is not held while there is nothing to do."""
    store, begin, asked = cached.opened(), time.monotonic(), 0
    if cached.missing(wanted):
        with store.locked():
            if store.gone:
                _tell_gone(cached.folder, store.gone)
            jobs = cached.missing(wanted)  # again, for another process may have filled it before the lock was ours
            asked = sum(len(job.rows) for job in jobs)
            with _Bar(asked, cached.folder, on=progress) as tell:
                while first := [job for job in jobs if store.needs_fitting(job)][:1]:  # all others read its basis
                    store.keep(*here.do(cached, first, tell))
                    jobs = [job for job in jobs if job is not first[0]]
                for built in (workers or here).do(cached, jobs, tell):
                    store.keep(built)
            lost = [job.file for job in jobs if job.file not in store.manifest.shards]
            if lost:
                raise RunError(f"{len(lost)} shards of {cached.folder} were not written; the same command goes on")
    manifest = store.manifest
    return Fill(
        folder=cached.folder,
        asked=asked,
        stored=manifest.answers,
        bytes=manifest.bytes,
        seconds=time.monotonic() - begin,
        errors=manifest.errors(),
    )


def _tell_gone(folder: str, gone: Sequence[str]) -> None:
    named = ", ".join(gone[:3]) + (", ..." if len(gone) > 3 else "")
    print(f"tutelage: {folder}: {len(gone)} of its shards are gone ({named}): they are asked again", file=sys.stderr)


class _Bar:
    """Rows answered and their speed, as a bar; a log gets a line every half minute."""

    def __init__(self, rows: int, folder: str, *, on: bool) -> None:
        self.rows = rows
        lines = on and not sys.stderr.isatty()
        self.bar: Any = tqdm(total=rows, desc=f"teacher -> {folder}", unit="row", disable=lines or not on)
        self.phase = Phase(folder, on=lines)
        self.answered, self.begin = 0, time.monotonic()

    def __enter__(self) -> Callable[[int], None]:
        self.phase.__enter__()
        return self.tell

    def __exit__(self, *error: Any) -> None:
        self.phase.__exit__(*error)
        self.bar.close()

    def tell(self, rows: int) -> None:
        """So many more are answered."""
        self.bar.update(rows)
        self.answered += rows
        speed = self.answered / max(time.monotonic() - self.begin, 1e-9)
        left = duration((self.rows - self.answered) / speed)
        self.phase.at(f"{self.answered:,} of {self.rows:,} answers, {speed:,.3g} rows/s, about {left} to go")


def require_fillable(plan: Plan) -> None:
    """Refuses to fill, without a training, what a training decides.

    That are the answers of a teacher that is trained in the run, and the rows that students of the run choose.

    Raises:
        RecipeError: There is such a one, or the recipe has no cached teacher.
    """
    if plan.recipe.asking is not None:
        raise RecipeError(
            "asking",
            expected="null: all training rows",
            found="rounds whose rows the students of the run choose",
            harm="the teacher would be asked about rows that nobody needs",
            mend="`tutelage distill` stores the answers round by round",
        )
    if not caches_of(plan.recipe):
        raise RecipeError(
            "teacher",
            expected="a cached teacher, whose answers can be stored",
            found=plan.recipe.teacher.describe(),
            mend="wrap it: {class_path: Cached, init_args: {folder: ..., teacher: {...}}}",
        )
    if any(_trained_here(plan, cached) for cached in caches_of(plan.recipe)):
        raise RecipeError(
            "teacher_training",
            expected="a teacher that is ready",
            found="one that `tutelage distill` trains first",
            harm="the answers of the untrained teacher would be stored",
            mend="`tutelage distill` stores the answers after it has trained the teacher",
        )


def describe_caches(plan: Plan) -> list[str]:
    """For each cache: what is stored, what is missing, how much room that will take, and the errors of its form.

    Raises:
        CacheError: A folder can't be used.
    """
    if plan.recipe.asking is not None:
        return [f"{cached.folder}: filled round by round" for cached in caches_of(plan.recipe)]
    lines = []
    ready = [cached for cached in caches_of(plan.recipe) if not _trained_here(plan, cached)]
    for cached in caches_of(plan.recipe):
        if cached not in ready:
            lines.append(f"{cached.folder}: filled when the teacher is trained")
            continue
        cached.opened()
    for cached, request, wanted in wanted_of(plan) if ready else ():
        if cached in ready:
            lines.append(_described(plan, cached, request, wanted))
    return lines


def _described(plan: Plan, cached: Cached, request: Request, wanted: list[Keys]) -> str:
    store = cached.opened()
    manifest, missing = store.manifest, sum(len(job.rows) for job in cached.missing(wanted))
    parts = [f"{manifest.answers:,} answers stored in {manifest.bytes / 1e6:,.1f} MB"] if manifest.answers else []
    if missing:
        parts.append(_forecast(plan, cached, request, missing))
    else:
        parts.append("nothing to label")
    parts += [f"{name}: {error}" for name, error in manifest.errors().items()]
    return f"{cached.folder}: {'; '.join(parts)}"


def _forecast(plan: Plan, cached: Cached, request: Request, missing: int) -> str:
    """What the missing answers will take: room, and time where no other machine decides it."""
    seconds = 0.0
    for rows in (2, 64):  # the first two are asked of any teacher
        if rows > 2 and (remote_teachers(cached) or seconds * rows > LONGEST):
            break
        example, begin = plan.data.example(min(rows, plan.chunk)).to(plan.device), time.perf_counter()
        room = missing * cached.row_bytes(example, request)
        seconds = (time.perf_counter() - begin) / len(example)
    said = f"{missing:,} missing, about {room / 1e6:,.1f} MB"
    if remote_teachers(cached):
        return said
    lost = seconds * min(missing, cached.shard_rows)
    kill = f"; a kill loses up to {duration(lost)} of that, less with a smaller shard_rows" if lost > LOSS else ""
    return f"{said}, about {duration(missing * seconds)} to answer{kill}"


def _trained_here(plan: Plan, cached: Cached) -> bool:
    return plan.recipe.teacher_training is not None and any(
        cached is each for each in cached_teachers(plan.recipe.teacher)
    )
