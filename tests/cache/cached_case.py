"""Small teachers and rows whose answers are cached."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tutelage.cache import Keys, names_of
from tutelage.signals import Batch, Request, Signals
from tutelage.teachers import Cached, ModuleTeacher, Teacher, TransferFacts

ROWS, VIEWS, CLASSES = 60, 3, 7
CPU = torch.device("cpu")
OUTPUT = Request(output=True)
Array = np.ndarray[Any, Any]


class Exact(nn.Linear):
    """A linear layer that computes in float64, so that an answer has the same bits in every batch."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x.double(), self.weight.double(), self.bias.double()).float()


class Wide(nn.Module):
    """A network whose answer to a row has the same bits in every batch. Counts its rows."""

    def __init__(self, seed: int = 0, classes: int = CLASSES) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.inner = Exact(5, 6)
            self.head = Exact(6, classes)
        self.asked = 0

    def forward(self, x: Tensor) -> Tensor:
        self.asked += len(x)
        return self.head(torch.tanh(self.inner(x))) * 4


def pictures() -> Tensor:
    return torch.randn(ROWS, 5, generator=torch.Generator().manual_seed(7))


def make_batch(rows: Array, views: Array) -> Batch:
    """A view is a shift: teacher and student can tell them apart."""
    at = torch.as_tensor(np.asarray(rows, dtype=np.int64))
    seen = torch.as_tensor(np.asarray(views, dtype=np.int64))
    return Batch(inputs=pictures()[at] + seen[:, None], rows=at, views=seen)


def facts(inputs: str = "a" * 64) -> TransferFacts:
    return TransferFacts(inputs=inputs, rows=ROWS, classes=(), labelled=lambda: make_batch(np.arange(4), np.zeros(4)))


def cached(folder: Path, teacher: Teacher | None = None, *, inputs: str = "a" * 64, **settings: Any) -> Cached:
    made = Cached(teacher or ModuleTeacher(Wide), str(folder), **{"shard_rows": 16, "features": "float32", **settings})
    made.load(CPU)
    made.meet(facts(inputs))
    return made


def every(request: Request = OUTPUT, views: Sequence[int] = range(VIEWS)) -> list[Keys]:
    rows = np.tile(np.arange(ROWS), len(views))
    return [Keys(rows, np.repeat(np.asarray(views), ROWS), names_of(request))]


def fill(
    teacher: Cached,
    wanted: Sequence[Keys] | None = None,
    *,
    batch: Callable[[Array, Array], Batch] = make_batch,
    stop_after: int | None = None,
) -> int:
    """Fills a cache in batches of 5, the last first, up to so many shards; gives how many were written."""
    store, done = teacher.opened(), 0
    with store.locked():
        for job in teacher.missing(every() if wanted is None else wanted):
            if done == stop_after:
                break
            at = [np.arange(i, min(i + 5, len(job.rows))) for i in range(0, len(job.rows), 5)][::-1]
            store.keep(teacher.answer(job, ((p, batch(job.rows[p], job.views[p])) for p in at)))
            done += 1
    teacher.opened()
    return done


def module_of(teacher: Cached) -> Wide:
    module = teacher.teacher.module
    assert isinstance(module, Wide)
    return module


def same(found: Signals, expected: Signals) -> None:
    torch.testing.assert_close(found.output, expected.output, rtol=0, atol=0)
    assert found.features.keys() == expected.features.keys()
    for path, tensor in expected.features.items():
        torch.testing.assert_close(found.features[path], tensor, rtol=0, atol=0)
