"""What a teacher is made from: told without loading it."""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tutelage.errors import UserError
from tutelage.module_factory import ModuleFactory
from tutelage.own_code import code_digest
from tutelage.paths import resolve_path
from tutelage.teachers.base import Teacher

__all__ = ["source_digest"]


class _Unknown(Exception):
    """A part that does not say what it is made from."""


def source_digest(teacher: Teacher) -> str:
    """SHA-256 of a teacher's class and settings, and of the content of the files and folders that they name.

    What decides no answer, such as a cap or the file of a ledger, is not part of it.

    Of the code of classes and functions it covers the modules of your own, with those that they import; what code reads
    when it runs can't be known. Empty where a teacher was made with an object that does not say
    what it is made from, such as a module that lives in memory.
    """
    digest = hashlib.sha256()
    try:
        for part in _parts(teacher):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
    except _Unknown:
        return ""
    return digest.hexdigest()


def _parts(value: Any) -> Iterator[bytes]:
    if isinstance(value, str):
        yield from _text(value)
    elif value is None or isinstance(value, (bool, int, float)):
        yield repr(value).encode()
    elif isinstance(value, Mapping):
        for key, inner in sorted(value.items(), key=lambda item: str(item[0])):
            yield str(key).encode()
            yield from _parts(inner)
    elif isinstance(value, (list, tuple)):
        yield str(len(value)).encode()
        for inner in value:
            yield from _parts(inner)
    elif isinstance(value, ModuleFactory):
        yield from _parts([value.target, value.arguments, value.further])
    elif isinstance(value, functools.partial):
        yield from _parts([value.func, list(value.args), dict(value.keywords)])
    elif inspect.isclass(value) or inspect.isfunction(value):
        if "<" in value.__qualname__:
            raise _Unknown
        yield f"{value.__module__}.{value.__qualname__}".encode()
        yield code_digest([value.__module__]).encode()
    elif isinstance(value, Teacher):
        yield from _parts(type(value))
        names = inspect.signature(type(value)).parameters.keys() - set(value.incidental)
        yield from _parts({name: vars(value)[name] for name in sorted(names) if name in vars(value)})
        functions = [vars(value).get(name) for name in getattr(value, "functions", ())]
        yield code_digest(each.partition(":")[0] for each in functions if isinstance(each, str)).encode()
    else:
        raise _Unknown


def _text(value: str) -> Iterator[bytes]:
    """A text; where it names a file or folder, what is in it, wherever it lies."""
    try:
        path = resolve_path(value or "\0", key="")  # an empty text would be the current folder
    except (UserError, OSError, ValueError):
        yield value.encode("utf-8", "surrogatepass")
        return
    for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
        yield str(file.relative_to(path)).encode()
        yield _digest(file)


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
