"""Chat answers in the forms that models give them: each is read as the class that it names, or refused."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "ledger"))

from local_server import NAMES, serving
from test_unanswered import QUICK, TEXTS, rows

from tutelage.cli import main
from tutelage.errors import QueryFailed
from tutelage.ledger import Ledger
from tutelage.signals import Request
from tutelage.teachers import OpenAICompatible, chat
from tutelage.teachers.chat_labels import label_in

OUTPUT = Request(output=True)
CLASSES = ("spam", "not spam", "Spam Risk", "c", "c++", "3", "Straße")

NAMED = {
    "bare": "{}",
    "quoted": '"{}"',
    "curly": "“{}”",
    "bold": "**{}**",
    "code": "`{}`",
    "full stop": "{}.",
    "label": "Label: {}",
    "answer": "Answer: {}.",
    "bold label": "**Label:** {}",
    "label in bold": "**Final answer: {}**",
    "the class is": "The class is {}",
    "json": '{{"label": "{}"}}',
    "json of another key": '{{"class": "{}"}}',
    "json of any one key": '{{"sentiment": "{}"}}',
    "json with a reason": '{{"why": "it {{says}} so", "label": "{}", "confidence": 0.9}}',
    "json of a list": '{{"label": ["{}"]}}',
    "python": "{{'label': '{}'}}",
}
AROUND = {
    "alone": "{}",
    "blank lines": "\n\n  {} \r\n",
    "fence": "```json\n{}\n```",
    "plain fence": "```\n{}\n```",
    "fence on one line": "```{}```",
    "thinking": "<think>\nspam? not spam? Label: c\n</think>\n\n{}",
    "thinking without its beginning": "Is it spam? Label: c\n</think>\n{}",
    "thinking afterwards": "{}\n<think>Label: c</think>",
    "two thoughts": "<thinking>a</thinking><Reasoning>Label: 3</Reasoning>\n{}",
    "thinking and fence": "<think>\n```json\n{{\"label\": \"c\"}}\n```</think>\n```json\n{}\n```",
    "final channel": "<|channel|>analysis<|message|>Label: c<|end|><|channel|>final<|message|>{}",
}  # fmt: skip
CASES = {"as it is": str, "upper": str.upper, "lower": str.lower, "spaces": lambda text: text.replace(" ", "  ")}


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("named", NAMED)
def test_a_class_is_read_in_each_form_that_models_give_it(named: str, around: str) -> None:
    """Catches a label that is a part of another one, and one that is only thought of."""
    for (number, name), change in itertools.product(enumerate(CLASSES), CASES.values()):
        text = AROUND[around].format(NAMED[named].format(change(name)))
        assert label_in(text, CLASSES) == number, text


@pytest.mark.parametrize(
    "form", ["{}", "```json\n{}\n```", "Sure! Here is my answer:\n```json\n{}\n```\nAsk me more.", "I see {}. Bye."]
)
def test_json_is_found_in_the_text_around_it(form: str) -> None:
    assert label_in(form.format('{"label": "spam"}'), CLASSES) == 0
    assert label_in(form.format('{\n  "label": "not_spam"\n}'), CLASSES) == 1
    assert label_in(form.format('{"label": 3}'), CLASSES) == 5


NOTHING = [
    "", "  ", "ham", "It is spam.", "It is not spam, I think", "spam or not spam", "spam, not spam", "probably spam",
    "not  a spam", "no spam", "spammer", "cc", "c#", '{"label": "ham"}', '{"label": null}', '{"label": true}',
    '{"label": ["spam", "c"]}', '{"spam": 0.9, "c": 0.1}', '{"label": "spam"} or {"label": "c"}', '{"label": "spam',
    "Label: spam\nLabel: c", 'Label: c\n{"label": "spam"}', '{"label": "spam"}\n```json\n{"label": "c"}\n```',
    "<think>Label: spam", "<think>It is spam</think>", "```json\n```", "Label:", "Label: spam, I guess",
    '{"label": "spam"} {"label": "ham"}', "The answer is hard: spam", "A", "{}", "[]", "0",
]  # fmt: skip


@pytest.mark.parametrize("text", NOTHING)
def test_what_names_no_class_or_several_is_not_guessed_at(text: str) -> None:
    with pytest.raises(ValueError, match="an answer that"):
        label_in(text, CLASSES)


def test_classes_that_differ_in_case_alone_are_told_apart_or_not_at_all() -> None:
    classes = ("US", "us", "them")
    assert [label_in(text, classes) for text in ("US", "us", '{"label": "us"}', "Them")] == [0, 1, 1, 2]
    with pytest.raises(ValueError, match="none of the classes"):
        label_in("Us", classes)
    assert label_in("yes.", ("yes.", "yes")) == 0 and label_in("yes", ("yes.", "yes")) == 1


def test_of_an_answer_that_was_cut_off_only_whole_json_counts() -> None:
    for text in ("spam", "Label: spam", '{"label": "spam'):
        with pytest.raises(ValueError, match="none of the classes"):
            label_in(text, CLASSES, cut=True)
    assert label_in('{"label": "spam"} for it', CLASSES, cut=True) == 0
    for ended, read in (("length", {"unread", "ended", "why"}), ("stop", {"label"}), (None, {"label"})):
        assert set(chat.read_label({"unread": "spam", "ended": ended}, CLASSES)) == read


# What can't be read, and what it costs.


def teacher(url: str, folder: Path, **settings: Any) -> OpenAICompatible:
    arguments = {"classes_in_order": list(NAMES), "asking": QUICK} | settings
    made = OpenAICompatible(f"{url}/v1", "tiny", "Title: {title}", ledger=str(folder / "l.sqlite"), **arguments)
    made.load(torch.device("cpu"))
    return made


@pytest.mark.parametrize("form", ["```json\n{}\n```", "<think>\nLet me see: {}\n</think>\n\n{}"])
def test_an_endpoint_whose_model_wraps_its_json_is_asked_once_a_row(tmp_path: Path, form: str) -> None:
    with serving(logprobs=0, schema=False) as server:
        asked = teacher(server.url, tmp_path)
        plain = asked.ask(rows([0, 1, 2]), OUTPUT).top
        assert plain is not None
        (tmp_path / "again").mkdir()
        again = teacher(server.url, tmp_path / "again")
        said = [json.dumps({"label": NAMES[int(number)]}) for number in plain.indices[:, 0]]
        before = len(server.posts())
        server.words = [form.replace("{}", each) for each in said]
        for row in range(3):
            top = again.ask(rows([row]), OUTPUT).top
            assert top is not None and top.indices[0, 0] == plain.indices[row, 0]
        assert len(server.posts()) == before + 3


def test_an_answer_that_cannot_be_read_is_kept_and_not_paid_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Catches the advice to run the same command again, and six calls for one answer."""
    told = r"none of the classes: 'A feline\.'(.|\n)*asked: +\d calls(.|\n)*1 answers(.|\n)*--ask-again"
    ledger = tmp_path / "l.sqlite"
    with serving(logprobs=0, schema=False) as server:
        asked = teacher(server.url, tmp_path)
        before = len(server.posts())
        server.words = ["A feline."] * 6
        with pytest.raises(QueryFailed, match=told):
            asked.ask(rows([0]), OUTPUT)
        assert len(server.posts()) == before + 1
        with pytest.raises(QueryFailed, match=told):
            teacher(server.url, tmp_path).ask(rows([0]), OUTPUT)
        for _ in range(2):
            silent = teacher(server.url, tmp_path, unanswered=0.99).ask(rows([0, 0]), OUTPUT).top
            assert silent is not None and silent.silent.all()
        assert len(server.posts()) == before + 1
        with monkeypatch.context() as patched:  # a reader that knows more needs no new answer
            patched.setattr(
                chat, "label_in", lambda text, classes, cut: 0 if "feline" in text else label_in(text, classes)
            )
            top = teacher(server.url, tmp_path).ask(rows([0]), OUTPUT).top
            assert top is not None and top.indices.tolist() == [[0]]
        assert len(server.posts()) == before + 1
        assert main(["ledger", str(ledger), "--ask-again"]) == 0
        assert "to be asked again: 1 questions" in capsys.readouterr().out
        server.words = ["cat"]
        assert teacher(server.url, tmp_path).ask(rows([0]), OUTPUT).top is not None
        assert len(server.posts()) == before + 2
        assert Ledger(ledger).unread() == 0


def test_above_temperature_zero_another_answer_may_be_readable(tmp_path: Path) -> None:
    with serving(logprobs=0, schema=False) as server:
        for settings in ({"temperature": 0.5}, {"settings": {"temperature": 1.0}}):
            folder = tmp_path / str(len(settings["settings"]) if "settings" in settings else 0)
            folder.mkdir()
            asked = teacher(server.url, folder, **settings)
            server.words = ["A feline.", "bird"]
            top = asked.ask(rows([0]), OUTPUT).top
            assert top is not None and top.indices.tolist() == [[NAMES.index("bird")]]


def test_the_probe_shows_an_answer_that_cannot_be_read_before_a_row_is_asked(tmp_path: Path) -> None:
    with serving(logprobs=0, schema=False) as server:
        server.words = ["The model speaks in riddles"] * 9
        asked = teacher(server.url, tmp_path)
        assert any("on trial, and gave an answer that is none of the classes: 'The model" in n for n in asked.notes)
        assert not any(TEXTS[0] in body["messages"][-1]["content"] for _, body in server.posts())
        again = teacher(server.url, tmp_path)
        assert again.notes == asked.notes
    with serving(logprobs=0, schema=False) as server:
        (tmp_path / "plain").mkdir()
        assert len(teacher(server.url, tmp_path / "plain").notes) == 1
