"""Folders that `Dataset.save_to_disk` wrote: what they name and hold is looked at before they are read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tutelage.errors import DataError
from tutelage.transfer import arrow_child
from tutelage.transfer.file_limits import require_file, too_large

__all__ = ["require_saved_set"]


def require_saved_set(folder: Path, most_gb: float) -> None:
    """Refuses a data set with files outside its folder, damaged ones, and more than it may hold.

    Arrow trusts what its files say of themselves, and ends the process where that is wrong; so they are read to their
    end by another process first.

    Raises:
        DataError: It does.
    """
    splits = _json(folder / "dataset_dict.json").get("splits", [])
    parts = [_within(folder, str(name)) for name in splits] if isinstance(splits, list) and splits else [folder]
    files: list[Path] = []
    for part in parts:
        state = _json(part / "state.json")
        listed = (state.get("_data_files"), state.get("_indices_files"))
        for entry in (entry for entries in listed if isinstance(entries, list) for entry in entries):
            name = entry.get("filename") if isinstance(entry, dict) else None
            files.append(_within(part, str(name)))
    for file in files:
        if file.exists():  # the library says which is missing
            require_file(file)
    size = sum(file.stat().st_size for file in files if file.exists())
    if size > most_gb * 1e9:
        raise too_large(folder, f"{size / 1e9:,.3g} GB", most_gb)
    command = [sys.executable, "-I", arrow_child.__file__, str(int(most_gb * 1e9)), *map(str, files)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    verdict, _, found = ended.stdout.strip().partition(" ")
    if verdict == "large":
        raise too_large(folder, f"more than {most_gb:g} GB in {Path(found).name}", most_gb)
    if verdict != "sound" and all(file.exists() for file in files):
        raise DataError(
            "data.source.dataset",
            expected="Arrow files that are whole",
            found=found or f"files at which the reader ends with status {ended.returncode}, in `{folder}`",
            harm="the run would end with it, or read memory that is not the data's",
            mend="save the data set again with save_to_disk, or copy it again",
        )


def _within(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise DataError(
            "data.source.dataset",
            expected="files within the folder of the data set",
            found=f"`{folder}`, which names `{name[:200]}`",
            harm="a data set from somebody else would read any file of this machine",
            mend="copy the data set's files into its folder",
        )
    return path


def _json(path: Path) -> dict[str, Any]:
    """What a file says, as far as it is an object of JSON: the library tells what is wrong with another."""
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
