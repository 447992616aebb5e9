"""Candidates timed in turn: whatever drifts (frequency, temperature, neighbours) drifts for all of them alike.

A round is one block of consecutive calls of each candidate; every other round runs in the reverse order. Within a block
each call is timed by itself, after one untimed call that brings the candidate's weights back into the caches, as they
are for a model that is served alone. Between blocks a reference kernel is timed; a round with a slow one is thrown
away and run again, as long as there is time for it.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from tutelage.devices.contention import Contention

__all__ = ["Plan", "Rounds", "measure"]

MINIMUM_ROUNDS = 5
MAXIMUM_CALLS = 200
COLD_CACHE_MATTERS_FROM = 5
"""Blocks of so many calls begin with an untimed one; fewer calls are so long that refilling a cache does not show."""


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """What was timed.

    Attributes:
        samples_ms: By candidate: `samples_ms[name][round][call]`, milliseconds.
        contaminated: Rounds in which the machine was shared.
        repeated: Those of them that were thrown away and run again; the others are among the samples.
    """

    samples_ms: dict[str, list[list[float]]]
    contaminated: int = 0
    repeated: int = 0

    @property
    def kept(self) -> int:
        """Contaminated rounds among the samples."""
        return self.contaminated - self.repeated


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How many rounds, and calls of each candidate in a round."""

    rounds: int
    calls: dict[str, int]

    @classmethod
    def within(cls, seconds: float, call_seconds: Mapping[str, float], *, rounds: int) -> Plan:
        """Fills the time: `rounds` rounds where it lasts, with as many calls as fit, at least one and at most 200.

        When even one call of each candidate in every round is too much, there are fewer rounds, but at least 5 (or
        `rounds`, if that is less).
        """
        once = sum(call_seconds.values())
        affordable = int(seconds / once) if once > 0 else rounds
        rounds = min(rounds, max(MINIMUM_ROUNDS, affordable))
        block = seconds / (rounds * len(call_seconds))
        calls = {
            name: max(1, min(MAXIMUM_CALLS, int(block / each) if each > 0 else MAXIMUM_CALLS))
            for name, each in call_seconds.items()
        }
        return cls(rounds=rounds, calls=calls)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _warm(call: Callable[[], object], clock: Callable[[], float], *, seconds: float, calls: int = 3) -> float:
    """The fastest, in seconds, of up to three calls after a first one, which may compile, allocate or page in."""
    call()
    durations: list[float] = []
    while len(durations) < calls and (not durations or sum(durations) < seconds):
        start = clock()
        call()
        durations.append(clock() - start)
    return min(durations)


def _block(call: Callable[[], object], calls: int, clock: Callable[[], float]) -> list[float]:
    if calls >= COLD_CACHE_MATTERS_FROM:
        call()
    samples = []
    for _ in range(calls):
        start = clock()
        call()
        samples.append((clock() - start) * 1000.0)
    return samples


def measure(
    candidates: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 10,
    seconds: float = 4.0,
    contention: Contention | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Rounds:
    """Times the candidates in alternating rounds.

    Args:
        candidates: What to call, by name. A call must be over when it returns (on CUDA: synchronised).
        rounds: Rounds wanted; slow candidates get fewer, see `Plan.within`.
        seconds: About how long it may take. Contaminated rounds are repeated until that has taken half of it more.
        contention: Tells whether a round was disturbed; None for the standard reference kernel.
        clock: Seconds, monotonic.

    Returns:
        All samples of the rounds that count.
    """
    contention = contention or Contention(clock=clock)
    with _no_garbage_collection():
        once = {name: _warm(call, clock, seconds=0.05 * seconds) for name, call in candidates.items()}
        plan = Plan.within(seconds, once, rounds=rounds)
        contention.calibrate()
        spare = 0.5 * seconds
        samples: dict[str, list[list[float]]] = {name: [] for name in candidates}
        contaminated = repeated = done = 0
        while done < plan.rounds:
            names = list(candidates) if done % 2 == 0 else list(candidates)[::-1]
            quiet, blocks, start = True, {}, clock()
            for name in names:
                blocks[name] = _block(candidates[name], plan.calls[name], clock)
                quiet &= contention.quiet()
            contaminated += not quiet
            if not quiet and spare > 0:
                spare -= clock() - start
                repeated += 1
                continue
            for name, block in blocks.items():
                samples[name].append(block)
            done += 1
    return Rounds(samples_ms=samples, contaminated=contaminated, repeated=repeated)
