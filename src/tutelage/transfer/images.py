"""Images as the models see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.errors import DataError, RecipeError

__all__ = ["Images"]

Array = np.ndarray[Any, Any]

_CHANNELS = (1, 3, 4)


@dataclass(kw_only=True)
class Images:
    """How images become tensors: `(pixel / 255 - mean) / std`, float32 `[C, H, W]`.

    Resizing comes first (bilinear, antialiased), then views, then mean and std.

    Attributes:
        mean: Of each channel, or one for all.
        std: Of each channel, or one for all.
        size: Height and width; one number for a square; None for the size they have.
        channels: Which axis of an array `[N, ., ., .]` holds the channels. None: the one axis of 1, 3 or 4.
        mode: Decode image files to colour or to grey. None: to grey if all of them are.
        max_megapixels: Millions of pixels that an image file may have; a larger one is refused before it is decoded.
    """

    incidental: ClassVar[tuple[str, ...]] = ("max_megapixels",)

    mean: list[float] = field(default_factory=lambda: [0.0])
    std: list[float] = field(default_factory=lambda: [1.0])
    size: int | list[int] | None = None
    channels: Literal["first", "last"] | None = None
    mode: Literal["RGB", "L"] | None = None
    max_megapixels: float = 89.0

    def __post_init__(self) -> None:
        if not self.mean or not self.std or min(self.std) <= 0:
            raise RecipeError("data.images.std", expected="positive numbers", found=f"{self.std}, mean {self.mean}")
        height_width = self.height_width
        if height_width is not None and (len(height_width) != 2 or min(height_width) < 1):
            raise RecipeError("data.images.size", expected="one or two positive numbers", found=str(self.size))

    @property
    def height_width(self) -> tuple[int, ...] | None:
        """`size` as height and width."""
        if self.size is None:
            return None
        return (self.size, self.size) if isinstance(self.size, int) else tuple(self.size)

    def channels_last(self, shape: Sequence[int], key: str) -> bool:
        """Whether images of `shape` (with the batch axis) have their channels last; True also where they have none.

        Raises:
            DataError: The shape leaves it open.
        """
        if len(shape) == 3:
            return True
        first, last = shape[1] in _CHANNELS, shape[3] in _CHANNELS
        if self.channels is not None:
            return self.channels == "last"
        if first == last:
            raise DataError(
                key,
                expected="images with 1, 3 or 4 channels on one axis, the second or the last",
                found=f"an array of shape {tuple(shape)}",
                mend="set data.images.channels to first or last",
            )
        return last

    def tensor(self, pixels: Array, *, channels_last: bool) -> Tensor:
        """`[B, C, H, W]` float32 in [0, 1] from uint8 `[B, H, W]`, `[B, H, W, C]` or `[B, C, H, W]`, resized."""
        images = torch.from_numpy(np.ascontiguousarray(pixels))
        if images.dim() == 3:
            images = images[:, None]
        elif channels_last:
            images = images.permute(0, 3, 1, 2)
        images = images.float().div_(255).contiguous()
        size = self.height_width
        if size is not None and tuple(images.shape[-2:]) != size:
            images = F.interpolate(images, size=list(size), mode="bilinear", antialias=True, align_corners=False)
        return images

    def normalise(self, images: Tensor, key: str) -> Tensor:
        """`(images - mean) / std` by channel.

        Raises:
            DataError: There are more or fewer means than channels.
        """
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            if len(numbers) not in (1, images.shape[1]):
                raise DataError(
                    f"data.images.{name}",
                    expected=f"1 number or {images.shape[1]}, the channels of `{key}`",
                    found=f"{len(numbers)}",
                )
        mean, std = (torch.tensor(numbers).view(1, -1, 1, 1) for numbers in (self.mean, self.std))
        return (images - mean) / std
