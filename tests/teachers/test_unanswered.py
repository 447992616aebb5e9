"""Texts to which a chat model gives no usable answer: what that costs, what it stops, and what it teaches."""

from __future__ import annotations

import json
import sqlite3
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "ledger"))
sys.path.insert(0, str(Path(__file__).parents[1] / "cache"))

from cached_case import fill
from local_server import NAMES, LocalServer, letter_model, serving

from tutelage.cache import Keys, names_of
from tutelage.cli import main
from tutelage.errors import QueryFailed, RecipeError
from tutelage.ledger import Asking, Ledger
from tutelage.signals import Batch, Request, Signals
from tutelage.teachers import Cached, Ensemble, ModuleTeacher, OpenAICompatible, TransferFacts

CPU = torch.device("cpu")
OUTPUT = Request(output=True)
QUICK = Asking(concurrent=3, attempts=3, first_wait=0.01, longest_wait=1.0, timeout=10)
TEXTS = ["aardvark", "banana bread", "zebra crossing", "quick brown fox", "lorem ipsum", "jazz", "vole", "eel"]


def rows(numbers: list[int]) -> Batch:
    at = torch.tensor(numbers)
    raw = {"title": np.array([TEXTS[number] for number in numbers], dtype=object)}
    return Batch(inputs=torch.zeros(len(at), 1), rows=at, views=torch.zeros_like(at), raw=lambda: raw)


EVERY = rows(list(range(len(TEXTS))))


def facts(count: int = len(TEXTS), asked: int | None = None) -> TransferFacts:
    return TransferFacts(inputs="a" * 64, rows=count, classes=NAMES, labelled=lambda: rows([0]), asked=asked)


def teacher(url: str, folder: Path, told: TransferFacts | None = None, **settings: Any) -> OpenAICompatible:
    arguments = {"classes_in_order": list(NAMES), "asking": QUICK} | settings
    made = OpenAICompatible(f"{url}/v1", "tiny", "Title: {title}", ledger=str(folder / "l.sqlite"), **arguments)
    made.load(CPU)
    if told is not None:
        made.meet(told)
    return made


def filtered(server: LocalServer, words: list[str], how: str = "400") -> None:
    """Has the server give no usable answer to texts with one of the words."""
    inner = type(server).complete.__get__(server)

    def complete(body: dict[str, Any], number: int) -> tuple[int, dict[str, Any]]:
        if not any(word in body["messages"][-1]["content"] for word in words):
            return inner(body, number)
        if how.isdigit():
            return int(how), {"error": {"message": "the content filter", "code": "content_filter"}}
        said = {"null": None, "prose": "I'd say a cat."}[how]
        choice = {"message": {"content": said, "refusal": None}, "finish_reason": "content_filter"}
        usage = {"prompt_tokens": 50, "completion_tokens": 2}
        return 200, {"model": "tiny", "choices": [choice], "usage": usage}

    server.complete = complete  # type: ignore[method-assign]


def asked_about(server: LocalServer, word: str) -> int:
    return sum(word in body["messages"][-1]["content"] for _, body in server.posts())


@pytest.mark.parametrize(("how", "attempts"), [("400", 1), ("null", 3), ("prose", 3)])
@pytest.mark.parametrize("logprobs", [20, 0])
def test_one_bad_text_is_given_up_and_the_others_are_answered(
    tmp_path: Path, how: str, attempts: int, logprobs: int
) -> None:
    with serving(logprobs=logprobs) as server:
        filtered(server, ["jazz"], how)
        top = teacher(server.url, tmp_path, unanswered=0.13).ask(EVERY, OUTPUT).top
        assert top.silent.tolist() == [text == "jazz" for text in TEXTS]
        # At temperature 0 the same label would be read, or not, in the same words.
        assert asked_about(server, "jazz") == (1 if how == "prose" and not logprobs else attempts)
        shares = np.exp([letter_model(f"Title: {text}") for text in TEXTS])
        kept = ~top.silent
        assert top.dense()[kept].argmax(1).tolist() == shares[kept.numpy()].argmax(1).tolist()
        with pytest.raises(
            QueryFailed, match=r"asked (once|3 times): |0 may have none"
        ):  # as it is without the setting
            teacher(server.url, tmp_path).ask(EVERY, OUTPUT)


def test_what_was_given_up_is_asked_again_when_that_is_wanted_and_not_at_each_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = str(tmp_path / "l.sqlite")
    with serving() as server:
        filtered(server, ["jazz"])
        teacher(server.url, tmp_path, unanswered=0.2).ask(EVERY, OUTPUT)
        calls = len(server.posts())
        again = teacher(server.url, tmp_path, unanswered=0.2).ask(EVERY, OUTPUT).top
        assert len(server.posts()) == calls and again.silent.sum() == 1
        assert main(["ledger", ledger]) == 0
        assert "given up: 1 questions" in (shown := capsys.readouterr().out)
        assert "1 x HTTP 400" in shown and "the content filter" in shown
        assert main(["ledger", ledger, "--ask-again"]) == 0
        assert "to be asked again: 1 questions" in capsys.readouterr().out
        filtered(server, [])
        assert not teacher(server.url, tmp_path, unanswered=0.2).ask(EVERY, OUTPUT).top.silent.any()
        assert len(server.posts()) == calls + 1
        assert main(["ledger", ledger]) == 0
        assert "given up" not in capsys.readouterr().out


def test_a_run_that_needs_every_answer_asks_again_what_another_gave_up(tmp_path: Path) -> None:
    with serving() as server:
        filtered(server, ["jazz"])
        teacher(server.url, tmp_path, unanswered=0.2).ask(EVERY, OUTPUT)
        filtered(server, [])
        assert not teacher(server.url, tmp_path).ask(EVERY, OUTPUT).top.silent.any()
        assert asked_about(server, "jazz") == 2
        assert not Ledger(tmp_path / "l.sqlite").ask_again()


def test_more_bad_texts_than_allowed_stop_the_run_and_are_asked_again_by_the_next(tmp_path: Path) -> None:
    """A prompt that no answer fits would else be remembered as texts that have none."""
    with serving() as server:
        filtered(server, ["jazz", "eel", "vole"])
        with pytest.raises(QueryFailed, match=r"3 questions have no usable answer, 2 may have none \(`unanswered`\)"):
            teacher(server.url, tmp_path, unanswered=0.25).ask(EVERY, OUTPUT)
        filtered(server, ["jazz"])
        assert teacher(server.url, tmp_path, unanswered=0.25).ask(EVERY, OUTPUT).top.silent.sum() == 1


def test_the_share_is_that_of_all_rows_of_the_run_and_counts_over_its_batches(tmp_path: Path) -> None:
    with serving() as server:
        filtered(server, ["jazz", "eel"])
        asked = teacher(server.url, tmp_path, facts(), unanswered=0.125)
        assert asked.ask(rows([5, 0]), OUTPUT).top.silent.tolist() == [True, False]  # one of two, but one of eight
        assert asked.ask(rows([5, 5]), OUTPUT).top.silent.all()  # the same one
        with pytest.raises(QueryFailed, match="2 questions have no usable answer, 1 may"):
            asked.ask(rows([6, 7]), OUTPUT)
        resumed = teacher(server.url, tmp_path, facts(), unanswered=0.125)
        resumed.ask(rows([5]), OUTPUT)
        with pytest.raises(QueryFailed, match="2 questions have no usable answer, 1 may"):
            resumed.ask(rows([7]), OUTPUT)  # what was given up by the run before counts
        few = teacher(server.url, tmp_path, facts(1000, asked=8), unanswered=0.125)
        few.ask(rows([5]), OUTPUT)
        with pytest.raises(QueryFailed):  # of those it is asked about, not of those that lie there
            few.ask(rows([7]), OUTPUT)


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_what_is_the_endpoints_fault_is_never_put_down_to_the_text(tmp_path: Path, status: int) -> None:
    with serving() as server:
        asked = teacher(server.url, tmp_path, unanswered=0.9)
        filtered(server, ["jazz"], str(status))
        with pytest.raises(QueryFailed, match=f"HTTP {status}"):
            asked.ask(EVERY, OUTPUT)
    connection = sqlite3.connect(tmp_path / "l.sqlite")
    assert connection.execute("SELECT count(*) FROM given_up").fetchall() == [(0,)]
    connection.close()


def test_a_model_that_is_not_the_one_expected_is_not_put_down_to_the_text_either(tmp_path: Path) -> None:
    with serving() as server:
        asked = teacher(server.url, tmp_path, unanswered=0.9)
        inner = server.complete

        def complete(body: dict[str, Any], number: int) -> tuple[int, dict[str, Any]]:
            other = "jazz" in body["messages"][-1]["content"]
            return 200, inner(body, number)[1] | ({"model": "other"} if other else {})

        server.complete = complete  # type: ignore[method-assign]
        with pytest.raises(QueryFailed, match="asked once: answered by the model 'other'"):
            asked.ask(EVERY, OUTPUT)


def test_of_several_samples_those_that_were_answered_count(tmp_path: Path) -> None:
    settings = {"samples": 4, "temperature": 1.0, "asking": Asking(concurrent=1, attempts=1, first_wait=0.01)}
    with serving(logprobs=0) as server:
        asked = teacher(server.url, tmp_path, facts(), unanswered=0.25, **settings)
        said = [json.dumps({"label": "dog"}), json.dumps({"label": "cat"}), "what?", json.dumps({"label": "dog"})]
        server.words = list(said)
        top = asked.ask(rows([0]), OUTPUT).top
        torch.testing.assert_close(top.dense().exp()[0], torch.tensor([1 / 3, 2 / 3, 0.0]))
        server.words = ["what?"] * 4
        assert asked.ask(rows([1]), OUTPUT).top.silent.tolist() == [True]


def test_stored_answers_keep_silent_rows_silent(tmp_path: Path) -> None:
    with serving(logprobs=0) as server:
        filtered(server, ["jazz"])
        inner = teacher(server.url, tmp_path, unanswered=0.2)
        stored = Cached(inner, str(tmp_path / "answers"), shard_rows=3)
        stored.load(CPU)
        stored.meet(facts())
        keys = Keys(np.arange(len(TEXTS)), np.zeros(len(TEXTS), dtype=np.int64), names_of(OUTPUT))
        fill(stored, [keys], batch=lambda at, _: rows(at.tolist()))
        top = stored.ask(EVERY, OUTPUT).top
    assert top.silent.tolist() == [text == "jazz" for text in TEXTS]


def test_an_ensemble_says_nothing_where_one_of_its_members_is_silent(tmp_path: Path) -> None:
    with serving() as server:
        filtered(server, ["jazz"])
        chat = teacher(server.url, tmp_path, unanswered=0.2)
        both = Ensemble([chat, ModuleTeacher(lambda: torch.nn.Linear(1, 3))])
        both.load(CPU)
        top = both.ask(EVERY, OUTPUT).top
        assert top.silent.tolist() == [text == "jazz" for text in TEXTS]
        assert Signals(top=top).dense().isfinite().all()


def test_a_share_that_is_none_is_refused(tmp_path: Path) -> None:
    with serving() as server, pytest.raises(RecipeError, match="unanswered"):
        teacher(server.url, tmp_path, unanswered=1.0)
