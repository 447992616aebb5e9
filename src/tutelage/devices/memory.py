"""Resident memory of this process, and its highest."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

__all__ = ["free_bytes", "give_back", "peak_added_by", "peak_resident_bytes", "resident_bytes"]


def _status(field: str) -> int | None:
    """A line such as `VmHWM:  1234 kB` of /proc/self/status, in bytes; None where there is none."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return None


def peak_resident_bytes() -> int:
    """The highest resident memory so far."""
    peak = _status("VmHWM")
    if peak is not None:
        return peak
    import resource

    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest if sys.platform == "darwin" else highest * 1024


def resident_bytes() -> int:
    """Resident memory now; where the system doesn't tell (not Linux), the highest so far."""
    resident = _status("VmRSS")
    return peak_resident_bytes() if resident is None else resident


def peak_added_by(work: Callable[[], object]) -> int:
    """How far resident memory rises above its present level while `work` runs. Meant for a fresh process.

    Memory that this process freed before and still holds would hide a part of the rise.
    """
    with suppress(OSError):  # Linux: the highest so far becomes the present one
        Path("/proc/self/clear_refs").write_text("5")
    before = resident_bytes()
    kept = work()
    rise = peak_resident_bytes() - before
    del kept
    return max(0, rise)


def give_back() -> None:
    """Gives the system what this process freed and still holds, where the C library can (glibc)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def free_bytes() -> int | None:
    """Memory that processes may still take, of this machine and of this container; None where that is not told."""
    found = []
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    with suppress(OSError, ValueError):  # "max" is no number: no limit
        group = Path("/sys/fs/cgroup")
        limit, used = ((group / name).read_text() for name in ("memory.max", "memory.current"))
        found.append(max(0, int(limit) - int(used)))
    return min(found, default=None)
