"""Limits of the system that a run meets, in words: a full disk, a file or a name that is too long."""

from __future__ import annotations

import errno
from dataclasses import dataclass

__all__ = ["NO_MEMORY", "Limit", "describe_limit"]

NO_MEMORY = (
    "there is not enough memory. Lower training.batch_size, or use a machine with more; "
    "the same command goes on from the last checkpoint"
)


@dataclass(frozen=True)
class Limit:
    """What is said of it, and whether it lies in what the user gave (exit status 2) or in the machine (4)."""

    text: str
    of_input: bool = False


_GOES_ON = "what was stored before is whole, and the same command goes on from the last checkpoint"
_OF_MACHINE = {
    errno.ENOSPC: "the disk is full{}. Make room on it, or give another --out",
    errno.EDQUOT: "the disk quota is used up{}. Make room, or give another --out",
    errno.EFBIG: "a file became larger than is allowed{} (`ulimit -f`, or a limit of the file system). Raise the limit",
    errno.EROFS: "the file system is read-only{}. Give another --out",
    errno.EIO: "the disk can't be read or written{}. See whether it is sound",
    errno.EMFILE: "too many files are open{} (`ulimit -n`). Raise the limit",
    errno.ENFILE: "too many files are open on this machine{}. Close some",
}


def describe_limit(error: OSError) -> Limit | None:
    """What a person is to be told of an error of the operating system; None where it is no such limit."""
    if error.errno == errno.ENAMETOOLONG:
        name = str(error.filename or "")
        shown = f"{name[:60]}...{name[-20:]}" if len(name) > 100 else name
        text = f"the path `{shown}` has {len(name):,} characters, more than the file system allows; give a shorter one"
        return Limit(text, of_input=True)
    if error.errno not in _OF_MACHINE:
        return None
    where = f" ({error.filename})" if error.filename else ""
    return Limit(f"{_OF_MACHINE[error.errno].format(where)}; {_GOES_ON}")
