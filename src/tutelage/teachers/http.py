"""Plain HTTP to a remote teacher: how each failure counts, and that a key is seen by nobody but the server."""

from __future__ import annotations

import json
import os
import threading
import time
import weakref
from concurrent import futures
from typing import Any
from urllib.parse import urlsplit

from tutelage.errors import MissingExtra, RecipeError
from tutelage.ledger import Failure
from tutelage.ledger.pace import retry_after

__all__ = ["Http", "key_from", "require_plain_url"]

PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""HTTP statuses after which the same call may succeed."""
OF_QUESTION = frozenset({400, 413, 422})
"""HTTP statuses by which a server refuses what it was asked (a filter, a text that is too long), and not the asker."""
ERROR_LENGTH = 300


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
    """

    def __init__(self, base: str, key: str | None) -> None:
        try:
            import httpx
        except ImportError as error:
            raise MissingExtra("httpx", "remote", "a teacher behind an API") from error
        self.base, self._key = base, key
        headers = {"Authorization": f"Bearer {key}"} if key else {}
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
                f"HTTP {answer.status_code} from {url}: {_message(self._safe(answer.text))}",
                retry=answer.status_code in PASSING,
                http_status=answer.status_code,
                after=retry_after(answer.headers.get("Retry-After")),
                of_question=answer.status_code in OF_QUESTION,
            )
        return answer

    def _fetch(self, method: str, path: str, body: bytes | None, headers: dict[str, str], timeout: float) -> Any:
        """The answer with all its bytes, whatever its status."""
        import httpx

        url, until, parts = f"{self.base}/{path}", time.monotonic() + timeout, []
        try:
            with self._client.stream(method, url, content=body, headers=headers, timeout=timeout) as answer:
                for part in answer.iter_raw():
                    parts.append(part)
                    if time.monotonic() > until:
                        raise self._late(path, timeout)
            return httpx.Response(answer.status_code, headers=answer.headers, content=b"".join(parts))
        except httpx.TimeoutException as error:
            raise self._late(path, timeout) from error
        except httpx.ConnectError as error:
            raise Failure("refused", self._safe(f"{url} can't be reached: {error}"), retry=True) from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise Failure("cut", self._safe(f"the connection to {url} broke: {error}"), retry=True) from error

    def _late(self, path: str, timeout: float) -> Failure:
        return Failure("timeout", f"no answer from {self.base}/{path} in {timeout:.3g} seconds", retry=True)

    def post(self, path: str, body: dict[str, Any], timeout: float) -> tuple[dict[str, Any], int]:
        """Sends JSON, and gives the JSON object that comes back and the HTTP status."""
        answer = self.send(
            "POST", path, json.dumps(body, allow_nan=False).encode(), {"Content-Type": "application/json"}, timeout
        )
        try:
            said = answer.json()
            if not isinstance(said, dict):
                raise ValueError("JSON, but no object")
            return said, answer.status_code
        except ValueError as error:
            raise Failure(
                "unusable",
                f"what {self.base}/{path} answered is no JSON object: {_message(self._safe(answer.text))}",
                retry=True,
                http_status=answer.status_code,
            ) from error

    def _safe(self, text: str) -> str:
        """The text without the key, should a server have repeated it."""
        return text.replace(self._key, "[key]") if self._key else text


def _message(text: str) -> str:
    """What an error's body says, in one short line."""
    try:
        error = json.loads(text)
        error = error.get("error", error) if isinstance(error, dict) else error
        text = str(error.get("message", error)) if isinstance(error, dict) else str(error)
    except ValueError:
        pass
    line = " ".join(text.split())
    return line if len(line) <= ERROR_LENGTH else line[: ERROR_LENGTH - 3] + "..."
