"""Rows from a function of the user."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from tutelage.errors import DataError, UserError, blame
from tutelage.imports import load_function
from tutelage.transfer.arrays import Arrays
from tutelage.transfer.base import Rows, Source

__all__ = ["Function"]

_SIDE = ("labels", "categories", "group", "split", "classes", "values")


class Function(Source):
    """What a function returns: `Rows`, or a dict of arrays and lists of texts.

    In a dict, `labels`, `categories`, `group`, `split`, `classes` and `values` mean what they mean for `Arrays`; all
    others are inputs.

    Args:
        name: `module:function`; the module is imported as Python would import it.
        arguments: What the function is called with, by name.
    """

    functions: ClassVar = ("name",)
    """Arguments that name a function, `module:function`, which is called."""

    def __init__(self, name: str, arguments: dict[str, Any] | None = None) -> None:
        self.name = name
        self.arguments = arguments

    def load(self) -> Rows:
        """See `Source.load`."""
        result = self._call()
        if isinstance(result, Rows):
            return result
        if not isinstance(result, Mapping):
            raise DataError(
                f"data.source: what `{self.name}` returned",
                expected="Rows, or a dict of arrays",
                found=type(result).__name__,
                mend='return {"inputs": ..., "labels": ...}',
            )
        inputs = {name: value for name, value in result.items() if name not in _SIDE}
        if not inputs:
            raise DataError(
                f"data.source: what `{self.name}` returned",
                expected="at least one array beside " + ", ".join(_SIDE),
                found=", ".join(map(str, result)) or "an empty dict",
            )
        return Arrays(inputs, **{name: result[name] for name in _SIDE if name in result}).load()

    def _call(self) -> Any:
        function = load_function(self.name, key="data.source.name")
        try:
            return function(**(self.arguments or {}))
        except UserError:
            raise
        except Exception as error:  # the user's code may raise anything
            raise DataError(
                f"data.source: `{self.name}`",
                expected="a function that returns rows",
                found=f"one that raises {blame(error)}",
                mend="look at data.source.arguments, and at its code",
            ) from error
