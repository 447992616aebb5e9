"""Files that are whole or not there, and the digest of one."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

__all__ = ["digest_file", "replacing"]


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write that takes the place of `path` when the block ends; where it fails, `path` is as it was.

    It has the same suffix, by which libraries choose the format, and a name that no other process or thread uses.
    """
    partial = path.with_name(f".partial-{uuid4().hex}-{path.name}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def digest_file(path: Path | str) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
