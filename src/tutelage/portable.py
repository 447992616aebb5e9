"""Paths as a bundle tells them: those within reach of the run relatively, others by their last name alone."""

from __future__ import annotations

import os
import re
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tutelage.errors import RecipeError

__all__ = ["Places", "require_places"]

ELSEWHERE = "<elsewhere>"
"""Stands for the folder of a file that lies neither below the working folder nor beside the recipe."""
_WINDOWS = re.compile(r"(?:[A-Za-z]:[\\/]|\\\\)[^\n]+")
_SEPARATOR = re.compile(r"[/\\]")
_USER = re.compile(r"~[^/\\]+[/\\].+")
_BEGIN = r"""(?:(?<![^\s"'`(,:;=<\[{|])|(?<=file://))"""
"""Where a path may begin in a text: not within a longer one, nor within the address of a server or a bucket."""
_NO_PATHS = frozenset({"classes", "missing", "unlabelled"})
"""Fields that hold what stands in the data, however it looks."""


class Places:
    """What of a recipe's absolute paths leaves with a bundle: no folder of this machine, and no user.

    A path below the working folder, or beside the recipe, becomes relative to it, as `resolve_path` finds it again; one
    in the home folder begins with `~`; of any other the last name is kept, after `<elsewhere>`.

    Args:
        recipe: The recipe as plain data.
        folder: That of the recipe's file, where there is one.
    """

    def __init__(self, recipe: Any, folder: Path | None) -> None:
        here = [Path.cwd(), *([folder] if folder is not None else [])]
        places = [(each, "") for path in here for each in (path, path.resolve())]
        places += [(Path.home(), "~/"), (Path.home().resolve(), "~/")]
        packages = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
        places = [*((Path(name), "package:") for name in packages), *places]
        self._prefixes = {f"{path}{os.sep}": told for path, told in reversed(places) if len(path.parts) > 1}
        self._names = {text: self._name(text) for text in _texts(recipe) if _is_place(text)}

    def told(self, value: Any) -> Any:
        """Plain data, or a text, with every such path in it as it is told."""
        if isinstance(value, Mapping):
            return {key: item if key in _NO_PATHS else self.told(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.told(item) for item in value]
        if not isinstance(value, str):
            return value
        for path in sorted(self._names, key=len, reverse=True):
            value = _put(value, path, self._names[path])
        return self._within(value)

    def _within(self, text: str) -> str:
        for prefix in sorted(self._prefixes, key=len, reverse=True):
            text = _put(text, prefix, self._prefixes[prefix])
        return text

    def _name(self, path: str) -> str:
        found = self._within(os.path.normpath(path))
        if not _is_place(found):
            return found
        if any(f"{found}{os.sep}" == prefix and not told for prefix, told in self._prefixes.items()):
            return "."
        return f"{ELSEWHERE}/{[name for name in _SEPARATOR.split(found) if name][-1]}"


def require_places(data: Any) -> None:
    """Refuses the recipe of a bundle in which the places of files are left open.

    Raises:
        RecipeError: They are; it names each key.
    """
    open_ = dict(_open(data, ""))
    if open_:
        raise RecipeError(
            ", ".join(open_),
            expected="paths of files on this machine",
            found=", ".join(f"`{path}`" for path in open_.values())
            + ": a bundle does not tell where files lay that were not below the folder of the run",
            mend="say where they are, in the recipe or as " + " ".join(f"--{key} PATH" for key in open_),
        )


def _open(value: Any, key: str) -> list[tuple[str, str]]:
    if isinstance(value, str):
        return [(key, value)] if value.startswith(f"{ELSEWHERE}/") else []
    items: Iterable[tuple[Any, Any]] = enumerate(value) if isinstance(value, list) else ()
    if isinstance(value, dict):
        inner = value.get("init_args") if "class_path" in value else None
        items = (inner if isinstance(inner, dict) else value).items()
    return [found for name, item in items for found in _open(item, f"{key}.{name}".lstrip("."))]


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner: Iterable[Any] = value if isinstance(value, (list, tuple)) else ()
    if isinstance(value, Mapping):
        inner = (item for key, item in value.items() if key not in _NO_PATHS)
    return [text for item in inner for text in _texts(item)]


def _put(text: str, path: str, told: str) -> str:
    """A text in which a path stands as it is told, wherever it begins one."""
    return re.sub(_BEGIN + re.escape(path), lambda _: told, text)


def _is_place(text: str) -> bool:
    """Whether a text of a recipe is a path that names a machine or a user; a text that begins with `/` may be none."""
    if _WINDOWS.fullmatch(text) or _USER.fullmatch(text):
        return True
    parts = Path(text).parts
    return "\n" not in text and len(parts) > 2 and parts[0] == os.sep and Path(*parts[:2]).is_dir()
