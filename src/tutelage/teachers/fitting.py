"""Models that are fitted in the run, kept in a file with a record of what they were fitted on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.errors import ModelError
from tutelage.files import digest_file, replacing
from tutelage.teachers.cells import Cells

__all__ = ["Fitted", "Progress", "announced", "digest_of_rows"]

_SECONDS = 5.0
"""Between two lines on standard error; a fit that is faster says nothing."""


class Fitted:
    """A model file and, beside it, `FILE.fit.json`: the digests of its rows and of itself, and its arguments.

    Args:
        path: The model file.
        rows: Digest of the rows and labels that it is to be fitted on.
        arguments: Everything else that it depends on, as plain data.
    """

    def __init__(self, path: Path, rows: str, arguments: dict[str, Any]) -> None:
        self.path, self.rows = path, rows
        self.arguments = json.loads(json.dumps(arguments, sort_keys=True, default=str))
        self.record = path.with_name(path.name + ".fit.json")

    def is_there(self) -> bool:
        """Whether the file holds this very model.

        Raises:
            ModelError: It holds another one.
        """
        if not self.path.exists():
            return False
        if reason := self._differs():
            raise ModelError(
                "teacher.path",
                expected="a model that was fitted on this recipe's labelled training rows, with its arguments",
                found=f"`{self.path}`, {reason}",
                harm="the teacher would not be the one that the recipe describes",
                mend=f"delete or rename `{self.path}` to have it fitted anew, or set teacher.path to another file; "
                "to use the file as it is, remove `fit` and `estimator`",
            )
        return True

    def _differs(self) -> str:
        try:
            record = json.loads(self.record.read_text(encoding="utf-8"))
            rows, arguments, model = (record[name] for name in ("rows", "arguments", "model"))
        except (OSError, ValueError, KeyError, TypeError):
            return f"of which no `{self.record.name}` says what it was fitted on"
        if model != digest_file(self.path):
            return "which is not the file that was written then"
        if rows != self.rows:
            return "which was fitted on other rows or labels"
        if arguments != self.arguments:
            return f"which was fitted with {json.dumps(arguments)} instead of {json.dumps(self.arguments)}"
        return ""

    def write(self, save: Callable[[Path], object], about: dict[str, Any]) -> None:
        """Writes the model with `save` and its record; the model appears last, when both are complete."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.path) as partial:
            save(partial)
            record = {"rows": self.rows, "arguments": self.arguments, "model": digest_file(partial), **about}
            with replacing(self.record) as beside:
                beside.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def digest_of_rows(cells: Cells, labels: np.ndarray[Any, Any]) -> str:
    """Hex SHA-256 of columns, their names and their order, and labels."""
    sha = hashlib.sha256(b"tutelage rows 1")
    for name, column in cells.columns.items():
        data = repr(column.tolist()).encode() if column.dtype.kind == "O" else np.ascontiguousarray(column).tobytes()
        sha.update(f"{name}\0{len(data)}\0".encode() + data)
    sha.update(f"{labels.dtype}{labels.shape}".encode() + np.ascontiguousarray(labels).tobytes())
    return sha.hexdigest()


class Progress:
    """How far a fit is; `at` is set from its callbacks."""

    at = ""


@contextlib.contextmanager
def announced(title: str) -> Iterator[Progress]:
    """Says on standard error, every few seconds, that a long work is still under way."""
    progress, done, began = Progress(), threading.Event(), time.monotonic()

    def tell() -> None:
        while not done.wait(_SECONDS):
            where = f", {progress.at}" if progress.at else ""
            print(f"tutelage: {title}{where}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield progress
    finally:
        done.set()
        thread.join()
