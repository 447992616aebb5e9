"""Filling on a Ray cluster, with Ray Data."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from tutelage.cache import Built, Job
from tutelage.cache.shards import ShardRecord
from tutelage.errors import MissingExtra, RunError, TutelageError, UserError
from tutelage.labelling.pool import Origin, Worker
from tutelage.teachers import Cached

__all__ = ["RayCluster"]


class RayCluster:
    """The jobs spread over the nodes of a Ray cluster, by `ray.data.Dataset.map_batches` with an actor on each CPU.

    Every node has to see the recipe, its files and the folders of the caches under the same paths: a shared file
    system. A job whose node dies is done again elsewhere; a shard is named after what it answers and written whole, so
    it can't be there twice.

    Args:
        origin: Where the workers find the recipe.
        caches: Those of the recipe.
        address: Of the cluster, or `local` for one on this machine.
        workers: How many actors at most; None: one for each CPU.

    Raises:
        MissingExtra: Ray is not installed.
        RunError: There is no cluster at that address.
    """

    def __init__(self, origin: Origin, caches: Sequence[Cached], address: str, workers: int | None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing leaves the cluster
        try:
            import ray
        except ImportError:
            raise MissingExtra("ray", "ray", "tutelage label --ray") from None
        self.origin, self.caches = origin, list(caches)
        if not ray.is_initialized():
            try:
                ray.init(address=address, log_to_driver=False, include_dashboard=False if address == "local" else None)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise RunError(f"no Ray cluster at {address}: {error}") from error
        self.workers = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))

    def do(self, cached: Cached, jobs: Sequence[Job], tell: Callable[[int], None]) -> Iterator[Built]:
        """See `Workers`.

        Raises:
            RunError: The cluster can't do it; what was answered before is kept.
        """
        if not jobs:
            return
        import ray

        number = next(index for index, each in enumerate(self.caches) if each is cached)
        items = [
            {"job": index, "names": json.dumps(job.names), "rows": job.rows.tolist(), "views": job.views.tolist()}
            for index, job in enumerate(jobs)
        ]
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.verbose_stats_logs = False
        count = min(self.workers, len(jobs))
        answers = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            _Actor,
            fn_constructor_args=[asdict(self.origin), number],
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=count),
            num_cpus=1,
        )
        seen: set[str] = set()
        try:
            for row in answers.iter_rows():
                if row.get("error"):
                    raise RunError(row["error"])
                built = _built(json.loads(row["built"]))
                if built.file not in seen:
                    seen.add(built.file)
                    tell(built.record.rows)
                    yield built
        except TutelageError:
            raise
        except Exception as error:  # Ray has many
            raise RunError(
                f"the Ray cluster stopped: {' '.join(str(error).split())[:500]}. "
                "What was answered is kept: the same command goes on."
            ) from error


class _Actor:
    """A worker on a node: it does the jobs that come to it."""

    def __init__(self, origin: dict[str, Any], number: int) -> None:
        self.number, self.problem = number, ""
        try:
            self.worker = Worker(Origin(**origin))
        except UserError as error:  # said where the command was given: Ray would start the actor again and again
            self.problem = str(error)

    def __call__(self, batch: Any) -> Any:
        import pyarrow as pa

        rows = []
        for item in batch.to_pylist():
            job = Job(
                np.asarray(item["rows"], dtype=np.int64),
                np.asarray(item["views"], dtype=np.int64),
                tuple(json.loads(item["names"])),
            )
            rows.append(self._do(job))
        return pa.Table.from_pylist(rows)

    def _do(self, job: Job) -> dict[str, str]:
        if self.problem:
            return {"built": "", "error": self.problem}
        try:
            return {"built": json.dumps(asdict(self.worker.do(self.number, job))), "error": ""}
        except TutelageError as error:
            return {"built": "", "error": str(error)}


def _built(data: dict[str, Any]) -> Built:
    return Built(file=data["file"], record=ShardRecord(**data["record"]), signals=data["signals"])
