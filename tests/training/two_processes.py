"""One of two processes that train together; started by `test_gradients.py`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from small import job

from tutelage.training import Training
from tutelage.training.loop import fit
from tutelage.training.setup import make_accelerator

folder = Path(sys.argv[1])
torch.set_num_threads(1)
accelerator = make_accelerator()
assert accelerator.num_processes == 2, accelerator.distributed_type
training = Training(
    steps=3,
    batch_size=12,
    micro_batches=2,
    optimizer="sgd",
    learning_rate=0.5,
    momentum=0.0,
    schedule="constant",
    warmup=0.0,
    clip_norm=None,
    log_every=1,
)
run = job(folder / "together", training, steps=3)
records = list(fit(run))
weights = dict(run.student.state_dict()) | {f"hint.{k}": v for k, v in run.losses[2].state_dict().items()}
save_file({k: v.contiguous() for k, v in weights.items()}, folder / f"rank{os.environ['RANK']}.safetensors")
accelerator.end_training()
