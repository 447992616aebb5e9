"""Objects described as plain data, from which a recipe can make them again."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_args

from torch import nn

from tutelage.losses import Loss
from tutelage.module_factory import ModuleFactory
from tutelage.typed import parameters

__all__ = ["describe"]


def describe(value: Any, *, decisive: bool = False) -> Any:
    """Plain data from which `check_value` and a constructor would make `value` again, as far as that is possible.

    Constructors store their arguments under their own names, so an object is described by reading them back. A live
    array or module is shown as `<...>`: a recipe that was made in Python with one can be read but not run again.

    Args:
        value: Anything that a recipe may hold.
        decisive: Leave out what can't change any result: the arguments that a class names in `incidental`.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    again = functools.partial(describe, decisive=decisive)
    if isinstance(value, Mapping):
        return {str(k): again(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [again(v) for v in value]
    if isinstance(value, ModuleFactory):
        return {"class_path": value.path, "init_args": again(value.arguments | value.further)}
    if isinstance(value, functools.partial):
        return _describe_partial(value, again)
    if inspect.isclass(value) or inspect.isfunction(value):
        local = "<" in value.__qualname__  # a lambda, or a function within a function: no import finds it
        return f"<{value.__qualname__} made in Python>" if local else f"{value.__module__}.{value.__qualname__}"
    left_out = frozenset(getattr(value, "incidental", ())) if decisive else frozenset[str]()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [f.name for f in dataclasses.fields(value) if f.init and f.name not in left_out]
        fields = _arguments(value, {name: getattr(value, name) for name in names}, again)
        return fields if type(value).__bases__ == (object,) else _as_class(value, fields)
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"<{type(value).__name__} {tuple(shape)} made in Python>"
    known = parameters(type(value))
    # A live network could be made again but not with its weights, so it is not described as if it could.
    stored = vars(value) | (dict(value.named_children()) if isinstance(value, Loss) else {})
    if set(known) <= set(stored) and (isinstance(value, Loss) or not isinstance(value, nn.Module)):
        return _as_class(value, _arguments(value, {n: stored[n] for n in known if n not in left_out}, again))
    return f"<{type(value).__name__} made in Python>"


def _arguments(owner: Any, stored: dict[str, Any], again: Callable[[Any], Any]) -> dict[str, Any]:
    """Stored arguments, described; a whole number where the type says `float` is written as the float it means."""
    hints = parameters(type(owner))

    def plain(name: str, value: Any) -> Any:
        choices = get_args(hints[name][0]) or (hints[name][0],)
        return float(value) if type(value) is int and float in choices and int not in choices else again(value)

    return {name: plain(name, value) for name, value in stored.items()}


def _as_class(value: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"class_path": f"{type(value).__module__}.{type(value).__qualname__}", "init_args": arguments}


def _describe_partial(value: functools.partial[Any], again: Callable[[Any], Any]) -> Any:
    """Jsonargparse gives a factory as a partial whose last positional argument is the class."""
    target = next((a for a in reversed(value.args) if inspect.isclass(a) or inspect.isfunction(a)), value.func)
    return {
        "class_path": f"{target.__module__}.{target.__qualname__}",
        "init_args": {name: again(argument) for name, argument in value.keywords.items()},
    }
