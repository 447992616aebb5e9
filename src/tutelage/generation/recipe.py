"""The recipe of `tutelage generate`: which rows, which model, on which terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tutelage.errors import RecipeError, check_all
from tutelage.governance.licence import Licence, check_licences
from tutelage.ledger import Asking, Caps, Prices
from tutelage.teachers.chat_endpoint import ChatEndpoint
from tutelage.teachers.http import require_plain_url
from tutelage.transfer import Source

__all__ = ["ChatModel", "Generation", "Prompts"]


@dataclass(kw_only=True)
class Prompts:
    """The rows that the model is asked about.

    Args:
        source: Where they come from.
        limit: How many of them, chosen by content: a higher limit keeps those of a lower one. Null: all.
    """

    source: Source
    limit: int | None = None


@dataclass(kw_only=True)
class ChatModel:
    """A chat model behind an OpenAI-compatible endpoint that writes texts.

    Args:
        url: The base URL, up to and without `/chat/completions`: `https://host/v1`.
        model: The model's name.
        prompt: What is asked of each row, with columns of the source in braces: `Write a headline for: {text}`.
        ledger: The file of the query ledger; made when it isn't there.
        system: What the model is told before.
        samples: How many texts are written for each row.
        temperature: Of the model's own sampling.
        max_tokens: The longest text, in tokens; a text that is cut off there is counted and told.
        logprobs: How many alternatives of each token are kept with their log-probabilities; 0: none.
        unanswered: The share of the texts that may stay unwritten (a filter, an empty answer): such a row is given up
            and left out. At 0 the first stops the run.
        settings: Further fields of the request (`seed`, `stop`); null takes one away.
        caps: Where asking stops.
        asking: How fast is asked, and how often again.
        price_in: What a million tokens of prompts costs.
        price_out: What a million tokens of texts costs.
        key_variable: The environment variable with the API key.
    """

    url: str
    model: str
    prompt: str
    ledger: str
    system: str = ""
    samples: int = 1
    temperature: float = 0.0
    max_tokens: int = 512
    logprobs: int = 0
    unanswered: float = 0.0
    settings: dict[str, Any] | None = None
    caps: Caps | None = None
    asking: Asking | None = None
    price_in: float | None = None
    price_out: float | None = None
    key_variable: str | None = None

    @property
    def comes_from_elsewhere(self) -> bool:
        """Somebody's endpoint."""
        return True

    @property
    def inner(self) -> Mapping[str, ChatModel]:
        """It asks nobody."""
        return {}

    @property
    def prices(self) -> Prices:
        """What it charges."""
        return Prices(price_in=self.price_in, price_out=self.price_out)

    def describe(self) -> str:
        """The model and where it is."""
        return f"{self.model} at {self.url}"

    def connect(self) -> ChatEndpoint:
        """The endpoint, with its ledger open; nothing is asked yet.

        Raises:
            UserError: A setting is impossible, or the ledger can't be used.
        """
        return ChatEndpoint(
            self.url,
            self.model,
            ledger=self.ledger,
            settings=self.settings,
            caps=self.caps,
            asking=self.asking,
            prices=self.prices,
            key_variable=self.key_variable,
        )

    def check(self, key: str) -> None:
        """Raises a `RecipeError` for a setting that is impossible, or that would pay for the same text again."""
        require_plain_url(self.url, f"{key}.url")
        (self.asking or Asking()).check(f"{key}.asking")
        (self.caps or Caps()).check(f"{key}.caps", self.prices)
        for name, least in (("samples", 1), ("temperature", 0), ("max_tokens", 1), ("logprobs", 0)):
            value = getattr(self, name)
            if not value >= least:
                raise RecipeError(f"{key}.{name}", expected=f"at least {least}", found=str(value))
        if not 0 <= self.unanswered < 1:
            raise RecipeError(f"{key}.unanswered", expected="a share from 0 to below 1", found=f"{self.unanswered:g}")
        if self.samples > 1 and self.temperature == 0:
            raise RecipeError(
                f"{key}.samples",
                expected="a temperature above 0 where several texts are written for a row",
                found=f"{self.samples} samples at temperature 0",
                harm="all would be the same text, paid for each time",
                mend="write `temperature: 1`, or `samples: 1`",
            )


@dataclass(kw_only=True)
class Generation:
    """Everything `tutelage generate` needs: a chat model writes texts about the rows of a source.

    Args:
        name: Of the set that is made.
        data: The rows.
        teacher: Who writes.
        licences: On which terms that may be learnt from, as in a recipe of a run: the key is `teacher`.
    """

    name: str
    data: Prompts
    teacher: ChatModel
    licences: dict[str, Licence] = field(default_factory=dict)

    def check(self) -> None:
        """Refuses what the recipe alone shows to be wrong, before anything is read or asked.

        Raises:
            RecipeError: Naming the key; all keys, where there are several.
        """
        check_all(
            [
                self._check_data,
                lambda: self.teacher.check("teacher"),
                lambda: check_licences({"teacher": self.teacher}, self.licences),
            ]
        )

    def _check_data(self) -> None:
        if not self.name.strip():
            raise RecipeError("name", expected="a name for the set that is made", found="nothing")
        if self.data.limit is not None and self.data.limit < 1:
            raise RecipeError("data.limit", expected="at least 1 row, or null for all", found=str(self.data.limit))
