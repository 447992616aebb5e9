"""What a model reads for a text: the number of each token, and what is done to the text before it is tokens."""

from __future__ import annotations

from pathlib import Path

from tutelage.errors import ModelError
from tutelage.teachers.base import Teacher
from tutelage.teachers.sentence_layout import TextForm, layout_of_tokenizer, read_json

__all__ = ["readers", "require_same_form", "require_same_ids", "vocabulary"]


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


def readers(teacher: Teacher, key: str = "teacher") -> list[tuple[str, Path]]:
    """The tokenizer's folder of every teacher of texts that a teacher is or is made of, with its key."""
    if not teacher.inner:
        return [] if teacher.tokenizer_folder is None else [(key, teacher.tokenizer_folder)]
    return [found for name, each in teacher.inner.items() for found in readers(each, f"{key}.{name}" if name else key)]


def require_same_form(reader: tuple[str, Path], form: TextForm, stated: bool) -> None:
    """Refuses a sentence encoder that is given other texts than sentence-transformers gives it.

    Args:
        reader: Where the model is named in the recipe, and the folder of its tokenizer.
        form: How the texts are prepared.
        stated: Whether the recipe states the prompt: then it may be another than the folder's.

    Raises:
        ModelError: The folder says another prompt or other letters, or that the prompt's tokens are not to count.
    """
    key, folder = reader
    layout = layout_of_tokenizer(folder)
    own = layout.texts
    if own.prompt != form.prompt and not stated:
        raise ModelError(
            key,
            expected=f"texts that begin with {own.prompt!r}, the default prompt of `{folder.name}`",
            found=f"texts that begin with {form.prompt!r}, as the folder of their tokenizer says",
            harm="its embeddings would be others than those of sentence-transformers",
            mend="state data.text.prompt",
        )
    if own.lower_case != form.lower_case:
        raise ModelError(
            key,
            expected=f"texts {'in lower case' if own.lower_case else 'as they are'}, as `{folder.name}` says",
            found="the opposite, as the folder of their tokenizer says",
            mend="set data.text.tokenizer to the teacher's folder",
        )
    if form.prompt and not layout.include_prompt:
        raise ModelError(
            key,
            expected="a pooling over all tokens",
            found=f"include_prompt: false in `{folder.name}`: those of the prompt {form.prompt!r} do not count",
            harm="its embeddings would be others than those of sentence-transformers",
            mend='state data.text.prompt: "", or wrap the model in a torch module of your own and use ModuleTeacher',
        )
