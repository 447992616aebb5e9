"""One of two processes that train together; started by `test_gradients.py`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from small import adversary, job, one_sgd_step, trained_parts

from tutelage.training.loop import fit
from tutelage.training.setup import make_accelerator

folder = Path(sys.argv[1])
torch.set_num_threads(1)
accelerator = make_accelerator()
assert accelerator.num_processes == 2, accelerator.distributed_type
run = job(folder / "together", one_sgd_step(2, steps=3), steps=3)
list(fit(run))
weights = trained_parts(run)
temperature = adversary()
list(fit(job(folder / "adversary", one_sgd_step(2, steps=3), steps=3, losses=[temperature])))
weights["temperature"] = temperature.value.detach()
save_file({k: v.contiguous() for k, v in weights.items()}, folder / f"rank{os.environ['RANK']}.safetensors")
accelerator.end_training()
