"""In the place of teachers whose questions cost something, while a run is only looked at."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tutelage.signals import Batch, Request, Signals
from tutelage.teachers.base import Teacher, TransferFacts

__all__ = ["Sampled", "remote_teachers", "replaced", "with_stand_ins"]


class _InPlaceOf(Teacher):
    """Is asked in the place of a teacher; all but the answers is the teacher's."""

    def __init__(self, teacher: Teacher) -> None:
        self._asked = teacher

    def load(self, device: torch.device) -> None:
        """As the teacher does."""
        self._asked.load(device)

    def meet(self, facts: TransferFacts) -> None:
        """As the teacher does."""
        self._asked.meet(facts)

    def check(self, request: Request) -> None:
        """As the teacher does."""
        self._asked.check(request)

    def fingerprint(self) -> str:
        """The teacher's."""
        return self._asked.fingerprint()

    @property
    def classes(self) -> tuple[str, ...]:
        """The teacher's."""
        return self._asked.classes


class _StandIn(_InPlaceOf):
    """Says about every row what a teacher says about the first ones, which every plan asks about anyway."""

    def __init__(self, teacher: Teacher, first: Batch) -> None:
        super().__init__(teacher)
        self._first = first

    def ask(self, batch: Batch, request: Request) -> Signals:
        """The answers to the first rows, over and over."""
        return _repeated(self._asked.ask(self._first, request), len(batch))


class Sampled(_InPlaceOf):
    """Asks a teacher about the first two rows of each batch alone, and says of the others the same.

    Attributes:
        seconds: What asking has taken so far.
    """

    def __init__(self, teacher: Teacher) -> None:
        super().__init__(teacher)
        self.seconds = 0.0

    def ask(self, batch: Batch, request: Request) -> Signals:
        """The answers to two rows, over and over."""
        begin = time.perf_counter()
        said = _repeated(self._asked.ask(batch.some(np.arange(min(2, len(batch)))), request), len(batch))
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds += time.perf_counter() - begin
        return said


def _repeated(said: Signals, rows: int) -> Signals:
    def repeated(tensor: Tensor) -> Tensor:
        return tensor[torch.arange(rows, device=tensor.device) % len(tensor)]

    return said.map(repeated)


def remote_teachers(teacher: Teacher) -> list[Teacher]:
    """Every teacher whose questions are sent elsewhere that a teacher is or is made of."""
    if teacher.calls_sent is not None:
        return [teacher]
    found = [remote for inner in teacher.inner.values() for remote in remote_teachers(inner)]
    return list({id(remote): remote for remote in found}.values())


def with_stand_ins(teacher: Teacher, first: Batch) -> Teacher:
    """The teacher, but that no question leaves this machine that is not one about the `first` rows."""
    if teacher.calls_sent is not None:
        return _StandIn(teacher, first)
    if not remote_teachers(teacher):
        return teacher
    return replaced(teacher, lambda each: _StandIn(each, first) if each.calls_sent is not None else None)


def replaced(teacher: Teacher, instead: Callable[[Teacher], Teacher | None]) -> Teacher:
    """A teacher with others in the place of those that it is, or is made of, wherever `instead` gives one."""
    if (other := instead(teacher)) is not None:
        return other
    if not teacher.inner:
        return teacher
    copied = copy.copy(teacher)
    for name, value in vars(teacher).items():
        setattr(copied, name, _replaced(value, instead))
    return copied


def _replaced(value: Any, instead: Callable[[Teacher], Teacher | None]) -> Any:
    if isinstance(value, Teacher):
        return replaced(value, instead)
    if isinstance(value, dict):
        return {key: _replaced(each, instead) for key, each in value.items()}
    if isinstance(value, list):
        return [_replaced(each, instead) for each in value]
    return value
