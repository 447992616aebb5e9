"""The tables of a ledger's file, and how the file is opened."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from tutelage.errors import DataError

__all__ = ["connect"]

FORMAT = 1
APPLICATION = 0x7475746C  # "tutl": how a ledger is told from other SQLite files
SCHEMA = """
CREATE TABLE attempts (
    id INTEGER PRIMARY KEY, endpoint TEXT NOT NULL, owner TEXT NOT NULL, began REAL NOT NULL, ended REAL,
    status TEXT NOT NULL, http_status INTEGER, tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL, money REAL,
    exact INTEGER NOT NULL, latency REAL, error TEXT
);
CREATE INDEX attempts_open ON attempts (status) WHERE status = 'sent';
CREATE TABLE asked (
    question TEXT NOT NULL, attempt INTEGER NOT NULL REFERENCES attempts, PRIMARY KEY (question, attempt)
) WITHOUT ROWID;
CREATE TABLE answers (
    question TEXT PRIMARY KEY, topic TEXT NOT NULL, sample INTEGER NOT NULL, answer BLOB NOT NULL,
    attempt INTEGER NOT NULL REFERENCES attempts
) WITHOUT ROWID;
CREATE TABLE claims (question TEXT PRIMARY KEY, owner TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE spent (calls INTEGER NOT NULL, tokens INTEGER NOT NULL, money REAL NOT NULL);
INSERT INTO spent VALUES (0, 0, 0.0);
CREATE TRIGGER attempt_booked AFTER INSERT ON attempts BEGIN
    UPDATE spent SET calls = calls + 1, tokens = tokens + new.tokens_in + new.tokens_out,
                     money = money + coalesce(new.money, 0);
END;
CREATE TRIGGER attempt_closed AFTER UPDATE ON attempts BEGIN
    UPDATE spent SET tokens = tokens + new.tokens_in + new.tokens_out - old.tokens_in - old.tokens_out,
                     money = money + coalesce(new.money, 0) - coalesce(old.money, 0);
END;
"""
LATER = """
CREATE TABLE IF NOT EXISTS given_up (question TEXT PRIMARY KEY, endpoint TEXT NOT NULL, reason TEXT NOT NULL)
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS holds (endpoint TEXT PRIMARY KEY, noted REAL NOT NULL, until REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS canary (name TEXT NOT NULL, content BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS digests (name TEXT PRIMARY KEY, digest TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS attempts_when ON attempts (endpoint, began);
"""
"""What a file made earlier may lack. An earlier version that reads it does not look there."""


def connect(path: Path) -> sqlite3.Connection:
    """The open file, which is made when it isn't there.

    Raises:
        DataError: It can't be opened, is no ledger, or is a newer version's.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
        _write_ahead(connection)
        connection.execute("PRAGMA synchronous = FULL")  # an answer that was paid for survives a loss of power
        connection.execute("BEGIN IMMEDIATE")
        _lay_out(connection, path)
        connection.execute("COMMIT")
    except (sqlite3.Error, OSError, UnicodeError) as error:
        raise DataError(
            str(path),
            expected="the file of a query ledger, or a place where one can be made",
            found=str(error),
            mend="name another file, or restore this one from a copy: it holds the answers that were paid for",
        ) from error
    return connection


def _write_ahead(connection: sqlite3.Connection, seconds: float = 60.0) -> None:
    """Turns the write-ahead log on. SQLite does not wait here for another process that is just doing the same."""
    until = time.monotonic() + seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
        time.sleep(0.01)


def _lay_out(connection: sqlite3.Connection, path: Path) -> None:
    """Makes the tables of a new file, or sees that they are those of this format."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if not tables:
        for statement in _statements(SCHEMA):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {FORMAT}")
    elif application != APPLICATION or version != FORMAT:
        connection.execute("ROLLBACK")
        raise DataError(
            str(path),
            expected=f"a query ledger of format {FORMAT}",
            found=f"format {version}" if application == APPLICATION else "an SQLite file that is none",
            mend="name another file",
        )
    if "reserved" not in [row[1] for row in connection.execute("PRAGMA table_info(attempts)")]:
        connection.execute("ALTER TABLE attempts ADD COLUMN reserved INTEGER")  # the tokens it was let pass with
    for statement in _statements(LATER):
        connection.execute(statement)


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
