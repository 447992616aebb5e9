"""An API key that a server sends back, in whatever form: it stands in no message, no ledger and no log."""

from __future__ import annotations

import base64
import codecs
import html
import json
import logging
import quopri
import random
import re
import string
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
import torch
from local_server import serving

from tutelage.errors import RecipeError, TutelageError
from tutelage.ledger import Asking, Ledger
from tutelage.signals import Batch, Request
from tutelage.teachers import OpenAICompatible
from tutelage.teachers.secret import Secret

ENCODINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "upper case": str.upper,
    "lower case": str.lower,
    "swapped case": str.swapcase,
    "JSON": json.dumps,
    "JSON of PHP": lambda key: json.dumps(key).replace("/", "\\/"),
    "JSON, all escaped": lambda key: "".join(f"\\u{ord(letter):04x}" for letter in key),
    "JSON twice": lambda key: json.dumps(json.dumps(key)),
    "URL": lambda key: quote(key, safe=""),
    "URL, lower case": lambda key: quote_plus(key).lower(),
    "URL, all escaped": lambda key: "".join(f"%{ord(letter):02X}" for letter in key),
    "URL twice": lambda key: quote(quote(key, safe=""), safe=""),
    "HTML": html.escape,
    "HTML numbers": lambda key: "".join(f"&#{ord(letter)};" for letter in key),
    "base64": lambda key: base64.b64encode(key.encode()).decode(),
    "base64 of the header": lambda key: base64.urlsafe_b64encode(f"Bearer {key}".encode()).decode().rstrip("="),
    "basic authorization": lambda key: base64.b64encode(f":{key}".encode()).decode(),
    "base64 in a sentence": lambda key: base64.b64encode(f"the key {key} is not known here".encode()).decode(),
    "base32": lambda key: base64.b32encode(key.encode()).decode(),
    "base85": lambda key: base64.b85encode(key.encode()).decode(),
    "base85 of Adobe": lambda key: base64.a85encode(key.encode(), adobe=True).decode(),
    "numbers of bytes": lambda key: str(list(key.encode())),
    "full-width letters": lambda key: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in key),
    "letters with nothing between": "\u200b".join,
    "hex": lambda key: key.encode().hex(),
    "hex with spaces": lambda key: key.encode().hex(" ").upper(),
    "repr of bytes": lambda key: repr(f"Bearer {key}".encode()),
    "C": lambda key: "".join(f"\\x{ord(letter):02x}" for letter in key),
    "quoted-printable": lambda key: quopri.encodestring(key.encode(), quotetabs=True).decode(),
    "rot13": lambda key: codecs.encode(key, "rot13"),
    "backwards": lambda key: key[::-1],
    "a line for each letter": "\n".join,
    "dashes": "-".join,
    "its first two thirds": lambda key: key[: len(key) * 2 // 3] + "***",
    "its last two thirds": lambda key: "..." + key[len(key) // 3 :],
}


def some_keys() -> list[str]:
    draw = random.Random(11)
    plain = string.ascii_letters + string.digits
    fixed = ["sk-SECRET/12345", 'sk-SECRET"x\\y+z', "sk-proj SECRET=12&3%<'>"]
    return fixed + ["sk-" + "".join(draw.choices(plain + "-_/+=", k=length)) for length in (20, 33, 51)]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_no_form_of_a_key_is_left_in_a_text(encoding: str) -> None:
    for key in some_keys():
        form = ENCODINGS[encoding](key)
        shown = Secret(key).hidden(f"bad key {form}, sorry")
        assert form not in shown and key not in shown, (key, form)
        assert "[key]" in shown


def test_texts_without_the_key_are_left_as_they_are() -> None:
    texts = [
        "model not found",
        "rate limit: 3 requests a minute",
        "sk-" + "x" * 40,
        "A" * 500,
        json.dumps({"a": [1, 2]}),
    ]
    for key in some_keys():
        for text in texts:
            assert Secret(key).hidden(text) == text
    assert Secret(None).hidden("anything") == "anything"


def test_a_long_answer_is_searched_in_seconds() -> None:
    """Decoded bytes that are no text, decoded again and again, made seconds of each answer with embeddings."""
    draw = random.Random(3)
    secret = Secret("sk-proj-AbC123xyz789QwErTy456")
    for text in (
        json.dumps([draw.gauss(0, 1) for _ in range(20_000)]),
        json.dumps([base64.b64encode(draw.randbytes(3072)).decode() for _ in range(60)]),
    ):
        began = time.process_time()
        assert not secret.is_in(text)
        assert time.process_time() - began < 2.0


class Echo:
    """A server's model that says the key: as an error with a status, or as its answer."""

    def __init__(self, form: str, *, status: int) -> None:
        self.form, self.status = form, status

    def __call__(self, body: dict, number: int) -> tuple[int, dict]:
        if self.status != 200:
            return self.status, {"error": {"message": f"Incorrect key {self.form}"}, "sent": {self.form: 1}}
        message = {"role": "assistant", "content": f"You said {self.form}"}
        usage = {"prompt_tokens": 5, "completion_tokens": 2}
        return 200, {"model": f"m-{self.form}", "choices": [{"message": message}], "usage": usage}


@pytest.mark.parametrize("status", [200, 401])
def test_no_form_of_a_key_reaches_an_error_a_ledger_or_a_log(
    status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    key = "sk-SECRET/1234+abcd"
    monkeypatch.setenv("A_KEY", key)
    caplog.set_level(logging.DEBUG)
    pace = Asking(first_wait=0.01, attempts=1)
    said = []
    with serving() as server:
        for number, (name, encode) in enumerate(ENCODINGS.items()):
            server.complete = Echo(encode(key), status=status)
            path = tmp_path / f"{number}.sqlite"
            teacher = OpenAICompatible(
                f"{server.url}/v1", "m", "{t}", ledger=str(path), classes_in_order=["a", "b"], key_variable="A_KEY",
                asking=pace, answer="label",
            )  # fmt: skip
            batch = Batch(
                inputs=torch.zeros(1, 1), rows=torch.arange(1), views=torch.zeros(1).long(), raw=lambda: {"t": ["x"]}
            )
            try:
                teacher.load(torch.device("cpu"))
                teacher.ask(batch, Request(output=True))
            except TutelageError as error:
                said.append(str(error))
            Ledger(path).disconnect()
            files = b"\n".join(file.read_bytes() for file in tmp_path.glob(f"{number}.sqlite*"))
            stored = b" ".join(set(re.findall(rb"[ -~]{6,}", files)))
            form = json.dumps(encode(key))[1:-1]
            for text in (stored.decode("latin-1"), *said[-1:], "\n".join(caplog.messages)):
                assert not Secret(key).is_in(text), (name, form)
            caplog.clear()
            assert len(said) == number + 1, name


@pytest.mark.parametrize("key", ["sk-SECRET\nother", "sk-SECRET\ttab", "sk-S\u00c9CRET"])
def test_a_key_that_no_header_may_hold_is_refused_before_an_error_shows_it(
    key: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("A_KEY", key)
    url, ledger = "http://127.0.0.1:9/v1", str(tmp_path / "l.sqlite")
    with pytest.raises(RecipeError, match="A_KEY, which has a line break") as refused:
        OpenAICompatible(url, "m", "{t}", ledger=ledger, key_variable="A_KEY").load(torch.device("cpu"))
    assert "CRET" not in str(refused.value)
