"""In the place of teachers whose questions cost something, while a run is only looked at."""

from __future__ import annotations

import copy
from typing import Any

import torch

from tutelage.signals import Batch, Request, Signals
from tutelage.teachers.base import Teacher, TransferFacts

__all__ = ["remote_teachers", "with_stand_ins"]


class _StandIn(Teacher):
    """Says about every row what a teacher says about the first ones, which every plan asks about anyway."""

    def __init__(self, teacher: Teacher, first: Batch) -> None:
        self._asked, self._first = teacher, first

    def load(self, device: torch.device) -> None:
        """As the teacher does."""
        self._asked.load(device)

    def meet(self, facts: TransferFacts) -> None:
        """As the teacher does."""
        self._asked.meet(facts)

    def check(self, request: Request) -> None:
        """As the teacher does."""
        self._asked.check(request)

    def ask(self, batch: Batch, request: Request) -> Signals:
        """The answers to the first rows, over and over."""
        said = self._asked.ask(self._first, request)
        rows = torch.arange(len(batch), device=self._first.rows.device) % len(self._first)
        return said.map(lambda tensor: tensor[rows])

    def fingerprint(self) -> str:
        """The teacher's."""
        return self._asked.fingerprint()

    @property
    def classes(self) -> tuple[str, ...]:
        """The teacher's."""
        return self._asked.classes


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
    copied = copy.copy(teacher)
    for name, value in vars(teacher).items():
        setattr(copied, name, _replaced(value, first))
    return copied


def _replaced(value: Any, first: Batch) -> Any:
    if isinstance(value, Teacher):
        return with_stand_ins(value, first)
    if isinstance(value, dict):
        return {key: _replaced(each, first) for key, each in value.items()}
    if isinstance(value, list):
        return [_replaced(each, first) for each in value]
    return value
