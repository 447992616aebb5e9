"""What a ledger says was spent."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from tutelage.errors import DataError
from tutelage.ledger.store import Ledger

__all__ = ["describe_ledger"]

PERCENTILES = (50, 95, 99)


def describe_ledger(path: Path | str) -> str:
    """Attempts by endpoint and status, tokens, money, latencies, answers, and how well repeated samples agree.

    Raises:
        DataError: There is no such file, or it is no ledger.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(
            str(path), expected="the file of a query ledger", found="a folder" if file.is_dir() else "no such file"
        )
    Ledger(file).disconnect()  # refuses what is none
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    try:
        lines = [f"ledger {file}"]
        endpoints = [name for (name,) in connection.execute("SELECT DISTINCT endpoint FROM attempts ORDER BY endpoint")]
        for endpoint in endpoints:
            lines += ["", endpoint, *_of_endpoint(connection, endpoint)]
        calls, tokens, money = connection.execute("SELECT calls, tokens, money FROM spent").fetchone()
        answered = connection.execute("SELECT count(*) FROM answers").fetchone()[0]
        priced = connection.execute("SELECT count(*) FROM attempts WHERE money IS NOT NULL").fetchone()[0]
        cost = f"{money:,.6g} in money" if priced else "money not known"
        if 0 < priced < calls:
            cost += f" ({calls - priced:,} calls without a price not counted)"
        lines += ["", f"together: {calls:,} calls, {tokens:,} tokens, {cost}, {answered:,} answers"]
        return "\n".join([*lines, *_given_up(connection), *_agreement(connection)])
    finally:
        connection.close()


def _of_endpoint(connection: sqlite3.Connection, endpoint: str) -> list[str]:
    lines = [f"  {'status':<10}{'calls':>8}{'tokens in':>12}{'tokens out':>12}{'money':>12}  latency p50 / p95 / p99"]
    rows = connection.execute(
        "SELECT status, count(*), sum(tokens_in), sum(tokens_out), sum(money), min(exact) FROM attempts "
        "WHERE endpoint = ? GROUP BY status ORDER BY count(*) DESC, status",
        (endpoint,),
    ).fetchall()
    for status, calls, tokens_in, tokens_out, money, exact in rows:
        latencies = connection.execute(
            "SELECT latency FROM attempts WHERE endpoint = ? AND status = ? AND latency IS NOT NULL ORDER BY latency",
            (endpoint, status),
        )
        shown = " / ".join(f"{seconds * 1e3:,.0f} ms" for seconds in _percentiles([value for (value,) in latencies]))
        cost = "not known" if money is None else f"{money:,.6g}"
        about = "" if exact else "  (at most: the outcome of some is not known)"
        lines.append(f"  {status:<10}{calls:>8,}{tokens_in:>12,}{tokens_out:>12,}{cost:>12}  {shown}{about}")
    errors = connection.execute(
        "SELECT error, count(*) FROM attempts WHERE endpoint = ? AND error IS NOT NULL GROUP BY error "
        "ORDER BY count(*) DESC LIMIT 3",
        (endpoint,),
    )
    return [*lines, *(f"  {count:,} x {error}" for error, count in errors)]


def _given_up(connection: sqlite3.Connection) -> list[str]:
    """How many questions have no usable answer and are not asked again, and why."""
    rows = connection.execute("SELECT reason, count(*) FROM given_up GROUP BY reason ORDER BY count(*) DESC, reason")
    reasons = rows.fetchall()
    if not reasons:
        return []
    together = sum(count for _, count in reasons)
    lines = [f"given up: {together:,} questions without a usable answer; --ask-again has the next run ask them"]
    return [*lines, *(f"  {count:,} x {reason}" for reason, count in reasons[:5])]


def _percentiles(ordered: Sequence[float]) -> list[float]:
    """The smallest values that the given shares of all do not exceed."""
    return [ordered[max(-(-len(ordered) * share // 100) - 1, 0)] for share in PERCENTILES] if ordered else []


def _agreement(connection: sqlite3.Connection) -> list[str]:
    """How often two samples of one question give the same answer."""
    rows = connection.execute(
        "SELECT count(*), sum(n), sum(n * n - n), sum(same) FROM (SELECT topic, sum(c) AS n, sum(c * c - c) AS same "
        "FROM (SELECT topic, answer, count(*) AS c FROM answers GROUP BY topic, answer) GROUP BY topic) WHERE n > 1"
    ).fetchone()
    topics, samples, pairs, same = rows
    if not topics:
        return []
    return [f"repeated: {samples:,} samples of {topics:,} questions; two of one question agree in {same / pairs:.1%}"]
