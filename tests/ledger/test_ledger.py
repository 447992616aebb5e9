"""The ledger by itself: what is booked, stored, claimed and refused."""

from __future__ import annotations

import email.utils
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from ledger_case import QUICK, Clock, Oracle, attempts, desk, questions

from tutelage.cli import main
from tutelage.errors import CapReached, DataError, QueryFailed, RecipeError
from tutelage.ledger import Asking, Call, Caps, Failure, Ledger, Prices, Question, Reply, Usage, question
from tutelage.ledger.owners import is_alive, new_owner
from tutelage.ledger.pace import back_off, retry_after


def test_the_hash_changes_with_each_part_of_the_request_and_not_with_the_order_of_its_keys() -> None:
    base = {"endpoint": "a", "model": "m", "settings": {"temperature": 0.0, "seed": 1}}
    same = question({"settings": {"seed": 1, "temperature": 0.0}, "model": "m", "endpoint": "a"})
    assert same == question(base)
    others = [base | {"endpoint": "b"}, base | {"model": "n"}, base | {"settings": {"temperature": 0.1, "seed": 1}}]
    keys = {question(base).key, *(question(each).key for each in others), question(base, sample=1).key}
    assert len(keys) == 5
    assert question(base, sample=1).topic == question(base).topic


def test_nothing_is_asked_twice_neither_within_a_request_nor_later(tmp_path: Path) -> None:
    oracle, path = Oracle(per_call=3), tmp_path / "l.sqlite"
    every = questions(7)
    answers = oracle(desk(path), [*every, *every])
    assert answers == [each.key.encode() for each in [*every, *every]]
    assert len(oracle.asked) == 7
    assert oracle(desk(path), every) == answers[:7]
    oracle(desk(path), questions(9))
    assert len(oracle.asked) == 9


def test_an_attempt_stands_in_the_file_before_it_is_sent_and_its_answer_before_it_is_used(tmp_path: Path) -> None:
    path, seen = tmp_path / "l.sqlite", []
    (asked,) = questions(1)

    def send(_: float) -> Reply:
        seen.append(attempts(path, "status, tokens_in, exact"))
        return Reply(answers=[b"yes"], usage=Usage(tokens_in=2, tokens_out=1), http_status=200)

    call = Call(questions=[asked], send=send, most=Usage(tokens_in=9, tokens_out=1))
    here = desk(path)
    stored: list[dict[str, bytes]] = []
    inner = here.ledger.close
    here.ledger.close = lambda *a, **k: (inner(*a, **k), stored.append(Ledger(path).answers([asked.key])))[0]  # type: ignore[method-assign]
    assert here.ask([asked], lambda _: [call]) == [b"yes"]
    assert seen == [[("sent", 9, 0)]]
    assert stored == [{asked.key: b"yes"}]
    assert attempts(path, "status, tokens_in, tokens_out, http_status, exact") == [("answered", 2, 1, 200, 1)]


@pytest.mark.parametrize("concurrent", [1, 4])
def test_the_cap_on_calls_lets_exactly_that_many_through_and_resuming_asks_only_the_rest(
    tmp_path: Path, concurrent: int
) -> None:
    path, oracle = tmp_path / "l.sqlite", Oracle()
    every = questions(30)
    asking = Asking(concurrent=concurrent, first_wait=0.01)
    with pytest.raises(CapReached, match=r"cap on calls is reached: 12 of 12[\s\S]*18 of the 30 questions") as stopped:
        oracle(desk(path, caps=Caps(calls=12), asking=asking), every)
    assert "raise `caps.calls`" in str(stopped.value)
    assert len(oracle.asked) == 12
    oracle(desk(path, caps=Caps(calls=30), asking=asking), every)
    assert len(oracle.asked) == 30 == len(set(oracle.asked))
    with pytest.raises(CapReached):  # of the whole ledger, not of a run
        oracle(desk(path, caps=Caps(calls=30)), questions(1, start=99))


def test_the_cap_on_tokens_is_never_exceeded_and_is_used_up_although_calls_reserve_more(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    oracle = Oracle(most=Usage(tokens_in=90, tokens_out=10), used=Usage(tokens_in=18, tokens_out=2))
    oracle.takes = 0.02  # four are under way together, and reserve 400
    with pytest.raises(CapReached, match="cap on tokens"):
        oracle(desk(path, caps=Caps(tokens=500)), questions(100))
    assert len(oracle.asked) == 21  # after 20 x 20 one more may take 100, after 21 none
    assert Ledger(path).spent()[:2] == (21, 420)


def test_the_cap_on_money_is_held_and_failures_that_may_have_been_charged_count(tmp_path: Path) -> None:
    path, prices = tmp_path / "l.sqlite", Prices(price_in=10.0, price_out=100.0)
    oracle = Oracle(most=Usage(tokens_in=1000, tokens_out=100), used=Usage(tokens_in=500, tokens_out=50))
    oracle.failures = [
        Failure("timeout", "late", retry=True),
        Failure("refused", "no", retry=True, http_status=500),
        Failure("unusable", "what?", retry=True, usage=Usage(tokens_in=500, tokens_out=1)),
    ]
    at = desk(path, caps=Caps(money=0.0551), prices=prices, asking=Asking(concurrent=1, first_wait=0.01))
    with pytest.raises(CapReached, match="cap on money"):
        oracle(at, questions(100))
    spent = [row[0] for row in attempts(path, "money")]
    assert spent[:3] == pytest.approx([0.02, 0.0, 0.0051])
    assert sum(spent) == pytest.approx(0.0451)  # with what the next may take it would be 0.0651
    assert Ledger(path).spent()[2] == pytest.approx(sum(spent))


def test_a_cap_on_money_without_prices_is_refused_because_it_could_not_be_held() -> None:
    with pytest.raises(RecipeError, match="prices"):
        Caps(money=1.0).check("caps", Prices())
    with pytest.raises(RecipeError, match=r"caps\.calls"):
        Caps(calls=0).check("caps", Prices())
    with pytest.raises(RecipeError, match=r"asking\.timeout"):
        Asking(timeout=float("nan")).check("asking")
    with pytest.raises(RecipeError, match="price_in"):
        Prices(price_in=-5.0)


def test_the_cap_on_seconds_stops_a_wait_that_would_outlast_it_at_once(tmp_path: Path) -> None:
    oracle = Oracle()
    oracle.failures = [Failure("refused", "busy", retry=True, http_status=429, after=50)]
    began = time.monotonic()
    with pytest.raises(CapReached, match="cap on seconds is reached: 30"):
        oracle(desk(tmp_path / "l.sqlite", caps=Caps(seconds=30)), questions(1))
    assert time.monotonic() - began < 20


def test_the_cap_on_seconds_counts_the_time_spent_asking_and_not_the_training_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, oracle = Clock(), Oracle()
    monkeypatch.setattr("tutelage.ledger.desk.time", SimpleNamespace(monotonic=clock, sleep=time.sleep))
    here = desk(tmp_path / "l.sqlite", caps=Caps(seconds=45), asking=Asking(concurrent=1))
    send = oracle.send

    def slow(some: list[Question]) -> Reply:
        clock.now += 10
        return send(some)

    oracle.send = slow  # type: ignore[method-assign]
    for start in range(4):
        oracle(here, questions(1, start))
        clock.now += 1000
    with pytest.raises(CapReached, match="cap on seconds"):
        oracle(here, questions(9, start=10))
    assert len(oracle.asked) == 5


def test_retries_are_bounded_and_only_made_where_they_can_help(tmp_path: Path) -> None:
    oracle = Oracle()
    oracle.failures = [Failure("cut", "broken", retry=True) for _ in range(9)]
    with pytest.raises(QueryFailed, match="asked 3 times: broken"):
        oracle(desk(tmp_path / "a.sqlite", asking=Asking(attempts=3, first_wait=0.01)), questions(1))
    assert len(oracle.asked) == 3
    oracle.failures = [Failure("refused", "HTTP 401", retry=False, http_status=401)]
    with pytest.raises(QueryFailed, match="asked once: HTTP 401"):
        oracle(desk(tmp_path / "b.sqlite"), questions(1))
    assert attempts(tmp_path / "b.sqlite", "status, http_status, tokens_in") == [("refused", 401, 0)]


def test_an_answer_short_of_its_questions_is_not_spread_over_them(tmp_path: Path) -> None:
    every = questions(2)
    call = Call(questions=every, send=lambda _: Reply(answers=[b"one"]))
    with pytest.raises(QueryFailed, match="1 answers to 2 questions"):
        desk(tmp_path / "l.sqlite", asking=Asking(attempts=2, first_wait=0.01)).ask(every, lambda _: [call])
    assert Ledger(tmp_path / "l.sqlite").count() == 0


def test_waits_double_are_jittered_and_end_at_the_longest() -> None:
    asking = Asking(first_wait=1.0, longest_wait=10.0)
    assert [back_off(n, asking, draw=lambda: 0.0) for n in (1, 2, 3, 4, 5, 99)] == [1, 2, 4, 8, 10, 10]
    assert back_off(3, asking, draw=lambda: 1.0) == 2.0


def test_retry_after_is_read_as_seconds_and_as_a_date() -> None:
    assert retry_after("2.5") == 2.5
    now = 1_700_000_000.0
    assert retry_after(email.utils.formatdate(now + 30, usegmt=True), now=lambda: now) == 30
    assert retry_after(email.utils.formatdate(now - 30, usegmt=True), now=lambda: now) == 0
    assert retry_after("soon") is None and retry_after(None) is None and retry_after("inf") is None
    assert retry_after("Wed, 99 Oct 999999999999 07:28:00 GMT") is None


def test_a_server_that_asks_to_wait_too_long_stops_the_run_instead_of_being_pressed(tmp_path: Path) -> None:
    oracle = Oracle()
    oracle.failures = [Failure("refused", "busy", retry=True, http_status=429, after=3600.0)]
    with pytest.raises(QueryFailed, match="asks to wait 3,600 seconds"):
        oracle(desk(tmp_path / "l.sqlite"), questions(1))
    assert len(oracle.asked) == 1


CHILD = """
import sys, time
from tutelage.ledger import *
path, log, hold = sys.argv[1], sys.argv[2], float(sys.argv[3])
every = [question({"endpoint": "here", "row": row}) for row in range(40)]
def pack(missing):
    for at in missing:
        def send(_, at=at):
            with open(log, "a") as file:
                file.write(every[at].key + "\\n")
            time.sleep(hold)
            return Reply(answers=[every[at].key.encode()])
        yield Call(questions=[every[at]], send=send)
here = Desk(Ledger(path), "here", caps=Caps(), asking=Asking(concurrent=2), prices=Prices())
assert here.ask(every, pack) == [each.key.encode() for each in every]
print("done")
"""


def child(path: Path, log: Path, hold: float) -> subprocess.Popen:
    command = [sys.executable, "-c", CHILD, str(path), str(log), str(hold)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_share_a_ledger_and_ask_nothing_twice(tmp_path: Path) -> None:
    log = tmp_path / "log"
    both = [child(tmp_path / "l.sqlite", log, 0.01) for _ in range(2)]
    for process in both:
        out, errors = process.communicate(timeout=60)
        assert out == "done\n", errors
    asked = log.read_text().split()
    assert len(asked) == 40 == len(set(asked))


def test_a_file_that_another_process_is_just_making_is_waited_for(tmp_path: Path) -> None:
    """SQLite's own waiting does not cover the switch to its write-ahead log."""
    path = tmp_path / "l.sqlite"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    later = threading.Timer(0.2, other.execute, ["COMMIT"])
    later.start()
    assert Ledger(path).count() == 0
    later.join()
    other.close()


def test_a_killed_process_loses_what_was_under_way_and_no_answer_and_blocks_nobody(tmp_path: Path) -> None:
    path, log = tmp_path / "l.sqlite", tmp_path / "log"
    process = child(path, log, 0.03)
    while not log.exists() or len(log.read_text().split()) < 11:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = len(log.read_text().split())
    stored = Ledger(path).count()
    assert 0 < stored < 40 and before - 2 <= stored <= before
    oracle = Oracle()
    oracle(desk(path), questions(40))
    assert len(oracle.asked) == 40 - stored
    statuses = [status for (status,) in attempts(path)]
    assert statuses.count("answered") == 40
    assert before - stored <= statuses.count("lost") <= 2  # of its two threads one may have booked and not yet begun


def test_an_owner_is_dead_once_its_process_is_or_its_number_is_another_process() -> None:
    owner = new_owner()
    pid, began, rest = owner.split(":")
    assert is_alive(owner)
    assert not is_alive(f"{pid}:{int(began) + 1}:{rest}")
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    assert not is_alive(f"{process.pid}:1:0")


def test_calls_under_way_end_and_are_stored_when_another_fails(tmp_path: Path) -> None:
    path, every = tmp_path / "l.sqlite", questions(3)
    begun = threading.Event()

    def slow(_: float) -> Reply:
        begun.set()
        time.sleep(0.2)
        return Reply(answers=[b"late"])

    def fails(_: float) -> Reply:
        begun.wait(5)
        raise Failure("refused", "HTTP 400", retry=False, http_status=400)

    calls = [Call(questions=[every[0]], send=slow), Call(questions=[every[1]], send=fails)]
    calls.append(Call(questions=[every[2]], send=slow))
    with pytest.raises(QueryFailed, match="HTTP 400"):
        desk(path, asking=Asking(concurrent=2, first_wait=0.01)).ask(every, lambda _: calls)
    assert set(Ledger(path).answers(each.key for each in every)) == {every[0].key}


def test_a_file_that_is_no_ledger_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("my notes, which are longer than a header of SQLite would be " * 3)
    other = tmp_path / "other.sqlite"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE mine (x)")
    connection.close()
    for path in (text, other):
        content = path.read_bytes()
        with pytest.raises(DataError, match=path.name):
            Ledger(path)
        assert path.read_bytes() == content or path is other
    assert sqlite3.connect(other).execute("SELECT name FROM sqlite_master").fetchall() == [("mine",)]


def test_the_command_prints_what_was_spent_by_status_with_percentiles_of_latency(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "l.sqlite"
    ledger, prices = Ledger(path), Prices(price_in=1.0, price_out=2.0)
    terms = {"most": Usage(tokens_in=100, tokens_out=100), "prices": prices, "caps": Caps(), "asking": QUICK}
    for number in range(1, 101):
        asked = question({"row": number % 50}, sample=number // 50)
        attempt = ledger.book([asked], "here", new_owner(), **terms)
        used = Usage(tokens_in=10, tokens_out=5)
        answer = b"a" if number % 50 != 7 else str(number).encode()
        ledger.close(attempt, "answered", usage=used, prices=prices, latency=number / 1000, answers=[(asked, answer)])
    ledger.book([question({"row": 999})], "here", f"{os.getpid()}:0:0", **terms)
    assert main(["ledger", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "50 ms / 95 ms / 99 ms" in shown
    assert "1,000" in shown and "101 calls, 1,700 tokens" in shown
    assert "agree in 98.0%" in shown
    assert main(["ledger", str(tmp_path / "none")]) == 2


def test_money_is_not_said_to_be_nothing_where_no_price_is_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "l.sqlite"
    Oracle()(desk(path), questions(3))
    assert main(["ledger", str(path)]) == 0
    assert "3 calls, 0 tokens, money not known, 3 answers" in capsys.readouterr().out
    Oracle()(desk(path, prices=Prices(price_call=0.5)), questions(5))
    assert main(["ledger", str(path)]) == 0
    assert "5 calls, 0 tokens, 1 in money (3 calls without a price not counted), 5 an" in capsys.readouterr().out
