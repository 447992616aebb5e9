"""Image files: decoded once when they are read, so that what can't be used is named before anything is trained."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np

from tutelage.errors import DataError, MissingExtra
from tutelage.transfer.hashing import Digests, bytes_digests
from tutelage.transfer.images import Images

__all__ = ["ImageFiles", "decodes", "is_image"]

Array = np.ndarray[Any, Any]

_KEEP_BYTES = 2**31
"""Decoded images are kept for the next epoch when all of them fit in this much memory."""
_GREY = ("1", "L", "LA", "La")
_ORIENTATION = 0x0112
"""The number of the tag in EXIF."""
_NAMED = 8
"""Files that are named where several can't be used."""


def is_image(column: object) -> bool:
    """Whether a column holds images: image files, or uint8 with 3 or 4 axes."""
    if isinstance(column, ImageFiles):
        return True
    return isinstance(column, np.ndarray) and column.dtype == np.uint8 and column.ndim in (3, 4)


@dataclass(frozen=True)
class _Found:
    """What one file turned out to be.

    Attributes:
        digests: `[1, 2]` of its bytes.
        pixels: `[H, W]` grey or `[H, W, 3]`, as many as are asked for; None where they are not kept or not usable.
        turned: Whether its orientation tag says that it is stored lying or mirrored.
        pages: Pictures in the file.
        clear: Whether it has transparency.
        error: Why it can't be used.
    """

    digests: Digests
    pixels: Array | None = None
    grey: bool = False
    turned: bool = False
    pages: int = 1
    clear: bool = False
    error: DataError | None = None


class ImageFiles(Sequence[str]):
    """Image files, as a column: a sequence of their names that can also be read.

    Pixels are those of Pillow: the first picture of a file, upright as its orientation tag (EXIF) says, converted to
    grey if all files are, else to colour (transparency is dropped), and resized with its bilinear filter.

    Args:
        names: What each is called in messages.
        read: The file's bytes, by number; it is called from several threads.

    Attributes:
        notes: What was done to files that a reader should know, once they have been decoded.
        differs: What decides pixels beside the files' bytes and the settings; empty where nothing does.
    """

    def __init__(self, names: Sequence[str], read: Callable[[int], bytes]) -> None:
        self.names = list(names)
        self.read = read
        self.notes: list[str] = []
        self.differs = ""
        self._kept: Array | None = None
        self._have = np.zeros(len(self.names), dtype=bool)
        self._size: tuple[int, ...] = ()
        self._first = 0
        self._mode = ""
        self._most = Images.max_megapixels
        self._digests: Digests | None = None

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...

    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        return self.names[index]

    def digests(self, images: Images) -> Digests:
        """A digest of each file's bytes, `[N, 2]`; all are decoded on the way.

        Raises:
            DataError: Files can't be used: broken or cut ones, more than 8 bits a channel, other sizes than the first
                without `images.size`. They are named.
        """
        if self._digests is None:
            self._digests = self._examined(images)
        return self._digests

    def pixels(self, rows: Array, images: Images) -> Array:
        """uint8 `[B, H, W]` (grey) or `[B, H, W, 3]`.

        Raises:
            DataError: As `digests` does.
        """
        self.digests(images)
        shape = (*self._size, 3) if self._mode == "RGB" else self._size
        if self._kept is None and len(self) * int(np.prod(shape)) <= _KEEP_BYTES:
            self._kept = np.empty((len(self), *shape), dtype=np.uint8)
        if self._kept is None:
            return np.stack([self._decode(int(row)) for row in rows])
        for row in np.unique(rows[~self._have[rows]]):
            self._kept[row] = self._decode(int(row))
            self._have[row] = True
        taken: Array = self._kept[rows]
        return taken

    def _examined(self, images: Images) -> Digests:
        """Decodes every file once, in parallel, and keeps what fits in memory."""
        if images.max_megapixels > Images.max_megapixels:  # raised in the recipe: Pillow has a limit of its own
            _pillow().Image.MAX_IMAGE_PIXELS = int(images.max_megapixels * 1e6)
        self._most = images.max_megapixels
        self._size = images.height_width or self._first_size()
        keep = len(self) * 3 * int(np.prod(self._size)) <= _KEEP_BYTES
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1), thread_name_prefix="images") as pool:
            found = list(pool.map(lambda row: self._look(row, images, keep=keep), range(len(self))))
        errors = [each.error for each in found if each.error is not None]
        if errors:
            raise errors[0] if len(errors) == 1 else _several(errors, len(found))
        grey = [each.grey for each in found]
        self._mode = images.mode or ("L" if all(grey) else "RGB")
        self._tell(found, images)
        if keep:
            three = self._mode == "RGB"
            self._kept = np.empty((len(self), *self._size, *([3] if three else [])), dtype=np.uint8)
            for row, each in enumerate(found):
                assert each.pixels is not None
                self._kept[row] = each.pixels[..., None] if three and each.pixels.ndim == 2 else each.pixels
            self._have[:] = True
        return np.concatenate([each.digests for each in found])

    def _tell(self, found: Sequence[_Found], images: Images) -> None:
        """Notes on what was done to files, and what of it decides pixels beside bytes and settings."""
        grey, every = sum(each.grey for each in found), len(found)
        turned, clear = sum(each.turned for each in found), sum(each.clear for each in found)
        pages = sum(each.pages > 1 for each in found)
        self.notes = [
            note
            for count, note in (
                (turned, f"{turned:,} of {every:,} images are turned upright, as their orientation tag says"),
                (
                    grey if images.mode is None and self._mode == "RGB" else 0,
                    f"{grey:,} of {every:,} images are grey and become colour, as the others are (data.images.mode)",
                ),
                (
                    every - grey if self._mode == "L" else 0,
                    f"{every - grey:,} of {every:,} images have colour and become grey (data.images.mode)",
                ),
                (clear, f"{clear:,} of {every:,} images have transparency, which is dropped: hidden colours show"),
                (pages, f"{pages:,} of {every:,} images have several pictures, of which the first is taken"),
            )
            if count
        ]
        first = "L" if found[0].grey else "RGB"
        self.differs = "".join(
            [" upright" if turned else "", f" {self._mode}" if images.mode is None and self._mode != first else ""]
        )

    def _look(self, row: int, images: Images, *, keep: bool) -> _Found:
        """Decodes one file; whatever is wrong with it is told, not raised."""
        data = self.read(row)
        digests = bytes_digests([data])
        try:
            with _opened(self.names[row], data, self._most) as image:
                image.verify()  # the checksums of a PNG, at which decoding does not look
            with _opened(self.names[row], data, self._most) as image:
                turned = _orientation(image) != 1
                self._require(row, image, images)
                grey, clear = image.mode in _GREY, "A" in image.getbands() or "transparency" in image.info
                pages = 1 if image.format == "MPO" else _pages(image)  # MPO: a photo's previews
                mode = images.mode or ("L" if grey else "RGB")
                if keep:
                    return _Found(digests, self._decoded(image, mode), grey, turned, pages, clear)
                image.draft(None, (1, 1))  # a JPEG is read to its end for an eighth of the pixels, too
                image.convert(mode)
                return _Found(digests, None, grey, turned, pages, clear)
        except DataError as error:
            return _Found(digests, error=error)

    def _require(self, row: int, image: Any, images: Images) -> None:
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            raise DataError(
                self.names[row],
                expected="8 bits a channel",
                found=f"Pillow mode {image.mode}",
                harm="brighter pixels than 255 would be clipped",
                mend="convert the images to 8 bits with the scaling that is right for them",
            )
        found = _upright_size(image)
        if images.size is None and found != self._size:
            raise DataError(
                self.names[row],
                expected=f"{self._size[0]} x {self._size[1]} pixels as in {self.names[self._first]}",
                found=f"{found[0]} x {found[1]}",
                mend="set data.images.size, to which all are then resized",
            )

    def _first_size(self) -> tuple[int, ...]:
        """The size of the first file that can be opened, which the others have to share."""
        for row in range(len(self)):
            with contextlib.suppress(DataError), _opened(self.names[row], self.read(row), self._most) as image:
                self._first = row
                return _upright_size(image)
        return (1, 1)

    def _decode(self, row: int) -> Array:
        with _opened(self.names[row], self.read(row), self._most) as image:
            return self._decoded(image, self._mode)

    def _decoded(self, image: Any, mode: str) -> Array:
        """The pixels of an opened file, upright, in a mode and of the common size."""
        upright = image if _orientation(image) == 1 else _pillow().ImageOps.exif_transpose(image)
        decoded = upright.convert(mode)
        if (decoded.height, decoded.width) != self._size:
            size = (self._size[1], self._size[0])
            decoded = decoded.resize(size, resample=_pillow().Image.Resampling.BILINEAR)
        return np.asarray(decoded, dtype=np.uint8)


def decodes(path: Path) -> bool:
    """Whether Pillow knows the format of a file by its content."""
    try:
        with _pillow().Image.open(path):
            return True
    except _pillow().Image.DecompressionBombError:
        return True  # which names it where it is decoded
    except (OSError, SyntaxError, ValueError):
        return False


def _pages(image: Any) -> int:
    """1, or 2 for several: counting them would read through all of a file."""
    try:
        image.seek(1)
    except EOFError:
        return 1
    image.seek(0)
    return 2


def _too_many(name: str, found: str, most: float) -> DataError:
    return DataError(
        name,
        expected=f"an image of at most {most:g} million pixels",
        found=found,
        harm="a small file can stand for more pixels than the memory holds",
        mend="make it smaller, or remove it; if it is meant to be so large: max_megapixels in data.images",
    )


def _orientation(image: Any) -> int:
    """The orientation tag, 1 (upright) to 8; 1 where there is none, or none that can be read."""
    try:
        said = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a broken tag block raises errors of many kinds; the pixels may be whole
        return 1
    return said if said in range(1, 9) else 1


def _upright_size(image: Any) -> tuple[int, int]:
    """Height and width, once the image is upright."""
    if image.format == "TIFF":  # Pillow turns these itself as it decodes them, and takes the tag away
        image.load()
    return (image.width, image.height) if _orientation(image) >= 5 else (image.height, image.width)


def _several(errors: Sequence[DataError], count: int) -> DataError:
    """One error for many files, with the first of them by name."""
    shown = "; ".join(f"{error.key}: {error.found}" for error in errors[:_NAMED])
    more = f"; and {len(errors) - _NAMED:,} more" if len(errors) > _NAMED else ""
    return DataError(
        f"{len(errors):,} of {count:,} images",
        expected=errors[0].expected,
        found=shown + more,
        harm=errors[0].harm,
        mend=" / ".join(dict.fromkeys(error.mend for error in errors)),
    )


def _pillow() -> Any:
    try:
        import PIL.Image
        import PIL.ImageOps
    except ImportError as error:
        raise MissingExtra("pillow", "images", "decoding image files") from error
    return PIL


@contextlib.contextmanager
def _opened(name: str, data: bytes, most: float) -> Iterator[Any]:
    """An image opened by Pillow; whatever goes wrong with it is the file's fault and names it."""
    pillow = _pillow().Image
    try:
        with pillow.open(io.BytesIO(data)) as image:
            if image.width * image.height > most * 1e6:
                raise _too_many(name, f"{image.width:,} x {image.height:,}", most)
            yield image
    except DataError:
        raise
    except pillow.DecompressionBombError as error:
        raise _too_many(name, f"{type(error).__name__}: {error}", most) from error
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error and others
        raise DataError(
            name,
            expected="an image file that Pillow can decode",
            found=f"{type(error).__name__}: {error}",
            mend="repair or remove the file",
        ) from error
