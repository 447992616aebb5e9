"""Plain HTTP to a remote teacher: how each failure counts, and that a key is seen by nobody but the server."""

from __future__ import annotations

import json
import os
import re
import threading
import time
import weakref
import zlib
from collections.abc import Callable
from concurrent import futures
from typing import Any
from urllib.parse import urlsplit

from tutelage.errors import MissingExtra, RecipeError
from tutelage.ledger import Failure
from tutelage.ledger.pace import retry_after
from tutelage.teachers.secret import Secret

__all__ = ["Http", "key_from", "require_plain_url"]

PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""HTTP statuses after which the same call may succeed."""
OF_QUESTION = frozenset({400, 413, 422})
"""HTTP statuses by which a server refuses what it was asked (a filter, a text that is too long), and not the asker."""
ERROR_LENGTH = 300
_OF_TRANSFER = ("content-encoding", "content-length", "transfer-encoding")
"""Headers that are no longer true of an answer that is unpacked."""


def require_plain_url(url: str, key: str, schemes: tuple[str, ...] = ("http", "https")) -> str:
    """The URL without a slash at its end.

    Raises:
        RecipeError: It is none, or holds a user, a password or a query: what is in it is stored and shown.
    """
    parts = urlsplit(url)
    if parts.scheme not in schemes or not parts.hostname:
        raise RecipeError(key, expected=f"a URL that begins with {' or '.join(f'{s}://' for s in schemes)}", found=url)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise RecipeError(
            key,
            expected="a URL without user, password and query",
            found=f"one with them, at {parts.hostname}",
            harm="it is stored in the ledger and shown in reports",
            mend="put the key in an environment variable and name that in `key_variable`",
        )
    return url.rstrip("/")


def key_from(variable: str | None, key: str) -> str | None:
    """The API key in an environment variable; None where no variable is named.

    Raises:
        RecipeError: The variable is not set. Its name is shown, never a value.
    """
    if variable is None:
        return None
    value = os.environ.get(variable, "").strip()
    if value and not re.fullmatch(r"[\x20-\x7e]+", value):
        raise RecipeError(
            key,
            expected="the name of an environment variable that holds the API key, in one line of plain letters",
            found=f"{variable}, which has a line break or a letter that no HTTP header may have",
            harm="it could not be sent, and the error would show it",
            mend=f"export {variable}=... with the key alone",
        )
    if not value:
        raise RecipeError(
            key,
            expected="the name of an environment variable that holds the API key",
            found=f"{variable}, which is not set",
            mend=f"export {variable}=...",
        )
    return value


class Http:
    """A connection to one server; several threads may use it.

    Args:
        base: The URL that paths are added to.
        key: An API key, sent as `Authorization: Bearer`.
        most_bytes: Bytes of the largest answer that is read, unpacked.
    """

    def __init__(self, base: str, key: str | None, most_bytes: int = 64 * 10**6) -> None:
        try:
            import httpx
        except ImportError as error:
            raise MissingExtra("httpx", "remote", "a teacher behind an API") from error
        self.base, self.secret, self.most_bytes = base, Secret(key), most_bytes
        headers = {"Accept-Encoding": "gzip"} | ({"Authorization": f"Bearer {key}"} if key else {})
        limits = httpx.Limits(max_connections=None)
        self._client = httpx.Client(headers=headers, limits=limits, follow_redirects=False)
        weakref.finalize(self, self._client.close)

    def send(self, method: str, path: str, body: bytes | None, headers: dict[str, str], timeout: float) -> Any:
        """The server's answer, an `httpx.Response` with status 200.

        The seconds of `timeout` are those of the whole call. Those of `httpx` are for each wait for some bytes alone,
        and a server that sends a few now and then would never exceed them. So a thread of its own does the call, and is
        left behind when time is up.

        Raises:
            Failure: Anything else.
        """
        fetched: futures.Future[Any] = futures.Future()

        def fetch() -> None:
            try:
                fetched.set_result(self._fetch(method, path, body, headers, timeout))
            except BaseException as error:
                fetched.set_exception(error)

        threading.Thread(target=fetch, name="fetching", daemon=True).start()
        futures.wait([fetched], timeout)
        if not fetched.done():
            raise self._late(path, timeout)
        answer = fetched.result()
        url = f"{self.base}/{path}"
        if answer.status_code != 200:
            raise Failure(
                "refused",
                f"HTTP {answer.status_code} from {url}: {self.secret.hidden(_message(answer.text))[:ERROR_LENGTH]}",
                retry=answer.status_code in PASSING,
                http_status=answer.status_code,
                after=retry_after(answer.headers.get("Retry-After")),
                of_question=answer.status_code in OF_QUESTION,
            )
        return answer

    def _fetch(self, method: str, path: str, body: bytes | None, headers: dict[str, str], timeout: float) -> Any:
        """The answer with all its bytes, whatever its status."""
        import httpx

        url, until = f"{self.base}/{path}", time.monotonic() + timeout
        parts: list[bytes] = []
        size = 0
        try:
            with self._client.stream(method, url, content=body, headers=headers, timeout=timeout) as answer:
                unpack = self._unpacker(answer.headers.get("Content-Encoding", ""), path)
                for packed in answer.iter_raw():
                    part = unpack(packed, self.most_bytes + 1 - size)
                    parts.append(part)
                    size += len(part)
                    if size > self.most_bytes:
                        raise self._unusable(path, f"is larger than {self.most_bytes / 1e6:g} MB (asking.answer_mb)")
                    if time.monotonic() > until:
                        raise self._late(path, timeout)
            kept = [(name, value) for name, value in answer.headers.items() if name.lower() not in _OF_TRANSFER]
            return httpx.Response(answer.status_code, headers=kept, content=b"".join(parts))
        except httpx.TimeoutException as error:
            raise self._late(path, timeout) from error
        except httpx.ConnectError as error:
            raise Failure("refused", self.secret.hidden(f"{url} can't be reached: {error}"), retry=True) from error
        except (httpx.TransportError, zlib.error) as error:
            raise Failure("cut", self.secret.hidden(f"the connection to {url} broke: {error}"), retry=True) from error

    def _late(self, path: str, timeout: float) -> Failure:
        return Failure("timeout", f"no answer from {self.base}/{path} in {timeout:.3g} seconds", retry=True)

    def post(self, path: str, body: dict[str, Any], timeout: float) -> tuple[dict[str, Any], int]:
        """Sends JSON, and gives the JSON object that comes back and the HTTP status."""
        answer = self.send(
            "POST", path, json.dumps(body, allow_nan=False).encode(), {"Content-Type": "application/json"}, timeout
        )
        return self.read_object(answer, path), answer.status_code

    def read_object(self, answer: Any, path: str) -> dict[str, Any]:
        """The JSON object that an answer is, without the key should it repeat that.

        Raises:
            Failure: It is none, or one that can't be read: its parts lie too deep in each other.
        """
        try:
            said = json.loads(answer.content)
            if not isinstance(said, dict):
                raise ValueError("JSON, but no object")
            return dict(self.secret.hidden_in(said)) if self.secret.is_in(answer.text) else said
        except (ValueError, RecursionError) as error:
            raise Failure(
                "unusable",
                f"what {self.base}/{path} answered is no JSON object: "
                f"{self.secret.hidden(_message(answer.text))[:ERROR_LENGTH]}",
                retry=True,
                http_status=answer.status_code,
            ) from error

    def _unpacker(self, packing: str, path: str) -> Callable[[bytes, int], bytes]:
        """What unpacks a part of an answer to no more than so many bytes: a few may hold a thousand times as many."""
        if packing.strip().lower() in ("", "identity"):
            return lambda part, most: part[:most]
        if packing.strip().lower() not in ("gzip", "x-gzip", "deflate"):
            raise self._unusable(path, f"is packed as {packing[:40]!r}, and not as gzip, which was asked for")
        unpacking = zlib.decompressobj(wbits=47)
        return lambda part, most: unpacking.decompress(part, max(most, 1))

    def _unusable(self, path: str, why: str) -> Failure:
        return Failure("unusable", f"the answer of {self.base}/{path} {why}", retry=False, http_status=200)


def _message(text: str) -> str:
    """What an error's body says, in one line."""
    try:
        error = json.loads(text)
        error = error.get("error", error) if isinstance(error, dict) else error
        text = str(error.get("message", error)) if isinstance(error, dict) else str(error)
    except (ValueError, RecursionError):
        pass
    return " ".join(text.split())
