"""Damage in a ledger's file: a digest for each stored answer, and sums that have to agree."""

from __future__ import annotations

import hashlib
import math
import sqlite3
from pathlib import Path

from tutelage.errors import DataError

__all__ = ["DAMAGED", "canary_name", "damaged", "damaged_answers", "digest_of", "require_whole"]

DAMAGED = "it is not what was stored"
"""Why an answer whose digest is another is given up."""
_STORED = "SELECT question, answer, digest, name FROM answers {} JOIN digests ON name = question"


def digest_of(name: str, content: bytes | str) -> str:
    """SHA-256 of an answer and of what it is stored under, so that it can't be taken for another's."""
    return hashlib.sha256(name.encode() + b"\n" + _bytes(content)).hexdigest()


def canary_name(name: str, number: int) -> str:
    """What the digest of a canary row is stored under."""
    return f"canary {name} {number}"


def damaged(path: Path, found: str) -> DataError:
    """The error for a file that is not as it was written."""
    return DataError(
        f"{path}, the query ledger",
        expected="answers and sums as they were stored",
        found=found,
        harm="the student would learn another answer, or a cap would not hold",
        mend="restore the file from a copy; or have what is damaged asked again: `tutelage ledger FILE --ask-again`",
    )


def damaged_answers(connection: sqlite3.Connection) -> list[str]:
    """The questions whose stored answer is not the one that was stored. Answers of earlier versions have no digest."""
    rows = connection.execute(_STORED.format("LEFT"))
    return [key for key, answer, digest, name in rows if name is not None and digest_of(key, answer) != digest]


def require_whole(connection: sqlite3.Connection, path: Path) -> None:
    """Refuses a file whose pages, answers or sums are damaged; reads all of it once.

    Raises:
        DataError: It says what is damaged.
    """
    (state,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if state != "ok":
        raise damaged(path, f"SQLite says: {state}")
    wrong = damaged_answers(connection)
    lost = connection.execute(
        "SELECT count(*) FROM digests LEFT JOIN answers ON name = question "
        "WHERE question IS NULL AND name NOT LIKE 'canary %'"
    ).fetchone()[0]
    if wrong or lost:
        raise damaged(path, f"{max(len(wrong), lost):,} answers that are not what was stored")
    kept: dict[str, int] = {}
    for (name,) in connection.execute("SELECT name FROM canary ORDER BY rowid"):
        kept[name] = kept.get(name, 0) + 1
    rows = {canary_name(name, number) for name, count in kept.items() for number in range(count)}
    if {name for (name,) in connection.execute("SELECT name FROM digests WHERE name LIKE 'canary %'")} - rows:
        raise damaged(path, "rows of the canary that are no longer there")
    (spent,) = connection.execute("SELECT calls, tokens, money FROM spent").fetchall()
    sums = connection.execute(
        "SELECT count(*), coalesce(sum(tokens_in + tokens_out), 0), coalesce(sum(money), 0.0) FROM attempts"
    ).fetchone()
    if not all(math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9) for a, b in zip(spent, sums, strict=True)):
        raise damaged(path, f"{spent} calls, tokens and money in sum, where the attempts come to {sums}")


def _bytes(value: bytes | str) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
