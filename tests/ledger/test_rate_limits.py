"""Limits on how fast an endpoint is asked: they hold for all processes that use one ledger."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ledger_case import FREE, Clock, Oracle, attempts, desk, questions

from tutelage.errors import CapReached
from tutelage.ledger import Asking, Caps, Failure, Ledger, Usage
from tutelage.ledger.owners import new_owner
from tutelage.ledger.pace import TooSoon
from tutelage.ledger.schema import APPLICATION, SCHEMA, _statements


def book(ledger: Ledger, asking: Asking, tokens: int = 1, endpoint: str = "here") -> int:
    most = Usage(tokens_in=tokens)
    asked = questions(1)
    return ledger.book(asked, endpoint, new_owner(), most=most, prices=FREE, caps=Caps(), asking=asking)


def set_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("tutelage.ledger.store.time", SimpleNamespace(time=clock, monotonic=time.monotonic))
    return clock


def test_no_minute_holds_more_requests_or_tokens_than_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, passed = set_clock(monkeypatch), []
    ledgers = [Ledger(tmp_path / "l.sqlite") for _ in range(3)]
    asking = Asking(requests_per_minute=5, tokens_per_minute=100)
    rng = np.random.default_rng(0)
    for number, tokens in enumerate(rng.integers(1, 60, size=60).tolist()):
        while True:
            try:
                attempt = book(ledgers[number % 3], asking, tokens)
                break
            except TooSoon as early:
                clock.now += early.seconds
        passed.append((clock.now, tokens))
        # What it did use is less, and does not count: the server, too, reckons with the most.
        ledgers[0].close(attempt, "answered", usage=Usage(tokens_in=1), prices=FREE, latency=0.1)
        clock.now += float(rng.uniform(0, 4))
    for start, _ in passed:
        window = [tokens for at, tokens in passed if start <= at < start + 59.999]
        assert len(window) <= 5 and sum(window) <= 100
    assert clock.now - 100 < 60 * sum(tokens for _, tokens in passed) / 100 * 1.7  # and it does not idle


def test_another_endpoint_has_limits_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_clock(monkeypatch)
    ledger, asking = Ledger(tmp_path / "l.sqlite"), Asking(requests_per_minute=1)
    book(ledger, asking)
    with pytest.raises(TooSoon):
        book(ledger, asking)
    book(ledger, asking, endpoint="there")


def test_a_clock_that_was_set_back_holds_nobody_for_hours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = set_clock(monkeypatch)
    ledger, asking = Ledger(tmp_path / "l.sqlite"), Asking(requests_per_minute=1)
    clock.now = 9000.0
    book(ledger, asking)
    ledger.hold("here", 50.0)
    clock.now = 100.0
    book(ledger, asking)


def test_retry_after_holds_every_call_and_not_only_the_one_that_was_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = set_clock(monkeypatch)
    told, other = Ledger(tmp_path / "l.sqlite"), Ledger(tmp_path / "l.sqlite")
    book(told, Asking())
    told.hold("here", 7.0)
    told.hold("here", 3.0)  # a shorter one does not end it
    with pytest.raises(TooSoon) as early:
        book(other, Asking())
    assert early.value.seconds == 7.0
    book(other, Asking(), endpoint="there")
    clock.now += 7.0
    book(other, Asking())


def test_a_server_that_asks_one_run_to_wait_is_left_alone_by_another(tmp_path: Path) -> None:
    path, oracle = tmp_path / "l.sqlite", Oracle()
    oracle.failures = [Failure("refused", "busy", retry=True, http_status=429, after=0.4)]
    first = threading.Thread(target=oracle, args=(desk(path), questions(1)))
    first.start()
    while not oracle.asked:
        time.sleep(0.005)
    time.sleep(0.1)
    oracle(desk(path), questions(1, start=5))
    first.join()
    began = [at for (at,) in attempts(path, "began")]
    assert len(began) == 3 and began[1] - began[0] >= 0.4


PACED = """
import sys, time
from tutelage.ledger import *
from tutelage.ledger import pace
pace.MINUTE = 0.5
path, name = sys.argv[1], sys.argv[2]
every = [question({"endpoint": "here", "row": f"{name} {row}"}) for row in range(12)]
calls = lambda missing: [Call(questions=[every[at]], send=lambda _: Reply(answers=[b"yes"])) for at in missing]
asking = Asking(concurrent=4, requests_per_minute=6)
Desk(Ledger(path), "here", caps=Caps(), asking=asking, prices=Prices()).ask(every, calls)
"""


def test_two_processes_together_are_no_faster_than_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    both = [subprocess.Popen([sys.executable, "-c", PACED, str(path), name]) for name in "ab"]
    assert [process.wait(60) for process in both] == [0, 0]
    rows = attempts(path, "began, owner")
    began = sorted(at for at, _ in rows)
    assert len(rows) == 24 and len({owner.split(":")[0] for _, owner in rows}) == 2
    assert max(sum(start <= at < start + 0.499 for at in began) for start in began) == 6
    assert began[-1] - began[0] < 4.0  # four windows of half a second, and it does not idle


def test_a_ledger_made_before_there_were_such_limits_goes_on_working(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    old = sqlite3.connect(path, isolation_level=None)
    for statement in (*_statements(SCHEMA), f"PRAGMA application_id = {APPLICATION}", "PRAGMA user_version = 1"):
        old.execute(statement)
    (asked,) = questions(1)
    old.execute(
        "INSERT INTO attempts (id, endpoint, owner, began, status, tokens_in, tokens_out, exact) "
        "VALUES (1, 'here', '1:1:0', ?, 'answered', 70, 20, 1)",
        (time.time(),),
    )
    old.execute("INSERT INTO answers VALUES (?, ?, 0, ?, 1)", (asked.key, asked.topic, b"stored"))
    old.close()
    oracle = Oracle(most=Usage(tokens_in=20))
    here = desk(path, asking=Asking(tokens_per_minute=100, first_wait=0.01), caps=Caps(seconds=1))
    assert oracle(here, [asked]) == [b"stored"] and not oracle.asked
    with pytest.raises(CapReached, match="cap on seconds"):  # 90 + 20 tokens are more than 100 in this minute
        oracle(here, questions(1, start=1))
    assert oracle(desk(path), questions(2)) == [b"stored", questions(2)[1].key.encode()]
    assert Ledger(path).spent()[:2] == (2, 110)
