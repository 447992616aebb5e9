"""A training that another process kills; started by `test_resume.py`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from small import make_batch
from test_resume import killable

from tutelage.training.loop import fit

folder, pause = Path(sys.argv[1]), float(sys.argv[2])
torch.set_num_threads(1)


def slow_batch(rows, views):  # type: ignore[no-untyped-def]
    time.sleep(pause)
    return make_batch(rows, views)


list(fit(killable(folder, make_batch=slow_batch)))
