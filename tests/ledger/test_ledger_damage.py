"""A ledger that is not as it was written is found before any of it is used or anything more is paid for."""

from __future__ import annotations

import random
import shutil
import sqlite3
from pathlib import Path

import pytest
from ledger_case import FREE, Oracle, desk, questions

from tutelage.errors import DataError
from tutelage.ledger import Ledger, Prices, Usage


def filled(path: Path) -> list[str]:
    """A ledger with some answers and canary rows, in one file, without a write-ahead log beside it."""
    every = questions(40)
    at = desk(path, prices=Prices(price_call=0.25))
    Oracle(most=Usage(tokens_in=7, tokens_out=3), used=Usage(tokens_in=5, tokens_out=2))(at, every)
    at.ledger.keep_rows("model", [b"first row", b"second row"], 2)
    at.ledger.disconnect()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return [each.key for each in every]


def what_is_used(path: Path, keys: list[str]) -> object:
    """All that a run takes of a ledger."""
    ledger = Ledger(path)
    try:
        return ledger.answers(keys), ledger.spent(), ledger.kept_rows("model"), ledger.count()
    finally:
        ledger.disconnect()


def test_of_200_flipped_bits_each_is_found_and_named_or_without_effect(tmp_path: Path) -> None:
    whole = tmp_path / "whole.sqlite"
    keys = filled(whole)
    expected, data = what_is_used(whole, keys), whole.read_bytes()
    draw, found = random.Random(43), 0
    flipped = tmp_path / "flipped.sqlite"
    places = [at for at, byte in enumerate(data) if byte]  # free space is mostly zeros: flips there say nothing
    for at in draw.sample(places, 200):
        for old in tmp_path.glob("flipped*"):
            old.unlink()
        spoilt = bytearray(data)
        spoilt[at] ^= 1 << draw.randrange(8)
        flipped.write_bytes(spoilt)
        try:
            assert what_is_used(flipped, keys) == expected, at
        except DataError as error:
            assert "flipped.sqlite" in str(error)
            found += 1
    assert found > 50


@pytest.mark.parametrize(
    ("change", "told"),
    {
        "answer": ("UPDATE answers SET answer = 'another' WHERE question = ?", "1 answers that are not"),
        "exchanged": ("UPDATE answers SET answer = (SELECT max(answer) FROM answers) WHERE question = ?", "1 answers"),
        "gone": ("DELETE FROM answers WHERE question = ?", "1 answers"),
        "spent": ("UPDATE spent SET money = 0 WHERE ? != ''", "in sum"),
        "attempt": ("DELETE FROM attempts WHERE id = 3 AND ? != ''", "in sum"),
        "canary": ("UPDATE canary SET content = 'other' WHERE ? != ''", "row of the canary"),
    }.values(),
)
def test_a_ledger_that_was_edited_is_refused(change: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    keys = filled(path)
    smallest = min(keys, key=lambda key: key)
    with sqlite3.connect(path) as connection:
        connection.execute(change, (smallest,))
    connection.close()
    with pytest.raises(DataError, match=told):
        what_is_used(path, keys)


def test_damaged_answers_alone_are_asked_again_once_the_user_says_so(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    keys = filled(path)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE answers SET answer = 'another' WHERE question IN (?, ?)", keys[:2])
    connection.close()
    assert Ledger(path).ask_again() == 2
    oracle = Oracle()
    answers = oracle(desk(path, prices=FREE), questions(40))
    assert sorted(oracle.asked) == sorted(keys[:2]) and answers == [key.encode() for key in keys]


def test_a_ledger_of_a_version_that_stored_no_digests_is_read_as_it_is(tmp_path: Path) -> None:
    path, old = tmp_path / "l.sqlite", tmp_path / "old.sqlite"
    keys = filled(path)
    expected = what_is_used(path, keys)
    shutil.copy(path, old)
    with sqlite3.connect(old) as connection:
        connection.execute("DROP TABLE digests")
    connection.close()
    assert what_is_used(old, keys) == expected
