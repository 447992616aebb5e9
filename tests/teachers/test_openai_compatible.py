"""A chat model behind an OpenAI-compatible endpoint, asked at a real server."""

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

from local_server import NAMES, letter_model, serving

import tutelage as tt
from tutelage.errors import CapReached, ModelError, QueryFailed, RecipeError, SignalError
from tutelage.ledger import Asking, Caps, Ledger
from tutelage.signals import Batch, Request
from tutelage.teachers import OpenAICompatible

CPU = torch.device("cpu")
OUTPUT = Request(output=True)
QUICK = Asking(concurrent=3, attempts=3, first_wait=0.01, longest_wait=1.0, timeout=10)
TEXTS = ["aardvark", "banana bread", "zebra crossing", "quick brown fox", "lorem ipsum", "jazz", "{title}", "eel"]


def rows(count: int = len(TEXTS)) -> Batch:
    numbers = torch.arange(count)
    raw = {"title": np.array(TEXTS[:count], dtype=object)}
    inputs = torch.zeros(count, 1)
    return Batch(inputs=inputs, rows=numbers, views=torch.zeros_like(numbers), raw=lambda: raw)


def teacher(url: str, folder: Path, **settings: Any) -> OpenAICompatible:
    arguments = {"classes_in_order": list(NAMES), "asking": QUICK} | settings
    prompt = arguments.pop("prompt", "Title: {title}")
    made = OpenAICompatible(f"{url}/v1", "tiny", prompt, ledger=str(folder / "l.sqlite"), **arguments)
    made.load(CPU)
    return made


def shares(text: str) -> np.ndarray:
    return np.exp(letter_model(f"Title: {text}"))


def attempts(folder: Path) -> list[tuple]:
    connection = sqlite3.connect(folder / "l.sqlite")
    try:
        return connection.execute("SELECT status, tokens_in, tokens_out, money, exact FROM attempts").fetchall()
    finally:
        connection.close()


def test_log_probabilities_of_the_letters_are_the_classes_probabilities(tmp_path: Path) -> None:
    """Two tokens of one letter are added, and what is no letter is set aside."""
    with serving() as server:
        asked = teacher(server.url, tmp_path)
        top = asked.ask(rows(), OUTPUT).top
        found = top.dense().exp().numpy()
        np.testing.assert_allclose(found, [shares(text) for text in TEXTS], rtol=1e-5)
        assert asked.notes == [
            "tiny tells the 5 likeliest tokens: the best loss on them is KLDivergence(temperature=1)"
        ]
        path, body = server.posts()[-1]
        assert path == "/v1/chat/completions" and body["logprobs"] is True and body["max_tokens"] == 1
        assert "A: cat\nB: dog\nC: bird" in body["messages"][0]["content"]


def test_classes_that_are_not_among_the_tokens_told_have_what_is_missing_to_one(tmp_path: Path) -> None:
    with serving(logprobs=2) as server:
        with pytest.raises(ModelError, match="tells none"):
            teacher(server.url, tmp_path, answer="logprobs")  # 20 and 5 are refused, and 2 is not guessed
        top = teacher(server.url, tmp_path, top_logprobs=2).ask(rows(), OUTPUT).top
    for text, found in zip(TEXTS, top.dense().exp().numpy(), strict=True):
        p = shares(text) * 0.9
        told = sorted(
            [("A", 0.8 * p[0]), ("A", 0.2 * p[0]), ("B", p[1]), ("C", p[2]), ("The", 0.1)], key=lambda x: -x[1]
        )
        other = sum(share for token, share in told[:2] if token == "The")
        named = [sum(s for t, s in told[:2] if t == letter) / (1 - other) for letter in "ABC"]
        expected = [n or (1 - sum(named)) / named.count(0) for n in named]
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("schema", [True, False])
def test_without_log_probabilities_labels_are_asked_for_by_a_schema_where_there_is_one(
    tmp_path: Path, schema: bool
) -> None:
    with serving(logprobs=0, schema=schema) as server:
        asked = teacher(server.url, tmp_path)
        top = asked.ask(rows(), OUTPUT).top
        assert top.indices[:, 0].tolist() == [int(shares(text).argmax()) for text in TEXTS]
        assert top.dense().exp().max(1).values.tolist() == [1.0] * len(TEXTS)
        _, body = server.posts()[-1]
        assert ("response_format" in body) == schema
        if schema:
            assert body["response_format"]["json_schema"]["schema"]["properties"]["label"]["enum"] == list(NAMES)
        (note,) = asked.notes
        assert ("by a JSON schema" in note) == schema and "SoftCrossEntropy(temperature=1)" in note


def test_what_is_no_class_is_asked_again_and_never_guessed_from(tmp_path: Path) -> None:
    with serving(logprobs=0, schema=False) as server:
        asking = Asking(concurrent=1, attempts=4, first_wait=0.01)
        asked = teacher(server.url, tmp_path, asking=asking, temperature=0.5)
        server.words = ["It is a cat.", '{"label": "horse"}', '{"label": "cat"} or {"label": "bird"}', " bird\n"]
        top = asked.ask(rows(1), OUTPUT).top
        assert top.indices.tolist() == [[2]]
        server.words = ["A feline"] * 9
        with pytest.raises(QueryFailed, match="asked 4 times: an answer that is none of the classes: 'A feline'"):
            asked.ask(rows(2), OUTPUT)
    assert [row[0] for row in attempts(tmp_path)].count("unusable") == 7


def test_missing_log_probabilities_wrong_json_and_faults_cost_a_retry_each(tmp_path: Path) -> None:
    with serving() as server:
        asked = teacher(server.url, tmp_path, asking=Asking(concurrent=2, first_wait=0.01, timeout=1.0))
        probes = len(server.posts())
        server.faults = ["no logprobs", "garbage", (429, {"Retry-After": "0.1"}), 500, "hang", "cut"]
        top = asked.ask(rows(), OUTPUT).top
        np.testing.assert_allclose(top.dense().exp(), [shares(text) for text in TEXTS], rtol=1e-5)
        assert len(server.posts()) == probes + len(TEXTS) + 6


def test_two_classes_of_one_name_are_refused_before_the_endpoint_is_asked(tmp_path: Path) -> None:
    with serving() as server, pytest.raises(RecipeError, match="classes_in_order"):
        teacher(server.url, tmp_path, classes_in_order=["cat", "dog", "cat"])
    assert not server.posts()


def test_answers_that_are_json_and_yet_nonsense_are_asked_again_and_not_stored(tmp_path: Path) -> None:
    with serving() as server:
        asked = teacher(server.url, tmp_path, asking=Asking(concurrent=1, first_wait=0.01))
        probes = len(server.posts())
        server.faults = [float("nan"), "list", 1e4, "debt"]
        top = asked.ask(rows(), OUTPUT).top
        np.testing.assert_allclose(top.dense().exp(), [shares(text) for text in TEXTS], rtol=1e-5)
        assert len(server.posts()) == probes + len(TEXTS) + 3  # that an endpoint miscounts spoils no answer
    assert all(row[1] >= 0 for row in attempts(tmp_path))


def test_repeated_samples_give_shares_and_each_sample_is_a_question_of_its_own(tmp_path: Path) -> None:
    with serving(logprobs=0) as server:
        settings = {"samples": 40, "temperature": 1.0, "asking": Asking(concurrent=8)}
        asked = teacher(server.url, tmp_path, **settings)
        probes = len(server.posts())
        found = asked.ask(rows(2), OUTPUT).top.dense().exp().numpy()
        assert len(server.posts()) == probes + 80
        np.testing.assert_allclose(found * 40, np.round(found * 40), atol=1e-4)
        for text, row in zip(TEXTS, found, strict=False):
            p = shares(text)
            assert np.abs(row - p).max() < 4 * np.sqrt(p * (1 - p) / 40).max() + 0.01
        assert "shares of 40 samples" in asked.notes[0]
        again = teacher(server.url, tmp_path, **settings).ask(rows(2), OUTPUT).top.dense().exp().numpy()
        assert len(server.posts()) == probes + 80
        np.testing.assert_array_equal(again, found)
        with pytest.raises(RecipeError, match="temperature above 0"):
            teacher(server.url, tmp_path, samples=3)


def test_money_is_what_the_endpoint_counted_at_the_prices_of_the_recipe_and_its_cap_holds(tmp_path: Path) -> None:
    with serving() as server:
        prices = {"price_in": 1000.0, "price_out": 5000.0, "asking": Asking(concurrent=1)}
        with pytest.raises(CapReached, match="cap on money") as stopped:
            teacher(server.url, tmp_path, caps=Caps(money=0.6), **prices).ask(rows(), OUTPUT)
        calls = len(server.posts())
        assert sum(row[3] for row in attempts(tmp_path)) == pytest.approx(calls * (50 * 1e-3 + 2 * 5e-3))
        assert "in money" in str(stopped.value)
        teacher(server.url, tmp_path, caps=Caps(money=99.0), **prices).ask(rows(), OUTPUT)
        assert len(server.posts()) == 1 + len(TEXTS)  # the probe is not made again
        requests = len(server.seen)
        url = server.url
        third = teacher(url, tmp_path)
    third.ask(rows(), OUTPUT)
    assert len(server.seen) == requests
    assert third.fingerprint() == teacher(url, tmp_path).fingerprint()


def test_the_most_that_a_call_can_use_is_reserved_before_it_is_sent(tmp_path: Path) -> None:
    """A cap that trusts the prompt to be short would be exceeded by the answer."""
    with serving() as server:
        with pytest.raises(CapReached, match="cap on tokens"):
            teacher(server.url, tmp_path, caps=Caps(tokens=100))
        assert not server.posts()


def test_another_model_behind_the_same_name_is_not_mixed_with_the_first(tmp_path: Path) -> None:
    with serving() as server:
        asked = teacher(server.url, tmp_path)
        inner = server.complete
        server.complete = lambda body, number: (200, inner(body, number)[1] | {"model": "tiny-2"})
        with pytest.raises(QueryFailed, match="asked once: answered by the model 'tiny-2'"):
            asked.ask(rows(1), OUTPUT)


def test_the_key_and_the_texts_stand_in_no_file_and_no_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "sk-very-secret-0123456789")
    with serving() as server:
        asked = teacher(server.url, tmp_path, key_variable="A_KEY")
        server.faults = [403]
        with pytest.raises(QueryFailed, match=r"\[key\]") as refused:
            asked.ask(rows(), OUTPUT)
        asked.ask(rows(), OUTPUT)
        assert {headers["Authorization"] for _, _, headers, _ in server.seen} == {"Bearer sk-very-secret-0123456789"}
    Ledger(tmp_path / "l.sqlite").disconnect()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert b"secret" not in path.read_bytes() and b"aardvark" not in path.read_bytes(), path
    assert "secret" not in str(refused.value)


def test_a_wrong_key_at_the_probe_is_the_users_to_mend_and_is_not_taken_for_a_missing_feature(tmp_path: Path) -> None:
    with serving(faults=[401]) as server, pytest.raises(ModelError, match=r"HTTP 401[\s\S]*key_variable"):
        teacher(server.url, tmp_path)


@pytest.mark.parametrize("prompt", ["Title: {titel}", "What is it?"])
def test_a_prompt_that_does_not_fit_the_data_is_refused_before_a_row_is_asked(tmp_path: Path, prompt: str) -> None:
    with serving() as server:
        asked = teacher(server.url, tmp_path, prompt=prompt)
        requests = len(server.seen)
        with pytest.raises(ModelError, match=r"\{title\}"):
            asked.ask(rows(), OUTPUT)
        assert len(server.seen) == requests


def test_settings_reach_the_server_and_make_another_question(tmp_path: Path) -> None:
    with serving() as server:
        teacher(server.url, tmp_path).ask(rows(1), OUTPUT)
        asked = teacher(server.url, tmp_path, settings={"seed": 5, "temperature": None})
        before = len(server.posts())
        asked.ask(rows(1), OUTPUT)
        assert len(server.posts()) == before + 1
        _, body = server.posts()[-1]
        assert body["seed"] == 5 and "temperature" not in body
        assert json.dumps(body["messages"][1]) == '{"role": "user", "content": "Title: aardvark"}'


def test_the_plan_proposes_the_best_loss_and_refuses_a_temperature_that_the_answers_do_not_have(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(60, 3)).round(2).astype(np.float32)
    with serving() as server:

        def plan(loss: tt.losses.Loss) -> list[str]:
            recipe = tt.Recipe(
                name="chat",
                task="classification",
                data=tt.Data(source=tt.Arrays(x, (x[:, 0] > 0).astype(np.int64) + (x[:, 1] > 0), classes=NAMES)),
                teacher=OpenAICompatible(f"{server.url}/v1", "tiny", "Numbers: {inputs}", ledger=str(tmp_path / "l")),
                licences={"teacher": tt.Licence(use="allowed", basis="a server of this test", date="2026-01-31")},
                student=tt.ModuleStudent(lambda: torch.nn.Linear(3, 3)),
                losses=[loss],
                training=tt.Training(steps=3, batch_size=8),
                export=tt.Export(onnx=False),
            )
            return tt.make_plan(recipe).notes

        assert any("teacher: tiny tells the 5 likeliest tokens" in note for note in plan(tt.losses.KLDivergence(1.0)))
        with pytest.raises(SignalError, match=r"losses\[0\][\s\S]*temperature 4"):
            plan(tt.losses.KLDivergence(4.0))
