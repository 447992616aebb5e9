"""A small training with a memory: run as a script, it is one of two processes that train together."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))

import numpy as np
import torch
from safetensors.torch import save_file
from small import ROWS, InTurn, job, make_batch, network, one_sgd_step
from torch import Tensor

from tutelage.losses import ContrastiveRepresentation
from tutelage.signals import Request
from tutelage.taps import observe
from tutelage.training.loop import fit

BATCH, STEPS, MEMORY = 11, 6, 20  # an odd batch, so that processes have different numbers of rows; rows come again


def contrastive(variant: str = "official") -> ContrastiveRepresentation:
    """Prepared for the networks of `small`."""
    torch.manual_seed(5)
    loss = ContrastiveRepresentation("0", "1", width=5, memory=MEMORY, temperature=0.5, variant=variant)  # type: ignore[arg-type]
    loss.introduce(modules={}, rows=ROWS)
    batch = make_batch(np.arange(4), np.zeros(4, dtype=int))
    with torch.no_grad():
        student = observe(network(1, hidden=12), batch.inputs, Request(features=frozenset({"0"})))
        teacher = observe(network(2), batch.inputs, Request(features=frozenset({"1"})))
    loss.prepare(student, teacher, batch)
    return loss


def trained(folder: Path, pieces: int, steps: int = STEPS) -> dict[str, Tensor]:
    """The student and the loss, memory included, after a few steps."""
    loss = contrastive()
    run = job(folder, one_sgd_step(pieces, steps=steps), steps=steps, losses=[loss], order=InTurn(BATCH))
    list(fit(run))
    state = dict(run.student.state_dict()) | {f"loss.{name}": value for name, value in loss.state_dict().items()}
    return {name: value.detach().cpu().contiguous() for name, value in state.items()}


if __name__ == "__main__":
    from tutelage.training.setup import make_accelerator

    out = Path(sys.argv[1])
    torch.set_num_threads(1)
    accelerator = make_accelerator()
    assert accelerator.num_processes == 2, accelerator.distributed_type
    save_file(trained(out / "together", 2), out / f"rank{os.environ['RANK']}.safetensors")
    accelerator.end_training()
