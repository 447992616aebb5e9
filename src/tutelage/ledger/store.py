"""The ledger's file: SQLite, in which each attempt stands before it is sent and each answer before it is used.

    attempts   one row a call: when, how it ended, tokens, money, latency, HTTP status, error
    asked      which questions a call asked: a call may ask many
    answers    what was answered, by the question's hash
    claims     the questions that a living process is asking now, so that no other process asks them as well
    holds      until when each endpoint's server has asked to wait
    given_up   the questions that got no usable answer and are not asked again, each with the reason
    digests    SHA-256 of each answer and each canary row, by which damage is found; earlier versions stored none
    canary     the first rows that a served model answered, with its answers: the only questions that are stored
    spent      sums over the attempts, kept by triggers, so that a cap is checked in one look

Requests, headers and keys are never stored, and but for the canary only hashes of questions.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tutelage.errors import CapReached
from tutelage.ledger import pace
from tutelage.ledger.damage import DAMAGED, canary_name, damaged, damaged_answers, digest_of, require_whole
from tutelage.ledger.owners import is_alive
from tutelage.ledger.questions import Question
from tutelage.ledger.schema import connect
from tutelage.ledger.settings import Asking, Caps, Prices, Usage

__all__ = ["Ledger"]

UNREAD = "answers WHERE attempt IN (SELECT id FROM attempts WHERE status = 'unusable')"  # kept, and of no use
_AT_ONCE = 500  # parameters of one statement; SQLite allows 999 in old builds


class Ledger:
    """The ledger in a file, which is made when it isn't there. Safe with several threads and processes of one machine.

    Args:
        path: The file. It must be on a local disk: SQLite's write-ahead log does not work over a network.

    Raises:
        DataError: The file can't be opened, is no ledger, or is a newer version's.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._lock = threading.RLock()
        self._pid = 0
        self._whole = False
        self._connection: sqlite3.Connection | None = None
        with self._open():
            pass

    def answers(self, keys: Iterable[str]) -> dict[str, bytes]:
        """The stored answers to those of the questions that have one."""
        self._require_whole()
        found = self._found("SELECT question, answer FROM answers", keys)
        digests = self._found("SELECT name, digest FROM digests", found, "name")
        for key, answer in found.items():
            if key in digests and digests[key] != digest_of(key, answer):
                raise damaged(self.path, "an answer that is not what was stored")
        return found

    def given_up(self, keys: Iterable[str]) -> dict[str, str]:
        """Why those of the questions that were given up got no usable answer."""
        return self._found("SELECT question, reason FROM given_up", keys)

    def _require_whole(self) -> None:
        """Looks through the file once, before anything of it is used or anything more is paid for."""
        if not self._whole:
            with self._open() as connection:
                require_whole(connection, self.path)
            self._whole = True

    def _found(self, select: str, keys: Iterable[str], column: str = "question") -> dict[str, Any]:
        found: dict[str, Any] = {}
        with self._open() as connection:
            for some in _pieces(list(dict.fromkeys(keys))):
                marks = ",".join("?" * len(some))
                found |= dict(connection.execute(f"{select} WHERE {column} IN ({marks})", some))
        return found

    def give_up(self, reasons: Mapping[str, str], endpoint: str) -> None:
        """Notes that these questions are not to be asked again, and why."""
        with self._write() as connection:
            rows = [(key, endpoint, reason) for key, reason in reasons.items()]
            connection.executemany("INSERT OR REPLACE INTO given_up VALUES (?, ?, ?)", rows)

    def ask_again(self) -> int:
        """Forgets which questions were given up, and answers that can't be read; says how many questions they were."""
        with self._write() as connection:
            connection.execute(f"INSERT OR IGNORE INTO given_up SELECT question, '', '' FROM {UNREAD}")
            gone = [(key, "", DAMAGED) for key in damaged_answers(connection)]
            connection.executemany("INSERT OR IGNORE INTO given_up VALUES (?, ?, ?)", gone)
            connection.execute("DELETE FROM answers WHERE question IN (SELECT question FROM given_up)")
            connection.execute(
                "DELETE FROM digests WHERE name NOT IN (SELECT question FROM answers) AND name NOT LIKE 'canary %'"
            )
            return connection.execute("DELETE FROM given_up").rowcount

    def unread(self) -> int:
        """How many answers are stored that could not be made sense of when they came."""
        with self._open() as connection:
            return int(connection.execute(f"SELECT count(*) FROM {UNREAD}").fetchone()[0])

    def claim(self, keys: Sequence[str], owner: str) -> list[str]:
        """Takes those questions that have no answer and that no other living process is asking."""
        with self._write() as connection:
            self._bury(connection)
            stored = self.answers(keys)
            taken: dict[str, str] = {}
            for some in _pieces(keys):
                marks = ",".join("?" * len(some))
                taken |= dict(
                    connection.execute(f"SELECT question, owner FROM claims WHERE question IN ({marks})", some)
                )
            mine = [key for key in keys if key not in stored and taken.get(key, owner) == owner]
            connection.executemany("INSERT OR REPLACE INTO claims VALUES (?, ?)", [(key, owner) for key in mine])
        return mine

    def release(self, owner: str) -> None:
        """Gives up what an owner has claimed and not had answered."""
        with self._write() as connection:
            connection.execute("DELETE FROM claims WHERE owner = ?", (owner,))

    def book(
        self,
        questions: Sequence[Question],
        endpoint: str,
        owner: str,
        *,
        most: Usage,
        prices: Prices,
        caps: Caps,
        asking: Asking,
    ) -> int:
        """Books an attempt with the most that it can use, before it is sent; gives its number.

        Raises:
            CapReached: It could exceed a cap. Nothing is booked then.
            TooSoon: With the calls of all processes to this endpoint it would be faster than `asking` allows, or its
                server has asked to wait. Nothing is booked then.
        """
        money, tokens = prices.of(most), most.tokens_in + most.tokens_out
        with self._write() as connection:
            self._require_room(connection, most, money, caps)
            now = time.time()
            self._require_pace(connection, endpoint, now, tokens, asking)
            cursor = connection.execute(
                "INSERT INTO attempts (endpoint, owner, began, status, tokens_in, tokens_out, money, exact, reserved) "
                "VALUES (?, ?, ?, 'sent', ?, ?, ?, 0, ?)",
                (endpoint, owner, now, most.tokens_in, most.tokens_out, money, tokens),
            )
            attempt = int(cursor.lastrowid or 0)
            connection.executemany("INSERT INTO asked VALUES (?, ?)", [(each.key, attempt) for each in questions])
        return attempt

    def close(
        self,
        attempt: int,
        status: str,
        *,
        usage: Usage | None,
        prices: Prices,
        latency: float,
        calls: int = 1,
        http_status: int | None = None,
        error: str | None = None,
        answers: Sequence[tuple[Question, bytes]] = (),
    ) -> None:
        """Notes how an attempt ended and stores its answers, both or neither.

        Args:
            attempt: Its number.
            status: answered, refused, timeout, cut, unusable or lost.
            usage: What it used; None leaves the most that it can have used, for its outcome isn't known.
            prices: Of the endpoint.
            latency: Seconds.
            calls: How many calls are paid for: 0 for one that was refused.
            http_status: Where there is one.
            error: A line.
            answers: What was answered to which question.
        """
        ended, money = time.time(), None if usage is None else prices.of(usage, calls=calls)
        with self._write() as connection:
            rows = [(each.key, each.topic, each.sample, answer, attempt) for each, answer in answers]
            connection.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?)", rows)
            new = [(each.key, digest_of(each.key, answer), each.key, attempt) for each, answer in answers]
            connection.executemany(  # of those alone that were stored: of two answers to one question the first stays
                "INSERT OR IGNORE INTO digests SELECT ?, ? FROM answers WHERE question = ? AND attempt = ?", new
            )
            for table in ("claims", "given_up"):
                connection.executemany(f"DELETE FROM {table} WHERE question = ?", [(each.key,) for each, _ in answers])
            connection.execute(
                "UPDATE attempts SET status = ?, ended = ?, latency = ?, http_status = ?, error = ? WHERE id = ?",
                (status, ended, latency, http_status, error, attempt),
            )
            if usage is not None:
                connection.execute(
                    "UPDATE attempts SET tokens_in = ?, tokens_out = ?, money = ?, exact = 1 WHERE id = ?",
                    (usage.tokens_in, usage.tokens_out, money, attempt),
                )

    def hold(self, endpoint: str, seconds: float) -> None:
        """Lets no call to an endpoint pass for a while: its server said so to one call, and means all."""
        now = time.time()
        with self._write() as connection:
            connection.execute(
                "INSERT INTO holds VALUES (?, ?, ?) ON CONFLICT (endpoint) DO UPDATE SET noted = excluded.noted, "
                "until = max(until, excluded.until)",
                (endpoint, now, now + seconds),
            )

    def kept_rows(self, name: str) -> list[bytes]:
        """The canary rows of that name, in the order in which they were kept."""
        with self._open() as connection:
            rows = connection.execute("SELECT content FROM canary WHERE name = ? ORDER BY rowid", (name,))
            kept = [content for (content,) in rows]
        digests = self._found(
            "SELECT name, digest FROM digests", [canary_name(name, n) for n in range(len(kept))], "name"
        )
        for number, content in enumerate(kept):
            named = canary_name(name, number)
            if digests.get(named, digest_of(named, content)) != digest_of(named, content):
                raise damaged(self.path, "a row of the canary that is not what was stored")
        return kept

    def keep_rows(self, name: str, rows: Sequence[bytes], most: int) -> int:
        """Keeps canary rows until there are `most` of that name; says how many there are."""
        with self._write() as connection:
            there = len(self.kept_rows(name))
            new = rows[: max(most - there, 0)]
            connection.executemany("INSERT INTO canary VALUES (?, ?)", [(name, each) for each in new])
            named = [(canary_name(name, there + at), each) for at, each in enumerate(new)]
            digests = [(each, digest_of(each, content)) for each, content in named]
            connection.executemany("INSERT OR REPLACE INTO digests VALUES (?, ?)", digests)
        return there + len(new)

    def spent(self) -> tuple[int, int, float]:
        """Calls, tokens and money so far, with what is reserved for calls under way."""
        self._require_whole()
        with self._open() as connection:
            calls, tokens, money = connection.execute("SELECT calls, tokens, money FROM spent").fetchone()
        return int(calls), int(tokens), float(money)

    def count(self) -> int:
        """How many questions are answered."""
        with self._open() as connection:
            return int(connection.execute("SELECT count(*) FROM answers").fetchone()[0])

    def disconnect(self) -> None:
        """Closes the file; it is opened again when it is next used."""
        with self._lock:
            if self._connection is not None and self._pid == os.getpid():
                self._connection.close()
            self._connection = None

    def _require_room(self, connection: sqlite3.Connection, most: Usage, money: float | None, caps: Caps) -> None:
        calls, tokens, spent = connection.execute("SELECT calls, tokens, money FROM spent").fetchone()
        reserved = connection.execute(
            "SELECT coalesce(sum(tokens_in + tokens_out), 0), coalesce(sum(money), 0) FROM attempts "
            "WHERE status = 'sent'"
        ).fetchone()
        wanted = {
            "calls": (calls, 1, 0, caps.calls),
            "tokens": (tokens, most.tokens_in + most.tokens_out, reserved[0], caps.tokens),
            "money": (spent, money or 0.0, reserved[1], caps.money),
        }
        for cap, (so_far, more, held, limit) in wanted.items():
            if limit is not None and so_far + more > limit * (1 + 1e-12):
                fits = held > 0 and so_far - held + more <= limit
                raise CapReached(
                    cap,
                    f"the cap on {cap} is reached: {so_far:,g} of {limit:,g} are spent, the next call may take "
                    f"{more:,g}",
                    may_fit_later=fits,
                )

    def _require_pace(
        self, connection: sqlite3.Connection, endpoint: str, now: float, tokens: int, asking: Asking
    ) -> None:
        """What is stored for later than now was stored before the clock was set back, and counts for nothing."""
        wait = 0.0
        hold = connection.execute("SELECT until FROM holds WHERE endpoint = ? AND noted <= ?", (endpoint, now))
        for (until,) in hold.fetchall():
            wait = until - now
        if asking.requests_per_minute is not None or asking.tokens_per_minute is not None:
            passed = connection.execute(
                "SELECT began, coalesce(reserved, tokens_in + tokens_out) FROM attempts "
                "WHERE endpoint = ? AND began > ? AND began <= ? ORDER BY began",
                (endpoint, now - pace.MINUTE, now),
            )
            wait = max(wait, pace.until_room(passed.fetchall(), now, tokens, asking))
        if wait > 0:
            raise pace.TooSoon(wait)

    def _bury(self, connection: sqlite3.Connection) -> None:
        """What dead processes left: their claims are free, their open attempts are lost."""
        owners = connection.execute("SELECT owner FROM claims UNION SELECT owner FROM attempts WHERE status = 'sent'")
        for (owner,) in owners.fetchall():
            if not is_alive(owner):
                connection.execute("DELETE FROM claims WHERE owner = ?", (owner,))
                connection.execute(
                    "UPDATE attempts SET status = 'lost', error = 'the process ended before the answer came' "
                    "WHERE owner = ? AND status = 'sent'",
                    (owner,),
                )

    @contextlib.contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        """A transaction that no other process writes beside."""
        with self._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._connection is None or self._pid != os.getpid():  # a connection is not carried over a fork
                self._connection, self._pid = connect(self.path), os.getpid()
            try:
                yield self._connection
            except (sqlite3.DatabaseError, OverflowError, UnicodeError) as error:
                raise damaged(self.path, str(error)) from error


def _pieces(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    for at in range(0, len(keys), _AT_ONCE):
        yield keys[at : at + _AT_ONCE]
