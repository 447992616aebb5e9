"""A device by name."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, Self

from tutelage.errors import UserError

__all__ = ["Target", "usable_cores"]


def usable_cores() -> int:
    """Logical cores that this process may run on: fewer than the machine has, in a container or under `taskset`."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class Target:
    """A device to measure on.

    Attributes:
        kind: `cpu` or `cuda`.
        index: The number of the CUDA device.
        threads: CPU threads that a runtime may use. On CUDA they only launch kernels.
    """

    kind: Literal["cpu", "cuda"]
    index: int = 0
    threads: int = 1

    @property
    def torch_name(self) -> str:
        """As `torch.device` takes it."""
        return "cpu" if self.kind == "cpu" else f"cuda:{self.index}"

    @property
    def name(self) -> str:
        """As `parse` takes it."""
        return f"cpu:{self.threads}" if self.kind == "cpu" else f"cuda:{self.index}"

    def computing(self, names: Collection[str]) -> Collection[str] | None:
        """Models, of these that only compute, whose wall time is their CPU time on a quiet machine.

        None on CUDA, where the CPU's time says nothing; nobody with several threads, of which some may wait for others.
        """
        if self.kind == "cuda":
            return None
        return names if self.threads == 1 else ()

    @classmethod
    def parse(cls, name: str, *, key: str = "device") -> Self:
        """Reads `cpu:N` (N threads), `cpu` (a thread for every usable core), `cuda:N` or `cuda`.

        Args:
            name: The device.
            key: Where the name was written, for the message.

        Raises:
            UserError: The name is none of these, or asks for more threads than there are cores.
        """
        match = re.fullmatch(r"(cpu|cuda)(?::(\d+))?", name.strip().lower())
        if match is None:
            raise UserError(
                key,
                expected="`cpu:N` (the CPU with N threads), `cpu` (all cores) or `cuda:N`",
                found=repr(name),
                mend="for one CPU thread write `cpu:1`",
            )
        number = None if match[2] is None else int(match[2])
        if match[1] == "cuda":
            return cls(kind="cuda", index=number or 0)
        cores = usable_cores()
        if number is not None and not 1 <= number <= cores:
            raise UserError(
                key,
                expected=f"1 to {cores} threads: this process may use {cores} cores",
                found=repr(name),
                harm="threads that wait for one another's core would be timed, not the model",
                mend=f"write `cpu:{cores}`, or measure on a machine with more cores",
            )
        return cls(kind="cpu", threads=number or cores)

    def require(self, *, key: str = "device") -> Self:
        """This target, if this machine has it.

        Args:
            key: Where its name was written, for the message.

        Raises:
            UserError: It is a CUDA device that is not here.
        """
        if self.kind == "cuda":
            import torch

            count = torch.cuda.device_count() if torch.cuda.is_available() else 0
            if self.index >= count:
                raise UserError(
                    key,
                    expected=f"`cuda:0` to `cuda:{count - 1}`" if count else "`cpu:N`: this machine has no CUDA device",
                    found=repr(self.name),
                    mend="write `cpu:1`, or measure on a machine that has the device",
                )
        return self
