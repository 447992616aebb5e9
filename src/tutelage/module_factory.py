"""What a recipe in YAML says where a module is to be made: it makes a new one each time it is called."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

__all__ = ["ModuleFactory"]


class ModuleFactory:
    """A class or function with its arguments, from which each call makes a module, and those in its arguments, anew.

    Only so do seeds start differently: a module that is made when the recipe is read, before a seed is set, would be
    the same start for all of them, and another one in the next process.

    Args:
        target: The class or function.
        path: Its import path.
        arguments: Plain data; a part in it is `{"class_path":, "init_args":}`.
        further: Arguments that only its `**kwargs` take.

    Raises:
        Exception: The arguments are none that it takes, as jsonargparse says it.
    """

    def __init__(
        self,
        target: Callable[..., nn.Module],
        path: str,
        arguments: Mapping[str, Any],
        further: Mapping[str, Any] | None = None,
    ) -> None:
        self.target, self.path = target, path
        self.__name__ = path.rpartition(".")[2]
        self.arguments: dict[str, Any] = self._parser().parse_object(dict(copy.deepcopy(arguments))).as_dict()
        self.further = dict(further or {})

    def __call__(self, *args: Any, **named: Any) -> nn.Module:
        """A new module, with the caller's arguments before those of the recipe."""
        return self.target(*args, **self.made_arguments() | named)

    def made_arguments(self) -> dict[str, Any]:
        """The arguments as the class or function is given them, with modules newly made."""
        parser = self._parser()
        made = parser.instantiate(parser.parse_object(copy.deepcopy(self.arguments)))
        return dict(made.items(branches=True, nested=False)) | copy.deepcopy(self.further)

    def _parser(self) -> ArgumentParser:
        from jsonargparse import ArgumentParser, set_loader

        set_loader("plain", lambda text: text)  # YAML is read already: a text for an untyped argument is no YAML again
        parser = ArgumentParser(exit_on_error=False, parser_mode="plain")
        add = parser.add_class_arguments if inspect.isclass(self.target) else parser.add_function_arguments
        add(self.target, fail_untyped=False)
        return parser
