"""Images as the models see them, and image files that are read when they are needed."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, overload

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.errors import DataError, MissingExtra, RecipeError
from tutelage.transfer.hashing import Digests, bytes_digests

__all__ = ["ImageFiles", "Images", "is_image"]

Array = np.ndarray[Any, Any]

_CHANNELS = (1, 3, 4)
_KEEP_BYTES = 2**31
"""Decoded images are kept for the next epoch when all of them fit in this much memory."""


@dataclass(kw_only=True)
class Images:
    """How images become tensors: `(pixel / 255 - mean) / std`, float32 `[C, H, W]`.

    Resizing comes first (bilinear, antialiased), then views, then mean and std.

    Attributes:
        mean: Of each channel, or one for all.
        std: Of each channel, or one for all.
        size: Height and width; one number for a square; None for the size they have.
        channels: Which axis of an array `[N, ., ., .]` holds the channels. None: the one axis of 1, 3 or 4.
        mode: Decode image files to colour or to grey. None: as the first file is.
    """

    mean: list[float] = field(default_factory=lambda: [0.0])
    std: list[float] = field(default_factory=lambda: [1.0])
    size: int | list[int] | None = None
    channels: Literal["first", "last"] | None = None
    mode: Literal["RGB", "L"] | None = None

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


def is_image(column: object) -> bool:
    """Whether a column holds images: image files, or uint8 with 3 or 4 axes."""
    if isinstance(column, ImageFiles):
        return True
    return isinstance(column, np.ndarray) and column.dtype == np.uint8 and column.ndim in (3, 4)


class ImageFiles(Sequence[str]):
    """Image files, as a column: a sequence of their names that can also be read.

    Args:
        names: What each is called in messages.
        read: The file's bytes, by number.
    """

    def __init__(self, names: Sequence[str], read: Callable[[int], bytes]) -> None:
        self.names = list(names)
        self.read = read
        self._kept: Array | None = None
        self._have = np.zeros(len(self.names), dtype=bool)
        self._form: tuple[str, tuple[int, ...]] | None = None

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...

    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        return self.names[index]

    def digests(self) -> Digests:
        """A digest of each file's bytes, `[N, 2]`. Files whose header or checksums are broken are refused here."""
        return bytes_digests(self._checked(row) for row in range(len(self)))

    def _checked(self, row: int) -> bytes:
        data = self.read(row)
        with _opened(self.names[row], data) as image:
            image.verify()
        return data

    def pixels(self, rows: Array, images: Images) -> Array:
        """uint8 `[B, H, W]` (grey) or `[B, H, W, 3]`, decoded the first time a row is asked for.

        Raises:
            DataError: A file can't be decoded, or differs in size from the first one and `images.size` is not set.
        """
        if self._form is None:
            self._form = self._first_form(images)
        mode, size = self._form
        shape = (*size, 3) if mode == "RGB" else size
        if self._kept is None and len(self) * int(np.prod(shape)) <= _KEEP_BYTES:
            self._kept = np.empty((len(self), *shape), dtype=np.uint8)
        if self._kept is None:
            return np.stack([self._decode(int(row), mode, size, images) for row in rows])
        for row in np.unique(rows[~self._have[rows]]):
            self._kept[row] = self._decode(int(row), mode, size, images)
            self._have[row] = True
        taken: Array = self._kept[rows]
        return taken

    def _first_form(self, images: Images) -> tuple[str, tuple[int, ...]]:
        with _opened(self.names[0], self.read(0)) as image:
            mode = images.mode or ("L" if image.mode in ("1", "L", "LA") else "RGB")
            return mode, images.height_width or (image.height, image.width)

    def _decode(self, row: int, mode: str, size: tuple[int, ...], images: Images) -> Array:
        pillow = _pillow()
        with _opened(self.names[row], self.read(row)) as image:
            if image.mode in ("I", "F") or image.mode.startswith("I;16"):
                raise DataError(
                    self.names[row],
                    expected="8 bits a channel",
                    found=f"Pillow mode {image.mode}",
                    harm="brighter pixels than 255 would be clipped",
                    mend="convert the images to 8 bits with the scaling that is right for them",
                )
            decoded = image.convert(mode)
        found = (decoded.height, decoded.width)
        if found != size:
            if images.size is None:
                raise DataError(
                    self.names[row],
                    expected=f"{size[0]} x {size[1]} pixels as in {self.names[0]}",
                    found=f"{found[0]} x {found[1]}",
                    mend="set data.images.size, to which all are then resized",
                )
            decoded = decoded.resize((size[1], size[0]), resample=pillow.Resampling.BILINEAR)
        return np.asarray(decoded, dtype=np.uint8)


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtra("pillow", "images", "decoding image files") from error
    return Image


@contextlib.contextmanager
def _opened(name: str, data: bytes) -> Iterator[Any]:
    """An image opened by Pillow; whatever goes wrong with it is the file's fault and names it."""
    pillow = _pillow()
    try:
        with pillow.open(io.BytesIO(data)) as image:
            yield image
    except DataError:
        raise
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error and others
        raise DataError(
            name,
            expected="an image file that Pillow can decode",
            found=f"{type(error).__name__}: {error}",
            mend="repair or remove the file",
        ) from error
