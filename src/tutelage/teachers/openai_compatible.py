"""A chat model behind an OpenAI-compatible endpoint as the teacher of a classifier of texts."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from tutelage.errors import ModelError, RecipeError
from tutelage.ledger import Asking, Caps, Prices
from tutelage.signals import Batch, Request, Signals
from tutelage.teachers.base import Teacher, TransferFacts, refuse_features, refuse_members
from tutelage.teachers.black_box import top_of_answers, top_of_probabilities
from tutelage.teachers.chat import (
    LETTERS,
    filled,
    instruction,
    label_of,
    letter_shares,
    read_label,
    schema,
    unusable,
    what_it_shows,
)
from tutelage.teachers.chat_endpoint import ChatEndpoint

__all__ = ["Capabilities", "OpenAICompatible"]


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What an endpoint was found to give.

    Attributes:
        logprobs: How many alternatives of a token it tells; 0: none.
        json_schema: Whether it takes a schema for its answer.
        served: The model that it says answered.
    """

    logprobs: int
    json_schema: bool
    served: str


class OpenAICompatible(Teacher):
    """A chat model that is asked which class each text is in. It supplies its output only, over classes.

    Once the classes are known, the endpoint is probed (one to four calls, in the ledger like all others): does it tell
    log-probabilities, and of how many tokens; does it take a JSON schema? What it allows decides what is asked:

    * log-probabilities: each class has a letter, and the likeliest first tokens give the probabilities of the classes;
      what is missing to 1 is the mass of the classes that were not told. At most 26 classes.
    * labels: an answer in JSON by a schema, or else as a person would read it (`label_in`), never guessed. What can't
      be read is asked again at a temperature above 0; at 0 the answer would be the same, so that it is kept as it is,
      counted as unanswered, and read again, not asked again, by a later run.
      With `samples`, each text is asked so often at a temperature above 0, and the classes have their shares.

    An answer is a distribution at temperature 1; losses at other temperatures are refused. For texts there is
    `tutelage generate`.

    Which model is served is noted with the probes; an answer by another one stops the run. A model that changes under
    the same name is not noticed.

    Args:
        url: The base URL, up to and without `/chat/completions`: `https://host/v1`.
        model: The model's name.
        prompt: What is asked of each row, with columns of the data in braces: `Headline: {title}`.
        ledger: The file of the query ledger; made when it isn't there.
        system: What the model is told before; how to answer is added to it.
        classes_in_order: Names of the classes, as the model shall read them; null for those of the data.
        answer: `logprobs` or `label`; `auto` takes log-probabilities where there are any.
        samples: How often each row is asked for a label.
        temperature: Of the model's own sampling.
        top_logprobs: How many alternatives are asked for.
        unanswered: The share of the questions that may stay without a usable answer (a filter, a refusal, never one of
            the classes): such a row is given up, and teaches nothing. At 0 the first stops the run.
        settings: Further fields of the request (`seed`, `max_completion_tokens`); null takes one away.
        caps: Where asking stops.
        asking: How fast is asked, and how often again.
        price_in: What a million tokens of prompts costs.
        price_out: What a million tokens of answers costs.
        key_variable: The environment variable with the API key.
    """

    def __init__(
        self,
        url: str,
        model: str,
        prompt: str,
        *,
        ledger: str,
        system: str = "",
        classes_in_order: list[str] | None = None,
        answer: Literal["auto", "logprobs", "label"] = "auto",
        samples: int = 1,
        temperature: float = 0.0,
        top_logprobs: int = 20,
        unanswered: float = 0.0,
        settings: dict[str, Any] | None = None,
        caps: Caps | None = None,
        asking: Asking | None = None,
        price_in: float | None = None,
        price_out: float | None = None,
        key_variable: str | None = None,
    ) -> None:
        self.url = url
        self.model = model
        self.prompt = prompt
        self.ledger = ledger
        self.system = system
        self.classes_in_order = classes_in_order
        self.answer = answer
        self.samples = samples
        self.temperature = temperature
        self.top_logprobs = top_logprobs
        self.unanswered = unanswered
        self.settings = settings
        self.caps = caps
        self.asking = asking
        self.price_in = price_in
        self.price_out = price_out
        self.key_variable = key_variable
        self._endpoint: ChatEndpoint | None = None
        self._names: tuple[str, ...] = tuple(classes_in_order or ())
        self._found: Capabilities | None = None
        self._rows = 0
        self._unread = ""

    @property
    def comes_from_elsewhere(self) -> bool:
        """Somebody's endpoint."""
        return True

    @property
    def incidental(self) -> tuple[str, ...]:
        """How answers are bought, and where they are kept."""
        return ("ledger", "unanswered", "caps", "asking", "price_in", "price_out", "key_variable")

    @property
    def calls_sent(self) -> int:
        """Attempts, failed ones included."""
        return 0 if self._endpoint is None else self._endpoint.desk.sent

    def price_of(self, rows: int, pairs: int) -> str:
        """A call for each sample of each row, whatever its view."""
        return "" if self._endpoint is None else self._endpoint.desk.price_of(rows * self.samples)

    def over_caps(self, rows: int, pairs: int) -> list[str]:
        """See `Teacher.over_caps`."""
        return [] if self._endpoint is None else self._endpoint.desk.over_caps(rows * self.samples)

    def load(self, device: torch.device) -> None:
        """Opens the ledger, and probes the endpoint if the classes are known.

        Raises:
            RecipeError: A setting is impossible.
            ModelError: The endpoint can't be asked.
        """
        del device
        if self._endpoint is not None:
            return
        self._check_sampling()
        self._endpoint = ChatEndpoint(
            self.url,
            self.model,
            ledger=self.ledger,
            settings=self.settings,
            caps=self.caps,
            asking=self.asking,
            prices=Prices(price_in=self.price_in, price_out=self.price_out),
            key_variable=self.key_variable,
        )
        if self._names:
            self._probe()

    def meet(self, facts: TransferFacts) -> None:
        """Takes the data's names of the classes where it has none of its own, and probes the endpoint."""
        self._rows = facts.rows if facts.asked is None else facts.asked
        if not self.classes_in_order:
            self._names = facts.classes
        self._probe()

    def check(self, request: Request) -> None:
        """Raises a `ModelError` if features or members are requested."""
        refuse_members(self, request)
        refuse_features(self, request)

    def ask(self, batch: Batch, request: Request) -> Signals:
        """The stored answers; what is not stored is asked.

        Raises:
            ModelError: The batch has no texts, or the prompt does not fit them.
            CapReached: A cap stops it.
            QueryFailed: A text got no usable answer, and not so many may stay without one.
        """
        self.check(request)
        if not request.output or not len(batch):
            return Signals()
        self._probe()
        columns = {} if batch.raw is None else batch.raw()
        if not columns:
            raise ModelError(
                self.describe(), expected="rows whose columns can be read", found="tensors alone", mend="give texts"
            )
        bodies = [
            self._body(filled(self.prompt, {name: column[row] for name, column in columns.items()}, "prompt"))
            for row in range(len(batch))
        ]
        allowed = math.floor(self.unanswered * max(self._rows, len(batch)) * self.samples + 1e-9)
        stored = self._loaded().ask(bodies, self._read, samples=self.samples, allowed=allowed, again=self._read_again)
        if self._letters:
            nothing = [0.0] * len(self._names)
            shares = torch.tensor([nothing if answer is None else answer["shares"] for answer in stored])
            top = top_of_probabilities(shares, torch.tensor([answer is not None for answer in stored]))
        else:
            labels = [None if answer is None else int(answer["label"]) for answer in stored]
            rows = [labels[at : at + self.samples] for at in range(0, len(labels), self.samples)]
            top = top_of_answers([[label for label in row if label is not None] for row in rows], len(self._names))
        return Signals(top=top.map(lambda tensor: tensor.to(batch.rows.device)))

    def fingerprint(self) -> str:
        """SHA-256 of endpoint, model, prompt, classes and settings, and of what the endpoint was found to give."""
        self._probe()
        assert self._found is not None
        parts = [self.url, self.model, self.prompt, self.system, self._names, self.samples, self.temperature]
        found = [self._letters, asdict(self._found), self.settings]
        return hashlib.sha256(json.dumps([*parts, *found], default=str).encode()).hexdigest()

    @property
    def classes(self) -> tuple[str, ...]:
        """Those that the recipe names."""
        return tuple(self.classes_in_order or ())

    @property
    def notes(self) -> list[str]:
        """What the endpoint was found to give, and the loss that suits it best."""
        if self._found is None:
            return []
        if self._letters:
            return [
                f"{self.model} tells the {self._found.logprobs} likeliest tokens: the best loss on them is "
                "KLDivergence(temperature=1)"
            ]
        by = "by a JSON schema" if self._found.json_schema else "in its own words (it takes no schema)"
        told = "" if self._found.logprobs else "; it tells no log-probabilities"
        if self.samples > 1:
            best = f"the shares of {self.samples} samples: KLDivergence(temperature=1)"
        else:
            best = "one label a text: SoftCrossEntropy(temperature=1), or ForwardCorrection where labels may be wrong"
        strange = [f"{self.model} was asked for a label, on trial, and gave {self._unread}"] if self._unread else []
        return [f"{self.model} gives labels {by}{told}: the best loss is on {best}", *strange]

    def describe(self) -> str:
        """The model and where it is."""
        return f"OpenAICompatible {self.model} at {self.url}"

    # What is asked

    @property
    def _letters(self) -> bool:
        """Whether letters are asked for, and their log-probabilities."""
        assert self._found is not None
        return self.answer != "label" and self.samples == 1 and self._found.logprobs > 0

    def _body(self, text: str) -> dict[str, Any]:
        assert self._found is not None
        if self._letters:
            return self._request(text, letters=True, logprobs=True, top_logprobs=self._found.logprobs)
        by_schema = {"response_format": schema(self._names)} if self._found.json_schema else {}
        return self._request(text, letters=False, **by_schema)

    def _request(self, text: str, *, letters: bool, **more: Any) -> dict[str, Any]:
        told = "\n\n".join(filter(None, [self.system, instruction(self._names, letters=letters)]))
        longest = 1 if letters else 32 + max(len(json.dumps(name).encode()) for name in self._names)
        return self._loaded().body(told, text, temperature=self.temperature, max_tokens=longest, **more)

    def _read(self, reply: Mapping[str, Any]) -> dict[str, Any]:
        """What is kept of an answer."""
        if self._letters:
            return {"shares": letter_shares(reply, len(self._names))[0]}
        kept = label_of(reply, self._names)
        if "unread" in kept and self._varies:
            raise unusable(kept["why"], reply)
        return kept

    def _read_again(self, kept: Mapping[str, Any]) -> dict[str, Any]:
        """What was kept of an answer, as it is read now."""
        return dict(kept) if "shares" in kept else read_label(kept, self._names)

    @property
    def _varies(self) -> bool:
        """Whether the same question may have another answer the next time."""
        temperature = (self.settings or {}).get("temperature", self.temperature)
        return temperature is None or temperature > 0

    # What the endpoint gives

    def _probe(self) -> None:
        """Finds out what the endpoint gives, unless the ledger knows."""
        if self._found is not None:
            return
        if len(self._names) < 2:
            raise ModelError(
                self.describe(),
                expected="names of two classes or more, to ask for one of them",
                found=", ".join(self._names) or "none, neither of the recipe nor of the data",
                mend="give `classes_in_order`",
            )
        served, logprobs = "", 0
        if self.answer != "label" and self.samples == 1 and len(self._names) <= len(LETTERS):
            for count in dict.fromkeys((self.top_logprobs, 5)):
                told = self._try("logprobs", letters=True, logprobs=True, top_logprobs=count)
                served, logprobs = told["served"] or served, told.get("logprobs", 0)
                if told["taken"]:
                    break
        if self.answer == "logprobs" and not logprobs:
            raise ModelError(
                "answer",
                expected="an endpoint that tells log-probabilities, and at most 26 classes",
                found=f"{self.describe()} with {len(self._names)} classes, which tells none",
                mend="write `answer: label`",
            )
        by_schema = False
        if not logprobs:
            told = self._try("json_schema", letters=False, response_format=schema(self._names))
            served, by_schema = told["served"] or served, told.get("json_schema", False)
        if not logprobs and not by_schema:
            told = self._try("label", letters=False)
            served = told["served"] or served
            self._unread = self._read_again(told).get("why", "") if "unread" in told else ""
        self._found = Capabilities(logprobs=logprobs, json_schema=by_schema, served=served)

    def _try(self, what: str, *, letters: bool, **setting: Any) -> dict[str, Any]:
        body = self._request(f"This is an example of {self._names[0]}.", letters=letters, **setting)
        return self._loaded().probe(what, body, lambda reply: what_it_shows(what, reply, self._names))

    def _check_sampling(self) -> None:
        if not 0 <= self.unanswered < 1:
            raise RecipeError("unanswered", expected="a share from 0 to below 1", found=f"{self.unanswered:g}")
        twice = [name for name in self._names if self._names.count(name) > 1]
        if twice:
            raise RecipeError("classes_in_order", expected="names that differ", found=f"{twice[0]!r} more than once")
        if self.samples < 1 or self.temperature < 0 or self.top_logprobs < 1:
            raise RecipeError(
                "samples, temperature, top_logprobs",
                expected="at least 1, at least 0, at least 1",
                found=f"{self.samples}, {self.temperature:g}, {self.top_logprobs}",
            )
        if self.samples > 1 and self.temperature == 0:
            raise RecipeError(
                "samples",
                expected="a temperature above 0 where a text is asked several times",
                found=f"{self.samples} samples at temperature 0",
                harm="all would be the same answer, paid for each time",
                mend="write `temperature: 1`, or `samples: 1`",
            )
        if self.samples > 1 and self.answer == "logprobs":
            raise RecipeError(
                "samples",
                expected="1 where log-probabilities are told: they say more than any number of samples",
                found=str(self.samples),
                mend="write `samples: 1`, or `answer: label`",
            )

    def _loaded(self) -> ChatEndpoint:
        if self._endpoint is None:
            raise ModelError(
                "teacher",
                expected="an OpenAICompatible that is loaded",
                found="one that is not",
                mend="call `load` first",
            )
        return self._endpoint
