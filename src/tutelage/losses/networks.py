"""Networks of several layers that a loss trains; `Projectors` are those of one layer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tutelage.errors import SignalError

__all__ = ["Networks"]


class Networks(nn.ModuleDict):
    """Networks by name, made from traced shapes and kept from then on."""

    def ensure(self, name: str, make: Callable[[], nn.Module], student: Tensor, teacher: Tensor) -> None:
        """Makes the network `name`, or keeps the one that is there.

        It is on the student's device. Its parameters are float32 or wider, as those of `Projectors`.

        Args:
            name: The student's layer.
            make: Constructs it for the shapes at hand.
            student: The student's features.
            teacher: The teacher's.

        Raises:
            SignalError: There is one already, for other widths: it would lose what it has learnt.
        """
        key = name.replace(".", "/")
        if key not in self:
            dtype = torch.promote_types(student.dtype, torch.float32)
            self[key] = make().to(device=student.device, dtype=dtype)
            return
        with torch.device("meta"):
            wanted = [tuple(parameter.shape) for parameter in make().parameters()]
        made = [tuple(parameter.shape) for parameter in self[key].parameters()]
        if wanted != made:
            raise SignalError(
                f"network of `{name}`",
                expected=f"features of the widths it was made for: parameters of shapes {made}",
                found=f"features of shapes {tuple(student.shape)} and {tuple(teacher.shape)}: {wanted}",
                harm="a new network would forget what this one has learnt",
                mend="make a new loss for these models",
            )

    def of(self, name: str) -> nn.Module:
        """The network `name`."""
        return self[name.replace(".", "/")]

    def run(self, name: str, features: Tensor) -> Tensor:
        """What the network `name` makes of the features, in their own dtype."""
        module = self.of(name)
        dtype = next(module.parameters()).dtype
        result: Tensor = module(features.to(dtype))
        return result.to(features.dtype)
