"""How large a recipe is once its aliases are written out: nine lines of YAML can hold billions of values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tutelage.errors import RecipeError

__all__ = ["MOST", "require_size"]

MOST = 1_000_000
"""Values of a recipe, each alias counted as what it stands for."""


def require_size(data: Any, path: Path) -> None:
    """Refuses data that holds itself, or more than a million values.

    Raises:
        RecipeError: It does.
    """
    sizes: dict[int, int | None] = {}

    def size(value: Any) -> int:
        if not isinstance(value, list | dict):
            return 1
        known = sizes.get(id(value), 0)
        if known:
            return known
        if known is None:
            raise RecipeError(str(path), expected="values that end", found="an alias of what it stands in")
        sizes[id(value)] = None
        inner = value.values() if isinstance(value, dict) else value
        sizes[id(value)] = total = 1 + sum(map(size, inner))
        return total

    if size(data) > MOST:
        raise RecipeError(
            str(path),
            expected=f"a recipe of at most {MOST:,} values, aliases written out",
            found=f"{size(data):,}",
            harm="it would fill the memory",
            mend="write long lists to a file",
        )
