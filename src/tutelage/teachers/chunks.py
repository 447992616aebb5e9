"""Questions in pieces: no more rows at once than are wanted, and fewer when memory runs out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import numpy as np
import torch

from tutelage.cache import joined, parts_of, signals_of
from tutelage.errors import OutOfMemory, RecipeError
from tutelage.signals import Batch, Signals

__all__ = ["Chunks", "check_chunk", "out_of_memory"]


def check_chunk(rows: int | None) -> None:
    """Raises a `RecipeError` for a `chunk` that is no number of rows."""
    if rows is not None and rows < 1:
        raise RecipeError("chunk", expected="at least 1 row, or null for what is usual", found=str(rows))


class Chunks:
    """Asks a model about a batch, piece by piece.

    A piece that memory does not suffice for is asked in two halves, and from then on no piece is larger. The pieces
    keep the padding of the batch, and a model in eval mode answers each row by itself: the answers are the same, but
    for rounding.

    Args:
        rows: The most rows of a piece; None for the whole batch.
        model: How to name the model in messages.
    """

    def __init__(self, rows: int | None = None, *, model: str = "the teacher") -> None:
        self.rows, self.model = rows, model

    def ask(self, ask: Callable[[Batch], Signals], batch: Batch) -> Signals:
        """What `ask` says about a batch.

        Raises:
            OutOfMemory: Memory does not suffice for a single row.
        """
        if self.rows is None or len(batch) <= self.rows:
            try:
                return ask(batch)
            except Exception as error:
                if not out_of_memory(error):
                    raise
                self._halve(len(batch), error)
        said = [parts_of(one) for one in self._pieces(ask, batch)]
        return signals_of({name: joined([parts[name] for parts in said]) for name in said[0]})

    def _pieces(self, ask: Callable[[Batch], Signals], batch: Batch) -> Iterator[Signals]:
        at = 0
        while at < len(batch):
            assert self.rows is not None
            piece = batch.some(np.arange(at, min(at + self.rows, len(batch))))
            try:
                said = ask(piece)
            except Exception as error:
                if not out_of_memory(error):
                    raise
                self._halve(len(piece), error)
                continue
            yield said
            at += len(piece)

    def _halve(self, rows: int, error: Exception) -> None:
        """Takes note that so many rows are too many."""
        if rows <= 1:
            raise OutOfMemory(
                f"{self.model} was asked about a single row, and memory ran out ({_first_line(error)}). Take a device "
                "with more memory, a smaller model, or shorter inputs."
            ) from error
        self.rows = rows // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # what was reserved for the larger question, in pieces of the wrong size
        print(
            f"tutelage: memory ran out when {self.model} was asked about {rows:,} rows at once: it is asked about "
            f"{self.rows:,} from here on, and answers the same; `chunk: {self.rows}` in the recipe begins with so many",
            file=sys.stderr,
            flush=True,
        )


def out_of_memory(error: BaseException | None) -> bool:
    """Whether an error says that memory ran out, on a GPU or on this machine; or the one that it was raised from."""
    if error is None or isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return error is not None
    of_library = isinstance(error, RuntimeError) or type(error).__module__.startswith("onnxruntime")
    return (of_library and any(sign in str(error) for sign in _SIGNS)) or out_of_memory(error.__cause__)


_SIGNS = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "Failed to allocate memory",
    "bad allocation",
    "std::bad_alloc",
)
"""How allocators say it in errors that have no class of their own."""


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__
