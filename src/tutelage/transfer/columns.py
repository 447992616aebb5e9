"""The columns of a source, checked and turned into what models are called with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tutelage.errors import DataError, RecipeError
from tutelage.signals import Inputs
from tutelage.transfer.base import Column
from tutelage.transfer.features import Features
from tutelage.transfer.hashing import Digests, array_digests, mixed, normalised, text_digests
from tutelage.transfer.image_files import ImageFiles, is_image
from tutelage.transfer.images import Images
from tutelage.transfer.tabular import Encoding, Tabular
from tutelage.transfer.text import Tokenizer, Tokens
from tutelage.transfer.views import Views

__all__ = ["Columns", "numeric", "with_table"]

Array = np.ndarray[Any, Any]


def numeric(array: Array, key: str) -> Array:
    """A numeric column as models take it: float32, or int64 for whole numbers; uint8 images stay as they are.

    Raises:
        DataError: Not numbers, or NaN or infinite ones; the first such row is named.
    """
    if is_image(array):
        return array
    if array.dtype.kind in "iu":
        return array.astype(np.int64, copy=False)
    if array.dtype.kind not in "fb":
        ragged = array.dtype.kind == "O"
        raise DataError(
            key,
            expected="an array of numbers with the same shape in every row",
            found="rows of different shapes, or other objects" if ragged else f"dtype {array.dtype}",
            mend="pad the rows to one length" if ragged else "encode it as numbers",
        )
    with np.errstate(over="ignore"):
        values = array.astype(np.float32, copy=False)
    finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        place = values[row].reshape(-1)
        raise DataError(
            f"{key}, row {row}",
            expected="finite float32 numbers",
            found=f"{place[~np.isfinite(place)][0]} (in {int((~finite).sum()):,} rows)",
            harm="one such number turns the loss, and then every weight, into NaN",
            mend="fill or remove these rows",
        )
    return values


class Columns:
    """Inputs of all rows: texts, images, arrays, and a table.

    Args:
        columns: As in `Rows`.
        images: How images become tensors.
        views: Augmentation of the images, or of the only array.
        tabular: How a table becomes arrays, once `fit` knows which rows are trained on. None: a table of numbers is
            one float32 matrix as it is.
        teacher_columns: Columns that no model is called with, but `raw` has.

    Raises:
        DataError: A column can't be used; its name and first wrong row are named.
        RecipeError: Views without anything they could apply to, or `images` without images.
    """

    def __init__(
        self,
        columns: Mapping[str, Column],
        *,
        images: Images | None = None,
        views: Views | None = None,
        tabular: Tabular | None = None,
        teacher_columns: Mapping[str, Array] | None = None,
    ) -> None:
        self.teacher_columns = dict(teacher_columns or {})
        self.features: Features | None = None
        self.tabular = tabular
        self.encoding: Encoding | None = None
        self._of_table: set[str] = set()
        self.texts: dict[str, list[str]] = {}
        self.arrays: dict[str, Array] = {}
        self.pictures: dict[str, Array | ImageFiles] = {}
        for name, column in (columns if tabular is None else with_table(columns)).items():
            key = f"column `{name}`"
            if isinstance(column, Features):
                self.features = column
                self._of_table = {name}
                if tabular is None:
                    self.arrays[name] = numeric(column.matrix(), key)
            elif isinstance(column, ImageFiles) or (isinstance(column, np.ndarray) and is_image(column)):
                self.pictures[name] = column
            elif _holds_texts(column):
                self.texts[name] = _texts(column, key)
            else:
                self.arrays[name] = numeric(np.asarray(column), key)
        self.tokens: Tokens | None = None
        self.tokenizer: Tokenizer | None = None
        self.images = images or Images()
        self.views = views
        self._check(images)

    def _check(self, images: Images | None) -> None:
        if len(self.texts) > 2:
            names = ", ".join(self.texts)
            raise DataError("text columns", expected="one, or two for pairs", found=names, mend="join them into one")
        if images is not None and not self.pictures:
            raise RecipeError(
                "data.images",
                expected="a column of images (uint8 arrays with 3 or 4 axes, or files)",
                found=", ".join(f"{name}: {_kind(array)}" for name, array in self.arrays.items()) or "only texts",
                harm="mean and std would be ignored",
                mend="give the pixels as uint8, or remove data.images and normalise them in the source",
            )
        lone = self.tabular is None and not self.texts and len(self.arrays) == 1
        if self.views is not None and not self.pictures and not lone:
            raise RecipeError(
                "data.views",
                expected="a column of images, or one array",
                found="; ".join([*(f"{n}: text" for n in self.texts), *(f"{n}: array" for n in self.arrays)]),
                mend="remove data.views",
            )
        for name, column in self.pictures.items():
            if isinstance(column, np.ndarray):
                self.images.channels_last(column.shape, f"column `{name}`")

    def fit(self, rows: Array) -> list[str]:
        """Makes arrays of the table, with the statistics of the training rows.

        Returns:
            What the user should know.

        Raises:
            DataError: A column of the table can't be used.
        """
        if self.tabular is None or self.features is None:
            return []
        self.encoding = self.tabular.fit(self.features, rows)
        made = self.encoding(self.features.columns)
        if taken := made.keys() & self.arrays.keys():
            raise DataError(
                f"column `{taken.pop()}`",
                expected="another name: data.tabular gives this one to what it makes of the table",
                found="a column of lists",
                mend="rename the column",
            )
        self._of_table = set(made)
        self.arrays |= made
        return [self.encoding.summary()]

    def tokenise(self, tokenizer: Tokenizer) -> None:
        """Encodes the texts, once."""
        first, *rest = self.texts.values()
        self.tokenizer = tokenizer
        self.tokens = tokenizer.encode(first, rest[0] if rest else None, key=next(iter(self.texts)))

    def digests(self) -> tuple[Digests, Digests]:
        """Two digests of each row, `[N]` each: of its content, and of every bit.

        In the first, texts that differ only in case, width or spacing count as the same: many tokenizers can't tell
        them apart.
        """
        numbers = [array_digests(array) for array in self.arrays.values()]
        numbers += [
            p.digests(self.images) if isinstance(p, ImageFiles) else array_digests(p) for p in self.pictures.values()
        ]
        if self.tabular is not None and self.features is not None:
            numbers.append(self.features.digests())
        alike = [text_digests([normalised(text) for text in texts]) for texts in self.texts.values()]
        exact = [text_digests(texts) for texts in self.texts.values()]
        return _joined(alike + numbers), _joined(exact + numbers)

    def _files(self) -> list[ImageFiles]:
        return [picture for picture in self.pictures.values() if isinstance(picture, ImageFiles)]

    @property
    def notes(self) -> list[str]:
        """What the user should know of the images, once they have been decoded."""
        return [note for files in self._files() for note in files.notes]

    def inputs(self, rows: Array, views: Array) -> tuple[Inputs, Tensor | None]:
        """What the models are called with, and the token mask, for some rows in some views."""
        named: dict[str, Tensor] = {}
        mask = None
        if self.tokens is not None and self.tokenizer is not None:
            named, mask = self.tokenizer.pad_rows(self.tokens, rows)
        for name, array in self.arrays.items():
            tensor = torch.from_numpy(array[rows])
            varied = self.views is not None and not self.pictures and views.any()
            named[name] = self.views.apply(tensor, rows, views) if self.views is not None and varied else tensor
        for name, picture in self.pictures.items():
            pixels = picture.pixels(rows, self.images) if isinstance(picture, ImageFiles) else picture[rows]
            tensor = self._picture(name, pixels)
            if self.views is not None and views.any():
                tensor = self.views.apply(tensor, rows, views)
            named[name] = self.images.normalise(tensor, name)
        return self._called(named), mask

    def encode(self, raw: Mapping[str, Array]) -> Inputs:
        """What the models are called with for rows as `raw` gives them: all of it is made anew, as for new rows."""
        named: dict[str, Tensor] = {}
        if self.tokenizer is not None:
            first, *rest = (raw[name].tolist() for name in self.texts)
            tokens = self.tokenizer.encode(first, rest[0] if rest else None)
            named, _ = self.tokenizer.pad_rows(tokens, np.arange(len(first)))
        if self.features is not None:
            table = {name: raw[name] for name in self.features}
            if self.encoding is not None:
                made = self.encoding(table)
            else:
                made = {name: numeric(Features(table).matrix(), f"column `{name}`") for name in self._of_table}
            named |= {name: torch.from_numpy(array) for name, array in made.items()}
        named |= {name: torch.from_numpy(raw[name]) for name in self.arrays if name not in self._of_table}
        named |= {name: self.images.normalise(self._picture(name, raw[name]), name) for name in self.pictures}
        return self._called(named)

    def _picture(self, name: str, pixels: Array) -> Tensor:
        picture = self.pictures[name]
        last = isinstance(picture, ImageFiles) or self.images.channels_last(picture.shape, f"column `{name}`")
        return self.images.tensor(pixels, channels_last=last)

    def _called(self, named: dict[str, Tensor]) -> Inputs:
        """A lone tensor has no name."""
        lone = self.tokens is None and len(named) == 1
        return next(iter(named.values())) if lone else named

    def raw(self, rows: Array) -> dict[str, Array]:
        """Some rows as the source has them: texts as `[B]` objects, numbers as they are, images as uint8 pixels.

        The columns of a table are there by their names: float64 with NaN, and objects with None for categories. So are
        those that are kept for the teacher.
        """
        columns: dict[str, Array] = {name: column[rows] for name, column in self.teacher_columns.items()}
        for name, texts in self.texts.items():
            columns[name] = np.array([texts[row] for row in rows], dtype=object)
        if self.features is not None:
            columns |= self.features.take(rows)
        columns |= {name: array[rows] for name, array in self.arrays.items() if name not in self._of_table}
        for name, picture in self.pictures.items():
            columns[name] = picture.pixels(rows, self.images) if isinstance(picture, ImageFiles) else picture[rows]
        return columns

    def display(self, row: int) -> tuple[str, Any]:
        """What a person is shown of a row: ("text", str), ("image", uint8 `[H, W]` or `[H, W, 3]`), ("array", list)."""
        if self.texts:
            return "text", "\n".join(texts[row] for texts in self.texts.values())
        if self.pictures:
            name, picture = next(iter(self.pictures.items()))
            if isinstance(picture, ImageFiles):
                return "image", picture.pixels(np.array([row]), self.images)[0]
            pixels = picture[row]
            if pixels.ndim == 3 and not self.images.channels_last(picture.shape, name):
                pixels = pixels.transpose(1, 2, 0)
            if pixels.ndim == 3:
                pixels = pixels[..., 0] if pixels.shape[2] == 1 else pixels[..., :3]
            return "image", pixels
        if self.tabular is not None and self.features is not None:
            return "text", self.features.display(row)
        return "array", np.concatenate([array[row].reshape(-1) for array in self.arrays.values()]).tolist()

    def update_fingerprint(self, sha: hashlib._Hash) -> None:
        """Adds everything that decides how the rows become tensors, and what only a teacher sees of them."""
        self.update_fingerprint_of_teacher(sha)
        if self.tokens is not None:
            sha.update(self.tokens.digest())
        self.update_fingerprint_of_settings(sha)

    def update_fingerprint_of_settings(self, sha: hashlib._Hash) -> None:
        """Adds what decides how rows become tensors, whichever they are."""
        if self.pictures:
            sha.update(repr(self.images).encode())
            sha.update("".join(p.differs for p in self._files()).encode())
        if self.encoding is not None:
            sha.update(repr(self.encoding).encode())
        if self.views is not None:
            settings = {name: value for name, value in sorted(vars(self.views).items()) if name != "count"}
            sha.update(repr((type(self.views).__qualname__, settings)).encode())

    def update_fingerprint_of_teacher(self, sha: hashlib._Hash, rows: Array | None = None) -> None:
        """Adds the columns that are kept for the teacher, of some rows or of all."""
        for name, whole in self.teacher_columns.items():
            column = whole if rows is None else whole[rows]
            sha.update(f"{name} {column.shape}".encode())
            plain = column.dtype.kind != "O"
            sha.update(np.ascontiguousarray(column).tobytes() if plain else repr(column.tolist()).encode())


def with_table(columns: Mapping[str, Column]) -> dict[str, Column]:
    """The columns with their numbers gathered in a table, where the source has not made one.

    Raises:
        RecipeError: There are no numbers.
    """
    if any(isinstance(column, Features) for column in columns.values()):
        return dict(columns)
    numbers: dict[str, Array] = {}
    others: dict[str, Column] = {}
    for name, column in columns.items():
        if isinstance(column, np.ndarray) and column.dtype.kind in "iufb" and column.ndim <= 2:
            numbers |= {name: column} if column.ndim == 1 else {f"{name}_{i}": part for i, part in enumerate(column.T)}
        else:
            others[name] = column
    if not numbers:
        raise RecipeError(
            "data.tabular",
            expected="a table: columns of numbers or categories",
            found=", ".join(columns),
            mend="remove data.tabular, or name the columns under `inputs` and `categories` of data.source",
        )
    others = {
        n: c for n, c in columns.items() if not (isinstance(c, np.ndarray) and c.dtype.kind in "iufb" and c.ndim <= 2)
    }
    return {"inputs": Features(numbers), **others}


def _joined(parts: Sequence[Digests]) -> Digests:
    return mixed(0, *[part[:, half] for part in parts for half in (0, 1)])


def _holds_texts(column: Array | Sequence[str]) -> bool:
    if isinstance(column, np.ndarray) and column.dtype.kind != "O":
        return column.dtype.kind in "US"
    return len(column) == 0 or any(isinstance(value, str) for value in column[:100]) or column[0] is None


def _texts(column: Array | Sequence[str], key: str) -> list[str]:
    texts = column.tolist() if isinstance(column, np.ndarray) else list(column)
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(
                f"{key}, row {row}",
                expected="a text",
                found="nothing" if text is None else f"{text!r}"[:60],
                mend="fill or remove rows without text",
            )
    return texts


def _kind(array: Array) -> str:
    return f"{array.dtype} {list(array.shape)}"
