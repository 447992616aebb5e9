"""Arguments that reach a constructor as the recipe has them: what they name is made by whoever stores them."""

from __future__ import annotations

from typing import Any

__all__ = ["unwrapped", "wrapped"]

_KEY = "verbatim"


class _Verbatim:
    """Plain data that jsonargparse does not look into: it would make the classes that are named there."""

    def __init__(self, data: Any) -> None:
        self.data = data


def wrapped(data: Any) -> dict[str, Any]:
    """A dict whose only value is opaque."""
    return {_KEY: _Verbatim(data)}


def unwrapped(value: Any) -> Any:
    """The data that `wrapped` was given; any other value as it is."""
    inner = value.get(_KEY) if isinstance(value, dict) else None
    return inner.data if isinstance(inner, _Verbatim) else value
