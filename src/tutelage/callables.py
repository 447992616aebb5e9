"""What a recipe or a bundle may have called: found and judged without a call, and where it can be without an import.

A recipe in YAML may come from somebody else, and every package that is installed can be named in it. So only what says
that it makes the part in question is called:

    a class of the expected base                        torch.nn.Linear, tutelage.losses.Hint
    a function or class method annotated to return one  torchvision.models.resnet18 (-> ResNet)
    anything in code of one's own                       what is neither installed nor Python's: beside the recipe

Everything else needs `--trust` (or TUTELAGE_TRUST=1 in the environment). Code beside a recipe is code: it is imported.
"""

from __future__ import annotations

import ast
import importlib
import importlib.machinery
import importlib.util
import inspect
import os
import sys
import sysconfig
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from tutelage.errors import blame, did_you_mean

__all__ = ["TRUST", "Refused", "is_own", "is_own_module", "makes", "module_file", "resolve", "runs_code", "trusted"]

TRUST = "TUTELAGE_TRUST"
"""The environment variable that `--trust` sets: 1 lets a recipe name any callable. Processes of one run inherit it."""
_SAFE = {"trust_remote_code": False, "weights_only": True}
"""Arguments of libraries by which a model folder's own code, or its pickles, are run unless they are these."""
_BOUND_ELSEWHERE = ("globals(", "vars(", "exec(", "setattr(", "sys.modules", "import *", "__getattr__")
_SEVERAL = (ast.If, ast.Try, ast.With, ast.For, ast.While)


class Refused(Exception):
    """A path that may not be called, or leads nowhere.

    Args:
        found: What was found in its place.
        mend: What helps, where that is known.
    """

    def __init__(self, found: str, mend: str = "") -> None:
        super().__init__(found)
        self.found, self.mend = found, mend


@dataclass(frozen=True)
class _Place:
    """A module as it lies on disk. `search` is where its submodules are; None for one that is no package."""

    name: str
    file: str | None
    search: Sequence[str] | None

    @property
    def own(self) -> bool:
        """Whether it is neither installed, nor Python's, nor ours."""
        top = self.name.partition(".")[0]
        if top == "tutelage" or top in sys.stdlib_module_names:
            return False
        paths = [self.file] if self.file is not None else list(self.search or ())
        return bool(paths) and not any(_installed(Path(path).resolve()) for path in paths)


def trusted() -> bool:
    """Whether any callable may be named."""
    return os.environ.get(TRUST) == "1"


def resolve(path: str, base: type) -> Callable[..., Any]:
    """The class or function at an import path; nothing is called, and what is refused by its source is not imported.

    Args:
        path: `package.module.Name`, or `package.module.Class.method`.
        base: What it has to make. `object` where nothing is said: a torch module or an estimator then.

    Raises:
        Refused: There is no such thing, or it may not be called.
    """
    parts = path.split(".")
    if not all(parts):
        raise Refused(f"`{path}`, which is no import path (write `models.Net`, without a leading dot)")
    top = parts[0]
    of_python = base is not object and base.__module__.partition(".")[0] in sys.stdlib_module_names
    if top in sys.stdlib_module_names and top != "__main__" and not of_python and not trusted():
        raise Refused(f"`{path}` of Python's standard library, which makes no {_kind(base)}", _mend())
    place, rest = _located(parts)
    if not rest:
        raise Refused(f"`{path}`, which is a module", f"name something in it: {path}.NAME")
    if place.name not in sys.modules and not trusted():
        _judge_source(place, rest[0], alone=len(rest) == 1, base=base)
    try:
        holder: Any = importlib.import_module(place.name)
    except ModuleNotFoundError as error:
        raise _absent(error.name or place.name) from error
    except (Exception, SystemExit) as error:  # importing runs the user's code, which may raise anything
        raise Refused(f"importing {place.name} raises {blame(error)}") from error
    target = holder
    for name in rest:
        holder, target = target, getattr(target, name, None)
    if not callable(target):
        where = holder.__name__ if inspect.isclass(holder) or inspect.ismodule(holder) else place.name
        raise Refused(f"no `{rest[-1]}` in {where}; {did_you_mean(rest[-1], dir(holder))}".rstrip("; "))
    judged_by_its_class = inspect.isclass(target) and base is not object  # by whoever expects it, in better words
    if not (judged_by_its_class or trusted() or makes(target, base) or (place.own and is_own(target))):
        raise Refused(f"`{path}`, which does not say that it makes a {_kind(base)}", _mend())
    return typing.cast("Callable[..., Any]", target)


def makes(target: object, base: type) -> bool:
    """Whether it is a class of `base`, or is annotated to return one; for `object`, one of a module or an estimator."""
    made: object = target if inspect.isclass(target) else _returned(target)
    if not inspect.isclass(made):
        return False
    if base is object:
        return issubclass(made, nn.Module) or hasattr(made, "get_params")
    return issubclass(made, base)


def runs_code(name: object, value: object) -> bool:
    """Whether an argument of that name lets a library run code that comes with a model, which nobody has named."""
    return isinstance(name, str) and name in _SAFE and bool(value) is not _SAFE[name]


def is_own(target: object) -> bool:
    """Whether it is defined in code of one's own; an object without a home (a partial) is where it stands."""
    name = getattr(target, "__module__", None)
    if not isinstance(target, type | types.FunctionType | types.MethodType | types.BuiltinFunctionType):
        return True
    module = sys.modules.get(name or "")
    if module is None:
        return False
    return _Place(module.__name__, getattr(module, "__file__", None), getattr(module, "__path__", None)).own


def is_own_module(name: str) -> bool | None:
    """Whether a module is code of one's own, without importing it; None where there is none of that name."""
    place = _module(name)
    return None if place is None else place.own


def module_file(name: str) -> str | None:
    """The file of a module, without importing it or its packages; None where there is none."""
    place = _module(name)
    return None if place is None else place.file


def _module(name: str) -> _Place | None:
    try:
        place, rest = _located([*name.split("."), ""])
    except Refused:
        return None
    return place if rest == [""] else None


def _kind(base: type) -> str:
    return "torch module or estimator" if base is object else base.__name__


def _mend() -> str:
    return (
        "name a class of it or a function annotated to return one, write a function of your own beside the recipe, or "
        "add --trust if you know what the recipe runs"
    )


def _absent(name: str) -> Refused:
    folders = [folder for folder in map(Path, dict.fromkeys(sys.path)) if not _installed((folder / name).resolve())]
    near = did_you_mean(name, [file.stem for folder in folders for file in folder.glob("*.py")], list_up_to=0)
    found = f"no module named {name} (looked in the recipe's folder and the current one)"
    return Refused(found, near if near.startswith("did you mean") else "")


def _installed(path: Path) -> bool:
    known = sysconfig.get_paths()
    library = Path(known["stdlib"]).resolve()
    return bool({"site-packages", "dist-packages"} & set(path.parts)) or library in path.parents


def _returned(function: object) -> object:
    """The class that a function's annotation says it returns; of a class method, also by `Self` or a type variable."""
    plain = inspect.unwrap(function) if callable(function) else function
    plain = getattr(plain, "__func__", plain)
    notes = getattr(plain, "__annotations__", {})
    if "return" not in notes:
        return None
    alone = types.SimpleNamespace(__annotations__={"return": notes["return"]})
    try:  # the other annotations may name what can't be resolved here
        made = typing.get_type_hints(alone, globalns=getattr(plain, "__globals__", {})).get("return")
    except Exception:
        return None
    if isinstance(made, typing.TypeVar) or made is getattr(typing, "Self", None) or "Self" in str(made)[-6:]:
        owner = getattr(function, "__self__", None)
        return owner if inspect.isclass(owner) else None
    return made


def _located(parts: Sequence[str]) -> tuple[_Place, list[str]]:
    """The longest beginning of a path that is a module, and the names after it; no parent is imported for it."""
    place = _place(parts[0], None)
    if place is None:
        raise _absent(parts[0])
    for count in range(2, len(parts) + 1):
        inner = _place(".".join(parts[:count]), place.search) if place.search is not None and parts[count - 1] else None
        if inner is None:
            return place, list(parts[count - 1 :])
        place = inner
    return place, []


def _place(name: str, within: Sequence[str] | None) -> _Place | None:
    module = sys.modules.get(name)
    if module is not None:
        return _Place(name, getattr(module, "__file__", None), getattr(module, "__path__", None))
    try:
        if within is None:
            spec = importlib.util.find_spec(name)
        else:
            spec = importlib.machinery.PathFinder.find_spec(name, list(within))
    except (ImportError, ValueError, AttributeError):
        return None
    if spec is None:
        return None
    file = spec.origin if spec.has_location else None
    search = spec.submodule_search_locations
    return _Place(name, file, None if search is None else list(search))


def _judge_source(place: _Place, name: str, *, alone: bool, base: type) -> None:
    """Refuses by its source what would be refused after the import; what the source leaves open is imported.

    Raises:
        Refused: There is no such name, it is a class without a base, or a function of others that does not say what it
            makes.
    """
    if place.file is None or not place.file.endswith(".py"):
        return
    try:
        source = Path(place.file).read_text(encoding="utf-8")
        body = ast.parse(source).body
    except (OSError, UnicodeError, SyntaxError, ValueError, RecursionError, MemoryError):
        return  # the import says it better
    bound = dict(_bindings(body))
    if name not in bound:
        if not any(word in source for word in _BOUND_ELSEWHERE):
            raise Refused(f"no `{name}` in {place.name}; {did_you_mean(name, bound)}".rstrip("; "))
        return
    node = bound[name]
    if isinstance(node, ast.ClassDef) and not (node.bases or node.keywords or node.decorator_list):
        if alone and not (place.own and base is object):
            raise Refused(f"`{place.name}.{name}`, which is none")
    elif isinstance(node, ast.FunctionDef) and not (place.own or node.returns or node.decorator_list):
        raise Refused(f"`{place.name}.{name}`, which does not say that it makes a {_kind(base)}", _mend())


def _bindings(body: Sequence[ast.stmt]) -> Iterator[tuple[str, ast.stmt]]:
    """Names that a module's statements bind, with the statement, also within conditions."""
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name.partition(".")[0], node) for alias in node.names)
        elif isinstance(node, _SEVERAL):
            for field in ("body", "orelse", "finalbody"):
                yield from _bindings(getattr(node, field, []))
            for handler in getattr(node, "handlers", []):
                yield from _bindings(handler.body)
        else:
            names = (each for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store))
            yield from ((each.id, node) for each in names)
