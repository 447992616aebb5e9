"""Files that appear in a folder when they are complete, and not before."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["staged"]


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A temporary folder inside `folder`, whose files are moved there when the block ends without an error.

    Files of the same name are replaced, each in one step; others stay as they are. When the block fails, nothing in
    `folder` has changed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    umask = os.umask(0)
    os.umask(umask)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder))
    try:
        yield partial
        for file in sorted(path for path in partial.rglob("*") if path.is_file()):
            target = folder / file.relative_to(partial)
            target.parent.mkdir(parents=True, exist_ok=True)
            file.chmod(0o666 & ~umask)  # safetensors writes files that only their owner may read
            file.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
