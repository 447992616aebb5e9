"""The whole command under two processes, as the README starts them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
RECIPE = ROOT / "recipes" / "digits.yaml"
SHORT = ["--training.steps", "30", "--teacher_training", "{steps: 20}", "--measure.seconds", "0.5"]
OFTEN = ["--training.checkpoint_seconds", "0.05"]


def start(folder: Path, *launcher: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        *launcher,
        "-m",
        "tutelage",
        "distill",
        str(RECIPE),
        "--out",
        str(folder),
        "--quiet",
        *SHORT,
    ]
    settings = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def documented() -> list[str]:
    """The launcher that the README names, and its options."""
    (found,) = re.findall(r"`torchrun ([^`]*?) -m tutelage distill RECIPE`", (ROOT / "README.md").read_text())
    return ["-m", "torch.distributed.run", *found.split()]


def history(folder: Path) -> list[tuple[str, int, bool, float | None]]:
    lines = map(json.loads, (folder / "bundle" / "history.jsonl").read_text().splitlines())
    return [(x["role"], x["step"], "development" in x, x.get("loss")) for x in lines]


def test_the_readmes_launcher_starts_two_processes_that_write_one_bundle_with_the_curves_of_one(tmp_path: Path) -> None:
    shown = start(tmp_path / "two", *documented()).communicate(timeout=480)[0]
    assert "another run is at work" not in shown and shown.count("report: ") == 1, shown  # one of them speaks
    alone = start(tmp_path / "one")
    assert alone.communicate(timeout=480)[0] and alone.returncode in (0, 1, 3)
    two, one = history(tmp_path / "two"), history(tmp_path / "one")
    assert [x[:3] for x in two] == [x[:3] for x in one]
    for together, single in zip(two, one, strict=True):
        if single[3] is not None and together[3] is not None:
            assert abs(together[3] - single[3]) < 1e-3 * max(1.0, single[3]), (together, single)
    assert any(a[3] != b[3] for a, b in zip(two, one, strict=True))  # halves were summed: these were two processes
    assert (tmp_path / "two" / "bundle" / "report.html").exists()
