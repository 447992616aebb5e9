"""Feature maps of different size: brought to one size only where the recipe says how."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from tutelage.errors import SignalError

__all__ = ["Resize", "same_size"]

Resize = Literal["refuse", "pool", "interpolate"]
"""`refuse`: maps must be of one size. `pool`: the larger map is average-pooled (adaptive) to the size of the smaller.
`interpolate`: the student's map is interpolated (bilinear) to the size of the teacher's."""


def same_size(loss: str, path: str, student: Tensor, teacher: Tensor, resize: Resize) -> tuple[Tensor, Tensor]:
    """Two maps `[B, C, H, W]` at one size. Other shapes are left as they are.

    Raises:
        SignalError: They differ in size and `resize` is "refuse".
    """
    if student.dim() != 4 or teacher.dim() != 4 or student.shape[2:] == teacher.shape[2:]:
        return student, teacher
    if resize == "refuse":
        raise SignalError(
            f"{loss} on layer `{path}` of the student",
            expected=f"maps of the teacher's size {tuple(teacher.shape[2:])}",
            found=f"maps of size {tuple(student.shape[2:])}",
            mend="pair layers of one size, or set `resize` to `pool` or `interpolate`",
        )
    if resize == "interpolate":
        size = (teacher.shape[2], teacher.shape[3])
        return F.interpolate(student, size=size, mode="bilinear", align_corners=False), teacher
    size = (min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3]))
    return F.adaptive_avg_pool2d(student, size), F.adaptive_avg_pool2d(teacher, size)
