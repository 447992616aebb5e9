"""The training that the loop benchmarks share: networks, data, and the loop by hand."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))

from models import ResNet, SmallCNN

BATCH, LEARNING_RATE, MOMENTUM, TEMPERATURE = 64, 0.05, 0.9, 4.0


def networks() -> tuple[nn.Module, nn.Module]:
    """The student and the teacher of `recipes/fashion.yaml`, untrained, the same each time."""
    torch.manual_seed(0)
    teacher = ResNet()
    return SmallCNN(), teacher.eval()


def data() -> Tensor:
    """Pictures of noise: the loop's cost does not depend on what is on them."""
    return torch.randn(1024, 1, 28, 28, generator=torch.Generator().manual_seed(1))


def by_hand(student: nn.Module, teacher: nn.Module, pictures: Tensor, steps: int) -> None:
    """The training as one would write it without any framework."""
    optimizer = torch.optim.SGD(student.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, nesterov=True)
    student.train()
    running = 0.0
    for step in range(steps):
        rows = torch.arange(step * BATCH, (step + 1) * BATCH) % len(pictures)
        batch = pictures[rows]
        with torch.no_grad():
            target = teacher(batch)
        logits = student(batch)
        loss = TEMPERATURE**2 * F.kl_div(
            F.log_softmax(logits / TEMPERATURE, 1),
            F.log_softmax(target / TEMPERATURE, 1),
            reduction="batchmean",
            log_target=True,
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        running += loss.item()


Run = Callable[[nn.Module, nn.Module, Tensor, int], None]


def compare(name: str, run: Run) -> None:
    """Reads `--steps` and `--rounds`, runs a loop and the one by hand in turn, and prints the ratio of their times."""
    options, _ = arguments().parse_known_args()
    torch.set_num_threads(1)
    pictures, ratios = data(), []
    for round_ in range(options.rounds + 1):
        seconds: dict[Run, float] = {}
        students: dict[Run, nn.Module] = {}
        for loop in (by_hand, run) if round_ % 2 else (run, by_hand):
            students[loop], teacher = networks()
            begin = time.perf_counter()
            loop(students[loop], teacher, pictures, options.steps)
            seconds[loop] = time.perf_counter() - begin
        for a, b in zip(students[by_hand].parameters(), students[run].parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        if round_:  # the first warms up
            ratios.append(seconds[run] / seconds[by_hand])
    spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
    print(f"{name} / by hand: {statistics.median(ratios):.3f} (median of {len(ratios)} rounds, {spread})", flush=True)


def arguments() -> argparse.ArgumentParser:
    """What both benchmarks are told."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=9)
    return parser
