"""Filling by several processes of this machine."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import torch

from tutelage.cache import Built, Job
from tutelage.errors import CacheError, RunError
from tutelage.forecast import EVALUATION_BATCH
from tutelage.labelling.fill import batches_of
from tutelage.labelling.wanted import caches_of
from tutelage.plan import load_parts
from tutelage.recipe_file import load_recipe
from tutelage.teachers import Cached
from tutelage.transfer import TransferSet

__all__ = ["Origin", "Pool", "Worker"]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a worker finds the recipe, and the caches that it has to find there.

    Attributes:
        path: The recipe's file.
        overrides: Of its fields.
        folder: The current folder, from which relative paths of the recipe go.
        fingerprints: Of each cached teacher.
        threads: How many threads a worker computes with.
    """

    path: str
    overrides: tuple[str, ...]
    folder: str
    fingerprints: tuple[str, ...]
    threads: int

    @classmethod
    def of(cls, path: str | Path, overrides: Sequence[str], caches: Sequence[Cached], workers: int) -> Origin:
        """That of a recipe which is loaded here."""
        return cls(
            path=str(Path(path).resolve()),
            overrides=tuple(overrides),
            folder=str(Path.cwd()),
            fingerprints=tuple(cached.fingerprint() for cached in caches),
            threads=max(1, torch.get_num_threads() // workers),
        )


class Worker:
    """A recipe's data and teachers in a process of their own, doing jobs.

    Raises:
        CacheError: The teachers here are not those of the process that asks.
    """

    def __init__(self, origin: Origin) -> None:
        os.chdir(origin.folder)
        torch.set_num_threads(origin.threads)
        recipe = load_recipe(origin.path, origin.overrides)
        self.data: TransferSet = load_parts(recipe)
        self.chunk = recipe.chunk or EVALUATION_BATCH
        self.caches = caches_of(recipe)
        found = tuple(cached.fingerprint() for cached in self.caches)
        if found != origin.fingerprints:
            raise CacheError(
                "a worker of `tutelage label`",
                expected=f"the teachers of the process that asks: {origin.fingerprints}",
                found=f"others: {found}",
                harm="answers of several teachers would be mixed",
                mend="give all workers the same files",
            )
        for cached in self.caches:
            cached.opened()

    def do(self, number: int, job: Job) -> Built:
        """Does a job of the cache with this number."""
        return self.caches[number].answer(job, batches_of(self.data, job, lambda _: None, self.chunk))


class Pool:
    """The jobs spread over processes, each with the recipe loaded for itself."""

    def __init__(self, origin: Origin, caches: Sequence[Cached], workers: int) -> None:
        self.origin, self.caches, self.workers = origin, list(caches), workers

    def do(self, cached: Cached, jobs: Sequence[Job], tell: Callable[[int], None]) -> Iterator[Built]:
        """See `Workers`.

        Raises:
            RunError: A worker died; what was answered before is kept.
        """
        if not jobs:
            return
        number = next(index for index, each in enumerate(self.caches) if each is cached)
        spawn = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
        with ProcessPoolExecutor(
            min(self.workers, len(jobs)), mp_context=spawn, initializer=_begin, initargs=(self.origin,)
        ) as pool:
            futures = {pool.submit(_do, number, job): job for job in jobs}
            try:
                for future in as_completed(futures):
                    built = future.result()
                    tell(len(futures[future].rows))
                    yield built
            except BrokenProcessPool as error:
                raise RunError(
                    "a worker of `tutelage label` died (was there memory for so many?). "
                    "What was answered is kept: the same command goes on."
                ) from error
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


_worker: Worker | None = None


def end_with_parent() -> None:
    """Ends this process when the one that started it has ended: a kill leaves no teachers in memory."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    sentinel = parent.sentinel

    def watch() -> None:
        multiprocessing.connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


def _begin(origin: Origin) -> None:
    global _worker  # noqa: PLW0603 (a process of a pool has nothing else to keep it in)
    end_with_parent()
    _worker = Worker(origin)


def _do(number: int, job: Job) -> Built:
    assert _worker is not None
    return _worker.do(number, job)
