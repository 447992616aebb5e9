"""What tutelage's loop costs: its time as a ratio of the same training written by hand.

    python benchmarks/loop.py                      # tutelage against a loop by hand
    python benchmarks/loop.py --torchdistill PYTHON  # and torchdistill 1.1.5 against the same, with that interpreter

Both train the student CNN of `recipes/fashion.yaml` from its teacher on the same batches for the same steps: Hinton's
loss at T = 4, SGD with momentum, batch 64 of 28x28 pictures. The loops run in alternating rounds in one process; the
ratio is the median over rounds of the ratio of a round's two times. Both ends are checked to have learnt the same
weights.

torchdistill needs torchvision, which does not import beside the CPU build of torch 2.13.0, so it runs in an environment
of its own (`pip install torch==2.14.1 torchvision==0.29.1 torchdistill==1.1.5`) against the same loop by hand there.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import torch
from small_cnn import BATCH, LEARNING_RATE, MOMENTUM, arguments, compare


class InTurn:
    """The rows in turn: the batches of the loop by hand."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and views of a step."""
        at = np.arange(step * BATCH, (step + 1) * BATCH) % self.rows
        return at, np.zeros_like(at)


def with_tutelage(student: torch.nn.Module, teacher: torch.nn.Module, pictures: torch.Tensor, steps: int) -> None:
    from tutelage import losses
    from tutelage.signals import Batch
    from tutelage.teachers import ModuleTeacher
    from tutelage.training import Training
    from tutelage.training.loop import Fit, fit

    def make_batch(rows, views):  # type: ignore[no-untyped-def]
        at = torch.from_numpy(rows)
        return Batch(inputs=pictures[at], rows=at, views=torch.from_numpy(views))

    asked = ModuleTeacher(teacher)
    asked.load(torch.device("cpu"))
    training = Training(
        steps=steps,
        batch_size=BATCH,
        optimizer="sgd",
        learning_rate=LEARNING_RATE,
        momentum=MOMENTUM,
        schedule="constant",
        warmup=0.0,
        clip_norm=None,
    )
    with tempfile.TemporaryDirectory() as folder:
        job = Fit(
            student=student,
            losses=[losses.KLDivergence(4.0)],
            teacher=asked,
            make_batch=make_batch,
            order=InTurn(len(pictures)),
            training=training,
            steps=steps,
            seed=0,
            folder=Path(folder),
        )
        for _ in fit(job):
            pass


def main() -> None:
    parser = arguments()
    parser.add_argument("--torchdistill", metavar="PYTHON", help="an interpreter that has torchdistill 1.1.5")
    options = parser.parse_args()
    compare("tutelage", with_tutelage)
    if options.torchdistill:
        script = str(Path(__file__).with_name("loop_torchdistill.py"))
        told = ["--steps", str(options.steps), "--rounds", str(options.rounds)]
        subprocess.run([options.torchdistill, script, *told], check=True)


if __name__ == "__main__":
    main()
