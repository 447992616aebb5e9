"""The whole command under two processes, as `accelerate launch` or torchrun starts it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

RECIPE = Path(__file__).parent.parent / "recipes" / "digits.yaml"
SHORT = ["--training.steps", "30", "--teacher_training", "{steps: 20}", "--measure.seconds", "0.5"]


def start(folder: Path, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tutelage", "distill", str(RECIPE), "--out", str(folder), "--quiet", *SHORT]
    settings = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    return subprocess.Popen(command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def history(folder: Path) -> list[tuple[str, int, bool, float | None]]:
    lines = map(json.loads, (folder / "bundle" / "history.jsonl").read_text().splitlines())
    return [(x["role"], x["step"], "development" in x, x.get("loss")) for x in lines]


def test_two_processes_write_one_bundle_with_the_curves_of_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"ACCELERATE_USE_CPU": "true", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [start(tmp_path / "two", RANK=str(rank), LOCAL_RANK=str(rank), **common) for rank in (0, 1)]
    outputs = [rank.communicate(timeout=240)[0] for rank in ranks]
    assert {rank.returncode for rank in ranks} <= {0, 1, 3}, outputs
    assert ranks[0].returncode == ranks[1].returncode, outputs
    alone = start(tmp_path / "one")
    assert alone.communicate(timeout=240)[0] and alone.returncode in (0, 1, 3)
    two, one = history(tmp_path / "two"), history(tmp_path / "one")
    assert [x[:3] for x in two] == [x[:3] for x in one]
    for together, single in zip(two, one, strict=True):
        if single[3] is not None and together[3] is not None:
            assert abs(together[3] - single[3]) < 1e-3 * max(1.0, single[3]), (together, single)
