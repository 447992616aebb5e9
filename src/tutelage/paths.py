"""Where a path of a recipe points to: a file, a folder, or something inside an installed package."""

from __future__ import annotations

import importlib.util
import pkgutil
from pathlib import Path

from tutelage.errors import DataError, UserError, did_you_mean

__all__ = ["resolve_path"]

_PACKAGE = "package:"


def resolve_path(text: str, *, key: str, error: type[UserError] = DataError) -> Path:
    """The existing file or folder that a recipe means by `text`.

    `package:NAME/sub/path` is a path inside the folder of the installed Python package `NAME`, which is found and not
    imported. Anything else is a path as the shell has it, with `~` for the home folder.

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
    if not path.exists():
        raise error(
            key, expected="a file or folder that exists", found=f"`{text}`, which does not", mend=_nearest(path)
        )
    return path


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
