"""Words that no file of a bundle may hold: of the machine that made it, of its user, of its paths and its code."""

from __future__ import annotations

import getpass
import socket
import sys
import tempfile
from pathlib import Path

__all__ = ["named_in"]


def named_in(bundle: Path, *more: str) -> list[tuple[str, str]]:
    """The files of a bundle, and of its folders, that hold such a word, with the word."""
    words = {str(Path(__file__).parent.parent), str(Path.home()), str(bundle), socket.gethostname(), sys.prefix}
    words |= {f"{tempfile.gettempdir()}/", "/site-packages/", "stack_trace", f"/home/{getpass.getuser()}", *more}
    files = [path for path in sorted(bundle.rglob("*")) if path.is_file()]
    assert len(files) > 8, "a bundle"
    return [
        (path.relative_to(bundle).as_posix(), word)
        for path in files
        for word in sorted(words)
        if len(word) > 4 and word.encode() in path.read_bytes()
    ]
