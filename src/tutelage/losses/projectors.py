"""Projectors: the trained maps from the student's width to the teacher's, which a loss owns and no student ships."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tutelage.errors import SignalError

__all__ = ["Projectors", "width"]


def width(features: Tensor) -> int:
    """The number of channels: axis 1 of maps `[B, C, H, W]`, the last axis of `[B, D]` and `[B, L, D]`."""
    return features.shape[1] if features.dim() == 4 else features.shape[-1]


class Projectors(nn.ModuleDict):
    """Projectors by name: a 1x1 convolution for maps `[B, C, H, W]`, a linear map for `[B, D]` and `[B, L, D]`."""

    def ensure(self, name: str, student: Tensor, teacher: Tensor, *, bias: bool, always: bool = False) -> None:
        """Makes the projector `name` where widths differ (or `always`), or keeps the one that is there.

        It is on the student's device. Its parameters are float32 or wider, also where the features are half precision:
        the steps of an optimiser are too small for bf16.

        Raises:
            SignalError: There is one already, for other widths: it would lose what it has learnt.
        """
        key = name.replace(".", "/")
        inner, outer = width(student), width(teacher)
        if key in self:
            weight = next(self[key].parameters())
            if weight.shape[:2] != (outer, inner) or weight.dim() != (4 if student.dim() == 4 else 2):
                raise SignalError(
                    f"projector of `{name}`",
                    expected=f"features of the widths it was made for, {weight.shape[1]} and {weight.shape[0]}",
                    found=f"shapes {tuple(student.shape)} and {tuple(teacher.shape)}",
                    harm="a new projector would forget what this one has learnt",
                    mend="make a new loss for these models",
                )
            return
        if inner == outer and not always:
            return
        dtype = torch.promote_types(student.dtype, torch.float32)
        if student.dim() == 4:
            self[key] = nn.Conv2d(inner, outer, 1, bias=bias, device=student.device, dtype=dtype)
        else:
            self[key] = nn.Linear(inner, outer, bias=bias, device=student.device, dtype=dtype)

    def project(self, name: str, features: Tensor) -> Tensor:
        """The features in the teacher's width, in their own dtype; as they are where there is no projector `name`."""
        key = name.replace(".", "/")
        if key not in self:
            return features
        module = self[key]
        dtype = next(module.parameters()).dtype
        projected: Tensor = module(features.to(dtype))
        return projected.to(features.dtype)
