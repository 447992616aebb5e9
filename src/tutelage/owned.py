"""Which files in a run's folder are the run's: nothing else there is ever deleted.

A bundle's files are those that its record lists, with the record and the page. Those of the work are known by their
names, which are here.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from uuid import uuid4

from tutelage.governance.provenance import PAGE, RECORD

__all__ = ["RECIPE_AND_IDENTITY", "clear_bundle", "clear_work", "new_bundle_folder", "not_of_bundle", "not_of_work"]

RECIPE_AND_IDENTITY = ("recipe.yaml", "identity.json")
"""The files by which the work of a run is known; the last ones that are removed."""
_NEW_BUNDLE = re.compile(r"bundle-[0-9a-f]{32}")
_WORK = re.compile(
    r"(\.partial-[0-9a-f]{32}-)?(recipe\.yaml|identity\.json|asking\.json|surroundings\.json)|teacher\.onnx(\.data)?"
    r"|tensorboard/[^/]+/events\.out\.tfevents\.[^/]+|bundle-[0-9a-f]{32}/.+"
    r"|(teacher|student|baseline|assistant|round)[^/]*/((step|partial)-\d+/)?"
    r"(\.partial-[0-9a-f]{32}-)?(best\.safetensors|done\.(json|partial)|history\.jsonl|tensors\.safetensors|state\.json)"
)


def not_of_bundle(bundle: Path) -> list[str] | None:
    """The files in a bundle's folder that its record does not list; None where there is no record to be read."""
    try:
        listed = json.loads((bundle / RECORD).read_bytes())["files"]
        known = {RECORD, PAGE, *listed}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return [name for name in _files_in(bundle) if name not in known and not _unfinished(name, known)]


def _unfinished(name: str, known: set[str]) -> bool:
    """Whether it is a file of the bundle whose writing was killed."""
    match = re.fullmatch(r"\.partial-[0-9a-f]{32}-(.+)", name)
    return match is not None and match[1] in known


def not_of_work(work: Path) -> list[str]:
    """The files in the folder of the work that no run writes there."""
    return [name for name in _files_in(work) if not _WORK.fullmatch(name)]


def clear_bundle(bundle: Path) -> None:
    """Removes a bundle's own files, the record last: half a removal can be told from a folder of the user's."""
    others = not_of_bundle(bundle)
    if others is not None:
        _remove(bundle, [name for name in _files_in(bundle) if name not in others], last=(RECORD,))


def clear_work(work: Path) -> None:
    """Removes the run's own files of the work."""
    _remove(work, [name for name in _files_in(work) if _WORK.fullmatch(name)], last=RECIPE_AND_IDENTITY)


def new_bundle_folder(work: Path) -> Path:
    """An empty folder in the work for the bundle under way; those that killed runs left are removed."""
    for left in work.iterdir():
        if _NEW_BUNDLE.fullmatch(left.name):
            shutil.rmtree(left, ignore_errors=True)
    fresh = work / f"bundle-{uuid4().hex}"
    fresh.mkdir()
    return fresh


def _files_in(folder: Path) -> list[str]:
    """Files and links below a folder, by their path in it."""
    found = sorted(folder.rglob("*")) if folder.is_dir() else []
    return [path.relative_to(folder).as_posix() for path in found if path.is_symlink() or not path.is_dir()]


def _remove(folder: Path, names: Iterable[str], *, last: Sequence[str]) -> None:
    """Removes files, and the folders that are empty then."""
    ordered = sorted(names, key=lambda name: last.index(name) if name in last else -1)
    for name in ordered:
        (folder / name).unlink(missing_ok=True)
    above = {parent for name in ordered for parent in (folder / name).parents if parent.is_relative_to(folder)}
    for parent in sorted({*above, folder}, key=lambda path: -len(path.parts)):
        try:
            parent.rmdir()
        except OSError:  # something else is in it, or it is gone
            continue
