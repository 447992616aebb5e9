"""Who is asking: a process by its number and the moment it began, so that a number used again is another process."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

__all__ = ["is_alive", "new_owner"]

_counter = itertools.count()


def new_owner() -> str:
    """A name for one asker of this process."""
    pid = os.getpid()
    return f"{pid}:{_began(pid)}:{next(_counter)}"


def is_alive(owner: str) -> bool:
    """Whether the process of an owner still runs on this machine."""
    pid, began, _ = owner.split(":")
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return _began(int(pid)) == began


def _began(pid: int) -> str:
    """The moment that a process began, in clock ticks since the machine did; empty where there is no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return ""
    # A process that has ended and was not waited for is still listed.
    return "ended" if fields[0] in "ZX" else fields[19]
