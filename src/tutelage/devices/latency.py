"""Candidates timed in turn: whatever drifts (frequency, temperature, neighbours) drifts for all of them alike.

A round is one block of consecutive calls of each candidate; every other round runs in the reverse order. Within a block
each call is timed by itself, after one untimed call that brings the candidate's weights back into the caches, as they
are for a model that is served alone. Between blocks a reference kernel is timed; a round with a slow one is thrown
away and run again, as long as there is time for it. So is a round in which calls that do nothing but compute on one
thread took longer than their CPU time: they waited for the core.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from tutelage.devices.contention import Contention, fine_clock

__all__ = ["JUDGED_CALLS", "Plan", "Rounds", "measure"]

MINIMUM_ROUNDS = 6
"""A median has a 95% interval from 6 values on."""
MAXIMUM_CALLS = 200
JUDGED_CALLS = 200
"""An upper limit of 97.5% for a 95th percentile takes 72 independent calls; those of one round are alike."""
JUDGED_ROUNDS = 40
"""What befalls a tenth of all rounds shows in 40 of them with a probability of 99%, in 15 with one of 79%."""
FEW_ROUNDS = 15
LONGEST = 10
"""What is judged may take so many times the time that was given."""
WAITING = 1.2
"""A block of calls that do nothing but compute may take so many times its CPU time."""
COLD_CACHE_MATTERS_FROM = 5
"""Blocks of so many calls begin with an untimed one; fewer calls are so long that refilling a cache does not show."""


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """What was timed.

    Attributes:
        samples_ms: By candidate: `samples_ms[name][round][call]`, milliseconds.
        cpu_ms: By candidate: `cpu_ms[name][round]`, CPU time of a call, the mean of its block; empty if not taken.
        contaminated: Rounds in which the machine was shared.
        repeated: Those of them that were thrown away and run again; the others are among the samples.
    """

    samples_ms: dict[str, list[list[float]]]
    cpu_ms: dict[str, list[float]] = field(default_factory=dict)
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
    def within(
        cls,
        seconds: float,
        call_seconds: Mapping[str, float],
        *,
        rounds: int,
        judged: Mapping[str, int] | None = None,
    ) -> Plan:
        """Fills the time: `rounds` rounds where it lasts, with as many calls as fit, at least one and at most 200.

        When even one call of each candidate in every round is too much, there are fewer rounds, but at least 6 (or
        `rounds`, if that is less).

        What is judged takes as long as it takes to know enough, up to ten times `seconds`: 40 rounds (at least 15, if
        40 would take more than half of that), and in all of them together the calls that `judged` wants.

        Args:
            seconds: About how long it may take.
            call_seconds: By candidate.
            rounds: Rounds wanted.
            judged: By candidate, the calls that a judgement takes; None when nothing is judged.
        """
        once = sum(call_seconds.values())
        affordable = int(seconds / once) if once > 0 else rounds
        if judged is None:
            rounds = min(rounds, max(MINIMUM_ROUNDS, affordable))
        else:
            wanted = max(rounds, JUDGED_ROUNDS)
            most = int(LONGEST * seconds / once) if once > 0 else wanted
            rounds = min(wanted, max(FEW_ROUNDS, most // 2), max(MINIMUM_ROUNDS, most))
        block = seconds / (rounds * len(call_seconds))
        spare = LONGEST * seconds / rounds - once
        calls = {}
        for name, each in call_seconds.items():
            fits = int(block / each) if each > 0 else MAXIMUM_CALLS
            enough = min(math.ceil((judged or {}).get(name, 0) / rounds), 1 + int(spare / each) if each > 0 else fits)
            calls[name] = max(1, min(MAXIMUM_CALLS, fits), enough)
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


@dataclass(frozen=True)
class _Block:
    """Calls of one candidate, one after the other: what each took, and the time of all, in seconds."""

    samples_ms: list[float]
    wall: float
    cpu: float

    @property
    def waited(self) -> bool:
        """Whether it took longer than it computed."""
        return self.wall > WAITING * self.cpu


def _block(
    call: Callable[[], object], calls: int, clock: Callable[[], float], cpu_clock: Callable[[], float]
) -> _Block:
    if calls >= COLD_CACHE_MATTERS_FROM:
        call()
    samples = []
    used, began = cpu_clock(), clock()
    for _ in range(calls):
        start = clock()
        call()
        samples.append((clock() - start) * 1000.0)
    return _Block(samples, clock() - began, cpu_clock() - used)


def measure(
    candidates: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 10,
    seconds: float = 4.0,
    judged: Mapping[str, int] | None = None,
    computing: Collection[str] | None = (),
    contention: Contention | None = None,
    clock: Callable[[], float] = time.perf_counter,
    cpu_clock: Callable[[], float] | None = None,
) -> Rounds:
    """Times the candidates in alternating rounds.

    Args:
        candidates: What to call, by name. A call must be over when it returns (on CUDA: synchronised).
        rounds: Rounds wanted; slow candidates get fewer, see `Plan.within`.
        seconds: About how long it may take. Contaminated rounds are repeated until that has taken half of it more.
        judged: By candidate, the calls that a judgement takes, see `Plan.within`.
        computing: Candidates whose calls do nothing but compute on one thread of this process. None: what the CPU
            does says nothing of the calls (CUDA), and no CPU time is taken.
        contention: Tells whether a round was disturbed; None for the standard reference kernel.
        clock: Seconds, monotonic.
        cpu_clock: CPU seconds of all threads of this process; None for the system's clock, where it is fine enough.

    Returns:
        All samples of the rounds that count.
    """
    cpu = None if computing is None else cpu_clock or fine_clock(time.process_time)
    contention = contention or Contention(clock=clock, cpu_clock=fine_clock(time.thread_time))
    with _no_garbage_collection():
        once = {name: _warm(call, clock, seconds=0.05 * seconds) for name, call in candidates.items()}
        plan = Plan.within(seconds, once, rounds=rounds, judged=judged)
        contention.calibrate()
        spare = 0.5 * seconds
        samples: dict[str, list[list[float]]] = {name: [] for name in candidates}
        cpu_ms: dict[str, list[float]] = {name: [] for name in candidates if cpu is not None}
        contaminated = repeated = done = 0
        began = clock()
        while done < plan.rounds:
            # Calls may have become slower than the plan knew.
            if judged is not None and done >= MINIMUM_ROUNDS and clock() - began > LONGEST * seconds:
                break
            names = list(candidates) if done % 2 == 0 else list(candidates)[::-1]
            quiet, blocks, start = True, {}, clock()
            for name in names:
                blocks[name] = _block(candidates[name], plan.calls[name], clock, cpu or clock)
                quiet &= contention.quiet()
                quiet &= cpu is None or name not in (computing or ()) or not blocks[name].waited
            contaminated += not quiet
            if not quiet and spare > 0:
                spare -= clock() - start
                repeated += 1
                continue
            for name, block in blocks.items():
                samples[name].append(block.samples_ms)
                if cpu is not None:
                    cpu_ms[name].append(1000.0 * block.cpu / len(block.samples_ms))
            done += 1
    return Rounds(samples_ms=samples, cpu_ms=cpu_ms, contaminated=contaminated, repeated=repeated)
