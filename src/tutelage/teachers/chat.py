"""Questions to a chat model: which class a text is in, or what to write about it; and what its answers say."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.errors import ModelError, did_you_mean
from tutelage.ledger import Failure, Usage
from tutelage.teachers.chat_labels import label_in

__all__ = [
    "LETTERS",
    "completion_of",
    "filled",
    "instruction",
    "label_of",
    "letter_shares",
    "most_usage",
    "read_label",
    "schema",
    "token_logprobs",
    "usage_of",
    "what_it_shows",
]

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MOST_TOKENS = 10**12
"""Tokens of one call; a count that is larger is none."""
SHOWN = 160
"""Characters of an answer that a message shows."""


def instruction(classes: Sequence[str], *, letters: bool) -> str:
    """What the model is told to answer with: a letter, whose alternatives can be weighed, or a label in JSON."""
    if letters:
        listed = "\n".join(f"{letter}: {name}" for letter, name in zip(LETTERS, classes, strict=False))
        return f"Which of these is it?\n{listed}\nAnswer with the letter alone."
    names = ", ".join(json.dumps(name, ensure_ascii=False) for name in classes)
    return f'Which of these is it: {names}? Answer with JSON alone: {{"label": ...}}'


def filled(template: str, columns: Mapping[str, Any], key: str) -> str:
    """The template with `{column}` replaced by what the row has there; other braces stay.

    Raises:
        ModelError: The template names no column, or one that the data lacks.
    """
    names = re.findall(r"\{(\w+)\}", template)
    strange = next((name for name in names if name not in columns), None)
    if strange is not None or not names:
        raise ModelError(
            key,
            expected=f"a prompt with a column of the data in braces: {', '.join(f'{{{name}}}' for name in columns)}",
            found=f"`{{{strange}}}`, which the data does not have" if names else "a prompt without any",
            mend=did_you_mean(strange, columns) if strange is not None else f"write {{{next(iter(columns))}}} in it",
        )
    return re.sub(r"\{(\w+)\}", lambda match: str(columns[match[1]]), template)


def schema(classes: Sequence[str]) -> dict[str, Any]:
    """The response format that lets the model say one of the classes and nothing else."""
    label = {"type": "string", "enum": list(classes)}
    about = {"type": "object", "properties": {"label": label}, "required": ["label"], "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": "label", "strict": True, "schema": about}}


def label_of(reply: Mapping[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    """What is kept of an answer that is to name a class: `label`, its number; or `unread`, the text, and `why`.

    Raises:
        Failure: There is no text.
    """
    return read_label({"unread": _content(reply), "ended": _reason(reply)}, classes)


def read_label(kept: Mapping[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    """What was kept of an answer, read (again) where it had no label: a reader that knows more needs no new answer."""
    if "label" in kept:
        return dict(kept)
    text, ended = str(kept["unread"]), kept.get("ended")
    try:
        return {"label": label_in(text, classes, cut=ended == "length")}
    except ValueError as error:
        cut = "; it was cut off: give it more tokens (settings.max_tokens)" if ended == "length" else ""
        shown = text if len(text) <= SHOWN else f"{text[: SHOWN // 2]} ... {text[-SHOWN // 2 :]}"
        return {"unread": text, "ended": ended, "why": f"{error}: {shown!r}{cut}"}


def letter_shares(reply: Mapping[str, Any], classes: int) -> tuple[list[float], int]:
    """The probability of each class among the likeliest first tokens, and how many tokens were told.

    Several tokens may be one letter (`A`, ` A`). Tokens that are no letter of a class are set aside: the shares are
    those given that the answer is none of them, so what is missing to 1 is the mass of tokens that were not told.

    Raises:
        Failure: No token is the letter of a class.
    """
    try:
        told = [
            (str(each["token"]), _probability(each["logprob"]))
            for each in reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        ]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise unusable("no log-probabilities in the answer", reply) from error
    place = {letter: number for number, letter in enumerate(LETTERS[:classes])}
    shares, other = [0.0] * classes, 0.0
    for token, share in told:
        if (number := place.get(token.strip())) is not None:
            shares[number] += share
        else:
            other += share
    if not sum(shares) > 0:
        raise unusable(f"none of the likeliest tokens is the letter of a class: {[t for t, _ in told[:5]]}", reply)
    return [min(share / max(1.0 - other, sum(shares)), 1.0) for share in shares], len(told)


def _probability(logprob: Any) -> float:
    """`exp` of a log-probability.

    Raises:
        ValueError: It is none: not a number, or clearly above 0.
    """
    value = float(logprob)
    if math.isnan(value) or value > 1e-3:
        raise ValueError(f"the log-probability {logprob!r}")
    return math.exp(min(value, 0.0))


def completion_of(reply: Mapping[str, Any]) -> dict[str, Any]:
    """What an answer holds: `text`, `finish_reason`, `served`, `tokens_in`, `tokens_out`.

    A model that refuses has answered: its reason is `refusal`, or `content_filter` where the endpoint stepped in, and
    the text is what it said. A text that was cut off, `length`, may be empty; any other empty one is of no use.

    Raises:
        Failure: There is no text.
    """
    try:
        choice = reply["choices"][0]
        message, reason = choice["message"], choice.get("finish_reason")
        text, refusal = message.get("content"), message.get("refusal")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise unusable("an answer without a message", reply) from error
    if isinstance(refusal, str) and refusal:
        reason, text = "refusal", text or refusal
    if text is None or text == "":
        if reason not in ("length", "content_filter"):
            raise unusable(f"an empty answer, which ended by {reason!r}", reply)
        text = ""
    if not isinstance(text, str):
        raise unusable(f"an answer that is no text but a {type(text).__name__}", reply)
    usage = usage_of(reply)
    return {
        "text": _writable(text),
        "finish_reason": None if reason is None else str(reason),
        "served": str(reply.get("model") or ""),
        "tokens_in": None if usage is None else usage.tokens_in,
        "tokens_out": None if usage is None else usage.tokens_out,
    }


def token_logprobs(reply: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """The answer's tokens, each with its log-probability and its likeliest alternatives; None where none are told."""
    try:
        told = [
            {
                **_token(each),
                "top": [_token(other) for other in each.get("top_logprobs") or ()],
            }
            for each in reply["choices"][0]["logprobs"]["content"]
        ]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return None
    return told or None


def _token(told: Mapping[str, Any]) -> dict[str, Any]:
    value = float(told["logprob"])
    if not math.isfinite(value):
        raise ValueError
    return {"token": _writable(str(told["token"])), "logprob": value}


def _writable(text: str) -> str:
    """The text without half characters, which JSON can carry and no file."""
    return text.encode("utf-8", "replace").decode()


def usage_of(reply: Mapping[str, Any]) -> Usage | None:
    """The tokens that the endpoint counted, if it says so."""
    usage = reply.get("usage")
    try:
        counted = Usage(tokens_in=int(usage["prompt_tokens"]), tokens_out=int(usage["completion_tokens"]))  # type: ignore[index]
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return (
        counted
        if min(counted.tokens_in, counted.tokens_out) >= 0 and max(vars(counted).values()) < MOST_TOKENS
        else None
    )


def most_usage(body: Mapping[str, Any]) -> Usage:
    """The most tokens that a request can use: a token is at least one byte of text, and each message has a frame."""
    text = json.dumps([body["messages"], body.get("response_format")], ensure_ascii=False)
    return Usage(tokens_in=len(text.encode()) + 16 * len(body["messages"]), tokens_out=int(body["max_tokens"]))


def unusable(message: str, reply: Mapping[str, Any]) -> Failure:
    """An answer that was paid for and is of no use."""
    return Failure("unusable", message, retry=True, http_status=200, usage=usage_of(reply), of_question=True)


def _content(reply: Mapping[str, Any]) -> str:
    try:
        content = reply["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError) as error:
        raise unusable("an answer without a message", reply) from error
    if not isinstance(content, str):
        raise unusable(f"an empty answer, which ended by {_reason(reply)!r}", reply)
    return content


def _reason(reply: Mapping[str, Any]) -> str | None:
    """By what an answer ended, as the endpoint says it."""
    reason = reply["choices"][0].get("finish_reason")
    return None if reason is None else str(reason)


def what_it_shows(what: str, reply: Any, classes: Sequence[str]) -> dict[str, Any]:
    """Whether a reply has what its request asked for."""
    try:
        if what == "logprobs":
            return {"logprobs": letter_shares(reply, len(classes))[1]}
        kept = label_of(reply, classes)
        return kept if what == "label" else {"json_schema": "label" in kept}
    except Failure:
        return {}
