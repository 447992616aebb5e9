"""How a text file of rows is written: its encoding, its separators, and its words for nothing."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pyarrow as pa

from tutelage.errors import DataError, RecipeError

__all__ = ["TextFormat", "open_bytes", "open_text"]

_BYTE_ORDER_MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclass(frozen=True, kw_only=True)
class TextFormat:
    """What a CSV, TSV or JSON file does not say of itself.

    Attributes:
        delimiter: Character between the columns of a CSV file; None: as the file's name says.
        decimal: Decimal point of the numbers of a CSV file.
        encoding: Name of a codec of Python's.
        missing: Further words that stand for nothing.
        block: Bytes that the reader takes at once; the longest line has to fit into them.
    """

    delimiter: str | None = None
    decimal: str = "."
    encoding: str = "utf-8"
    missing: tuple[str, ...] = ()
    block: int = 2**20

    def __post_init__(self) -> None:
        for name in ("delimiter", "decimal"):
            value = getattr(self, name)
            if value is not None and (len(value) != 1 or not value.isascii()):
                raise RecipeError(f"data.source.{name}", expected="one ASCII character", found=repr(value))
        if self.decimal not in ".,":
            raise RecipeError("data.source.decimal", expected="'.' or ','", found=repr(self.decimal))
        if self.delimiter is not None and self.delimiter == self.decimal:
            raise RecipeError(
                "data.source.decimal", expected="another character than the delimiter", found=repr(self.decimal)
            )
        try:
            codecs.lookup(self.encoding)
        except LookupError as error:
            raise RecipeError(
                "data.source.encoding",
                expected="a text encoding that Python knows",
                found=f"`{self.encoding}`",
                mend="utf-8, cp1252 (Windows, Western Europe), latin-1 or utf-16, for example",
            ) from error

    @property
    def codec(self) -> str:
        """The codec, which leaves out a byte-order mark."""
        return "utf-8-sig" if codecs.lookup(self.encoding).name == "utf-8" else self.encoding


@contextmanager
def open_bytes(file: Path) -> Iterator[io.BufferedReader]:
    """A file's bytes, unpacked where its name ends in .gz, .bz2 or .zst."""
    with pa.input_stream(str(file), compression="detect") as stream:
        yield io.BufferedReader(stream)


@contextmanager
def open_text(file: Path, form: TextFormat) -> Iterator[IO[str]]:
    """A file's text, as it stands.

    Raises:
        DataError: It has another encoding than it should; the first such line is named. Also from the block within.
    """
    with open_bytes(file) as stream:
        start = stream.peek(4)[:4]
        mark = next((name for bom, name in _BYTE_ORDER_MARKS.items() if start.startswith(bom)), None)
        if form.codec == "utf-8-sig" and (mark or b"\0" in start):
            raise DataError(
                str(file),
                expected="text in UTF-8",
                found=f"a file that begins with the bytes {start.hex(' ')}, as UTF-16 does",
                mend=f"encoding: {mark or ('utf-16-be' if start.startswith(bytes(1)) else 'utf-16-le')} in data.source",
            )
        try:
            yield io.TextIOWrapper(stream, form.codec, newline="")
        except UnicodeError as error:
            raise wrong_encoding(file, form) from error


def wrong_encoding(file: Path, form: TextFormat) -> DataError:
    """The error for a file that is not in its encoding: it names the first line that shows it."""
    decoder, line, shown = codecs.getincrementaldecoder(form.codec)(), 0, ""
    with open_bytes(file) as stream:
        for line, data in enumerate(stream, start=1):
            try:
                decoder.decode(data)
            except UnicodeDecodeError as error:
                at = error.start
                around = error.object[max(at - 20, 0) : at + 20].decode("latin-1").strip()
                shown = f"the byte 0x{error.object[at]:02x} in line {line:,} (in Latin-1: `{around}`)"
                break
    return DataError(
        str(file),
        expected=f"text in {form.encoding.upper()}",
        found=shown or f"bytes at its end (line {line:,}) that are no text",
        harm="names would be read wrongly, or not at all",
        mend="say in data.source how it is written, encoding: cp1252 (Windows) or latin-1 for example, "
        "or save it as UTF-8",
    )
