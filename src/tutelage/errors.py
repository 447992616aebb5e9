"""What can go wrong, and whose mistake it is.

TutelageError
├── UserError            the input was wrong: nothing was computed, nothing is lost (exit status 2)
│   ├── RecipeError      a key of the recipe: unknown, of the wrong type, missing, contradictory
│   ├── DataError        the transfer data: a missing file or column, labels that are lacking, an empty split
│   ├── ModelError       a model: a pickle, a layer path that does not exist, an output that cannot be read
│   ├── SignalError      what teacher and student said does not fit a loss: shapes, masks, NaN
│   ├── CacheError       stored answers of a teacher: damaged, or of another teacher, form or data
│   └── MissingExtra     an optional package that is not installed
└── RunError             the run itself failed
├── TeacherChanged   the teacher's weights are not what they were when the run began
├── OutOfMemory      memory does not suffice for the least that is computed at once
├── CapReached       a cap on what a remote teacher may be asked; all answers are kept
├── QueryFailed      a remote teacher gave no usable answer; all others are kept
└── CheckpointError  a checkpoint cannot be read
"""

from __future__ import annotations

import contextlib
import difflib
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

__all__ = [
    "CacheError",
    "CapReached",
    "CheckpointError",
    "DataError",
    "MissingExtra",
    "ModelError",
    "OutOfMemory",
    "QueryFailed",
    "RecipeError",
    "RunError",
    "SignalError",
    "TeacherChanged",
    "TutelageError",
    "UserError",
    "blame",
    "check_all",
    "did_you_mean",
    "within",
]


class TutelageError(Exception):
    """Every error that tutelage raises on purpose."""


class UserError(TutelageError):
    """The input was wrong; the message says where, what was expected, what was found and how to mend it.

    Args:
        key: Where: a recipe key (`losses[0].temperature`), a file, a layer.
        expected: What would have been right.
        found: What was there.
        harm: What would have happened had it been accepted, when that is not obvious.
        mend: What to do now.
    """

    def __init__(self, key: str, *, expected: str = "", found: str = "", harm: str = "", mend: str = "") -> None:
        self.key, self.expected, self.found, self.harm, self.mend = key, expected, found, harm, mend
        parts = (("expected", expected), ("found", found), ("harm", harm), ("mend", mend))
        lines = [f"  {name + ':':<9} {text}" for name, text in parts if text]
        shown = key if len(key) <= 1000 else f"{key[:100]}... ({len(key):,} characters)"
        super().__init__("\n".join([shown, *lines]))


class RecipeError(UserError):
    """A key of the recipe is unknown, of the wrong type, missing or contradicts another."""


class DataError(UserError):
    """The transfer data can't be read or lacks what the recipe needs of it."""


class ModelError(UserError):
    """A model can't be loaded, or lacks what the recipe asks of it."""


class SignalError(UserError):
    """What teacher and student say about a batch does not fit the loss that compares them."""


class CacheError(UserError):
    """Stored answers of a teacher can't be used: they are damaged, or another's, or about other rows."""


class MissingExtra(UserError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            purpose,
            expected=f"the package `{package}`",
            found="it is not installed",
            mend=f'pip install "tutelage[{extra}]"',
        )


class RunError(TutelageError):
    """The run failed although its input was right."""


class TeacherChanged(RunError):
    """The teacher's weights changed during the run: what the student learned from is not what was measured."""


class CapReached(RunError):
    """A cap of the recipe on what a remote teacher may be asked is reached; what it answered is kept.

    Args:
        cap: Its name: calls, tokens, money or seconds.
        text: What was asked, what is missing, how to go on.
        may_fit_later: Whether calls under way reserve what they may not use.
    """

    def __init__(self, cap: str, text: str, *, may_fit_later: bool = False) -> None:
        super().__init__(text)
        self.cap, self.may_fit_later = cap, may_fit_later


class OutOfMemory(RunError):
    """Memory does not suffice for the least that has to be computed at once."""


class QueryFailed(RunError):
    """A remote teacher gave no usable answer in as many attempts as are allowed; what it answered else is kept."""


class CheckpointError(RunError):
    """A checkpoint can't be read."""


def did_you_mean(word: str, known: Iterable[str], *, list_up_to: int = 12) -> str:
    """A hint for a misspelt `word`: the nearest of `known`, or a list of them."""
    names = sorted(set(known))
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean `{near[0]}`?"
    if not names:
        return ""
    shown = ", ".join(names[:list_up_to])
    more = f", ... ({len(names)} in all)" if len(names) > list_up_to else ""
    return f"choose one of: {shown}{more}"


def blame(error: BaseException) -> str:
    """An error of the user's own code in one line: its kind, its message, and the file and line that raised it."""
    message = " ".join(str(error).split())
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}{': ' if message else ''}{message}{where}"


def check_all(checks: Iterable[Callable[[], object]]) -> None:
    """Runs checks that do not depend on each other, and names what all of them found in one message.

    Raises:
        UserError: At least one found something; its type and fields are those of the first.
    """
    found: list[UserError] = []
    for check in checks:
        try:
            check()
        except UserError as error:
            found.append(error)
    if len(found) > 1:
        found[0].args = ("\n".join(str(error) for error in found),)
    if found:
        raise found[0]


@contextlib.contextmanager
def within(key: str) -> Iterator[None]:
    """Puts the recipe's key before that of an error that arises within."""
    try:
        yield
    except MissingExtra:
        raise
    except UserError as error:
        raise type(error)(
            f"{key}: {error.key}", expected=error.expected, found=error.found, harm=error.harm, mend=error.mend
        ) from error
