"""How much may be asked, how fast, and what it costs: the parts of a recipe that a remote teacher has."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from tutelage.errors import RecipeError

__all__ = ["Asking", "Caps", "Prices", "Usage"]


@dataclass(kw_only=True)
class Caps:
    """Where asking stops, whatever is still missing. Calls, tokens and money are those of the whole ledger.

    Args:
        calls: Attempts, those that failed included.
        tokens: Tokens in and out together. An attempt whose outcome is not known counts with the most it can have used.
        money: In the unit of the prices.
        seconds: Time that one run may spend asking, waits included; what else it does in between does not count.
    """

    calls: int | None = None
    tokens: int | None = None
    money: float | None = None
    seconds: float | None = None

    def check(self, key: str, prices: Prices) -> None:
        """Raises a `RecipeError` for caps that are no positive numbers, or that could not be held."""
        _require_positive(self, key)
        if self.money is not None and not prices.known:
            raise RecipeError(
                f"{key}.money",
                expected="prices beside it",
                found="none",
                harm="what is spent would not be known, and the cap could not be held",
                mend="give the prices that the endpoint charges, or cap calls or tokens",
            )


@dataclass(kw_only=True)
class Asking:
    """How an endpoint is asked.

    Args:
        concurrent: Calls under way at once.
        requests_per_minute: Of all processes together that ask this endpoint through this ledger.
        tokens_per_minute: Likewise; a call counts with the most it can use.
        timeout: Seconds until a call counts as lost.
        attempts: How often a question is sent before the run stops, the first time included.
        first_wait: Seconds before the second attempt; each further wait is twice as long, less a random part of up to
            a half of it.
        longest_wait: Seconds of the longest wait. A server that asks for more (Retry-After) stops the run.
        answer_mb: Megabytes of the largest answer, unpacked. A larger one is not read and counts as unusable.
    """

    concurrent: int = 4
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    timeout: float = 60.0
    attempts: int = 6
    first_wait: float = 1.0
    longest_wait: float = 120.0
    answer_mb: float = 64.0

    def check(self, key: str) -> None:
        """Raises a `RecipeError` for a setting that is no positive number."""
        _require_positive(self, key)


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Tokens of one call."""

    tokens_in: int = 0
    tokens_out: int = 0


@dataclass(frozen=True, kw_only=True)
class Prices:
    """What the endpoint charges, in any one unit of money; None where it is not known.

    Attributes:
        price_in: For a million tokens of prompts.
        price_out: For a million tokens of answers.
        price_call: For a call.
    """

    price_in: float | None = None
    price_out: float | None = None
    price_call: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            price = getattr(self, field.name)
            if price is not None and not (math.isfinite(price) and price >= 0):
                raise RecipeError(
                    field.name,
                    expected="a price, 0 or more",
                    found=str(price),
                    harm="a cap on money could not be held",
                )

    @property
    def known(self) -> bool:
        """Whether any is given."""
        return not (self.price_in is self.price_out is self.price_call is None)

    def of(self, usage: Usage, *, calls: int = 1) -> float | None:
        """What a call costs; None when no price is known."""
        if not self.known:
            return None
        tokens = usage.tokens_in * (self.price_in or 0.0) + usage.tokens_out * (self.price_out or 0.0)
        return tokens / 1e6 + calls * (self.price_call or 0.0)


def _require_positive(settings: Any, key: str) -> None:
    for field in fields(settings):
        value = getattr(settings, field.name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise RecipeError(f"{key}.{field.name}", expected="a number above 0", found=str(value))
