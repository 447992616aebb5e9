"""How fast may be asked: requests and tokens in any minute, and the waits that a server or a failure asks for."""

from __future__ import annotations

import email.utils
import random
import time
from collections.abc import Callable, Sequence

from tutelage.ledger.settings import Asking

__all__ = ["TooSoon", "back_off", "retry_after", "until_room"]

MINUTE = 60.0


class TooSoon(Exception):
    """A call may not pass yet.

    Args:
        seconds: After which it may be tried again.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"{seconds:.3g} seconds too soon")
        self.seconds = seconds


def until_room(passed: Sequence[tuple[float, int]], now: float, tokens: int, asking: Asking) -> float:
    """Seconds until a call may pass; 0 or less lets it pass now.

    Args:
        passed: When each call of the last minute passed, the first first, and its tokens.
        now: The time, on the same clock.
        tokens: Of this call.
        asking: The limits.
    """
    requests, sum_tokens = asking.requests_per_minute, asking.tokens_per_minute
    wait = 0.0
    if requests is not None and len(passed) >= requests:
        wait = passed[len(passed) - requests][0] + MINUTE - now
    if sum_tokens is not None:
        over = sum(used for _, used in passed) + tokens - sum_tokens
        for at, used in passed:  # a call that is larger than the limit itself passes once the minute is empty
            if over <= 0:
                break
            over -= used
            wait = max(wait, at + MINUTE - now)
    return wait


def back_off(failures: int, asking: Asking, draw: Callable[[], float] = random.random) -> float:
    """Seconds to wait after the given number of failures: doubled each time, less a random part of up to a half."""
    longest = min(asking.first_wait * 2.0 ** (failures - 1), asking.longest_wait)
    return longest * (1 - draw() / 2)


def retry_after(header: str | None, now: Callable[[], float] = time.time) -> float | None:
    """The seconds that a Retry-After header asks to wait, given as seconds or as a date; None if it can't be read."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - now()
        except (ValueError, OverflowError):
            return None
    return max(seconds, 0.0) if seconds < float("inf") else None
