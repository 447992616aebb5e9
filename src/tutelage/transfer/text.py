"""Texts as tokens: encoded once, kept ragged, padded batch by batch to the longest row."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tutelage.errors import DataError, MissingExtra, ModelError, RecipeError
from tutelage.paths import resolve_path
from tutelage.teachers.padding import padding_id
from tutelage.teachers.sentence_layout import SentenceLayout, TextForm, layout_of_tokenizer, read_json

__all__ = ["Text", "Tokenizer", "Tokens"]

Array = np.ndarray[Any, Any]

_CHUNK = 8192
"""Texts encoded at once: bounds the memory of the tokenizer's own objects."""
USUAL = 128
"""Tokens a text where neither the recipe nor the folder says how many."""
MOST = 1 << 20
"""Tokens a text where a tokenizer sets no limit."""
_COUNTED_FROM_PADDING = (
    "roberta",
    "xlm-roberta",
    "xlm-roberta-xl",
    "camembert",
    "roberta-prelayernorm",
    "longformer",
    "mpnet",
)
"""Model types whose first position has the number after that of the padding token."""


@dataclass(kw_only=True)
class Text:
    """How texts become tokens.

    Attributes:
        tokenizer: Folder with a tokenizer in Hugging Face's layout. None: the teacher's folder.
        max_length: Longer texts are cut to this many tokens, special ones included. None: as many as
            sentence-transformers reads where it saved the tokenizer's folder, else 128, or fewer where the tokenizer or
            the model in its folder takes fewer.
        prompt: What is put before each text. None: what sentence-transformers puts there by default, where it saved the
            tokenizer's folder, else nothing.
    """

    tokenizer: str | None = None
    max_length: int | None = None
    prompt: str | None = None

    def __post_init__(self) -> None:
        if self.max_length is not None and self.max_length < 1:
            raise RecipeError("data.text.max_length", expected="at least 1 token", found=str(self.max_length))

    def load(self, default: str | Path | None = None) -> Tokenizer:
        """The tokenizer.

        Args:
            default: The folder to use when `tokenizer` is None.

        Raises:
            RecipeError: There is neither.
            ModelError: The folder holds no tokenizer.
            MissingExtra: `transformers` is not installed.
        """
        key = "data.text.tokenizer"
        if self.tokenizer is None and default is None:
            raise RecipeError(
                key,
                expected="a tokenizer folder, since the data is text and the teacher has no tokenizer of its own",
                found="nothing",
                mend="set data.text.tokenizer",
            )
        folder = resolve_path(str(self.tokenizer or default), key=key, error=ModelError)
        try:
            from transformers import AutoTokenizer
        except ImportError as error:
            raise MissingExtra("transformers", "hf", "tokenizing text") from error
        try:
            made = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        except Exception as error:  # the tokenizers library raises plain ones, transformers whatever its parts raise
            raise ModelError(
                key,
                expected="a folder with a tokenizer (tokenizer.json)",
                found=f"`{folder}`: {next(iter(str(error).splitlines()), type(error).__name__)[:400]}",
                mend="give the folder that the model was saved in",
            ) from error
        return self._as_stated(made, layout_of_tokenizer(folder))

    def _as_stated(self, made: Any, layout: SentenceLayout) -> Tokenizer:
        """The tokenizer with the folder's way of preparing texts, but for what the recipe states."""
        own = layout.texts.max_length
        most = min(int(made.model_max_length), positions(layout.model), MOST)
        if own is None and layout.stated:
            own = most
        form = TextForm(
            prompt=layout.texts.prompt if self.prompt is None else self.prompt,
            max_length=self.max_length or own or min(USUAL, most),
            lower_case=layout.texts.lower_case,
        )
        notes = []
        if self.max_length is None and own is None and most < USUAL:
            notes.append(
                f"texts are cut to {most} tokens, the most that the tokenizer's folder `{layout.model.name}` allows "
                "(model_max_length, positions); data.text.max_length states fewer"
            )
        if form.prompt:
            notes.append(
                f"each text begins with the prompt {form.prompt!r}"
                + (
                    f', as `{layout.model.name}` says; data.text.prompt: "" leaves it out'
                    if self.prompt is None
                    else ""
                )
            )
        further = [name for name, text in layout.prompts if text and text != form.prompt]
        if further and self.prompt is None:
            notes.append(
                f"`{layout.model.name}` has the prompts {', '.join(further)} besides, which `encode` does not apply by "
                "default: neither do teacher and student; data.text.prompt states another one"
            )
        if own is not None and form.max_length != own:
            notes.append(
                f"texts are cut to {form.max_length} tokens (data.text.max_length), where sentence-transformers cuts "
                f"them to {own} for `{layout.model.name}`"
            )
        return Tokenizer(made, form, notes=notes)


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Token sequences of different lengths, without padding.

    Attributes:
        flat: By input name, the values of all rows one after the other (int32).
        offsets: `[N + 1]`: row i is `flat[name][offsets[i]:offsets[i + 1]]`.
        cut: How many rows were longer than `max_length`.
    """

    flat: dict[str, Array]
    offsets: Array
    cut: int

    @property
    def lengths(self) -> Array:
        """`[N]` tokens of each row."""
        return np.diff(self.offsets)

    def digest(self, rows: Array | None = None) -> bytes:
        """Changes when any token of these rows does, or of all."""
        if rows is not None:
            lengths = self.lengths[rows]
            offsets = np.concatenate([[0], np.cumsum(lengths)])
            at = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - self.offsets[rows], lengths)
            return Tokens(flat={n: flat[at] for n, flat in self.flat.items()}, offsets=offsets, cut=0).digest()
        sha = hashlib.sha256(self.offsets.tobytes())
        for name in sorted(self.flat):
            sha.update(name.encode())
            sha.update(self.flat[name].tobytes())
        return sha.digest()


class Tokenizer:
    """A Hugging Face tokenizer that encodes to `Tokens` and pads batches of them.

    Args:
        tokenizer: As `AutoTokenizer` makes it.
        form: How texts are prepared.
        notes: What a user should know of that.
    """

    def __init__(self, tokenizer: Any, form: TextForm, *, notes: Sequence[str] = ()) -> None:
        self.tokenizer = tokenizer
        self.form = form
        self.notes = list(notes)
        if form.lower_case:
            _lower(tokenizer)
        self.pad = padding_id(tokenizer)
        self.left = tokenizer.padding_side == "left"
        self.mask: str | None = tokenizer.mask_token

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, key: str = "text") -> Tokens:
        """Tokens of each text, or of each pair of texts.

        Raises:
            DataError: A text has no token at all.
        """
        parts: dict[str, list[Array]] = {}
        lengths: list[int] = []
        cut = 0
        for start in range(0, len(texts), _CHUNK):
            stop = start + _CHUNK
            second = None if pairs is None else list(pairs[start:stop])
            first = [self.form.prompt + text for text in texts[start:stop]]
            encoded = self.tokenizer(first, second, truncation=True, max_length=self.form.max_length, padding=False)
            if self.tokenizer.is_fast:
                cut += sum(bool(one.overflowing) for one in encoded.encodings)
            lengths.extend(len(ids) for ids in encoded["input_ids"])
            for name, rows in encoded.items():
                if name != "attention_mask":
                    flat = np.fromiter((value for row in rows for value in row), dtype=np.int32)
                    parts.setdefault(name, []).append(flat)
        if 0 in lengths:
            raise DataError(
                f"column `{key}`, row {lengths.index(0)}",
                expected="at least one token",
                found=f"a text without any: {texts[lengths.index(0)]!r}",
                harm="there would be nothing for the models to read",
                mend="remove empty texts",
            )
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return Tokens(flat={name: np.concatenate(flats) for name, flats in parts.items()}, offsets=offsets, cut=cut)

    def pad_rows(self, tokens: Tokens, rows: Array) -> tuple[dict[str, Tensor], Tensor]:
        """Inputs and mask of some rows, padded to the longest of them on the tokenizer's side.

        Returns:
            int64 `[B, L]` by name (with `attention_mask` where the tokenizer gives it), and the bool mask `[B, L]`.
        """
        starts, lengths = tokens.offsets[rows], tokens.lengths[rows]
        width = int(lengths.max(initial=1))
        columns = np.arange(width)[None, :]
        shift = (width - lengths if self.left else np.zeros_like(lengths))[:, None]
        mask = (columns >= shift) & (columns < shift + lengths[:, None])
        source = np.where(mask, starts[:, None] + columns - shift, 0)
        inputs: dict[str, Tensor] = {}
        for name, flat in tokens.flat.items():
            fill = self.pad if name == "input_ids" else 0
            inputs[name] = torch.from_numpy(np.where(mask, flat[source], fill).astype(np.int64))
        mask_tensor = torch.from_numpy(mask)
        if "attention_mask" in self.tokenizer.model_input_names:
            inputs["attention_mask"] = mask_tensor.long()
        return inputs, mask_tensor


def positions(folder: Path) -> int:
    """The most tokens that the model in a folder has positions for, as its config.json says; without one, `MOST`."""
    file = folder / "config.json"
    config = read_json(file) if file.is_file() else {}
    found = config.get("max_position_embeddings") or config.get("n_positions") or MOST
    if str(config.get("model_type")) in _COUNTED_FROM_PADDING:
        found -= int(config.get("pad_token_id") or 0) + 1
    return int(found) if found > 0 else MOST


def _lower(tokenizer: Any) -> None:
    """Has a tokenizer put texts in lower case, before what else it does with them."""
    if not tokenizer.is_fast:
        raise ModelError(
            "data.text.tokenizer",
            expected="a tokenizer with a tokenizer.json, to put texts in lower case as the folder says (do_lower_case)",
            found=type(tokenizer).__name__,
            mend="convert it: load it with AutoTokenizer and save it",
        )
    from tokenizers import normalizers

    own = tokenizer.backend_tokenizer.normalizer
    steps = [normalizers.Lowercase(), *([] if own is None else [own])]
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(steps)
