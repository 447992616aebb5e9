"""A real server on this machine: the Open Inference Protocol v2 and the OpenAI API, with faults on request."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import torch
from torch import nn

__all__ = ["LETTERS", "LocalServer", "letter_model", "serving", "tensor_model"]

NAMES = ("cat", "dog", "bird")
LETTERS = "ABC"


def tensor_model(seed: int = 0) -> nn.Linear:
    """Four numbers to three logits."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Linear(4, 3).eval().requires_grad_(False)


def letter_model(text: str) -> np.ndarray:
    """Log-probabilities of three classes from how often each letter occurs in a text."""
    counts = np.array([text.lower().count(chr(97 + i)) for i in range(26)], float)
    weights = np.random.default_rng(7).normal(size=(26, 3))
    logits = counts @ weights / max(counts.sum(), 1) * 8
    return logits - np.log(np.exp(logits).sum())


@dataclass
class LocalServer:
    """What the server does, and what it has seen.

    Attributes:
        faults: What happens to the next POST requests, one each: an HTTP status, or `(status, headers)`, or `hang`,
            `cut`, `garbage`, `short`, `narrow` (a class less), `drip` and `drip headers` (a few bytes now and then).
        hold: Seconds that each answer takes.
        seen: Method, path, headers and body of each request.
        times: When each POST request came.
        logprobs: How many alternatives it tells; 0 tells none.
        schema: Whether it takes a JSON schema.
        words: What it says in the place of an answer, in turn.
    """

    model: nn.Module = field(default_factory=tensor_model)
    faults: list[Any] = field(default_factory=list)
    hold: float = 0.0
    seen: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    logprobs: int = 20
    schema: bool = True
    words: list[str] = field(default_factory=list)
    url: str = ""
    times: list[float] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def posts(self) -> list[tuple[str, dict[str, Any]]]:
        return [(path, json.loads(body)) for method, path, _, body in self.seen if method == "POST"]

    def rows(self) -> int:
        """Rows that were asked over the tensor protocol."""
        return sum(body["inputs"][0]["shape"][0] for path, body in self.posts() if path.endswith("/infer"))

    # The tensor protocol

    def metadata(self) -> dict[str, Any]:
        outputs = [("logits", "FP32", [-1, 3]), ("rounded", "FP32", [-1, 3]), ("label", "INT64", [-1])]
        return {
            "name": "small",
            "versions": ["1"],
            "platform": "test",
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
            "outputs": [{"name": n, "datatype": d, "shape": s} for n, d, s in [*outputs, ("name", "BYTES", [-1])]],
        }

    def infer(self, body: dict[str, Any]) -> dict[str, Any]:
        (tensor,) = body["inputs"]
        x = torch.tensor(tensor["data"], dtype=torch.float32).view(tensor["shape"])
        logits = self.model(x)
        label = logits.argmax(1)
        made = {
            "logits": logits,
            "rounded": (logits.softmax(1) * 10).round() / 10,
            "label": label,
            "name": [NAMES[i] for i in label.tolist()],
        }
        outputs = []
        for wanted in body["outputs"]:
            value = made[wanted["name"]]
            about = next(each for each in self.metadata()["outputs"] if each["name"] == wanted["name"])
            data = value if isinstance(value, list) else value.flatten().tolist()
            shape = [len(value)] if isinstance(value, list) else list(value.shape)
            outputs.append({"name": wanted["name"], "datatype": about["datatype"], "shape": shape, "data": data})
        return {"model_name": "small", "model_version": "1", "outputs": outputs}

    # Chat completions

    def complete(self, body: dict[str, Any], number: int) -> tuple[int, dict[str, Any]]:
        if body.get("response_format") and not self.schema:
            return 400, {"error": {"message": "response_format is not supported"}}
        if body.get("top_logprobs", 0) > max(self.logprobs, 1):
            return 400, {"error": {"message": f"top_logprobs must be at most {self.logprobs}"}}
        log_p = letter_model(body["messages"][-1]["content"])
        chosen = int(log_p.argmax())
        if body.get("temperature", 1.0) > 0:
            chosen = int(np.random.default_rng(number).choice(3, p=np.exp(log_p)))
        letters = "letter" in body["messages"][0]["content"]
        text = LETTERS[chosen] if letters else json.dumps({"label": NAMES[chosen]})
        if self.words:
            text = self.words.pop(0)
        choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": text}}
        if body.get("logprobs") and self.logprobs:
            # A fifth of the first class stands under another token of the same letter, a part under no letter at all.
            p = np.exp(log_p) * 0.9
            pairs = [("A", 0.8 * p[0]), (" A", 0.2 * p[0]), ("B", p[1]), (" C", p[2]), ("The", 0.1)]
            pairs = sorted(pairs, key=lambda pair: -pair[1])[: body["top_logprobs"]]
            top = [{"token": token, "logprob": float(np.log(share))} for token, share in pairs]
            choice["logprobs"] = {"content": [{"token": text, "logprob": -0.1, "top_logprobs": top}]}
        usage = {"prompt_tokens": 50, "completion_tokens": 2}
        return 200, {"model": body["model"], "choices": [choice], "usage": usage}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: LocalServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.state.seen.append(("GET", self.path, dict(self.headers), b""))
        if self.path.rstrip("/").endswith("models/small"):
            self.give(200, self.state.metadata())
        else:
            self.give(404, {"error": f"unknown model at {self.path}"})

    def do_POST(self) -> None:
        state = self.state
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with state.lock:
            body = self.as_json(body)
            state.seen.append(("POST", self.path, dict(self.headers), body))
            state.times.append(time.monotonic())
            number = len(state.seen)
            state.under_way += 1
            state.most_under_way = max(state.most_under_way, state.under_way)
            fault = state.faults.pop(0) if state.faults else None
        try:
            time.sleep(state.hold)
            self.answer(fault, json.loads(body), number)
        finally:
            with state.lock:
                state.under_way -= 1

    def as_json(self, body: bytes) -> bytes:
        """The request as JSON, should its tensor have come as bytes."""
        length = self.headers.get("Inference-Header-Content-Length")
        if length is None:
            return body
        request = json.loads(body[: int(length)])
        request["inputs"][0]["data"] = np.frombuffer(body[int(length) :], np.float32).tolist()
        return json.dumps(request).encode()

    def give_binary(self, said: dict[str, Any]) -> None:
        """The answer with its tensor as bytes after the JSON."""
        (output,) = said["outputs"]
        raw = np.array(output.pop("data"), np.float32).tobytes()
        output["parameters"] = {"binary_data_size": len(raw)}
        header = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Inference-Header-Content-Length", str(len(header)))
        self.send_header("Content-Length", str(len(header) + len(raw)))
        self.end_headers()
        self.wfile.write(header + raw)

    def answer(self, fault: Any, body: dict[str, Any], number: int) -> None:
        if isinstance(fault, (int, tuple)):
            status, headers = fault if isinstance(fault, tuple) else (fault, {})
            # As some servers do: the key that was sent stands in the message.
            self.give(status, {"error": {"message": f"injected for {self.headers.get('Authorization')}"}}, headers)
        elif fault == "hang":
            time.sleep(3.0)
            self.close_connection = True
        elif fault == "cut":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{")
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif fault == "garbage":
            self.give(200, None)
        elif self.path.endswith("/infer"):
            said = self.state.infer(body)
            if fault == "short":
                said["outputs"][0]["shape"][0] -= 1
                said["outputs"][0]["data"] = said["outputs"][0]["data"][3:]
            if fault == "narrow":
                count, classes = said["outputs"][0]["shape"]
                data = np.reshape(said["outputs"][0]["data"], (count, classes))[:, :-1]
                said["outputs"][0] |= {"shape": list(data.shape), "data": data.flatten().tolist()}
            if fault in ("drip", "drip headers"):
                self.drip(json.dumps(said).encode(), in_headers=fault == "drip headers")
            elif body["outputs"][0].get("parameters", {}).get("binary_data"):
                self.give_binary(said)
            else:
                self.give(200, said)
        else:
            status, said = self.state.complete(body, number)
            self.give(status, spoilt(said, fault))

    def drip(self, data: bytes, *, in_headers: bool) -> None:
        """An answer that takes 3 seconds, without a pause of more than 0.1."""
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(data)}\r\n".encode()
        whole, slow = head + b"\r\n" + data, len(head) if in_headers else len(data)
        self.close_connection = True
        with contextlib.suppress(OSError):
            begin = 0 if in_headers else len(head) + 2
            self.wfile.write(whole[:begin])
            for at in range(begin, len(whole), -(-slow // 30)):
                self.wfile.write(whole[at : at + -(-slow // 30)])
                self.wfile.flush()
                time.sleep(0.1)

    def give(self, status: int, said: Any, headers: dict[str, str] | None = None) -> None:
        data = b"<html>no json" if said is None else json.dumps(said).encode()
        with contextlib.suppress(OSError):
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)


def spoilt(said: dict[str, Any], fault: Any) -> Any:
    """What a chat model said, with a fault in it."""
    if fault == "no logprobs":
        said["choices"][0].pop("logprobs", None)
    elif fault == "list":
        return [said]
    elif isinstance(fault, float):  # the log-probability of a token that is no letter
        told = said["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        told.append({"token": "perhaps", "logprob": fault})
    elif fault == "debt":
        said["usage"] = {"prompt_tokens": -100_000, "completion_tokens": 1}
    return said


@contextlib.contextmanager
def serving(**settings: Any) -> Iterator[LocalServer]:
    """A server while the block runs."""
    state = LocalServer(**settings)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"state": state}))
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
