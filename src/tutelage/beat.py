"""A sign of life: a phase that takes long says every half minute that it goes on, and how far it is."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Self

__all__ = ["Phase", "at", "duration"]

EVERY = 30.0
"""Seconds in which a log hears something."""

_under_way: list[Phase] = []


class Phase:
    """Something that may take long, as a `with` block; the innermost one speaks.

    Args:
        what: Its name.
        on: Whether it speaks at all.
        seconds: After how long a silence it speaks.
    """

    def __init__(self, what: str, *, on: bool = True, seconds: float | None = None) -> None:
        self.what, self.on, self.seconds = what, on, EVERY if seconds is None else seconds
        self._state, self._over = "under way", threading.Event()
        self._begin = self._spoke = time.monotonic()

    def __enter__(self) -> Self:
        self._begin = self._spoke = time.monotonic()
        _under_way.append(self)
        if self.on:
            threading.Thread(target=self._beat, name="beat", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        _under_way.remove(self)
        if _under_way:
            _under_way[-1].spoke()

    def at(self, state: str) -> None:
        """How far it is."""
        self._state = state

    def spoke(self) -> None:
        """Something was said of it just now."""
        self._spoke = time.monotonic()

    def _beat(self) -> None:
        while not self._over.wait(max(0.01, self._spoke + self.seconds - time.monotonic())):
            if time.monotonic() - self._spoke < self.seconds:
                continue
            self.spoke()
            if _under_way[-1:] != [self]:
                continue
            try:
                took = duration(time.monotonic() - self._begin)
                print(f"tutelage: {self.what}: {self._state}, {took} so far", file=sys.stderr, flush=True)
            except (OSError, ValueError):  # nobody reads it any more
                return


def at(state: str) -> None:
    """How far the innermost phase is."""
    if _under_way:
        _under_way[-1].at(state)


def duration(seconds: float) -> str:
    """Seconds in words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
