"""Where a path of a recipe points to: a file, a folder, or something inside an installed package."""

from __future__ import annotations

import importlib.util
import pkgutil
from pathlib import Path

from tutelage.errors import DataError, UserError, did_you_mean

__all__ = ["look_beside", "resolve_path"]

_PACKAGE = "package:"
_beside: list[Path] = []
"""The folder of the recipe that is planned; not of a context, so that threads have it too."""


def resolve_path(text: str, *, key: str, error: type[UserError] = DataError) -> Path:
    """The existing file or folder that a recipe means by `text`.

    `package:NAME/sub/path` is a path inside the folder of the installed Python package `NAME`, which is found and not
    imported. Anything else is a path as the shell has it, with `~` for the home folder; one that is not in the working
    folder is looked for beside the recipe.

    Args:
        text: As it stands in the recipe.
        key: The recipe key that holds it, for the message.
        error: What to raise: `DataError` for data, `ModelError` for models.

    Raises:
        UserError: Of the type `error`: nothing is there; the message names the nearest thing that is.
    """
    if text.startswith(_PACKAGE):
        name, _, rest = text.removeprefix(_PACKAGE).partition("/")
        path = _package_folder(name, key, error) / rest
    else:
        path = Path(text).expanduser()
    places = [path, *(folder / path for folder in _beside if folder.resolve() != Path.cwd().resolve())]
    for place in places:
        if place.exists():
            return place
    beside = (
        ", neither in the working folder nor beside the recipe" if len(places) > 1 and not path.is_absolute() else ""
    )
    raise error(
        key,
        expected="a file or folder that exists",
        found=f"`{text}`{beside or ', which does not'}",
        mend="; ".join(dict.fromkeys(hint for hint in map(_nearest, places) if hint)),
    )


def look_beside(folder: Path | None) -> None:
    """Has relative paths that are not in the working folder looked for in `folder`, that of the recipe's file.

    What is in the working folder comes first, as it does for a path on the command line. None looks there alone.
    """
    _beside[:] = [] if folder is None else [folder]


def _package_folder(name: str, key: str, error: type[UserError]) -> Path:
    """The folder of an installed top-level package."""
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None:
        hint = did_you_mean(name, (module.name for module in pkgutil.iter_modules() if module.ispkg))
        near = hint if hint.startswith("did you mean") else "check the spelling"
        raise error(
            key,
            expected="`package:NAME/sub/path` with an installed Python package",
            found=f"the package `{name}`, which is not installed",
            mend=f"{near}, or install it",
        )
    folders = list(spec.submodule_search_locations or ())
    if not folders:
        raise error(
            key,
            expected="`package:NAME/sub/path` with a package that is a folder",
            found=f"`{name}`, which is a single module",
            mend="give the file's own path",
        )
    return Path(folders[0])


def _nearest(path: Path) -> str:
    """What exists beside the first part of `path` that does not."""
    missing = path
    while not missing.parent.is_dir() and missing.parent != missing:
        missing = missing.parent
    if not missing.parent.is_dir():
        return ""
    hint = did_you_mean(missing.name, (entry.name for entry in missing.parent.iterdir()), list_up_to=6)
    place = f"in `{missing.parent}`"
    return f"{place}: {hint}" if hint else f"{place} there is nothing"
