"""Where a bundle comes from: digests of its files and the software it was made with. Nothing that names a machine."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Collection
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from tutelage.errors import DataError
from tutelage.files import digest_file
from tutelage.sealed import SEAL, Damaged, is_sound_text, unsealed

__all__ = ["PAGE", "changed_files", "digest_files", "environment"]

RECORD = "provenance.json"
PAGE = "report.html"
"""Made from the other files, and again whenever it is asked for: it carries its own digest."""
TEACHERS = ("lightgbm", "xgboost", "catboost", "sklearn", "openvino", "tritonclient", "httpx")
"""Modules that answer for a teacher, or fetch its answers: named where they were loaded."""
PACKAGES = ("tutelage", "torch", "numpy", "safetensors", "pyarrow", "transformers", "onnx", "onnxruntime")


def digest_files(folder: Path | str, *, exclude: Collection[str] = (RECORD,)) -> dict[str, str]:
    """The SHA-256 of every file under a folder, by its path in it with forward slashes, sorted.

    Args:
        folder: The bundle.
        exclude: Paths that are left out: by default the record that the digests are written to.

    Raises:
        DataError: The folder does not exist, or holds a link: what it points to is not part of the bundle.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(root.name, expected="the folder of a bundle", found="no such folder")
    digests = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            harm = "the bundle would change when the target does, and would not stand alone"
            raise DataError(name, expected="a file", found="a symbolic link", harm=harm, mend="copy the file instead")
        if path.is_file() and name not in exclude:
            digests[name] = digest_file(path)
    return digests


def changed_files(folder: Path) -> list[str]:
    """How a bundle's files differ from the digests in its record: changed, missing or extra ones, a line each.

    Raises:
        DataError: The record is missing, or no longer a record of digests.
    """
    path = folder / RECORD
    try:
        record = json.loads(path.read_bytes())
        stored = record["files"]
        if not (isinstance(stored, dict) and stored and all(isinstance(digest, str) for digest in stored.values())):
            raise ValueError("`files` holds no digests")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            str(path),
            expected="the record of a bundle, with the digest of every file",
            found="no such file" if isinstance(error, FileNotFoundError) else f"{type(error).__name__}: {error}",
            harm="whether the files are those that were judged could not be told",
            mend="restore the file, or make the bundle again",
        ) from error
    found = digest_files(folder, exclude=(RECORD, PAGE))
    changed = [
        f"{name}: " + ("not the file that was stored" if name in found else "missing")
        for name in stored
        if found.get(name) != stored[name]
    ]
    changed += _changed_record_and_page(folder, record)
    return changed + [f"{name}: not among the files that were stored" for name in found if name not in stored]


def _changed_record_and_page(folder: Path, record: dict[str, Any]) -> list[str]:
    """Whether the record and the page, which have no digest in the record, fit the digests that they carry."""
    if SEAL not in record:  # of an earlier version
        return []
    changed = []
    try:
        unsealed(record)
    except Damaged:
        changed.append(f"{RECORD}: not the record that was stored")
    page = folder / PAGE
    if not page.is_file():
        return [*changed, f"{PAGE}: missing; `tutelage report` writes it again"]
    # A page belongs to its record: that of another run has a digest that fits, but not here.
    if not is_sound_text(page.read_bytes().decode(errors="replace"), record[SEAL]):
        changed.append(f"{PAGE}: not the page that was written; `tutelage report` writes it again")
    return changed


def environment() -> dict[str, Any]:
    """The software and the kind of hardware: no host, user or path names."""
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": {name: found for name in PACKAGES if (found := _version(name)) is not None} | _loaded(TEACHERS),
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerators": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _loaded(modules: Collection[str]) -> dict[str, str]:
    """The versions of those that this process has loaded, as they say them."""
    return {
        name: str(sys.modules[name].__version__) for name in modules if hasattr(sys.modules.get(name), "__version__")
    }


def _cpu() -> str:
    """The model of the processor, as the system calls it."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
