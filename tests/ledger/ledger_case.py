"""What the tests of the ledger share: questions, a desk, and an oracle that answers."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from tutelage.ledger import Asking, Call, Caps, Desk, Failure, Ledger, Prices, Question, Reply, Usage, question

__all__ = ["FREE", "QUICK", "Clock", "Oracle", "attempts", "desk", "questions"]

QUICK = Asking(concurrent=4, first_wait=0.01, longest_wait=60.0, timeout=5.0)
FREE = Prices()


def questions(count: int, start: int = 0) -> list[Question]:
    return [question({"endpoint": "here", "row": row}) for row in range(start, start + count)]


def desk(path: Path, *, caps: Caps | None = None, asking: Asking = QUICK, prices: Prices = FREE) -> Desk:
    return Desk(Ledger(path), "here", caps=caps or Caps(), asking=asking, prices=prices)


class Oracle:
    """Answers each question with its key, and notes what it was asked."""

    def __init__(self, most: Usage | None = None, used: Usage | None = None, per_call: int = 1) -> None:
        self.asked: list[str] = []
        self.most, self.used, self.per_call = most or Usage(), used, per_call
        self.failures: list[Failure] = []
        self.takes = 0.0

    def pack(self, every: list[Question]):
        def calls(missing: list[int]):
            for at in range(0, len(missing), self.per_call):
                some = [every[place] for place in missing[at : at + self.per_call]]
                yield Call(questions=some, send=lambda _, some=some: self.send(some), most=self.most)

        return calls

    def send(self, some: list[Question]) -> Reply:
        self.asked += [each.key for each in some]
        time.sleep(self.takes)
        if self.failures:
            raise self.failures.pop(0)
        return Reply(answers=[each.key.encode() for each in some], usage=self.used, http_status=200)

    def __call__(self, at: Desk, every: list[Question]) -> list[bytes]:
        return at.ask(every, self.pack(every))


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def attempts(path: Path, columns: str = "status") -> list[tuple]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(f"SELECT {columns} FROM attempts ORDER BY id").fetchall()
    finally:
        connection.close()
