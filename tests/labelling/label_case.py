"""A small recipe with cached teachers, as a file beside the classes that it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

MODULE = '''
import time
from pathlib import Path
import numpy as np
import torch
from torch import nn
from tutelage.transfer import Arrays, Rows, Source

class Exact(nn.Linear):
    """Computes in float64: an answer has the same bits in every batch."""
    def forward(self, x):
        return nn.functional.linear(x.double(), self.weight.double(), self.bias.double()).float()

class Net(nn.Module):
    def __init__(self, hidden: int = 6, exact: bool = False):
        super().__init__()
        layer = Exact if exact else nn.Linear
        self.hidden, self.output = layer(48, hidden), layer(hidden, 3)
        self.asked, self.exact = 0, exact
    def forward(self, x):
        self.asked += len(x)
        if self.exact and Path(__file__).with_name("slow").exists():
            import ray
            here = Path(__file__).parent
            (here / ("on-" + ray.get_runtime_context().get_node_id())).touch()
            time.sleep(0.3)
            until = time.monotonic() + 90  # on a busy machine the second node starts late
            written = len(list((here / "cache").glob("*.arrow")))
            while written > 5 and len(list(here.glob("on-*"))) < 2 and time.monotonic() < until:
                time.sleep(0.05)
        return self.output(torch.tanh(self.hidden(x.flatten(1)))) * 3

class Noise(Source):
    """Pictures [1, 8, 6] of noise, uint8, with labels."""
    def __init__(self, rows: int = 90):
        self.rows = rows
    def load(self):
        rng = np.random.default_rng(0)
        pictures = rng.integers(0, 255, size=(self.rows, 1, 8, 6), dtype=np.uint8)
        return Rows(columns={"input": pictures}, labels=rng.integers(3, size=self.rows), classes=("a", "b", "c"))
'''


def net(hidden: int, *, exact: bool = False) -> dict[str, Any]:
    init = {"hidden": hidden, "exact": exact}
    return {"class_path": "label_models.Net", "init_args": init}


def recipe(folder: Path, *, cache: dict[str, Any] | None = None, **changes: Any) -> Path:
    """Writes the recipe.

    Where a file `slow` is beside it, the teacher is slow, notes the Ray node that it is on, and waits for a second node
    before all is done. `cache` are settings of `Cached`, None for the live teacher.
    """
    (folder / "label_models.py").write_text(MODULE)
    teacher: dict[str, Any] = {"class_path": "ModuleTeacher", "init_args": {"module": net(8, exact=True)}}
    if cache is not None:
        settings = {"folder": str(folder / "cache"), "shard_rows": 40, "features": "float32", **cache}
        teacher = {"class_path": "Cached", "init_args": {"teacher": teacher, **settings}}
    data = {
        "name": "labelled",
        "task": "classification",
        "data": {
            "source": {"class_path": "label_models.Noise"},
            "splits": {"development": 0.15, "test": 0.2},
            "views": {"class_path": "ShiftFlip", "init_args": {"shift": 1}},
        },
        "teacher": teacher,
        "student": {"class_path": "ModuleStudent", "init_args": {"module": net(5)}},
        "losses": [{"class_path": "KLDivergence", "init_args": {"temperature": 2.0}}],
        "training": {"steps": 15, "batch_size": 12, "learning_rate": 1e-2},
        "seeds": [0, 1],
        "baseline": False,
        **changes,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("answers-*.arrow"))}
