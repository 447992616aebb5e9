"""Arrays in `.npy` and `.npz` files: what they say of their size is looked at before memory is taken for it."""

from __future__ import annotations

import io
import math
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np

from tutelage.errors import DataError
from tutelage.transfer.file_limits import require_file, too_large

__all__ = ["read_arrays"]

_MOST_HEADER = 10_000
"""Bytes of a header, as numpy allows them."""
_ENCRYPTED = 0x1


def read_arrays(file: Path, most_gb: float, key: str) -> Any:
    """The array of a `.npy` file, or those of a `.npz` by name. Nothing is unpickled.

    Args:
        file: The file.
        most_gb: Gigabytes that its arrays may take together.
        key: The recipe key that names the file.

    Raises:
        DataError: It holds Python objects, is damaged, says that it holds more than it does, or unpacks to too much.
    """
    require_file(file)
    try:
        if file.suffix == ".npy":
            _require_size(file, file.stat().st_size, most_gb)
            with file.open("rb") as stream:
                _require_header(stream, file.stat().st_size)
            return np.load(file, allow_pickle=False)
        with zipfile.ZipFile(file) as archive:
            _require_size(file, sum(member.file_size for member in archive.infolist()), most_gb)
            for member in archive.infolist():
                if member.flag_bits & _ENCRYPTED:
                    raise ValueError(f"{member.filename} is encrypted")
                with archive.open(member) as stream:
                    _require_header(stream, member.file_size)
        with np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (ValueError, OSError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        pickled = "pickle" in str(error).lower()
        raise DataError(
            key,
            expected="plain arrays",
            found=f"`{file}`, which holds Python objects" if pickled else f"`{file}`: {error}",
            harm="unpickling a file runs whatever code it holds" if pickled else "",
            mend="save it again with a numeric or text dtype" if pickled else "save it again with numpy.save",
        ) from error


def _require_size(file: Path, size: int, most_gb: float) -> None:
    if size > most_gb * 1e9:
        raise too_large(file, f"arrays of {size / 1e9:,.3g} GB", most_gb)


def _require_header(stream: IO[bytes], size: int) -> None:
    """Raises a `ValueError` where the header of an array stands for other bytes than the `size` that there are."""
    start = stream.read(8)
    version = np.lib.format.read_magic(io.BytesIO(start))
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"an array of format version {version[0]}.{version[1]}; plain ones have 1.0 or 2.0")
    length = stream.read(2 if version == (1, 0) else 4)
    header = int.from_bytes(length, "little")
    if header > _MOST_HEADER:
        raise ValueError(f"a header of {header:,} bytes; numpy's have at most {_MOST_HEADER:,}")
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, _, dtype = reader(io.BytesIO(length + stream.read(header)))
    except (
        TypeError,
        SyntaxError,
        RecursionError,
        MemoryError,
        OverflowError,
        tokenize.TokenError,
    ) as error:  # of Python's own parser
        raise ValueError(f"no header of an array ({type(error).__name__})") from error
    if dtype.hasobject:
        raise ValueError("it holds a pickle")
    stated, held = math.prod(shape) * dtype.itemsize, size - 8 - len(length) - header
    if min(shape, default=1) < 0 or stated != held or (not stated and max(shape, default=1) > 1):
        raise ValueError(f"the header says {shape} of {dtype}, {stated:,} bytes, and {held:,} follow it")
