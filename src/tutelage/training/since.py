"""What the steps since the last record came to: a checkpoint keeps it, so that no record leaves steps out."""

from __future__ import annotations

import time
from typing import Any

import torch
import torch.distributed
from accelerate import Accelerator
from torch import Tensor

from tutelage.training.untaught import Untaught

__all__ = ["Since"]


class Since:
    """Losses, rows and time of some steps, over all processes.

    Args:
        accelerator: Of the training.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.losses: list[Tensor] = []
        self.rows = 0
        self.untaught = Untaught()
        self._before, self._started = 0.0, time.monotonic()

    def add(self, losses: Tensor, rows: int) -> None:
        """A step: objective and terms, `[1 + K]`, of this process, and the rows of the whole batch."""
        self.losses.append(losses)
        self.rows += rows

    def stop_clock(self) -> None:
        """What is done from now on is no training."""
        self._before, self._started = self.seconds, time.monotonic()

    def start_clock(self) -> None:
        """Training goes on."""
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Of training."""
        return self._before + time.monotonic() - self._started

    def of_all(self) -> Tensor:
        """`[n, 1 + K]`: objective and terms of each step, summed over processes. All have to call it."""
        return self._summed(torch.stack(self.losses)) if self.losses else torch.zeros(0)

    def untaught_of_all(self) -> Untaught:
        """Rows that taught nothing, over all processes. All have to call it."""
        counts = torch.tensor([self.untaught.unanswered, self.untaught.empty], device=self.accelerator.device)
        unanswered, empty = self._summed(counts).tolist()
        return Untaught(unanswered, empty)

    def state(self) -> dict[str, Any]:
        """As plain data for a checkpoint. All processes have to call it."""
        return {
            "losses": self.of_all().tolist(),
            "rows": self.rows,
            "untaught": vars(self.untaught_of_all()),
            "seconds": self.seconds,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`: the first process has the sums, the others nothing to add to them."""
        share = 1 if self.accelerator.is_main_process else 0
        self.losses = [torch.tensor(row, device=self.accelerator.device) * share for row in state["losses"]]
        self.rows, self._before = state["rows"], state["seconds"]
        self.untaught = Untaught(**{name: count * share for name, count in state["untaught"].items()})

    def _summed(self, values: Tensor) -> Tensor:
        if self.accelerator.num_processes > 1:
            torch.distributed.all_reduce(values)
        return values
