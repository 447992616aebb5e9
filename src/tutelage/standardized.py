"""A module that works in standard units and answers in the unit of its targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.signals import output_of

__all__ = ["Standardized", "unwrapped"]


class Standardized(nn.Module):
    """`y_k = mean_k + std_k · z_k`, with `z` the output of a module that learns targets of mean 0 and deviation 1.

    Outputs near a million, or near a thousandth, are out of reach for weights that begin near 0 and move by a learning
    rate a step. Here the module keeps to what it can learn, and who calls it gets the unit of the targets.

    Shapes: `z` `[B, K]`, or for one value `[B]` or `[B, 1]` -> the same.

    Args:
        module: Gives `z`: a tensor, or an object with `.logits`.
        mean: Of each target, in its unit.
        std: The standard deviation of each target, positive, in its unit.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, module: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.module = module
        self.mean = list(mean)
        self.std = list(std)
        self.register_buffer("shift", torch.tensor(self.mean))
        self.register_buffer("scale", torch.tensor(self.std))

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """The outputs in the unit of the targets, in float32 or wider."""
        z = output_of(self.module(*inputs, **named))
        return self.shift + self.scale * z.to(torch.promote_types(z.dtype, torch.float32))

    def standard(self, values: Tensor) -> Tensor:
        """`(y_k - mean_k) / std_k`: targets or outputs in standard units, where losses compare them."""
        return (values - self.shift) / self.scale


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside a `Standardized`, whose layers a recipe names; any other module itself."""
    return module.module if isinstance(module, Standardized) else module
