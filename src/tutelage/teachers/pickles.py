"""What a file holds, told by its bytes: a pickle is never opened, whatever its name is."""

from __future__ import annotations

import bz2
import lzma
import pickletools
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from tutelage.errors import ModelError

__all__ = ["holds_pickle", "refuse_pickle_file", "require_begins"]

_SUFFIXES = frozenset({".joblib", ".pickle", ".pkl"})
_HEAD = 1 << 16


def holds_pickle(path: Path) -> str:
    """What kind of pickle a file holds, in words; an empty text where it holds none. Nothing is unpickled."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            inner = next((name for name in archive.namelist() if name.endswith(".pkl")), "")
        return f"a zip file with the pickle {inner}" if inner else ""
    for name, magic, unpacked in _PACKED:
        if head.startswith(magic) and _is_pickle(unpacked(head)):
            return f"a pickle, compressed with {name} (joblib)"
    if _is_pickle(head):
        return "a pickle"
    return "a pickle, by its name" if path.suffix in _SUFFIXES else ""


def refuse_pickle_file(path: Path, key: str, *, expected: str, mend: str) -> None:
    """Raises a `ModelError` if `path` holds a pickle.

    Args:
        path: The file.
        key: How to name it in messages.
        expected: The format that is read.
        mend: The call that writes it.
    """
    if kind := holds_pickle(path):
        raise ModelError(
            key,
            expected=expected,
            found=f"{path.name}: {kind}",
            harm="unpickling runs whatever code the file holds",
            mend=f"where you trust the file, load it yourself and write it once as: {mend}",
        )


def require_begins(path: Path, begin: bytes, key: str, *, expected: str, mend: str) -> None:
    """Raises a `ModelError` if a file holds a pickle, or begins otherwise than its format does.

    Args:
        path: The file.
        begin: The first bytes of every file of the format.
        key: How to name it in messages.
        expected: The format that is read.
        mend: The call that writes it.
    """
    refuse_pickle_file(path, key, expected=expected, mend=mend)
    with path.open("rb") as file:
        head = file.read(len(begin))
    if head != begin:
        raise ModelError(
            key, expected=expected, found=f"{path.name}, which begins with {head!r}", mend=f"write it with {mend}"
        )


def _is_pickle(head: bytes) -> bool:
    """Whether these bytes begin like a pickle, or are one: its instructions can be read up to the end."""
    if head[:1] == b"\x80" and len(head) > 1 and 2 <= head[1] <= 5:
        return True
    if head[:1] not in (b"(", b"]", b"}", b"c", b")"):  # how protocols 0 and 1 begin
        return False
    count = 0
    try:
        for instruction, _, place in pickletools.genops(head):
            count += 1
            if instruction.name == "STOP":
                return place is not None and place >= len(head) - 2
    except Exception:  # not instructions, or cut off; pickletools raises whatever its readers do
        return len(head) == _HEAD and count > 20
    return False


def _zlib(head: bytes) -> bytes:
    return zlib.decompressobj(47).decompress(head)


def _quietly(decompress: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """The first bytes, or none where they are not packed after all."""

    def unpacked(head: bytes) -> bytes:
        try:
            return decompress(head)
        except (zlib.error, OSError, EOFError, lzma.LZMAError, ValueError):
            return b""

    return unpacked


_PACKED: tuple[tuple[str, bytes, Callable[[bytes], bytes]], ...] = (
    ("zlib", b"\x78", _quietly(_zlib)),
    ("gzip", b"\x1f\x8b", _quietly(_zlib)),
    ("bz2", b"BZh", _quietly(lambda head: bz2.BZ2Decompressor().decompress(head))),
    ("lzma", b"\xfd7zXZ", _quietly(lambda head: lzma.LZMADecompressor().decompress(head))),
    ("lzma", b"\x5d\x00\x00", _quietly(lambda head: lzma.LZMADecompressor().decompress(head))),
    ("lz4", b"\x04\x22\x4d\x18", lambda head: b"\x80\x04"),  # nothing that is read here begins like this
)
