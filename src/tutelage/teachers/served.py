"""A teacher as it is timed: what it reads of a batch, what it is stored in, how it is made ready."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import nn

from tutelage.signals import Batch, Signals

__all__ = ["GraphFile", "Reads", "Served"]

Reads = Literal["inputs", "raw"]
Feed = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, kw_only=True)
class GraphFile:
    """An ONNX file that can be called in another process.

    Attributes:
        path: The file.
        output: The output that is asked for.
        feeds: What it is called with for a batch: arrays by the names and in the types of its inputs, in as many calls
            as its batch axis makes necessary.
    """

    path: Path
    output: str
    feeds: Callable[[Batch], list[Feed]]


@dataclass(frozen=True, kw_only=True)
class Served:
    """A teacher that runs on this machine, as a server would run it.

    Attributes:
        open: Makes it ready on the CPU with so many threads, apart from the teacher that is asked in the run; what it
            gives answers about a batch.
        reads: What it reads of a batch: the student's `inputs`, the `raw` columns, or both.
        files: What it is stored in beside `modules`; None for what is in no file, such as a function.
        modules: The torch modules that it runs: they have to be on the CPU, in eval mode.
        graph: The file, where it is an ONNX graph that reads the student's inputs.
    """

    open: Callable[[int], Callable[[Batch], Signals]]
    reads: frozenset[Reads]
    files: tuple[Path, ...] | None
    modules: tuple[nn.Module, ...] = ()
    graph: GraphFile | None = None
