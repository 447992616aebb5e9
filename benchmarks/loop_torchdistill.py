"""What torchdistill 1.1.5's loop costs: its time as a ratio of the same training written by hand.

    python3 -m venv VENV
    VENV/bin/pip install torch==2.14.1 torchvision==0.29.1 torchdistill==1.1.5   # about 5.5 GB
    VENV/bin/python benchmarks/loop_torchdistill.py --steps 60 --rounds 9

or `python benchmarks/loop.py --torchdistill VENV/bin/python`. It imports nothing of tutelage.

torchdistill trains as its image classification example does, without that example's log: a DistillationBox made from a
config, and its DataLoader, whose time counts, with no worker processes, over pictures in memory in the order of the
loop by hand. Making the box counts too; importing torchdistill does not. The loops run in alternating rounds in one
process; the ratio is the median over rounds of the ratio of a round's two times. Both ends are checked to have learnt
the same weights.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import torch
from small_cnn import BATCH, LEARNING_RATE, MOMENTUM, TEMPERATURE, compare
from torch.utils.data import Dataset, SequentialSampler
from torchdistill.core.distillation import get_distillation_box


class InTurn(Dataset[tuple[torch.Tensor, int]]):
    """The pictures in turn, for as many batches as there are steps, with a label that the loss does not read."""

    def __init__(self, pictures: torch.Tensor, steps: int) -> None:
        self.pictures, self.steps = pictures, steps

    def __len__(self) -> int:
        return self.steps * BATCH

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.pictures[index % len(self.pictures)], 0


def config() -> dict[str, Any]:
    """The training; a new one each time, because the box writes into it."""
    logits = {
        "student_module_path": ".",
        "student_module_io": "output",
        "teacher_module_path": ".",
        "teacher_module_io": "output",
    }
    divergence = {
        # With alpha = 0, KDLoss returns the divergence alone, and without its factor T^2: the weight is that factor.
        "criterion": {
            "key": "KDLoss",
            "kwargs": {**logits, "temperature": TEMPERATURE, "alpha": 0.0, "reduction": "batchmean"},
        },
        "weight": TEMPERATURE**2,
    }
    return {
        "num_epochs": 1,
        "train_data_loader": {
            "dataset_id": "pictures",
            "sampler": {"class_or_func": SequentialSampler},
            "kwargs": {"batch_size": BATCH, "num_workers": 0},
        },
        "teacher": {"forward_proc": "forward_batch_only", "requires_grad": False},
        "student": {"forward_proc": "forward_batch_only", "requires_grad": True},
        "optimizer": {"key": "SGD", "kwargs": {"lr": LEARNING_RATE, "momentum": MOMENTUM, "nesterov": True}},
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"divergence": divergence}}},
    }


def with_torchdistill(student: torch.nn.Module, teacher: torch.nn.Module, pictures: torch.Tensor, steps: int) -> None:
    device = torch.device("cpu")
    box = get_distillation_box(
        teacher,
        student,
        {"pictures": InTurn(pictures, steps)},
        config(),
        device,
        device_ids=None,
        distributed=False,
        lr_factor=1,
    )
    running = 0.0
    for epoch in range(box.num_epochs):
        box.pre_epoch_process(epoch=epoch)
        for batch, labels, extra in box.train_data_loader:
            loss = box.forward_process(batch.to(device), labels.to(device), extra)
            box.post_forward_process(loss=loss)
            running += loss.item()
        box.post_epoch_process()
    box.clean_modules()


if __name__ == "__main__":
    compare(f"torchdistill {version('torchdistill')}", with_torchdistill)
