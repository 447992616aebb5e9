"""What a training starts from: an accelerator, an optimiser, and random numbers that are a function of the step."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.state import AcceleratorState
from torch import nn
from torch.distributed.distributed_c10d import _set_pg_timeout

from tutelage.taps import find_layer
from tutelage.training.config import Training
from tutelage.training.step import Learner

__all__ = ["clipped_parts", "frozen_layers", "make_accelerator", "make_optimizer", "reseed", "set_rate"]


def make_accelerator(precision: str = "float32") -> Accelerator:
    """An Accelerator of this precision. One process may train several models, each with its own."""
    AcceleratorState._reset_state(reset_partial_state=False)  # else a second precision in a process is refused
    names = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}
    # Some parameters may get no gradient (an unused pooler), which DDP must be told.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    meeting = InitProcessGroupKwargs(timeout=timedelta(minutes=5))
    # Left to itself, accelerate takes processes without an accelerator for so many runs of one process.
    on_cpus = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.accelerator.is_available()
    accelerator = Accelerator(mixed_precision=names[precision], cpu=on_cpus, kwargs_handlers=[unused, meeting])
    if accelerator.num_processes > 1:
        # The others wait while the first has a slow teacher answer, for days if need be. One that is gone closes its
        # connection, or is noticed by the launcher: that needs no timeout.
        _set_pg_timeout(timedelta(days=30))
    return accelerator


def frozen_layers(student: nn.Module, training: Training) -> list[nn.Module]:
    """The layers that are not trained."""
    return [find_layer(student, path, model="student") for path in training.freeze or ()]


class _PlainSteps(torch.optim.Optimizer):
    """A mixin: the groups marked `plain` take the step `θ - lr · ∇`, and keep no state; the others the optimiser's."""

    def step(self, closure: Any = None) -> Any:
        """One step."""
        for group in self.param_groups:
            for parameter in group["params"] if group["plain"] else ():
                if parameter.grad is not None:
                    parameter.data.add_(parameter.grad, alpha=-group["lr"])
                    parameter.grad = None
        return super().step(closure)


class _AdamW(_PlainSteps, torch.optim.AdamW): ...


class _SGD(_PlainSteps, torch.optim.SGD): ...


def clipped_parts(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """What the norm of the gradient is taken over: all but the parts of losses that take plain steps."""
    return [p for group in optimizer.param_groups if not group["plain"] for p in group["params"]]


def set_rate(optimizer: torch.optim.Optimizer, training: Training, step: int, steps: int) -> None:
    """Sets the learning rates of a step."""
    rate = training.rate(step, steps)
    for group in optimizer.param_groups:
        group["lr"] = group["highest"] * rate / training.learning_rate if group["plain"] else rate


def make_optimizer(learner: Learner, training: Training) -> torch.optim.Optimizer:
    """The optimiser over student and losses; weight decay on matrices and kernels alone."""
    for layer in frozen_layers(learner.student, training):
        layer.requires_grad_(False)
    plain = learner.plain_steps()
    apart = {id(p) for _, parts in plain for p in parts}
    trained = [p for p in learner.parameters() if p.requires_grad and id(p) not in apart]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": training.weight_decay, "plain": False},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0, "plain": False},
        *({"params": parts, "weight_decay": 0.0, "plain": True, "highest": rate} for rate, parts in plain),
    ]
    groups = [group for group in groups if group["params"]]
    if training.optimizer == "sgd":
        return _SGD(groups, lr=training.learning_rate, momentum=training.momentum, nesterov=training.momentum > 0)
    return _AdamW(groups, lr=training.learning_rate, betas=(training.momentum, training.beta2))


def reseed(seed: int, step: int, process: int) -> None:
    """Sets torch's generators for one step: dropout is a function of (seed, step, process), not of history."""
    number = int(np.random.SeedSequence([seed, step, process]).generate_state(1)[0])
    torch.default_generator.manual_seed(number)
    # torch.manual_seed would queue a call with its traceback for a CUDA that is never there, at each step.
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(number)
    elif torch.backends.mps.is_available():
        torch.mps.manual_seed(number)
