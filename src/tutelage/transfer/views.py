"""Views: an augmentation is a number, so that a remembered teacher saw exactly what the student sees."""

from __future__ import annotations

import abc
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.errors import DataError, RecipeError
from tutelage.transfer.hashing import mixed, splitmix64

__all__ = ["ShiftFlip", "Views"]

Array = np.ndarray[Any, Any]


class Views(abc.ABC):
    """Base of all views: a deterministic function of a row and a view number.

    View 0 is the row as it is. The same (row, view) gives the same tensor in any batch, order, process or epoch.

    Attributes:
        count: How many different views a row has, beside the row as it is. None: a new one every epoch.
    """

    count: int | None

    @abc.abstractmethod
    def apply(self, inputs: Tensor, rows: Array, views: Array) -> Tensor:
        """The views of some rows.

        Args:
            inputs: `[B, ...]`; images are float32 `[B, C, H, W]` in [0, 1], before mean and std.
            rows: `[B]` row numbers in the transfer set.
            views: `[B]` view numbers.

        Returns:
            A tensor of the same shape; `inputs` is not changed.
        """

    def number(self, epoch: int) -> int:
        """The view of a row in an epoch: `1 + epoch`, or `1 + epoch mod count`."""
        return 1 + (epoch if self.count is None else epoch % self.count)


class ShiftFlip(Views):
    """Moves an image by whole pixels, fills with 0 (black), and mirrors half of the views left to right.

    Row `r` in view `v` uses the bits of `h = splitmix64(splitmix64(splitmix64(seed) + r) + v)` and its successors
    `h_k = splitmix64(h + k)`: the vertical shift is `h_0 mod (2 shift + 1) - shift`, the horizontal one the same of
    `h_1`, and the image is mirrored when the top bit of `h_2` is set. It is mirrored first and moved then.

    Args:
        shift: Largest move in each direction, in pixels.
        flip: Whether to mirror. Wrong for digits, letters and other things whose mirror image means something else.
        count: How many different views a row has. None: a new one every epoch.
        seed: Another seed draws other views.
    """

    def __init__(self, shift: int = 2, flip: bool = True, *, count: int | None = None, seed: int = 0) -> None:
        if shift < 0:
            raise RecipeError("data.views.shift", expected="0 or more pixels", found=str(shift))
        if count is not None and count < 1:
            raise RecipeError("data.views.count", expected="at least 1, or null for a new view every epoch", found="0")
        self.shift = shift
        self.flip = flip
        self.count = count
        self.seed = seed

    def parameters(self, rows: Array, views: Array) -> tuple[Array, Array, Array]:
        """Down-shift, right-shift (pixels) and mirroring of each (row, view)."""
        base = mixed(self.seed, rows, views)
        down, right, mirror = (splitmix64(base + np.uint64(k)) for k in range(3))
        moved = np.asarray(views) != 0
        width = np.uint64(2 * self.shift + 1)
        shifts = [np.where(moved, (draw % width).astype(np.int64) - self.shift, 0) for draw in (down, right)]
        return shifts[0], shifts[1], moved & (mirror >> np.uint64(63) == 1) & self.flip

    def apply(self, inputs: Tensor, rows: Array, views: Array) -> Tensor:
        """See the class.

        Raises:
            DataError: The inputs aren't images `[B, ..., H, W]`.
        """
        if inputs.dim() < 3:
            raise DataError(
                "data.views",
                expected="images [B, H, W] or [B, C, H, W]",
                found=f"inputs of shape {tuple(inputs.shape)}",
                mend="remove data.views, or give the images with their height and width",
            )
        B, (H, W), s = len(inputs), inputs.shape[-2:], self.shift
        down, right, mirror = (torch.from_numpy(p).to(inputs.device) for p in self.parameters(rows, views))
        # One gather from the padded image: output pixel (i, j) is input pixel (i - down, mirrored j - right).
        y = torch.arange(H, device=inputs.device) - down[:, None]
        x = torch.arange(W, device=inputs.device) - right[:, None]
        x = torch.where(mirror[:, None], W - 1 - x, x)
        index = ((y[:, :, None] + s) * (W + 2 * s) + (x[:, None, :] + s)).view(B, 1, H * W)
        padded = F.pad(inputs, (s, s, s, s)).reshape(B, -1, (H + 2 * s) * (W + 2 * s))
        return padded.gather(2, index.expand(-1, padded.shape[1], -1)).view(inputs.shape)
