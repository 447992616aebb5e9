"""The losses, one method a file. `losses.NAME` finds every `Loss` in this package: there is no list to extend."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import Any

from tutelage.losses.base import Loss, Needs

__all__ = ["Loss", "Needs", "all_losses"]


def all_losses() -> dict[str, type[Loss]]:
    """Every concrete loss of the package, by class name."""
    found: dict[str, type[Loss]] = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        for name, value in vars(module).items():
            own = inspect.isclass(value) and issubclass(value, Loss) and value.__module__ == module.__name__
            if own and not inspect.isabstract(value):
                found[name] = value
    return found


def __getattr__(name: str) -> Any:
    if not name.startswith("_"):
        found = all_losses()
        if name in found:
            return found[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *all_losses()])
