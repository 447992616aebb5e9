"""Rows from a folder of image files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tutelage.errors import DataError
from tutelage.paths import resolve_path
from tutelage.transfer.base import Rows, Source
from tutelage.transfer.image_files import ImageFiles, decodes
from tutelage.transfer.labels import read_labels
from tutelage.transfer.splits import split_name

__all__ = ["ImageFolder"]

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm"})
"""Suffixes of what is taken for an image unopened: one that is none is refused by name."""
_CLUTTER = frozenset({"thumbs.db", "desktop.ini"})


class ImageFolder(Source):
    """A folder with one subfolder a class, or with the images directly in it, without labels.

    Subfolders `train`, `development` (or `validation`) and `test` are splits, each laid out so; images that lie
    directly in one of them have no label. `data.images.size` resizes. A file is an image by its content, whatever its
    name ends in; others are left out and counted, but for hidden files and those that file managers leave.

    Args:
        path: The folder.
        classes: Names of the class folders, in the order of the model's outputs. None: alphabetical.
        values: The names of the folders are numbers to be predicted. None: as the task of the recipe says.
    """

    def __init__(self, path: str, *, classes: list[str] | None = None, values: bool | None = None) -> None:
        self.path = path
        self.classes = classes
        self.values = values

    def load(self) -> Rows:
        """See `Source.load`."""
        root = resolve_path(self.path, key="data.source.path")
        if not root.is_dir():
            raise DataError("data.source.path", expected="a folder of images", found=f"the file `{root}`")
        parts, strangers = _split_folders(root), list[Path]()
        found = [(file, label, split) for split, folder in parts for file, label in _images(folder, strangers)]
        if not found:
            raise DataError(
                "data.source.path",
                expected="images in it, or in one subfolder a class",
                found=f"none in `{root}`" + (f", but {_listed(strangers)}" if strangers else ""),
            )
        _refuse_empty_classes(parts, {label for _, label, _ in found}, self.classes, strangers)
        files = [file for file, _, _ in found]
        words = [label or None for _, label, _ in found]
        labels = None
        if any(words):
            self._refuse_strange_classes(found)
            labels = read_labels(words, "class folders", classes=self.classes, values=self.values)
        notes = [f"left out of `{self.path}`: {_listed(strangers)}"] if strangers else []
        return Rows(
            columns={"image": ImageFiles([str(file) for file in files], lambda row: files[row].read_bytes())},
            labels=None if labels is None else labels.values,
            labelled=None if labels is None else labels.labelled,
            classes=tuple(self.classes or ()) if labels is None else labels.classes,
            split=[split for _, _, split in found] if any(split for split, _ in parts) else None,
            notes=[*notes, *(() if labels is None else labels.notes)],
        )

    def _refuse_strange_classes(self, found: Sequence[tuple[Path, str, str]]) -> None:
        for file, label, _ in found if self.classes is not None else ():
            if label and label not in (self.classes or ()):
                raise DataError(
                    f"data.source.classes: `{label}`",
                    expected="every class folder to be named in `classes`",
                    found=f"`{file}` in another one",
                    mend="add the class, or remove the folder",
                )


def _refuse_empty_classes(
    parts: Sequence[tuple[str, Path]], found: set[str], classes: Sequence[str] | None, strangers: Sequence[Path]
) -> None:
    """Refuses class folders without an image: the classes after them would move up by one."""
    named = {folder.name for _, part in parts for folder in _folders(part)} if found - {""} else set()
    for name in sorted(named - found):
        if classes is None:
            inside = [file for file in strangers if name in file.parts]
            raise DataError(
                f"data.source.path: the class folder `{name}`",
                expected="an image in it",
                found=_listed(inside) if inside else "nothing",
                harm="the classes after it would move up by one",
                mend="remove the folder, or name the classes in data.source.classes",
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


def _images(folder: Path, strangers: list[Path]) -> list[tuple[Path, str]]:
    """Files and their class ("" for those directly in the folder), in the order of their names.

    What is no image is added to `strangers`.
    """
    found = [(file, "") for file in sorted(folder.iterdir())]
    for subfolder in _folders(folder):
        found += [(file, subfolder.name) for file in sorted(subfolder.rglob("*"))]
    found = [(file, label) for file, label in found if file.is_file() and not _is_clutter(file)]
    images = {file for file, _ in found if file.suffix.lower() in _SUFFIXES or decodes(file)}
    strangers += [file for file, _ in found if file not in images]
    return [(file, label) for file, label in found if file in images]


def _is_clutter(file: Path) -> bool:
    return file.name.startswith(".") or file.name.lower() in _CLUTTER


def _listed(files: Sequence[Path]) -> str:
    """How many files of which kinds, and the first of them."""
    kinds = Counter(file.suffix.lower() or "no suffix" for file in files)
    by = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common(5))
    return f"{len(files):,} files that Pillow can't read as images ({by}; {files[0].name}, ...)"
