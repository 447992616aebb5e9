"""What a recipe may say: fields, types, defaults and meanings, read off the code that will read the recipe."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any, Union, get_args, get_origin

from docstring_parser import parse

from tutelage.errors import RecipeError, did_you_mean
from tutelage.generation import Generation
from tutelage.losses import all_losses
from tutelage.recipe import Recipe
from tutelage.teachers import SampleGate
from tutelage.typed import family, parameters

__all__ = ["dotted_fields", "explain"]


def explain(key: str = "") -> str:
    """The fields of a recipe's section, or of a class that it may name; of the whole recipe for an empty key.

    Raises:
        RecipeError: There is no such field or class.
    """
    all_losses()  # imports them: the classes of a family are those that are imported
    if not key:
        more = "`tutelage explain FIELD` says more, `tutelage explain Generation` tells those of `generate`."
        return _fields(Recipe, f"A recipe has these fields; {more}")
    classes = _all_classes()
    if key in classes:
        return _fields(classes[key], _about(classes[key]))
    kind, _, argument = key.partition(".")
    if kind in classes and argument in parameters(classes[kind]):
        return "\n".join(_lines(classes[kind], argument, called=key))
    key, hint = _field(key, classes)
    if not inspect.isclass(hint) or hint.__module__ == "builtins":
        owner: Any = Recipe
        *path, last = key.split(".")
        for part in path:
            owner = _plain(parameters(owner)[part][0])
        return "\n".join(_lines(owner, last, called=key))
    if dataclasses.is_dataclass(hint):
        return _fields(hint, _about(hint))
    lines = [f"{key}: {_about(hint)}", "", "One of these, as `class_path: NAME` with its `init_args:`", ""]
    lines += [f"  {name:<24} {_about(kind)}" for name, kind in sorted(family(hint).items())]
    return "\n".join([*lines, "", "`tutelage explain NAME` lists its arguments."])


def _field(key: str, classes: dict[str, type]) -> tuple[str, Any]:
    """The full key of a field that is named by it, or by its last word alone, in the singular or the plural; its type.

    Raises:
        RecipeError: There is none, or several.
    """
    hint: Any = Recipe
    known: dict[str, Any] = {}
    for part in key.split("."):
        known = parameters(hint) if inspect.isclass(hint) and dataclasses.is_dataclass(hint) else {}
        if part not in known:
            break
        hint = _plain(known[part][0])
    else:
        return key, hint
    if inspect.isclass(hint) and hint.__module__.startswith("tutelage") and not known:  # `data.source.path`
        having = [name for name, kind in sorted(family(hint).items()) if part in parameters(kind)]
        if having:
            raise RecipeError(
                key,
                expected="a field of a recipe, or the name of a class",
                found=f"`{part}`, an argument of {', '.join(having)}",
                mend=f"tutelage explain {having[0]}",
            )
    fields = dotted_fields()
    word = key.rpartition(".")[2]
    forms = {word, f"{word}s", f"{word}es", word.removesuffix("s"), word.removesuffix("es")}
    meant = [field for field in fields if field.rpartition(".")[2] in forms]
    if len(meant) == 1 and meant[0] != key:
        return _field(meant[0], classes)
    meant = meant or [f"{name}.{word}" for name, kind in sorted(classes.items()) if word in parameters(kind)]
    raise RecipeError(
        key,
        expected="a field of a recipe, or the name of a class",
        found=word,
        mend=f"choose one of: {', '.join(meant)}" if meant else did_you_mean(word, [*fields, *classes]),
    )


def dotted_fields(command: str = "distill") -> list[str]:
    """Every field of a command's recipe that can be overridden without knowing which classes it names."""
    return list(_dotted(Generation if command == "generate" else Recipe, ""))


def _dotted(kind: type, prefix: str) -> Iterator[str]:
    for name, (hint, _) in parameters(kind).items():
        plain = _plain(hint)
        yield prefix + name
        if dataclasses.is_dataclass(plain) and inspect.isclass(plain) and get_origin(hint) not in (list, dict):
            yield from _dotted(plain, f"{prefix}{name}.")


def _all_classes() -> dict[str, type]:
    found: dict[str, type] = {}
    for hint, _ in [*parameters(Recipe).values(), *parameters(Generation).values()]:
        plain = _plain(hint)
        if inspect.isclass(plain) and plain.__module__.startswith("tutelage"):
            found |= {plain.__name__: plain} if dataclasses.is_dataclass(plain) else family(plain)
            for inner, _ in parameters(plain).values() if dataclasses.is_dataclass(plain) else ():
                deeper = _plain(inner)
                if inspect.isclass(deeper) and deeper.__module__.startswith("tutelage"):
                    found |= {deeper.__name__: deeper} if dataclasses.is_dataclass(deeper) else family(deeper)
    return found | {"Generation": Generation} | family(SampleGate)  # which only an ensemble names


def _plain(hint: Any) -> Any:
    """The class in `list[X]`, `dict[str, X]` or `X | None`."""
    if get_origin(hint) in (list, dict):
        return _plain(get_args(hint)[-1])
    if get_origin(hint) in (Union, types.UnionType):
        return _plain(next(choice for choice in get_args(hint) if choice is not type(None)))
    return hint


def _type_name(hint: Any) -> str:
    if get_origin(hint) is typing.Literal:
        return " | ".join(str(choice) for choice in get_args(hint))
    if get_origin(hint) in (Union, types.UnionType):
        return " | ".join("null" if choice is type(None) else _type_name(choice) for choice in get_args(hint))
    if get_origin(hint) is list:
        return f"[{_type_name(get_args(hint)[0])}, ...]"
    return hint.__name__ if inspect.isclass(hint) else str(hint).replace("typing.", "")


def _about(kind: Callable[..., Any]) -> str:
    return (parse(inspect.getdoc(kind) or "").short_description or "").replace("\n", " ")


def _fields(kind: type, title: str) -> str:
    parsed = parse(inspect.getdoc(kind) or "")
    lines = [title]
    if parsed.long_description:
        lines += ["", *parsed.long_description.splitlines()]
    lines.append("")
    for name in parameters(kind):
        lines += [f"  {line}" for line in _lines(kind, name)]
    return "\n".join(lines)


def _lines(kind: type, name: str, called: str = "") -> list[str]:
    """A field's type and default, and what it means."""
    meaning = {p.arg_name: " ".join((p.description or "").split()) for p in parse(inspect.getdoc(kind) or "").params}
    hint, required = parameters(kind)[name]
    default = "" if required else f" = {_default(inspect.signature(kind).parameters[name].default)}"
    return [f"{called or name}: {_type_name(hint)}{default}", f"    {meaning.get(name, '')}"]


def _default(value: Any) -> str:
    if value is None:
        return "null"
    return "..." if type(value).__name__ == "_HAS_DEFAULT_FACTORY_CLASS" else str(value)
