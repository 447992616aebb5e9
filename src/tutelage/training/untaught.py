"""Rows of a batch that teach nothing: what the teacher leaves unanswered is known before the student learns from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tutelage.losses.counted import is_empty, is_silent, silences
from tutelage.signals import Batch, Request, Signals

__all__ = ["Untaught", "first_answers"]


def first_answers(ask: Callable[[Batch], Signals], pieces: Sequence[Batch], request: Request) -> list[Signals | None]:
    """What the teacher says of each piece of a batch, where it may leave rows unanswered: what counts depends on it.

    Of a teacher that answers them all it is the first piece's alone: no more than one piece's is held at a time.
    """
    first = ask(pieces[0])
    if any(True for _ in silences(first, request)):
        return [first, *map(ask, pieces[1:])]
    return [first, *[None] * (len(pieces) - 1)]


@dataclass
class Untaught:
    """How many rows the teacher gave no answer to, and how many had no token."""

    unanswered: int = 0
    empty: int = 0

    def add(self, pieces: Sequence[Batch], said: Sequence[Signals | None], request: Request) -> None:
        """Counts the rows of some pieces."""
        for piece, answer in zip(pieces, said, strict=True):
            self.unanswered += 0 if answer is None else int(is_silent(answer, request, piece).sum())
            self.empty += int(is_empty(piece).sum())
