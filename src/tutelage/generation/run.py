"""Having a chat model write texts about the rows of a source: read, ask, write, in this order."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

import tutelage
from tutelage.beat import Phase
from tutelage.described import describe
from tutelage.errors import DataError, ModelError, within
from tutelage.generation.recipe import ChatModel, Generation
from tutelage.generation.rows import digest_of, limited, plain_columns
from tutelage.generation.write import OURS, require_place, write_set
from tutelage.governance.licence import licence_records
from tutelage.teachers.chat import completion_of, filled, token_logprobs
from tutelage.teachers.chat_endpoint import ChatEndpoint

__all__ = ["Generated", "generate"]

REFUSED = ("refusal", "content_filter")


@dataclass(frozen=True, kw_only=True)
class Generated:
    """What was written.

    Attributes:
        path: The file of the set.
        manifest: How it was made, as the manifest beside it says.
        money: What the whole ledger has cost so far; None where no price is given.
    """

    path: Path
    manifest: Mapping[str, Any]
    money: float | None

    def __str__(self) -> str:
        counts, teacher = self.manifest["counts"], self.manifest["teacher"]
        written, money = counts["completions"], "" if self.money is None else f"; {self.money:,.6g} in money so far"
        lines = [
            f"{self.path}: {written:,} texts about {self.manifest['source']['rows']:,} rows, by "
            f"{', '.join(teacher['served']) or teacher['model']}",
            f"  tokens:   {counts['tokens_in']:,} in, {counts['tokens_out']:,} out{money}; "
            f"every answer is kept in {self.manifest['ledger']}",
        ]
        if cut := counts["cut_off"]:
            lines.append(f"  cut off:  {cut:,} of {written:,} at the most tokens allowed (finish_reason: length)")
        if lacking := counts["unanswered"]:
            lines.append(f"  left out: {lacking:,} without a usable answer; `tutelage ledger` says why")
        if refused := counts["refused"]:
            lines.append(f"  refused:  {refused:,} of {written:,} (finish_reason: {' or '.join(REFUSED)})")
        return "\n".join(lines)


def generate(recipe: Generation, out: Path | str, *, progress: bool = True) -> Generated:
    """Asks a chat model to write about each row, and writes rows and texts as one file.

    All answers go through the query ledger: called again after a stop it asks only what is missing, and once all is
    answered it asks nothing. The file has the source's columns (one that is called as one of these is kept as
    `source_NAME`), and `prompt`, `completion`, `finish_reason`, `teacher` (the model as served), `sample`,
    `tokens_in`, `tokens_out`, and `logprobs` where they are asked for. The samples of a row follow each other.

    Args:
        recipe: Which rows, which model, on which terms.
        out: The file, ending in `.jsonl` or `.parquet`; `FILE.manifest.json` is written beside it.
        progress: Show a bar.

    Raises:
        UserError: The recipe, the rows, the endpoint or the file can't be used; no row was asked about.
        CapReached: A cap stops it. All that was answered is in the ledger, nothing is written.
        QueryFailed: A row got no usable answer.
    """
    recipe.check()
    path = require_place(out, recipe.name)
    teacher = recipe.teacher
    columns = limited(plain_columns(recipe.data.source.load()), recipe.data.limit)
    kept = _kept(columns)
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    prompts = [filled(teacher.prompt, row, "teacher.prompt") for row in rows]
    with within("teacher"):
        endpoint = teacher.connect()
        _probe(endpoint, teacher)
    answers = _ask(endpoint, teacher, prompts, progress=progress)
    table = _table(kept, prompts, answers, teacher)
    money = endpoint.desk.ledger.spent()[2] if teacher.prices.known else None
    manifest = write_set(path, table, _about(recipe, columns, answers))
    return Generated(path=path, manifest=manifest, money=money)


def _kept(columns: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """The source's columns under names that ours don't have."""
    kept = {f"source_{name}" if name in OURS else name: values for name, values in columns.items()}
    if len(kept) < len(columns):
        twice = next(name for name in columns if name in OURS and f"source_{name}" in columns)
        raise DataError(
            f"column `{twice}`",
            expected=f"no other column called `source_{twice}`, the name under which it is kept",
            found="one",
            mend="rename the column in the source",
        )
    return kept


def _request(endpoint: ChatEndpoint, teacher: ChatModel, text: str) -> dict[str, Any]:
    more = {"logprobs": True, "top_logprobs": teacher.logprobs} if teacher.logprobs else {}
    return endpoint.body(teacher.system, text, temperature=teacher.temperature, max_tokens=teacher.max_tokens, **more)


def _probe(endpoint: ChatEndpoint, teacher: ChatModel) -> None:
    """One call with the recipe's settings, so that what the endpoint does not take is known before a row is asked."""
    body = _request(endpoint, teacher, "Say OK.")
    told = endpoint.probe("text", body, lambda reply: {"logprobs": token_logprobs(reply) is not None}, may_refuse=False)
    if teacher.logprobs and not told["logprobs"]:
        raise ModelError(
            "logprobs",
            expected="an endpoint that tells log-probabilities",
            found=f"{endpoint.describe()}, which tells none",
            mend="write `logprobs: 0`",
        )


def _ask(
    endpoint: ChatEndpoint, teacher: ChatModel, prompts: Sequence[str], *, progress: bool
) -> list[dict[str, Any] | None]:
    bodies = [_request(endpoint, teacher, text) for text in prompts]
    every = endpoint.questions(bodies, teacher.samples)
    known = len(endpoint.desk.ledger.answers(each.key for each in every))
    lines = progress and not sys.stderr.isatty()
    bar = tqdm(total=len(every), initial=known, unit="text", disable=lines or not progress)
    written = itertools.count(known + 1)
    with bar, Phase("texts", on=lines) as phase:

        def read(reply: Mapping[str, Any]) -> dict[str, Any]:
            found = completion_of(reply) | ({"logprobs": token_logprobs(reply)} if teacher.logprobs else {})
            bar.update()
            phase.at(f"{next(written):,} of {len(every):,} are written")
            return found

        allowed = math.floor(teacher.unanswered * len(every) + 1e-9)
        return endpoint.ask(bodies, read, samples=teacher.samples, allowed=allowed)


def _table(
    kept: Mapping[str, list[Any]],
    prompts: Sequence[str],
    answers: Sequence[Mapping[str, Any] | None],
    teacher: ChatModel,
) -> dict[str, list[Any]]:
    """The columns of the set, one row an answer: where there is none there is no row."""
    written = [(*divmod(at, teacher.samples), answer) for at, answer in enumerate(answers) if answer is not None]
    table = {name: [values[row] for row, _, _ in written] for name, values in kept.items()}
    table["prompt"] = [prompts[row] for row, _, _ in written]
    table["completion"] = [answer["text"] for _, _, answer in written]
    table["finish_reason"] = [answer["finish_reason"] for _, _, answer in written]
    table["teacher"] = [answer["served"] or teacher.model for _, _, answer in written]
    table["sample"] = [number for _, number, _ in written]
    for name in ("tokens_in", "tokens_out", *(["logprobs"] if teacher.logprobs else [])):
        table[name] = [answer[name] for _, _, answer in written]
    return table


def _about(
    recipe: Generation, columns: Mapping[str, list[Any]], every: Sequence[Mapping[str, Any] | None]
) -> dict[str, Any]:
    """The manifest, but for the file's own digest."""
    answers = [answer for answer in every if answer is not None]
    teacher, reasons = recipe.teacher, Counter(answer["finish_reason"] for answer in answers)
    said = ("url", "model", "prompt", "system", "samples", "temperature", "max_tokens", "logprobs", "settings")
    asked = {name: getattr(teacher, name) for name in said}
    (licence,) = licence_records({"teacher": teacher}, recipe.licences)
    served = sorted({answer["served"] for answer in answers if answer["served"]})
    return {
        "kind": "generated",
        "name": recipe.name,
        "made": "by a teacher: the completions were written by a model, not by people",
        "tutelage": tutelage.__version__,
        "source": {
            "recipe": describe(recipe.data.source),
            "limit": recipe.data.limit,
            "rows": len(next(iter(columns.values()))),
            "sha256": digest_of(dict(columns)),
        },
        "teacher": {**asked, "served": served, "sha256": _digest({**asked, "served": served})},
        "licence": licence.to_dict(),
        "ledger": teacher.ledger,
        "counts": {
            "completions": len(answers),
            "unanswered": len(every) - len(answers),
            "finish_reasons": {str(reason): count for reason, count in sorted(reasons.items(), key=str)},
            "cut_off": reasons["length"],
            "refused": sum(reasons[reason] for reason in REFUSED),
            "tokens_in": sum(answer["tokens_in"] or 0 for answer in answers),
            "tokens_out": sum(answer["tokens_out"] or 0 for answer in answers),
        },
    }


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
