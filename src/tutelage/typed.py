"""Checking plain data against types, with messages for people.

The families of the recipe (losses, teachers, students, sources, views) need no registry: a class is found by its name
among the subclasses of the family's base, or by its import path.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from torch import nn

from tutelage.callables import Refused, is_own_module, resolve, runs_code, trusted
from tutelage.errors import did_you_mean
from tutelage.module_factory import ModuleFactory
from tutelage.verbatim import wrapped

__all__ = ["Problem", "check_value", "family", "parameters"]


@dataclass(frozen=True)
class Problem:
    """One mistake: where, what was expected, what was found, what to do."""

    key: str
    expected: str
    found: str
    mend: str = ""


def check_value(value: Any, hint: Any, key: str, problems: list[Problem]) -> Any:
    """`value` with class names resolved to import paths; mistakes are added to `problems`."""
    origin = get_origin(hint)
    if hint is Any or hint is inspect.Parameter.empty:
        is_part = isinstance(value, dict) and "class_path" in value and value.keys() <= {"class_path", "init_args"}
        return _check_class(value, nn.Module, key, problems) if is_part else _judge(value, key, problems)
    if origin in (Union, types.UnionType):
        return _check_union(value, hint, key, problems)
    if hint is None or hint is type(None):
        return value if value is None else _wrong(value, "null", key, problems)
    if origin is Literal:
        return _check_literal(value, get_args(hint), key, problems)
    if hint in (bool, int, float, str):
        return _check_scalar(value, hint, key, problems)
    kind = hint if origin is None else origin
    if inspect.isclass(kind) and issubclass(kind, Mapping):
        return _check_dict(value, hint, key, problems)
    if inspect.isclass(kind) and kind.__module__ in _COLLECTIONS and issubclass(kind, Iterable):
        return _check_list(value, hint, key, problems)
    if kind is type:
        return _judge({"class_path": value}, key, problems)["class_path"]
    if origin is Callable or hint is Callable:
        return _check_callable(value, get_args(hint)[1] if get_args(hint) else object, key, problems)
    if inspect.isclass(hint) and dataclasses.is_dataclass(hint) and not inspect.isabstract(hint):
        return _check_fields(value, hint, key, problems)
    if inspect.isclass(hint):
        return _check_class(value, hint, key, problems)
    return _judge(value, key, problems)  # a type variable, or a generic class of the user's: it may be anything


_COLLECTIONS = ("builtins", "collections", "collections.abc")
"""Where the types of lists, sets and iterables are."""


def _wrong(value: Any, expected: str, key: str, problems: list[Problem], mend: str = "") -> Any:
    problems.append(Problem(key, expected, _shown(value), mend))
    return value


def _shown(value: Any) -> str:
    text = "null" if value is None else repr(value)
    return f"{text if len(text) <= 80 else text[:77] + '...'} ({type(value).__name__})"


def _check_union(value: Any, hint: Any, key: str, problems: list[Problem]) -> Any:
    choices = get_args(hint)
    if value is None and type(None) in choices:
        return None
    tries: list[tuple[int, list[Problem], Any]] = []
    for choice in (c for c in choices if c is not type(None)):
        found: list[Problem] = []
        result = check_value(value, choice, key, found)
        if not found:
            return result
        # The choice that got deepest into the value is the one that was meant.
        depth = max(problem.key.count(".") + problem.key.count("[") for problem in found)
        tries.append((depth, found, result))
    deepest = max(depth for depth, _, _ in tries)
    best = [found for depth, found, _ in tries if depth == deepest]
    if len(best) > 1 and all(problem.key == key for found in best for problem in found):
        expected = " or ".join(dict.fromkeys(found[0].expected for found in best))
        problems.append(Problem(key, expected, _shown(value), next((f[0].mend for f in best if f[0].mend), "")))
    else:
        problems.extend(best[0])
    return value


def _check_literal(value: Any, allowed: Sequence[Any], key: str, problems: list[Problem]) -> Any:
    if value in allowed and type(value) in {type(a) for a in allowed}:
        return value
    names = [str(a) for a in allowed]
    return _wrong(value, "one of " + ", ".join(names), key, problems, did_you_mean(str(value), names))


def _check_scalar(value: Any, hint: type, key: str, problems: list[Problem]) -> Any:
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    if hint is float and isinstance(value, str):  # YAML 1.1 reads 1e-3 as a text
        try:
            return float(value)
        except ValueError:
            return _wrong(value, names[hint], key, problems)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    return _wrong(value, names[hint], key, problems)


def _check_list(value: Any, hint: Any, key: str, problems: list[Problem]) -> Any:
    if not isinstance(value, (list, tuple)):
        return _wrong(value, "a list", key, problems, "write it as [a, b]")
    inner = get_args(hint) or (Any,)
    if get_origin(hint) is tuple and Ellipsis not in inner:
        if len(value) != len(inner):
            return _wrong(value, f"a list of {len(inner)}", key, problems)
        return [check_value(v, h, f"{key}[{i}]", problems) for i, (v, h) in enumerate(zip(value, inner, strict=True))]
    return [check_value(item, inner[0], f"{key}[{i}]", problems) for i, item in enumerate(value)]


def _check_dict(value: Any, hint: Any, key: str, problems: list[Problem]) -> Any:
    if not isinstance(value, dict):
        return _wrong(value, "keys and values", key, problems, "write it as {a: b}")
    inner = get_args(hint) or (Any, Any)
    for name, item in value.items():
        _judge_argument(name, item, f"{key}.{name}", problems)
    return {
        check_value(k, inner[0], f"{key}.{k}", problems): check_value(v, inner[1], f"{key}.{k}", problems)
        for k, v in value.items()
    }


def parameters(target: Callable[..., Any]) -> dict[str, tuple[Any, bool]]:
    """Each parameter's type, and whether it is required; `**kwargs` are followed no further."""
    function = target.__init__ if inspect.isclass(target) else target
    try:
        hints = typing.get_type_hints(function)
    except Exception:  # annotations of the user's that can't be resolved: the argument may be anything
        hints = {}
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {
        name: (hints.get(name, Any), parameter.default is inspect.Parameter.empty)
        for name, parameter in inspect.signature(target).parameters.items()
        if parameter.kind in kinds
    }


def _open_ended(target: Callable[..., Any]) -> bool:
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in inspect.signature(target).parameters.values())


def _check_fields(value: Any, target: Callable[..., Any], key: str, problems: list[Problem]) -> Any:
    if not isinstance(value, dict):
        return _wrong(value, f"the fields of {getattr(target, '__name__', target)}", key, problems)
    known = parameters(target)
    prefix = f"{key}." if key else ""
    result: dict[str, Any] = {}
    for name, item in value.items():
        _judge_argument(name, item, f"{prefix}{name}", problems)
        if name in known:
            result[name] = check_value(item, known[name][0], f"{prefix}{name}", problems)
        elif _open_ended(target):
            result[name] = _judge(item, f"{prefix}{name}", problems)
        else:
            owner = getattr(target, "__name__", str(target))
            problems.append(
                Problem(
                    f"{prefix}{name}", f"a field of {owner}", "no such field", _field_meant(str(name), known, prefix)
                )
            )
    for name, (_, required) in known.items():
        if required and name not in value:
            problems.append(Problem(f"{prefix}{name}", "a value: it has no default", "it is missing"))
    return result


def _field_meant(name: str, known: Mapping[str, tuple[Any, bool]], prefix: str) -> str:
    """Where a field of that name is: in a section of this one, else what is spelt like it."""
    inside = [
        f"`{prefix}{section}.{name}`"
        for section, (hint, _) in known.items()
        for kind in (hint, *get_args(hint))
        if inspect.isclass(kind) and dataclasses.is_dataclass(kind) and name in parameters(kind)
    ]
    return f"it is {' or '.join(dict.fromkeys(inside))}" if inside else did_you_mean(name, known)


def _check_class(value: Any, base: type, key: str, problems: list[Problem]) -> Any:
    """A class by name or import path, with its arguments: `{class_path: KLDivergence, init_args: {...}}`."""
    if isinstance(value, str):
        value = {"class_path": value}
    if not isinstance(value, dict) or not isinstance(value.get("class_path"), str):
        shape = "{class_path: NAME, init_args: {...}}"
        return _wrong(value, f"a {base.__name__}: {shape}", key, problems, _choices(base, ""))
    extra = set(value) - {"class_path", "init_args"}
    if extra:
        name = sorted(extra)[0]
        mend = f"move it below `init_args:` ({did_you_mean(name, ['class_path', 'init_args'])})"
        problems.append(Problem(f"{key}.{name}", "only class_path and init_args here", "another key", mend))
    try:
        target = _resolve(value["class_path"], base)
    except Refused as refused:
        mend = refused.mend or _choices(base, value["class_path"])
        problems.append(Problem(f"{key}.class_path", f"a {base.__name__}", refused.found, mend))
        return value
    if inspect.isclass(target) and inspect.isclass(base) and base is not object and not issubclass(target, base):
        problems.append(
            Problem(f"{key}.class_path", f"a {base.__name__}", f"{target.__name__} is none", _choices(base, ""))
        )
        return value
    try:
        inspect.signature(target)
    except (TypeError, ValueError):
        found = f"`{value['class_path']}`, whose arguments Python can't tell"
        problems.append(Problem(f"{key}.class_path", f"a {base.__name__}", found, "name a class or function of Python"))
        return value
    arguments = value.get("init_args")
    checked = _check_fields({} if arguments is None else arguments, target, key, problems)
    for name in getattr(target, "functions", ()):
        _judge_function(checked.get(name), f"{key}.{name}", problems)
    for name in getattr(target, "verbatim", ()):
        _judge(checked.get(name), f"{key}.{name}", problems)
        if isinstance(checked.get(name), dict):
            checked[name] = wrapped(checked[name])
    # A class method is named by the class that it is called on, which `__qualname__` does not know.
    method = inspect.ismethod(target) or not hasattr(target, "__qualname__")
    path = value["class_path"] if method else f"{target.__module__}.{target.__qualname__}"
    resolved = {"class_path": path, "init_args": checked}
    if further := checked.keys() - parameters(target).keys() if isinstance(checked, dict) else set():
        further -= _forwarded(target)
        resolved["dict_kwargs"] = {name: checked.pop(name) for name in list(checked) if name in further}
    return resolved


def _check_callable(value: Any, made: Any, key: str, problems: list[Problem]) -> Any:
    """What makes something of that type; of a module, anew with each call."""
    found: list[Problem] = []
    checked = _check_class(value, made, key, found)
    problems += found
    if found or not (inspect.isclass(made) and issubclass(made, nn.Module)):
        return checked
    path = checked["class_path"]
    try:
        return ModuleFactory(_resolve(path, made), path, checked["init_args"], checked.get("dict_kwargs"))
    except Exception as error:  # jsonargparse raises many kinds
        problems.append(Problem(key, "arguments that it accepts", " ".join(str(error).split())))
        return value


def _forwarded(target: Callable[..., Any]) -> set[str]:
    """Names of the arguments that jsonargparse finds, also where `**kwargs` are handed on to a base class."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    add = parser.add_class_arguments if inspect.isclass(target) else parser.add_function_arguments
    return {name.partition(".")[0] for name in add(target, fail_untyped=False)}


def _choices(base: type, word: str) -> str:
    return did_you_mean(word.rsplit(".", 1)[-1], family(base))


def family(base: type) -> dict[str, type]:
    """Concrete subclasses of `base` that are imported, by name."""
    found: dict[str, type] = {}
    if base is object or base.__module__.partition(".")[0] == "torch":
        return found
    children: list[type] = type.__subclasses__(base)
    for child in children:
        found.update(family(child))
        if not inspect.isabstract(child):
            found[child.__name__] = child
    return found


def _resolve(name: str, base: type) -> Callable[..., Any]:
    """The class of the family of that name, or what may be called at that import path.

    Raises:
        Refused: There is none, or it may not be called.
    """
    if "." not in name:
        if name not in family(base):
            raise Refused(f"`{name}`, which is none of them")
        return family(base)[name]
    return resolve(name, base)


def _judge(value: Any, key: str, problems: list[Problem]) -> Any:
    """Plain data as it is; a class that is named in it has to be one that may be called, for somebody will call it."""
    if isinstance(value, dict):
        if isinstance(value.get("class_path"), str) and set(value) <= {"class_path", "init_args", "dict_kwargs"}:
            try:
                _resolve(value["class_path"], object)
            except Refused as refused:
                expected = "a class that a recipe may name here"
                problems.append(Problem(f"{key}.class_path", expected, refused.found, refused.mend))
        for name, item in value.items():
            _judge_argument(name, item, f"{key}.{name}", problems)
            _judge(item, f"{key}.{name}", problems)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _judge(item, f"{key}[{index}]", problems)
    return value


def _judge_argument(name: Any, value: Any, key: str, problems: list[Problem]) -> None:
    """An argument by which a library runs the code that comes with a model is a matter of trust, like that code."""
    if runs_code(name, value) and not trusted():
        mend = "leave it out, or add --trust if you know the code that comes with the model: it would be run"
        _wrong(value, f"`{name}` as it is by default", key, problems, mend)


def _judge_function(name: Any, key: str, problems: list[Problem]) -> None:
    """A `module:function` is called with data: it has to be of one's own code, not any that is installed."""
    if isinstance(name, str) and ":" in name and not trusted() and is_own_module(name.partition(":")[0]) is False:
        problems.append(
            Problem(
                key,
                "a function of your own code, beside the recipe",
                f"`{name}` of an installed package",
                "write a function beside the recipe that calls it, or add --trust if you know what the recipe runs",
            )
        )
