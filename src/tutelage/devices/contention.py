"""Was something else running? A fixed piece of work is timed between rounds: when it is slow, the machine was shared.

The reference kernel takes about 2 ms on one core and no memory traffic worth the name. A scheduler that takes the core
away does so for longer than that, so a disturbed kernel stands out. Where the system counts the time that a hypervisor
gave to others (Linux, `steal`), that is looked at too. On a machine that is busy all the time the kernel is slow in
calibration already, so it is held against its own CPU time, in which waiting for the core is not counted; and so are
timed blocks that do nothing but compute on one thread (`latency.py`).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

__all__ = ["Contention", "fine_clock", "reference_kernel", "stolen_share"]

_VALUES = np.linspace(1.0, 2.0, 4096, dtype=np.float32)
_RESULT = np.empty_like(_VALUES)


def reference_kernel() -> None:
    """About 2 ms of arithmetic on one core, in 32 kB."""
    for _ in range(1000):
        np.sqrt(_VALUES, out=_RESULT)


def fine_clock(clock: Callable[[], float]) -> Callable[[], float] | None:
    """The clock, if it moves in steps of less than 0.1 ms; None for the coarse CPU clocks that some systems have."""

    def step() -> float:
        start = clock()
        while (now := clock()) == start:
            pass
        return now - start

    return clock if min(step() for _ in range(3)) < 1e-4 else None


def stolen_share(since: tuple[int, int] | None) -> tuple[float, tuple[int, int]]:
    """The share of all cores' time that a hypervisor gave to others since a previous reading, and the new reading.

    Returns:
        `(share, reading)`; the share is 0 for the first reading and on systems that don't count it.
    """
    try:
        fields = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return 0.0, (0, 0)
    reading = (fields[7] if len(fields) > 7 else 0, sum(fields))
    if since is None or reading[1] <= since[1]:
        return 0.0, reading
    return (reading[0] - since[0]) / (reading[1] - since[1]), reading


class Contention:
    """Says after each stretch of timed work whether the machine was shared.

    Args:
        kernel: The reference work.
        clock: Seconds.
        cpu_clock: CPU seconds of this thread; None: the kernel is held against its usual wall time alone.
        factor: The kernel may take this multiple of the median of all its runs before, in wall or in CPU time.
        steal_limit: The share of stolen time that is let pass.
        calibration: Runs of the kernel before the first stretch.
    """

    def __init__(
        self,
        kernel: Callable[[], None] = reference_kernel,
        clock: Callable[[], float] = time.perf_counter,
        *,
        cpu_clock: Callable[[], float] | None = None,
        factor: float = 1.5,
        steal_limit: float = 0.05,
        calibration: int = 9,
    ) -> None:
        self.kernel, self.clock, self.cpu_clock = kernel, clock, cpu_clock
        self.factor, self.steal_limit, self.calibration = factor, steal_limit, calibration
        self._runs: list[float] = []
        self._cpu: list[float] = []
        self._stat: tuple[int, int] | None = None

    def _run(self) -> float:
        cpu = self.cpu_clock or self.clock
        start, used = self.clock(), cpu()
        self.kernel()
        self._cpu.append(cpu() - used)
        self._runs.append(self.clock() - start)
        return self._runs[-1]

    def calibrate(self) -> None:
        """Learns how long the kernel takes here; forgets what was learned before."""
        self._runs.clear()
        self._cpu.clear()
        self.kernel()
        for _ in range(self.calibration):
            self._run()
        _, self._stat = stolen_share(None)

    def quiet(self) -> bool:
        """Times the kernel once more: False when it, or the share of stolen time since the last call, is too large."""
        usual = min(statistics.median(self._runs), statistics.median(self._cpu))
        duration = self._run()
        stolen, self._stat = stolen_share(self._stat)
        return duration <= self.factor * usual and stolen <= self.steal_limit
