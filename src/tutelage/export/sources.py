"""Source files of a student's own modules: carried by its bundle, and run from there only where somebody says so."""

from __future__ import annotations

import ast
import hashlib
import importlib.abc
import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from tutelage.errors import ModelError
from tutelage.own_code import own_modules

__all__ = ["carried", "require_modules", "write_sources"]

FOLDER = "source"


def write_sources(spec: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Copies the files of the modules that a spec names and that no package installs, with those that they import.

    Args:
        spec: `{"class_path":, "init_args":}`, which may hold others.
        folder: The bundle; the files lie below `source/` in it.

    Returns:
        For config.json: `sources`, the file and its SHA-256 by the module's name, and `requires`, what to install for
        the other modules, as pip takes it. Each only where there is any.
    """
    named = {module for path in _class_paths(spec) if (module := _module_of(path)) is not None}
    own = own_modules(sorted(named))
    sources = {}
    for name, file in sorted(own.items()):
        package = file.name == "__init__.py"
        copy = (
            Path(FOLDER, *name.split("."), "__init__.py")
            if package
            else Path(FOLDER, *name.split(".")).with_suffix(".py")
        )
        content = file.read_bytes()
        (folder / copy).parent.mkdir(parents=True, exist_ok=True)
        (folder / copy).write_bytes(content)
        sources[name] = {"file": copy.as_posix(), "sha256": hashlib.sha256(content).hexdigest()}
    others = {name.partition(".")[0] for name in named - own.keys()} - {"torch", "tutelage"}
    return ({"sources": sources} if sources else {}) | ({"requires": found} if (found := _requirements(others)) else {})


def require_modules(config: Mapping[str, Any], key: str) -> None:
    """Refuses a bundle whose carried modules can't be imported here, or would be other code than it was judged with.

    Comments and the form of a file may differ.

    Raises:
        ModelError: It says what to do.
    """
    for name, about in (config.get("sources") or {}).items():
        try:
            found = importlib.util.find_spec(name)
        except ModuleNotFoundError:  # of the package that it is in
            found = None
        if found is None:
            raise ModelError(
                f"{key}: module `{name}`",
                expected="a module that can be imported here",
                found=f"none; the bundle carries a copy of its source, {about['file']}",
                mend='read that file; load_student(FOLDER, source="bundle") runs it. Or add the folder of the original '
                "to PYTHONPATH. model.onnx runs without it",
            )
        file = Path(found.origin) if found.has_location and found.origin else None
        if file is not None and file.suffix == ".py" and not _same_code(file, Path(key).parent, about):
            raise ModelError(
                f"{key}: module `{name}`",
                expected=f"the code that the student was judged with, as in the bundle's {about['file']}",
                found=f"other code in the module that is imported here, {file}",
                harm="the same weights may answer otherwise than the report says",
                mend='load_student(FOLDER, source="bundle") runs the copy in the bundle. Or put that copy in the '
                "place of the module. model.onnx runs without it",
            )


def _same_code(file: Path, folder: Path, about: Mapping[str, Any]) -> bool:
    """Whether a file is the one that a bundle carries, or says the same in other lines."""
    content = file.read_bytes() if file.is_file() else b""
    if hashlib.sha256(content).hexdigest() == about["sha256"]:
        return True
    copy = folder / about["file"]
    kept = copy.read_bytes() if copy.is_file() else b""
    if hashlib.sha256(kept).hexdigest() != about["sha256"]:
        return False
    try:
        return ast.dump(ast.parse(content)) == ast.dump(ast.parse(kept))
    except (SyntaxError, ValueError, RecursionError):
        return False


@contextmanager
def carried(folder: Path, config: Mapping[str, Any]) -> Iterator[None]:
    """Within the block the carried modules are imported from the bundle, and no others of the same names.

    What is run is what config.json has the digests of. Nothing is written, and afterwards the names mean what they did.

    Raises:
        ModelError: The bundle carries none, or a file is not the one that was stored.
    """
    key = str(folder / "config.json")
    sources = config.get("sources") or {}
    if not sources:
        raise ModelError(key, expected="source files of the student's modules", found="none", mend='source="installed"')
    files = {}
    for name, about in sources.items():
        file = folder / FOLDER / Path(*Path(about["file"]).parts[1:])
        content = file.read_bytes() if file.is_file() and file.resolve().is_relative_to(folder.resolve()) else b""
        if hashlib.sha256(content).hexdigest() != about["sha256"]:
            raise ModelError(
                f"{key}: {about['file']}",
                expected="the file that was stored with the student",
                found="another" if content else "none",
                harm="it would be run",
                mend="restore the file, or make the bundle again",
            )
        files[name] = (file, content)
    finder = _Carried(files)
    before = {name: module for name, module in sys.modules.items() if _is_below(name, files)}
    for name in before:
        del sys.modules[name]
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if _is_below(name, files)]:
            del sys.modules[name]
        sys.modules.update(before)


class _Carried(importlib.abc.MetaPathFinder, importlib.abc.SourceLoader):  # type: ignore[misc]  # as typeshed has both
    """Imports modules from contents that are at hand."""

    def __init__(self, files: Mapping[str, tuple[Path, bytes]]) -> None:
        self.files = files

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self.files:
            return None
        return importlib.util.spec_from_loader(fullname, self, is_package=self.is_package(fullname))

    def is_package(self, fullname: str) -> bool:
        return self.files[fullname][0].name == "__init__.py"

    def get_filename(self, fullname: str) -> str:
        return str(self.files[fullname][0])

    def get_data(self, path: str) -> bytes:
        return next(content for file, content in self.files.values() if str(file) == str(path))


def _class_paths(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if isinstance(value.get("class_path"), str):
            yield value["class_path"]
        for inner in value.values():
            yield from _class_paths(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _class_paths(inner)


def _module_of(path: str) -> str | None:
    """The module in a class path that is loaded: `a.b` of `a.b.Outer.Inner`."""
    parts = path.split(".")
    return next((name for n in range(len(parts) - 1, 0, -1) if (name := ".".join(parts[:n])) in sys.modules), None)


def _requirements(tops: set[str]) -> list[str]:
    """The installed packages that modules are of, as `name==version`."""
    if not tops:
        return []
    packages = importlib.metadata.packages_distributions()
    names = sorted({name for top in tops for name in packages.get(top, ())})
    return [f"{name}=={importlib.metadata.version(name)}" for name in names]


def _is_below(name: str, files: Mapping[str, object]) -> bool:
    return name in files or any(name.startswith(f"{carried}.") for carried in files)
