"""Small things that measuring and exporting do to batches and modules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tutelage.signals import Inputs

__all__ = ["LONE", "change_inputs", "named", "placed", "repeat_rows"]

LONE = "input"
"""The name of an input that is a tensor and has none."""


def named(inputs: Inputs) -> dict[str, Tensor]:
    """Inputs by name; a lone tensor is called `input`."""
    return dict(inputs) if isinstance(inputs, dict) else {LONE: inputs}


def change_inputs(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    """The same inputs with `change` applied to each tensor."""
    return {name: change(tensor) for name, tensor in inputs.items()} if isinstance(inputs, dict) else change(inputs)


def repeat_rows(inputs: Inputs, count: int) -> Inputs:
    """The first `count` rows, begun again from the first where there are fewer."""
    return change_inputs(inputs, lambda tensor: tensor[torch.arange(count, device=tensor.device) % tensor.shape[0]])


@contextmanager
def placed(modules: Iterable[nn.Module], device: torch.device | str) -> Iterator[None]:
    """Modules in eval mode on a device; afterwards each part is in the mode, and each module on the device, it was."""
    modules = list(modules)
    modes = [(inner, inner.training) for module in modules for inner in module.modules()]
    homes = [(module, next((p.device for p in module.parameters()), None)) for module in modules]
    try:
        for module in modules:
            module.eval()
            module.to(device)
        yield
    finally:
        for module, home in homes:
            if home is not None:
                module.to(home)
        for inner, training in modes:
            inner.training = training
