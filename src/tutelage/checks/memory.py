"""How much memory a question to the teacher takes, before it is asked about many rows at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tutelage.devices.memory import free_bytes, give_back, peak_added_by
from tutelage.probe import forward_pass
from tutelage.recipe import Recipe
from tutelage.signals import Request
from tutelage.teachers import Cached, Teacher, uncached
from tutelage.teachers.chunks import Chunks
from tutelage.teachers.stand_in import remote_teachers
from tutelage.transfer import TransferSet

__all__ = ["Question", "question_memory"]

Array = np.ndarray[Any, Any]
ROWS = 8
"""Rows by which the memory of a question is told."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What the largest question of a run takes.

    Attributes:
        rows: About how many rows it is.
        row_bytes: What the teacher needs for one of the longest rows, beside its weights.
        free: What is free where it is asked; None where that is not known.
    """

    rows: int
    row_bytes: float
    free: int | None

    @property
    def bytes(self) -> float:
        """Of the whole question."""
        return self.rows * self.row_bytes

    def __str__(self) -> str:
        free = "" if self.free is None else f"; {self.free / 1e9:,.1f} GB are free"
        return (
            f"a question about {self.rows:,} rows takes the teacher about {self.bytes / 1e9:,.1f} GB "
            f"({self.row_bytes / 1e6:,.0f} MB a row, told by {ROWS} rows){free}"
        )

    def notes(self) -> list[str]:
        """What is to be done where it is too large."""
        if self.free is None or self.bytes < 0.8 * self.free:
            return []
        fits = max(1, int(0.5 * self.free / self.row_bytes))
        return [f"{self}: the system may end the run; set `chunk: {2 ** (fits.bit_length() - 1)}`"]


def question_memory(recipe: Recipe, data: TransferSet, device: torch.device, rows: int) -> Question | None:
    """Measures the memory of a question about a few of the longest rows, and reckons that of the largest one.

    On the CPU it is what the process grows by, on a GPU what is taken of its memory. None for teachers that run
    elsewhere, or that are not to be asked yet, and where it is too little to be told.

    Args:
        recipe: The recipe, whose teacher is loaded.
        data: The rows.
        device: Where the teacher is asked.
        rows: How many rows are asked about at once outside of training steps.
    """
    teacher = recipe.teacher
    if remote_teachers(teacher) or _may_cost(teacher) or recipe.asking is not None:
        return None
    longest = _longest(data)
    batch = data.batch(longest).to(device)
    chunks = Chunks(recipe.chunk)  # halves what is too much even here

    def ask() -> object:
        with forward_pass("the teacher"):
            return chunks.ask(lambda some: uncached(teacher).ask(some, Request(output=True)), batch)

    peak = _peak(ask, device if teacher.modules else torch.device("cpu"))
    at_once = min(len(longest), chunks.rows or len(longest))
    training = recipe.training
    piece = -(-min(training.batch_size, data.sizes["train"]) // training.micro_batches)
    question = Question(
        rows=max(rows, min(piece, recipe.chunk or piece)),
        row_bytes=peak / max(1, at_once),
        free=_free(device if teacher.modules else torch.device("cpu")),
    )
    return question if question.bytes >= 1e8 else None


def _may_cost(teacher: Teacher) -> bool:
    """Whether a part of it is a lazy cached teacher, which is not woken to be looked at."""
    if isinstance(teacher, Cached) and teacher.lazy:
        return True
    return any(_may_cost(inner) for inner in teacher.inner.values())


def _longest(data: TransferSet) -> Array:
    rows = np.concatenate([data.rows(split) for split in ("development", "test", "train")])
    lengths = data.lengths(rows)
    chosen: Array = (rows if lengths is None else rows[np.argsort(-lengths, kind="stable")])[:ROWS]
    return chosen


def _peak(work: Callable[[], object], device: torch.device) -> int:
    """The bytes that some work takes at its highest, above what is taken before."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        kept = work()
        peak = torch.cuda.max_memory_allocated(device) - before
        del kept
        return peak
    give_back()
    return peak_added_by(work)


def _free(device: torch.device) -> int | None:
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return free_bytes()
