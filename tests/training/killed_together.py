"""One of two processes that train together with checkpoints all the time; started by `test_killed_together.py`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from small import make_batch
from test_killed_together import together

from tutelage.errors import RunError
from tutelage.training import checkpoint
from tutelage.training.loop import fit
from tutelage.training.processes import peers
from tutelage.training.setup import make_accelerator

folder, pause, port = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
os.environ["MASTER_PORT"] = port
torch.set_num_threads(1)
accelerator = make_accelerator()
assert accelerator.num_processes == 2
save = checkpoint.save_checkpoint


def slow_save(*arguments: Any) -> None:
    time.sleep(pause)
    save(*arguments)


def uneven_batch(rows: Any, views: Any) -> Any:
    time.sleep(pause / 20 * (1 + accelerator.process_index))
    return make_batch(rows, views)


checkpoint.save_checkpoint = slow_save
try:
    with peers():
        list(fit(together(folder, make_batch=uneven_batch)))
except RunError as error:
    print(error)
    sys.exit(4)
accelerator.end_training()
