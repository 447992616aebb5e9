"""Code of one's own, which no package installs: the files it is in, and a digest of them."""

from __future__ import annotations

import ast
import hashlib
import io
import sys
import sysconfig
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tutelage.callables import module_file

__all__ = ["code_digest", "own_modules", "without_comments"]


def code_digest(names: Iterable[str]) -> str:
    """SHA-256 of the files of these modules and of the own modules that they import; empty where none is one's own.

    It tells a changed function, a helper in another file, a constant; not a comment or an empty line. It can't tell
    what code reads when it runs (a file, the environment, a service), and it does not cover installed packages or a
    script that is run.
    """
    digest, found = hashlib.sha256(), own_modules(sorted(set(names)), loaded=False)
    for name, file in sorted(found.items()):
        digest.update(f"{name}\0{hashlib.sha256(without_comments(file.read_bytes())).hexdigest()}\n".encode())
    return digest.hexdigest() if found else ""


def without_comments(content: bytes) -> bytes:
    """A source file without its comments and empty lines, which decide no answer; as it is where it can't be read."""
    try:
        tokens = list(tokenize.tokenize(io.BytesIO(content).readline))
        lines = [line.decode(tokens[0].string) for line in io.BytesIO(content)]  # as the tokenizer counts them
    except (SyntaxError, ValueError, LookupError, tokenize.TokenError):
        return content
    for token in tokens:
        row, column = token.start
        if token.type == tokenize.COMMENT:
            lines[row - 1] = lines[row - 1][:column].rstrip() + "\n"
        if token.type == tokenize.NL and not lines[row - 1].strip():
            lines[row - 1] = ""
    return "".join(lines).rstrip().encode()


def own_modules(names: Sequence[str], *, loaded: bool = True) -> dict[str, Path]:
    """Source files by module: of these, of their packages and of what they import, as far as no package installs it.

    Args:
        names: Modules.
        loaded: Only those that are imported already; else all that would be, found without importing any.
    """
    found: dict[str, Path] = {}
    rest = list(names)
    while rest:
        name = rest.pop()
        file = None if name in found else _own_file(name, loaded)
        if file is None:
            continue
        found[name] = file
        parents = name.split(".")[:-1]
        rest += [".".join(parents[: n + 1]) for n in range(len(parents))]
        package = name if file.name == "__init__.py" else ".".join(parents)
        rest += [each for each in _imports(file.read_bytes(), package) if each in sys.modules or not loaded]
    return found


def _own_file(name: str, loaded: bool) -> Path | None:
    """The source file of a module that is neither Python's nor an installed package's nor the script itself."""
    file = getattr(sys.modules.get(name), "__file__", None) if loaded or name in sys.modules else module_file(name)
    if file is None or name == "__main__" or name.partition(".")[0] in ("tutelage", "torch"):
        return None
    path = Path(file).resolve()
    kinds = ("stdlib", "platstdlib", "purelib", "platlib")
    installed = [Path(folder).resolve() for kind in kinds if (folder := sysconfig.get_paths().get(kind))]
    if path.suffix != ".py" or any(path.is_relative_to(folder) for folder in installed):
        return None
    return None if {"site-packages", "dist-packages"} & set(path.parts) else path


def _imports(content: bytes, package: str) -> Iterator[str]:
    """Names of modules that a file may import, anywhere in it."""
    try:
        parsed = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError):  # a file that nobody could import
        return
    for node in ast.walk(parsed):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
