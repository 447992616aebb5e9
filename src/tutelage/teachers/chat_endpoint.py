"""An OpenAI-compatible endpoint: what is sent to it, what that may use, and what it gives, all through a ledger."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tutelage.errors import ModelError, QueryFailed
from tutelage.ledger import Asking, Call, Caps, Desk, Failure, Ledger, Prices, Question, Reply, Usage, question
from tutelage.teachers.chat import most_usage, usage_of
from tutelage.teachers.http import Http, key_from, require_plain_url

__all__ = ["ChatEndpoint"]

REFUSES = frozenset({400, 404, 415, 422, 501})
"""HTTP statuses by which an endpoint says that it does not know a setting."""

Body = dict[str, Any]
Read = Callable[[Mapping[str, Any]], dict[str, Any]]
"""Takes from a reply what is to be stored, as plain data; raises a `Failure` where it is of no use."""


class ChatEndpoint:
    """One model behind `/chat/completions`. Several threads may use it.

    Args:
        url: The base URL, up to and without `/chat/completions`.
        model: The model's name.
        ledger: The file of the query ledger; made when it isn't there.
        settings: Further fields of each request; null takes one away.
        caps: Where asking stops.
        asking: How fast is asked, and how often again.
        prices: What it costs.
        key_variable: The environment variable with the API key.

    Raises:
        RecipeError: A setting is impossible, or the variable is not set.
        DataError: The ledger can't be used.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        ledger: str,
        settings: Mapping[str, Any] | None,
        caps: Caps | None,
        asking: Asking | None,
        prices: Prices,
        key_variable: str | None,
    ) -> None:
        caps, asking = caps or Caps(), asking or Asking()
        asking.check("asking")
        caps.check("caps", prices)
        plain = require_plain_url(url, "url")
        self.url, self.model, self.settings = url, model, dict(settings or {})
        self.served = ""
        """The model that was found to answer; an answer by another one stops the run. Empty until it is known."""
        self._http = Http(plain, key_from(key_variable, "key_variable"), int(asking.answer_mb * 1e6))
        self.desk = Desk(Ledger(ledger), f"{plain} {model}", caps=caps, asking=asking, prices=prices)

    def body(self, system: str, text: str, *, temperature: float, max_tokens: int, **more: Any) -> Body:
        """A request with what the model is told before, where there is anything, and what it is asked."""
        told = [{"role": "system", "content": system}] if system else []
        return {
            "model": self.model,
            "messages": [*told, {"role": "user", "content": text}],
            "temperature": temperature,
            "max_tokens": max_tokens,
            **more,
        }

    def questions(self, bodies: Sequence[Body], samples: int = 1) -> list[Question]:
        """The samples of each request, one after the other."""
        return [
            question({"endpoint": self.url, "request": self._sent(body)}, sample=sample)
            for body in bodies
            for sample in range(samples)
        ]

    def ask(
        self, bodies: Sequence[Body], read: Read, *, samples: int = 1, allowed: int = 0, again: Read = dict
    ) -> list[dict[str, Any] | None]:
        """What `read` took from the answer to each sample of each request, in the order of `questions`.

        Args:
            bodies: The requests.
            read: What is kept of an answer.
            samples: How often each is asked.
            allowed: How many questions of this endpoint may stay without a usable answer, in all: None stands there.
            again: Reads once more what is stored of an answer; one that `read` could not make sense of has an `unread`
                and says `why`, and counts as none.

        Raises:
            CapReached: A cap stops it. All that was answered is stored.
            QueryFailed: More requests than that got no usable answer.
        """
        every = self.questions(bodies, samples)

        def pack(missing: list[int]) -> Iterator[Call]:
            return (self._call(bodies[at // samples], every[at], read) for at in missing)

        answers = self.desk.ask_most(every, pack, allowed=allowed)
        kept = [None if answer is None else again(json.loads(answer)) for answer in answers]
        for question_, each in zip(every, kept, strict=True):
            if each is not None and "unread" in each:
                self.desk.lack_unread(question_.key, each["why"], allowed)
        return [None if each is None or "unread" in each else each for each in kept]

    def probe(self, what: str, body: Body, read: Read, *, may_refuse: bool = True) -> dict[str, Any]:
        """What a request with a setting brings. The model that answers is noted: another one stops the run.

        Args:
            what: What is probed; probes for other things are other questions.
            body: The request.
            read: What is kept of the reply; nothing where it is of no use.
            may_refuse: That the endpoint refuses it is an answer too, which is stored.

        Returns:
            `taken`: whether the request was taken; `served`: the model that answered; and what `read` gives.

        Raises:
            ModelError: The endpoint does not answer.
        """
        asked = question({"endpoint": self.url, "request": self._sent(body), "probe": what})

        def send(timeout: float) -> Reply:
            found: dict[str, Any] = {"taken": True, "served": ""}
            usage: Usage | None = None
            try:
                reply, status = self._http.post("chat/completions", self._sent(body), timeout)
                usage = usage_of(reply)
                found["served"] = str(reply.get("model") or "")
                found |= read(reply)
            except Failure as failure:
                status = failure.http_status or 0
                if not may_refuse or status not in REFUSES:
                    raise
                found["taken"], usage = False, Usage()
            return Reply(answers=[json.dumps(found).encode()], usage=usage, http_status=status)

        try:
            call = Call(questions=[asked], send=send, most=self._most(body))
            (answer,) = self.desk.ask([asked], lambda _: [call], attempts=3)
        except QueryFailed as error:
            raise ModelError(
                self.describe(),
                expected="an endpoint that answers",
                found=str(error).splitlines()[0],
                mend="mend `url`, `model` and `key_variable`, or start the server",
            ) from error
        told: dict[str, Any] = json.loads(answer)
        self.served = told["served"] or self.served
        return told

    def describe(self) -> str:
        """The model and where it is."""
        return f"{self.model} at {self.url}"

    def _sent(self, body: Body) -> Body:
        """The request with the further settings."""
        return {name: value for name, value in (body | self.settings).items() if value is not None}

    def _call(self, body: Body, asked: Question, read: Read) -> Call:
        def send(timeout: float) -> Reply:
            reply, status = self._http.post("chat/completions", self._sent(body), timeout)
            self._require_same_model(reply)
            kept = read(reply)
            return Reply(
                answers=[json.dumps(kept).encode()],
                usage=usage_of(reply),
                http_status=status,
                unread=kept["why"] if "unread" in kept else "",
            )

        return Call(questions=[asked], send=send, most=self._most(body))

    def _most(self, body: Body) -> Usage:
        allowed = self.settings.get("max_completion_tokens") or self.settings.get("max_tokens")
        return most_usage(body | ({"max_tokens": allowed} if allowed else {}))

    def _require_same_model(self, reply: Any) -> None:
        served = reply.get("model") if isinstance(reply, dict) else None
        if served and self.served and served != self.served:
            raise Failure(
                "unusable",
                f"answered by the model {served!r}; the answers in the ledger are those of {self.served!r}",
                retry=False,
                http_status=200,
                usage=usage_of(reply),
            )
