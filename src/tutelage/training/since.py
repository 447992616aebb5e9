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

    What processes have to add up is added up at each step, where all of them are: so a checkpoint, which the first one
    writes when its clock says so, needs no other.

    Args:
        accelerator: Of the training.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.rows = 0
        self._steps: list[Tensor] = []  # of each: objective, terms, rows without an answer, rows that are empty
        self._before, self._started = 0.0, time.monotonic()

    def add(self, losses: Tensor, untaught: Untaught, rows: int) -> None:
        """A step, which all processes tell of together.

        Args:
            losses: Objective and terms, `[1 + K]`, of this process.
            untaught: Of this process.
            rows: Of the whole batch.
        """
        step = torch.cat([losses, losses.new_tensor([untaught.unanswered, untaught.empty])])
        if self.accelerator.num_processes > 1:
            torch.distributed.all_reduce(step)
        self._steps.append(step)
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

    @property
    def losses(self) -> Tensor:
        """Objective and terms of each step, `[n, 1 + K]`."""
        return torch.stack(self._steps)[:, :-2] if self._steps else torch.zeros(0, 1)

    @property
    def untaught(self) -> Untaught:
        """Rows that taught nothing."""
        counts = [step[-2:].tolist() for step in self._steps]
        return Untaught(*(round(sum(count)) for count in zip(*counts, strict=True)))

    def state(self) -> dict[str, Any]:
        """As plain data for a checkpoint."""
        return {
            "losses": self.losses.tolist() if self._steps else [],
            "rows": self.rows,
            "untaught": vars(self.untaught),
            "seconds": self.seconds,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        counts = [[float(count) for count in state["untaught"].values()]]
        counts += [[0.0, 0.0]] * len(state["losses"])
        device = self.accelerator.device
        self._steps = [
            torch.tensor([*losses, *count], device=device)
            for losses, count in zip(state["losses"], counts, strict=False)
        ]
        self.rows, self._before = state["rows"], state["seconds"]
