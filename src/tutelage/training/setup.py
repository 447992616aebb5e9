"""What a training starts from: an accelerator, an optimiser, and random numbers that are a function of the step."""

from __future__ import annotations

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from torch import nn

from tutelage.taps import find_layer
from tutelage.training.config import Training
from tutelage.training.step import Learner

__all__ = ["frozen_layers", "make_accelerator", "make_optimizer", "reseed"]


def make_accelerator(precision: str = "float32") -> Accelerator:
    """An Accelerator of this precision. One process may train several models, each with its own."""
    AcceleratorState._reset_state(reset_partial_state=False)  # else a second precision in a process is refused
    names = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}
    # Some parameters may get no gradient (an unused pooler), which DDP must be told.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    return Accelerator(mixed_precision=names[precision], kwargs_handlers=[unused])


def frozen_layers(student: nn.Module, training: Training) -> list[nn.Module]:
    """The layers that are not trained."""
    return [find_layer(student, path, model="student") for path in training.freeze or ()]


def make_optimizer(learner: Learner, training: Training) -> torch.optim.Optimizer:
    """The optimiser over student and losses; weight decay on matrices and kernels alone."""
    for layer in frozen_layers(learner.student, training):
        layer.requires_grad_(False)
    trained = [p for p in learner.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": training.weight_decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if training.optimizer == "sgd":
        return torch.optim.SGD(
            groups, lr=training.learning_rate, momentum=training.momentum, nesterov=training.momentum > 0
        )
    return torch.optim.AdamW(groups, lr=training.learning_rate, betas=(training.momentum, training.beta2))


def reseed(seed: int, step: int, process: int) -> None:
    """Sets torch's generators for one step: dropout is a function of (seed, step, process), not of history."""
    number = int(np.random.SeedSequence([seed, step, process]).generate_state(1)[0])
    torch.default_generator.manual_seed(number)
    # torch.manual_seed would queue a call with its traceback for a CUDA that is never there, at each step.
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(number)
    elif torch.backends.mps.is_available():
        torch.mps.manual_seed(number)
