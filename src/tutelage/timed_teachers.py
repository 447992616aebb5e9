"""Teachers as a forecast asks them: those that are slow, or asked once and for all, about a few rows alone."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch

from tutelage.signals import Request
from tutelage.teachers import Cached, Teacher
from tutelage.teachers.chunks import Chunks
from tutelage.teachers.stand_in import Sampled, remote_teachers, replaced, with_stand_ins
from tutelage.transfer import TransferSet

__all__ = ["TimedTeacher", "TimedTeachers"]

LONGEST = 5.0
"""Seconds that a question may take which only measures a teacher's speed."""
PATIENCE = 10.0
"""Seconds that a forecast may ask a teacher; one that would take longer is asked about a few rows."""
SIZES = (1, 16, 128)
"""Rows in the questions by which the speed is told, as long as they are expected not to take too long."""


@dataclass(frozen=True, kw_only=True)
class TimedTeacher:
    """A teacher in a forecast.

    Attributes:
        teacher: Who is asked in its place.
        row_seconds: What an answer takes that is not waited for; 0 of one that is asked as it is.
        samples: The parts of `teacher` that are asked about a few rows, whose time does not count.
    """

    teacher: Teacher
    row_seconds: float = 0.0
    samples: list[Sampled] = field(default_factory=list)

    @property
    def uncounted(self) -> float:
        """Seconds so far that are no part of what is timed."""
        return sum(sample.seconds for sample in self.samples)


class TimedTeachers:
    """The teachers of a recipe as a forecast asks them.

    Args:
        data: The rows.
        device: Where they are asked.
        rows: About how many rows a forecast would ask each, in all.
        chunk: Rows that are asked about at once; None for any number.
    """

    def __init__(self, data: TransferSet, device: torch.device, rows: int, chunk: int | None) -> None:
        self.data, self.device, self.rows, self.chunks = data, device, rows, Chunks(chunk)
        self._first = data.example(2).to(device)
        self._known: dict[int, TimedTeacher] = {}

    def of(self, teacher: Teacher) -> TimedTeacher:
        """Whom to ask in the place of a teacher.

        A cached teacher is asked once, before all training, and its stored answers take next to no time. One that sends
        its questions elsewhere is not asked about more than the first rows.
        """
        if id(teacher) not in self._known:
            self._known[id(teacher)] = self._look_at(teacher)
        return self._known[id(teacher)]

    def _look_at(self, teacher: Teacher) -> TimedTeacher:
        samples: list[Sampled] = []

        def sampled(each: Teacher) -> Teacher | None:
            if not isinstance(each, Cached):
                return None
            samples.append(Sampled(each))
            return samples[-1]

        asked = replaced(with_stand_ins(teacher, self._first), sampled)
        if remote_teachers(teacher) or samples:
            return TimedTeacher(teacher=asked, samples=samples)
        seconds = self._row_seconds(asked)
        if seconds * self.rows <= PATIENCE:
            return TimedTeacher(teacher=asked)
        slow = Sampled(asked)
        return TimedTeacher(teacher=slow, row_seconds=seconds, samples=[slow])

    def _row_seconds(self, teacher: Teacher) -> float:
        """Seconds a row, from the largest question that is not expected to take too long."""
        seconds, development = 0.0, self.data.rows("development")
        for size in SIZES:
            if seconds * size > LONGEST:
                break
            batch = self.data.batch(development[:size]).to(self.device)
            begin = time.perf_counter()
            self.chunks.ask(lambda some: teacher.ask(some, Request(output=True)), batch)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds = (time.perf_counter() - begin) / len(batch)
        return seconds
