"""The small files by which sentence-transformers knows what to do with a Hugging Face model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tutelage.errors import ModelError
from tutelage.teachers.encoder import Dense, SentenceEncoder
from tutelage.teachers.sentence_head import dense_config, save_dense
from tutelage.teachers.sentence_layout import POOLING_MODES, TextForm

__all__ = ["copy_tokenizer", "write_layout"]

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
    "vocab.txt", "vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model",
)  # fmt: skip

_MODULES = "sentence_transformers.models"
"""The names of the module types that every version of sentence-transformers reads."""
PROMPT = "default"
"""The name of the prompt that the student was trained with."""


def copy_tokenizer(source: Path, folder: Path) -> list[str]:
    """Copies the tokenizer's files, and no others, from a model's folder.

    Returns:
        Their names.

    Raises:
        ModelError: There are none.
    """
    names = [name for name in TOKENIZER_FILES if (source / name).is_file()]
    if not names:
        raise ModelError(
            "tokenizer",
            expected=f"a folder with tokenizer files ({', '.join(TOKENIZER_FILES[:2])}, ...)",
            found=f"none in `{source}`",
            mend="save it there: `tokenizer.save_pretrained(folder)`",
        )
    for name in names:
        shutil.copyfile(source / name, folder / name)
    return names


def write_layout(folder: Path, encoder: SentenceEncoder, form: TextForm) -> None:
    """Writes modules.json and the configs of what comes before and after the token model.

    Args:
        folder: Where config.json and model.safetensors are.
        encoder: What is stored.
        form: How its texts are prepared; `encode` of sentence-transformers then prepares them so.
    """
    dense = [layer for layer in encoder.dense or () if isinstance(layer, Dense)]
    kinds = ["Transformer", "Pooling", *("Dense" for _ in dense), *(["Normalize"] if encoder.normalize else [])]
    places = ["" if kind == "Transformer" else f"{at}_{kind}" for at, kind in enumerate(kinds)]
    _write(
        folder / "modules.json",
        [
            {"idx": at, "name": str(at), "path": place, "type": f"{_MODULES}.{kind}"}
            for at, (kind, place) in enumerate(zip(kinds, places, strict=True))
        ],
    )
    width = int(encoder.model.config.hidden_size)  # type: ignore[union-attr,arg-type]
    modes: dict[str, Any] = {key: mode in encoder.modes for mode, key in POOLING_MODES.items()}
    if list(encoder.modes) != [mode for mode in POOLING_MODES if mode in encoder.modes]:
        modes = {"pooling_mode": list(encoder.modes)}  # only since version 6 can the order be another
    _write(folder / "1_Pooling/config.json", {"word_embedding_dimension": width, **modes})
    for layer, place in zip(dense, places[2:], strict=False):
        _write(folder / place / "config.json", dense_config(layer))
        save_dense(layer, folder / place)
    if encoder.normalize:
        _write(folder / places[-1] / "config.json", {})
    prompts = {PROMPT: form.prompt} if form.prompt else {}
    _write(
        folder / "config_sentence_transformers.json",
        {
            "__version__": {},
            "prompts": prompts,
            "default_prompt_name": PROMPT if prompts else None,
            "similarity_fn_name": "cosine",
        },
    )
    _write(folder / "sentence_bert_config.json", {"max_seq_length": form.max_length, "do_lower_case": form.lower_case})


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
