"""What each loss costs: its time and memory as a ratio of the same loss written plainly.

    python benchmarks/losses.py                        # every loss
    python benchmarks/losses.py --only KLDivergence Hint --rounds 31
    python benchmarks/losses.py --device cuda

The plain expressions are the `PLAIN` of each loss's test file, at the size of real layers; the contract suite checks
that both compute the same number. A measurement is forward and backward to the student's signals and to the trained
parts, on one thread. Loss and plain expression run in turn within a round, in another order each time; the ratio of
time is the median over rounds of the ratio within a round, and beside it stands the interval that holds the true median
19 times in 20. Memory is the highest sum of what the allocator handed out during one measurement, above what stood
before: signals and weights do not count, gradients do. The C allocator is told to keep what is freed: whether it gives
a block back to the kernel and has its pages cleared anew depends on what else lies on the heap, and takes as long as a
loss.

The exit status is 1 if a loss takes more than 1.2 times as long as its plain expression, or 1.2 times its memory. Time
has a spread: where the first measurement says that it is too long, one with four times as many rounds decides, by the
lower end of its interval. Memory has none.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "losses"))

import torch
from loss_case import Plain, objective, tensors_of
from torch import Tensor

from tutelage.losses import all_losses

ALLOWED = 1.2  # times the plain expression, in time and in memory
LEAST_SECONDS = 0.02  # a round repeats what is shorter, so that the clock and a switch of tasks weigh less


@dataclass(frozen=True)
class Measured:
    """What a case costs: milliseconds of the loss, the ratio of time with its interval, the ratio of memory."""

    ms: float
    ratio: float
    low: float
    high: float
    memory: float

    @property
    def excess(self) -> list[str]:
        """What there is too much of for certain."""
        return [name for name, least in (("time", self.low), ("memory", self.memory)) if least > ALLOWED]

    def __str__(self) -> str:
        spread = f"{self.ratio:.2f} ({self.low:.2f} to {self.high:.2f})"
        return f"{self.ms:9.2f}  {spread:24}{self.memory:.2f}"


def plain_cases() -> dict[tuple[str, str], Plain]:
    """Every plain expression, by the loss's name and its own."""
    found = {}
    for name, kind in all_losses().items():
        module = importlib.import_module(f"test_{kind.__module__.rpartition('.')[2]}")
        for case, plain in module.PLAIN.items():
            if type(plain.make()) is kind:
                found[name, case] = plain
    return found


def runs(plain: Plain, device: str) -> tuple[Callable[[], object], Callable[[], object]]:
    """Forward and backward of the loss, and of its plain expression, on the same tensors."""
    loss, student, teacher, batch = plain.set_up()
    loss, batch = loss.to(device), batch.to(torch.device(device))
    student = student.map(lambda tensor: tensor.detach().to(device).requires_grad_())
    teacher = teacher.map(lambda tensor: tensor.to(device))
    inputs = [*tensors_of(student).values(), *(p for p in loss.parameters() if p.requires_grad)]

    def gradients(total: Tensor) -> object:
        return torch.autograd.grad(total, inputs, allow_unused=True)  # what teaches itself gets no gradient

    def by_loss() -> object:
        return gradients(objective(loss, student, teacher, batch))

    def by_plain() -> object:
        return gradients(plain.expression(tensors_of(student), tensors_of(teacher), batch.labels, loss))

    return by_loss, by_plain


def keep_freed_memory() -> None:
    """Tells glibc, where that is the C library, to give nothing back to the kernel."""
    with contextlib.suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        trim_threshold, mmap_max = -1, -4  # names of malloc.h
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_max, 0)


def synchronize(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def seconds(run: Callable[[], object], repeats: int, device: str) -> float:
    """The time of one call, as the mean over `repeats`."""
    synchronize(device)
    begin = time.perf_counter()
    for _ in range(repeats):
        run()
    synchronize(device)
    return (time.perf_counter() - begin) / repeats


def peak_bytes(run: Callable[[], object], device: str) -> int:
    """The most that stood in memory at once during a call, above what stood before."""
    if device != "cpu":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    assert profile.profiler is not None and profile.profiler.kineto_results is not None
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    standing = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        standing += event.nbytes()
        peak = max(peak, standing)
    return peak


def interval_of_median(values: list[float]) -> tuple[float, float]:
    """Order statistics between which the true median lies 19 times in 20."""
    values, away = sorted(values), int(0.98 * len(values) ** 0.5 + 1)
    middle = len(values) // 2
    return values[max(0, middle - away)], values[min(len(values) - 1, middle + away)]


def measure(plain: Plain, rounds: int, device: str) -> Measured:
    """Times both in turn and compares within each round."""
    by_loss, by_plain = runs(plain, device)
    for run in (by_loss, by_plain):
        run()  # warms up
    memory = peak_bytes(by_loss, device) / peak_bytes(by_plain, device)
    repeats = max(1, round(LEAST_SECONDS / seconds(by_loss, 3, device)))
    took: dict[Callable[[], object], list[float]] = {by_loss: [], by_plain: []}
    for round_ in range(rounds):
        for run in (by_loss, by_plain) if round_ % 2 else (by_plain, by_loss):
            took[run].append(seconds(run, repeats, device))
    ratios = [a / b for a, b in zip(took[by_loss], took[by_plain], strict=True)]
    return Measured(
        1e3 * statistics.median(took[by_loss]), statistics.median(ratios), *interval_of_median(ratios), memory
    )


def main() -> int:
    """Prints a line a case; 1 if a loss costs more than it may."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these losses alone")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    cases = plain_cases()
    unknown = set(options.only or ()) - {name for name, _ in cases}
    if unknown:
        parser.error(f"no plain expression of {sorted(unknown)}")
    print(f"{'loss':28}{'case':16}{'ms':>9}  {'time / plain':24}memory / plain")
    costly = []
    for (name, case), plain in cases.items():
        if options.only and name not in options.only:
            continue
        found = measure(plain, options.rounds, options.device)
        if found.ratio > ALLOWED:
            found = measure(plain, 4 * options.rounds, options.device)
        costly += [f"{name} on {case} ({what})" for what in found.excess]
        print(f"{name:28}{case:16}{found}{'  TOO MUCH' if found.excess else ''}", flush=True)
    if costly:
        print(f"more than {ALLOWED} times the plain expression: {', '.join(costly)}")
    return 1 if costly else 0


if __name__ == "__main__":
    sys.exit(main())
