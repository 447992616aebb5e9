"""Answers of servers that are too large, too deep or out of range are refused before they are stored; none is lost."""

from __future__ import annotations

import contextlib
import gzip
import json
import threading
import time
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ledger_case import attempts
from local_server import LocalServer, serving

from tutelage.errors import ModelError, QueryFailed
from tutelage.ledger import Asking, Failure, Ledger
from tutelage.signals import Batch, Request
from tutelage.teachers import OpenAICompatible, OpenInference
from tutelage.teachers.http import Http
from tutelage.teachers.tensor_values import written

OUTPUT = Request(output=True)
ONCE = Asking(first_wait=0.01, attempts=1, concurrent=1)


def rows(count: int) -> Batch:
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(3))
    none = torch.zeros(count, dtype=torch.long)
    texts = [f"text {row}" for row in range(count)]
    return Batch(inputs=x, rows=torch.arange(count), views=none, raw=lambda: {"t": np.array(texts, object)})


def labels_of(server: LocalServer, folder: Path) -> OpenInference:
    ledger = str(folder / "l.sqlite")
    made = OpenInference(
        server.url, "small", ledger=ledger, output="label", gives="label", max_batch=4, canary=0, asking=ONCE,
        classes_in_order=["cat", "dog", "bird"],
    )  # fmt: skip
    made.load(torch.device("cpu"))
    return made


def spoil(server: LocalServer, call: int, label: int) -> None:
    """Lets the first label of one call be another number."""
    inner, calls = server.infer, []

    def infer(body: dict) -> dict:
        said = inner(body)
        calls.append(1)
        if len(calls) == call:
            said["outputs"][0]["data"][0] = label
        return said

    server.infer = infer  # type: ignore[method-assign]


@pytest.mark.parametrize("label", [3, -1, 2**40])
def test_a_label_that_is_no_class_is_not_stored_and_a_later_run_goes_on(label: int, tmp_path: Path) -> None:
    with serving() as server:
        spoil(server, 2, label)
        with pytest.raises(ModelError, match=rf"(?s)numbers from 0 to 2.*{label}"):
            labels_of(server, tmp_path).ask(rows(12), OUTPUT)
        assert Ledger(tmp_path / "l.sqlite").count() == 1 + 4 + 3  # metadata; the others of its call are paid and kept
        before = len(server.posts())
        expected = server.model(rows(12).inputs).argmax(1)
        top = labels_of(server, tmp_path).ask(rows(12), OUTPUT).top
        assert top is not None and torch.equal(top.indices[:, 0], expected)
        assert len(server.posts()) - before <= 2
    assert "unusable" in [status for (status,) in attempts(tmp_path / "l.sqlite")]


def test_the_good_rows_of_a_call_are_kept_and_the_bad_one_alone_is_asked_again(tmp_path: Path) -> None:
    """Catches paid answers that are thrown away, and asked again, for the one beside them."""
    with serving() as server:
        inner, sizes = server.infer, []

        def infer(body: dict) -> dict:
            said = inner(body)
            sizes.append(body["inputs"][0]["shape"][0])
            if len(sizes) == 1:
                said["outputs"][0]["data"][-1] = float("nan")
            return said

        server.infer = infer  # type: ignore[method-assign]
        asked = OpenInference(
            server.url, "small", ledger=str(tmp_path / "l.sqlite"), output="logits", max_batch=8, canary=0,
            asking=Asking(first_wait=0.01, attempts=2, concurrent=1),
        )  # fmt: skip
        asked.load(torch.device("cpu"))
        output = asked.ask(rows(8), OUTPUT).output
        assert sizes == [8, 1] and output is not None
        torch.testing.assert_close(output, server.model(rows(8).inputs), rtol=1e-4, atol=1e-5)
    assert [status for (status,) in attempts(tmp_path / "l.sqlite")][-2:] == ["unusable", "answered"]


def test_a_label_out_of_range_that_an_earlier_version_stored_can_be_forgotten(tmp_path: Path) -> None:
    with serving() as server:
        asked = labels_of(server, tmp_path)
        asked.ask(rows(8), OUTPUT)
        key = asked._question(asked._arrays(rows(8)), 5).key
        with asked._loaded().ledger._open() as connection:
            connection.execute("UPDATE answers SET answer = ? WHERE question = ?", (written(np.int64(9)), key))
            connection.execute("DELETE FROM digests")
        with pytest.raises(ModelError, match=r"9, in 1 of 8 stored answers[\s\S]*--ask-again"):
            asked.ask(rows(8), OUTPUT)
        assert Ledger(tmp_path / "l.sqlite").ask_again() == 1
        before = len(server.posts())
        asked.ask(rows(8), OUTPUT)
        assert len(server.posts()) - before == 1


def test_where_most_stored_labels_can_not_be_read_none_is_marked_for_forgetting(tmp_path: Path) -> None:
    with serving() as server:
        asked = labels_of(server, tmp_path)
        asked.ask(rows(8), OUTPUT)
        asked._names = ("cat",)
        with pytest.raises(ModelError):
            asked.ask(rows(8), OUTPUT)
    assert Ledger(tmp_path / "l.sqlite").ask_again() == 0


def chat(server: LocalServer, folder: Path) -> OpenAICompatible:
    made = OpenAICompatible(
        f"{server.url}/v1", "m", "{t}", ledger=str(folder / "c.sqlite"), classes_in_order=["cat", "dog", "bird"],
        answer="label", asking=ONCE,
    )  # fmt: skip
    made.load(torch.device("cpu"))
    return made


@pytest.mark.parametrize("count", [10**30, 10**400, -5, 1e308, "9" * 5000, [], {"a": 1}])
def test_an_answer_whose_tokens_are_no_count_is_kept_and_paid_as_unknown(count: object, tmp_path: Path) -> None:
    with serving() as server:
        inner = server.complete

        def complete(body: dict, number: int) -> tuple[int, dict]:
            status, said = inner(body, number)
            return status, said | {"usage": {"prompt_tokens": count, "completion_tokens": count}}

        asked = chat(server, tmp_path)
        server.complete = complete  # type: ignore[method-assign]
        with contextlib.suppress(QueryFailed):  # JSON of numbers of more than 4,300 digits can't be read
            assert asked.ask(rows(2), OUTPUT).top is not None
    assert all(status in ("answered", "unusable") for (status,) in attempts(tmp_path / "c.sqlite"))


@pytest.mark.parametrize("place", ["body", "content"])
def test_json_that_lies_too_deep_is_an_answer_of_no_use_and_no_traceback(place: str, tmp_path: Path) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    with serving() as server:
        asked = chat(server, tmp_path)
        server.words = [deep, deep]
        if place == "body":
            server.complete = lambda body, number: (200, Raw(f'{{"choices": {deep}}}'))  # type: ignore
        with pytest.raises(QueryFailed, match="no JSON object" if place == "body" else "answer"):
            asked.ask(rows(2), OUTPUT)


class Raw(dict):
    """What `json.dumps` of a test's server would not write."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text


@pytest.fixture(autouse=True)
def raw_bodies(monkeypatch: pytest.MonkeyPatch) -> None:
    import local_server

    dumps = lambda value: value.text if isinstance(value, Raw) else json.dumps(value)  # noqa: E731
    monkeypatch.setattr(local_server, "json", SimpleNamespace(dumps=dumps, loads=json.loads))


@contextlib.contextmanager
def saying(body: bytes, packing: str) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(200)
            if packing:
                self.send_header("Content-Encoding", packing)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def zeros(megabytes: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join([*(packer.compress(bytes(10**6)) for _ in range(megabytes)), packer.flush()])


BOMBS = {
    "gzip": (zeros(300), "gzip"),
    "gzip of gzip": (gzip.compress(zeros(300)), "gzip, gzip"),
    "unknown": (b"{}", "br"),
    "plain": (b" " * 3 * 10**6, ""),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_an_answer_that_unpacks_to_more_than_is_allowed_is_not_unpacked(kind: str) -> None:
    import resource

    body, packing = BOMBS[kind]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with saying(body, packing) as url, pytest.raises(Failure, match=r"larger than 2 MB|packed as") as refused:
        Http(url, None, 2 * 10**6).send("GET", "x", None, {}, 5.0)
    assert not refused.value.retry
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes


@pytest.mark.parametrize("packing", ["", "gzip", "deflate"])
def test_an_answer_that_is_packed_is_read_as_it_is(packing: str) -> None:
    plain = json.dumps({"a": list(range(1000))}).encode()
    pack = {"": bytes, "gzip": gzip.compress, "deflate": zlib.compress}[packing]
    with saying(pack(plain), packing) as url:
        began = time.monotonic()
        assert Http(url, None, 10**6).send("GET", "x", None, {}, 5.0).json() == {"a": list(range(1000))}
        assert time.monotonic() - began < 4
