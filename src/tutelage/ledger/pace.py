"""How fast may be asked: requests and tokens in any minute, and the waits that a server or a failure asks for."""

from __future__ import annotations

import email.utils
import random
import threading
import time
from collections import deque
from collections.abc import Callable

from tutelage.ledger.settings import Asking

__all__ = ["Pace", "back_off", "retry_after"]

MINUTE = 60.0


class Pace:
    """Lets calls pass no faster than the limits allow, within this process.

    Args:
        asking: The limits.
        clock: Seconds that only rise.
    """

    def __init__(self, asking: Asking, clock: Callable[[], float] = time.monotonic) -> None:
        self.asking = asking
        self.clock = clock
        self._lock = threading.Lock()
        self._passed: deque[tuple[float, int]] = deque()
        self._held_until = -float("inf")

    def hold(self, seconds: float) -> None:
        """Lets nothing pass for a while: the server said so to one call, and means all."""
        with self._lock:
            self._held_until = max(self._held_until, self.clock() + seconds)

    def delay(self, tokens: int) -> float:
        """Seconds until a call may pass; 0 lets it pass now and counts it."""
        with self._lock:
            now = self.clock()
            while self._passed and self._passed[0][0] <= now - MINUTE:
                self._passed.popleft()
            wait = max(self._held_until - now, self._until_room(now, tokens))
            if wait <= 0:
                self._passed.append((now, tokens))
            return max(wait, 0.0)

    def _until_room(self, now: float, tokens: int) -> float:
        requests, sum_tokens = self.asking.requests_per_minute, self.asking.tokens_per_minute
        wait = 0.0
        if requests is not None and len(self._passed) >= requests:
            wait = self._passed[len(self._passed) - requests][0] + MINUTE - now
        if sum_tokens is not None:
            over = sum(used for _, used in self._passed) + tokens - sum_tokens
            for at, used in self._passed:  # a call that is larger than the limit itself passes once the minute is empty
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
        except ValueError:
            return None
    return max(seconds, 0.0) if seconds < float("inf") else None
