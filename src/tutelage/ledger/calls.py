"""A call to an endpoint: what it asks, what it brings, and how it can go wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tutelage.errors import QueryFailed
from tutelage.ledger.questions import Question
from tutelage.ledger.settings import Usage

__all__ = ["Call", "Failure", "Reply", "UnreadAnswer"]


class UnreadAnswer(QueryFailed):
    """An answer that is stored and can't be made sense of; its message is whole."""


class Failure(Exception):
    """How a call went wrong.

    Args:
        status: `refused`: the server answered with an error. `timeout`: it didn't answer in time. `cut`: the
            connection broke. `unusable`: the answer is not of the form that was asked for.
        message: A line for people, without keys.
        retry: Whether the same call may succeed later.
        http_status: Where there is one.
        after: Seconds that the server asks to wait.
        usage: What was used; None where it isn't known.
        of_question: Whether it is about this very question, and others may be answered: it can be given up alone.
    """

    def __init__(
        self,
        status: Literal["refused", "timeout", "cut", "unusable"],
        message: str,
        *,
        retry: bool,
        http_status: int | None = None,
        after: float | None = None,
        usage: Usage | None = None,
        of_question: bool = False,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.retry = status, message, retry
        self.http_status, self.after, self.of_question = http_status, after, of_question
        self.usage = Usage() if status == "refused" else usage


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a call brought.

    Attributes:
        answers: One for each question of the call, in order; None where it is of no use, although others are.
        usage: Tokens, as the endpoint counts them; None where it doesn't say.
        http_status: Where there is one.
        unread: Why the answer is of no use, although it is kept: asked again, it would be the same.
        lacks: What is wrong with the answers that are None. A `Failure` may have them asked again.
    """

    answers: Sequence[bytes | None]
    usage: Usage | None = None
    http_status: int | None = None
    unread: str = ""
    lacks: Exception | None = None


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call, which asks one question or several.

    Attributes:
        questions: What it asks.
        send: Sends it; is given the seconds it may take, and raises a `Failure`.
        most: The most tokens that it can use.
        part: Makes the call for some of its questions alone, by their positions.
    """

    questions: Sequence[Question]
    send: Callable[[float], Reply]
    most: Usage = field(default_factory=Usage)
    part: Callable[[list[int]], Call] | None = None

    def require_fit(self, reply: Reply) -> None:
        """Refuses a reply with another number of answers.

        Raises:
            Failure: They can't be told apart.
        """
        if len(reply.answers) != len(self.questions):
            found = f"{len(reply.answers)} answers to {len(self.questions)} questions"
            raise Failure("unusable", found, retry=True, usage=reply.usage)

    def rest(self, reply: Reply) -> Call:
        """The call for the questions that a reply has no use for."""
        assert self.part is not None, "who answers in part can ask in part"
        return self.part([at for at, answer in enumerate(reply.answers) if answer is None])
