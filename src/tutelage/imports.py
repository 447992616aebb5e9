"""Functions of the user's own, named `module:function` in a recipe."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from tutelage.errors import DataError, UserError, blame, did_you_mean

__all__ = ["load_function"]


def load_function(name: str, *, key: str, error: type[UserError] = DataError) -> Callable[..., Any]:
    """The function that a recipe means; its module is imported as Python would import it.

    Args:
        name: `module:function`.
        key: The recipe key that holds it, for the message.
        error: What to raise: `DataError` for data, `ModelError` for models.

    Raises:
        UserError: Of the type `error`: the module can't be imported, or has no such function.
    """
    if not isinstance(name, str):  # from Python anything may be given
        raise error(
            key,
            expected="the name of a function, module:function",
            found=f"a {type(name).__name__}",
            mend="put it into a file and name it: a run is known again by its recipe, which can't hold the code itself",
        )
    module_name, colon, function_name = name.partition(":")
    if not (module_name and colon and function_name):
        raise error(key, expected="module:function", found=f"`{name}`")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as cause:  # importing runs the user's code, which may raise anything
        absent = isinstance(cause, ModuleNotFoundError)
        raise error(
            key,
            expected=f"a module `{module_name}` that can be imported",
            found=str(cause) if absent else blame(cause),
            mend="run in the folder that holds it, or install it" if absent else "mend the module",
        ) from cause
    function = getattr(module, function_name, None)
    if not callable(function):
        raise error(
            key,
            expected=f"a function of `{module_name}`",
            found=f"`{function_name}`",
            mend=did_you_mean(function_name, (n for n, v in vars(module).items() if callable(v))),
        )
    return function  # type: ignore[no-any-return]
