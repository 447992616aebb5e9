"""Rows from a folder of image files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tutelage.errors import DataError
from tutelage.paths import resolve_path
from tutelage.transfer.base import Rows, Source
from tutelage.transfer.images import ImageFiles
from tutelage.transfer.splits import split_name

__all__ = ["ImageFolder"]

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm"})


class ImageFolder(Source):
    """A folder with one subfolder a class, or with the images directly in it, without labels.

    Subfolders `train`, `development` (or `validation`) and `test` are splits, each laid out so; images that lie
    directly in one of them have no label. Files are decoded when they are first needed; `data.images.size` resizes.

    Args:
        path: The folder.
        classes: Names of the class folders, in the order of the model's outputs. None: alphabetical.
    """

    def __init__(self, path: str, *, classes: list[str] | None = None) -> None:
        self.path = path
        self.classes = classes

    def load(self) -> Rows:
        """See `Source.load`."""
        root = resolve_path(self.path, key="data.source.path")
        if not root.is_dir():
            raise DataError("data.source.path", expected="a folder of images", found=f"the file `{root}`")
        parts = _split_folders(root)
        found = [(file, label, split) for split, folder in parts for file, label in _images(folder)]
        if not found:
            raise DataError(
                "data.source.path",
                expected=f"images ({', '.join(sorted(_SUFFIXES))}) in it, or in one subfolder a class",
                found=f"none in `{root}`",
            )
        names = sorted({label for _, label, _ in found if label}) if self.classes is None else self.classes
        number = {name: i for i, name in enumerate(names)}
        for file, label, _ in found:
            if label and label not in number:
                raise DataError(
                    f"data.source.classes: `{label}`",
                    expected="every class folder to be named in `classes`",
                    found=f"`{file}` in another one",
                    mend="add the class, or remove the folder",
                )
        files = [file for file, _, _ in found]
        labelled = np.array([bool(label) for _, label, _ in found])
        labels = np.array([number.get(label, 0) for _, label, _ in found], dtype=np.int64)
        return Rows(
            columns={"image": ImageFiles([str(file) for file in files], lambda row: files[row].read_bytes())},
            labels=labels if labelled.any() else None,
            labelled=labelled if labelled.any() and not labelled.all() else None,
            classes=tuple(names),
            split=[split for _, _, split in found] if any(split for split, _ in parts) else None,
        )


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _split_folders(root: Path) -> list[tuple[str, Path]]:
    """Split and folder pairs: the subfolders if all are named like splits, else the folder itself."""
    parts = []
    for folder in _folders(root):
        try:
            parts.append((split_name(folder.name, ""), folder))
        except DataError:
            return [("", root)]
    return parts or [("", root)]


def _images(folder: Path) -> list[tuple[Path, str]]:
    """Files and their class ("" for those directly in the folder), in the order of their names."""
    found = [(file, "") for file in _files(folder)]
    for subfolder in _folders(folder):
        found += [(file, subfolder.name) for file in sorted(subfolder.rglob("*")) if _is_image(file)]
    return found


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if _is_image(file))


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in _SUFFIXES and file.is_file()
