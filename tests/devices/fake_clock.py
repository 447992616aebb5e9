"""A clock that only moves when told to, and contention that is decided by a script."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tutelage.devices.contention import Contention


class FakeClock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: Callable[[], float] | float) -> Callable[[], None]:
        """A call that takes so long."""

        def run() -> None:
            self.now += seconds() if callable(seconds) else seconds

        return run


class Scripted(Contention):
    """Quiet except in the checks of these numbers, counted from 0."""

    def __init__(self, loud: Iterable[int], clock: FakeClock) -> None:
        super().__init__(kernel=lambda: None, clock=clock)
        self.loud, self.checks = set(loud), 0

    def calibrate(self) -> None:
        return None

    def quiet(self) -> bool:
        self.checks += 1
        return self.checks - 1 not in self.loud
