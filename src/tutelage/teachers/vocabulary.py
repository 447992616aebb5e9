"""Which number each token has: a model reads numbers, and they mean what its own tokenizer says."""

from __future__ import annotations

from pathlib import Path

from tutelage.errors import ModelError
from tutelage.teachers.sentence_layout import read_json

__all__ = ["require_same_ids", "vocabulary"]


def vocabulary(folder: Path) -> dict[str, int] | None:
    """The number of each token in a tokenizer's folder, from `tokenizer.json` or else `vocab.txt`; None without both.

    Raises:
        ModelError: `tokenizer.json` is not JSON.
    """
    if (folder / "tokenizer.json").is_file():
        content = read_json(folder / "tokenizer.json")
        tokens = content["model"].get("vocab", {})
        if isinstance(tokens, list):  # Unigram: pairs of a token and its score
            tokens = {token: index for index, (token, _) in enumerate(tokens)}
        return {**tokens, **{token["content"]: token["id"] for token in content.get("added_tokens", [])}}
    if (folder / "vocab.txt").is_file():  # WordPiece before there was tokenizer.json: one token a line
        lines = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
        return {token: index for index, token in enumerate(lines)}
    return None


def require_same_ids(key: str, *, reader: Path, encoder: Path) -> None:
    """Refuses a model that reads other numbers than those that the texts are encoded as.

    Args:
        key: Where the model is named in the recipe.
        reader: The folder of the model's own tokenizer.
        encoder: The folder of the tokenizer that encodes the texts.

    Raises:
        ModelError: A token of the encoder has another number, or none, in the reader. Folders without a vocabulary
            are not compared.
    """
    if reader.resolve() == encoder.resolve():
        return
    read, written = vocabulary(reader), vocabulary(encoder)
    if read is None or written is None:
        return
    strange = [token for token, number in written.items() if read.get(token) != number]
    if strange:
        raise ModelError(
            key,
            expected=f"the token ids of `{encoder.name}`, whose tokenizer encodes the texts",
            found=f"a model that reads other token ids: {len(strange):,} of {len(written):,} tokens have another "
            f"number in `{reader.name}`, `{strange[0]}` for one",
            harm="it would be trained on texts that mean nothing to it",
            mend="use models with one vocabulary",
        )
