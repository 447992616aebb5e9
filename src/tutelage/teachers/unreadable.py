"""Answers in a ledger that an earlier version stored unchecked and that can't be read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tutelage.errors import UserError
from tutelage.ledger import Desk, Question

__all__ = ["set_aside"]

Array = np.ndarray[Any, Any]


@contextlib.contextmanager
def set_aside(
    desk: Desk, questions: Sequence[Question], values: Sequence[Array], read: Callable[[Array], object], ledger: str
) -> Iterator[None]:
    """Lets `tutelage ledger FILE --ask-again` forget the answers that can't be read, where they are the fewest.

    Where most can't be read it is the recipe that is wrong, and the answers are kept as they are.

    Args:
        desk: Whose ledger it is.
        questions: What was asked.
        values: The answers, one each.
        read: Raises a `UserError` for answers that can't be read.
        ledger: The file, for the message.

    Raises:
        UserError: The one that was raised within, with this way out.
    """
    try:
        yield
    except UserError as error:
        unreadable = {}
        for question, value in zip(questions, values, strict=True):
            try:
                read(value[None])
            except UserError as reason:
                unreadable[question.key] = reason.found
        if 2 * len(unreadable) >= len(values):
            raise
        desk.ledger.give_up(unreadable, desk.endpoint)
        again = f"`tutelage ledger {ledger} --ask-again`, and they are asked anew"
        raise type(error)(
            error.key,
            expected=error.expected,
            found=f"{error.found}, in {len(unreadable):,} of {len(values):,} stored answers",
            harm=error.harm,
            mend=f"{error.mend}; or, where the server was wrong, have these forgotten: {again}",
        ) from error
