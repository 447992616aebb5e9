"""Two processes whose clocks differ save checkpoints together, and one that is killed ends the other."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from small import dev_loss, job

from tutelage.training import Training
from tutelage.training.checkpoint import latest_step
from tutelage.training.loop import Fit, fit

HERE = Path(__file__).parent


def start(folder: Path, pause: float) -> list[subprocess.Popen[str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]),
        "OMP_NUM_THREADS": "1",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
    }
    return [
        subprocess.Popen(
            [sys.executable, str(HERE / "killed_together.py"), str(folder), str(pause), port],
            env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (0, 1)
    ]


def ended(processes: list[subprocess.Popen[str]], seconds: float) -> list[tuple[int, str]]:
    try:
        return [
            (process.returncode, said) for process in processes for said in [process.communicate(timeout=seconds)[0]]
        ]
    finally:
        for process in processes:
            process.kill()


def together(folder: Path, **changes: Any) -> Fit:
    often: dict[str, Any] = {"checkpoint_seconds": 0.05, "evaluate_every": 9, "log_every": 7}
    settings = Training(steps=60, batch_size=8, learning_rate=0.02, **often)
    choice: dict[str, Any] = {"evaluate": dev_loss, "select": "distance", "higher_is_better": False}
    return job(folder, settings, steps=60, **choice, **changes)


def test_checkpoints_by_the_clock_of_each_process_and_a_kill_that_leaves_the_other_waiting_are_caught(
    tmp_path: Path,
) -> None:
    """Every save takes longer than the interval, and the second process is slower: their clocks never agree."""
    folder = tmp_path / "killed"
    processes = start(folder, 0.1)
    while (latest_step(folder) or 0) < 6 and processes[0].poll() is None:
        time.sleep(0.01)
    processes[1].kill()
    ((status, said),) = ended(processes[:1], 60)
    processes[1].communicate()
    assert status == 4 and "another process of this run has ended" in said, said
    assert 0 < (latest_step(folder) or 0) < 60
    for status, said in ended(start(folder, 0.1), 120):
        assert status == 0, said
    list(fit(together(tmp_path / "alone")))
    expected, found = (load_file(tmp_path / name / "best.safetensors") for name in ("alone", "killed"))
    for name, value in expected.items():
        torch.testing.assert_close(value, found[name], rtol=1e-3, atol=1e-3)
