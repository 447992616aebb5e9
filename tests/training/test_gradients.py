"""The gradient of a step: against one written by hand, in pieces, and over two processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from small import BATCH, adversary, job, network, one_sgd_step, table, trained_parts
from torch import Tensor

from tutelage.training import Training
from tutelage.training.loop import fit

HERE = Path(__file__).parent


def trained(folder: Path, pieces: int, steps: int = 1) -> dict[str, Tensor]:
    run = job(folder, one_sgd_step(pieces, steps), steps=steps)
    list(fit(run))
    return trained_parts(run)


def by_hand(folder: Path) -> dict[str, Tensor]:
    """One SGD step in float64, from the definitions alone."""
    training = Training(steps=1, batch_size=BATCH)
    run = job(folder, training, steps=1)
    student, teacher, hint = run.student.double(), network(2).double(), run.losses[2].double()
    inputs, labels, labelled = table()
    x, y, known = inputs[:BATCH].double(), labels[:BATCH], labelled[:BATCH]
    hidden = student[0](x)
    logits = student[3](student[1](hidden))
    t = teacher(x).detach()
    p = torch.softmax(t / 2, 1)
    kl = 4 * (p * (p.log() - torch.log_softmax(logits / 2, 1))).sum(1).mean()
    nll = -torch.log_softmax(logits, 1)[torch.arange(BATCH), y]
    entropy = (nll * known).sum() / known.sum()
    weight, *bias = hint.parameters()
    projected = F.linear(hidden, weight.reshape(weight.shape[0], -1), *bias)
    distance = (projected - torch.tanh(teacher[0](x)).detach()).square().sum(1).mean() / 2
    (0.7 * kl + 0.3 * entropy + 0.1 * distance).backward()
    with torch.no_grad():
        return {name: value - 0.5 * value.grad for name, value in student.named_parameters()} | {
            f"hint.{name}": value - 0.5 * value.grad for name, value in hint.named_parameters()
        }


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name].double(), value.double(), rtol=0, atol=tolerance, msg=name)


@pytest.mark.parametrize("pieces", [1, 2, 4, 5])
def test_accumulation_that_averages_the_means_of_pieces_is_caught(tmp_path: Path, pieces: int) -> None:
    # The labelled rows are spread unevenly over the pieces, so a mean of means is another number.
    assert_close(trained(tmp_path / "run", pieces), by_hand(tmp_path / "hand"), 1e-6)


def test_two_processes_that_average_their_own_means_are_caught(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = os.environ | {
        "ACCELERATE_USE_CPU": "true",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(HERE),
    }
    ranks = [
        subprocess.Popen(
            [sys.executable, str(HERE / "two_processes.py"), str(tmp_path)],
            env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (0, 1)
    ]
    output = [rank.communicate(timeout=120)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], output
    alone = trained(tmp_path / "alone", 1, steps=3)
    temperature = adversary()
    list(fit(job(tmp_path / "adversary alone", one_sgd_step(1, steps=3), steps=3, losses=[temperature])))
    assert abs(temperature.value.item() - 1) > 1e-4
    alone["temperature"] = temperature.value.detach()
    for rank in (0, 1):
        assert_close(load_file(tmp_path / f"rank{rank}.safetensors"), alone, 1e-6)
