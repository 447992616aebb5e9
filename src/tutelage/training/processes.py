"""Processes that train together: what the first decides for all of them, and what is said when one is gone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import distributed

from tutelage.errors import RunError, TutelageError, UserError

__all__ = ["decided", "is_first", "peers"]

T = TypeVar("T")


def is_first() -> bool:
    """Whether this is the process that writes, and speaks for all: the only one, or the first of several."""
    return not _together() or distributed.get_rank() == 0


def decided(decide: Callable[[], T]) -> T:
    """What the first process decides, on all processes: whatever rests on a clock, on files or on a device's rounding.

    Decided by each process alone, it might differ, and they would then wait for each other for ever. All processes call
    this at the same place; the others wait while the first one decides.

    Args:
        decide: Called on the first process alone. What it gives is pickled where there are several processes.

    Raises:
        TutelageError: The first process raised one; the others then raise one of the same text and exit status.
        RunError: It ended in another way.
    """
    if not _together():
        return decide()
    said: list[Any] = [None, None]
    if distributed.get_rank() == 0:
        try:
            said = ["decided", decide()]
        except BaseException as error:
            kind = "user" if isinstance(error, UserError) else "run"
            text = str(error) if isinstance(error, TutelageError) else f"the first process ended: {error!r}"
            distributed.broadcast_object_list([kind, text], src=0)
            raise
    distributed.broadcast_object_list(said, src=0)
    if said[0] != "decided":
        raise (UserError if said[0] == "user" else RunError)(said[1])
    found: T = said[1]
    return found


@contextmanager
def peers() -> Iterator[None]:
    """Says in words that another process is gone: the backend's own error is of its sockets.

    Raises:
        RunError: A collective call failed within.
    """
    try:
        yield
    except RuntimeError as error:
        of_backend = distributed.is_available() and isinstance(error, distributed.DistError)
        if not of_backend and not (_together() and any(sign in str(error) for sign in _SIGNS)):
            raise
        raise RunError(
            "another process of this run has ended or can't be reached; see what it said. The same command goes on "
            f"from the last checkpoint. ({str(error).splitlines()[0][:200]})"
        ) from error


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


_SIGNS = ("gloo", "NCCL", "onnection closed", "onnection reset", "Broken pipe", "Socket")
"""What errors of the backends contain that are plain `RuntimeError`s."""
