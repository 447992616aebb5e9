"""The small files by which sentence-transformers knows what to do with a Hugging Face model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tutelage.errors import ModelError

__all__ = ["copy_tokenizer", "write_layout"]

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
    "vocab.txt", "vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model",
)  # fmt: skip

_MODULES = "sentence_transformers.models"
"""The names of the module types that every version of sentence-transformers reads."""


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


def write_layout(folder: Path, *, pooling: str, normalize: bool, width: int, tokenizer: Path | None) -> None:
    """Writes modules.json and the configs of pooling and normalization.

    Args:
        folder: Where config.json and model.safetensors are.
        pooling: `mean` or `cls`.
        normalize: Whether embeddings get unit length.
        width: `D`.
        tokenizer: The folder of the tokenizer; if it says at how many tokens sentences are cut, that is kept.
    """
    modules = [("Transformer", ""), ("Pooling", "1_Pooling"), *([("Normalize", "2_Normalize")] if normalize else [])]
    _write(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": f"{_MODULES}.{name}"}
            for i, (name, path) in enumerate(modules)
        ],
    )
    _write(
        folder / "1_Pooling/config.json",
        {
            "word_embedding_dimension": width,
            "pooling_mode_cls_token": pooling == "cls",
            "pooling_mode_mean_tokens": pooling == "mean",
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
        },
    )
    if normalize:
        _write(folder / "2_Normalize/config.json", {})
    _write(
        folder / "config_sentence_transformers.json",
        {"__version__": {}, "prompts": {}, "default_prompt_name": None, "similarity_fn_name": "cosine"},
    )
    _write(folder / "sentence_bert_config.json", {"max_seq_length": _longest(tokenizer), "do_lower_case": False})


def _longest(tokenizer: Path | None) -> int | None:
    """`max_seq_length` where the tokenizer came from; None leaves it to the model and the tokenizer."""
    path = None if tokenizer is None else tokenizer / "sentence_bert_config.json"
    if path is None or not path.is_file():
        return None
    longest = json.loads(path.read_text(encoding="utf-8")).get("max_seq_length")
    return int(longest) if longest else None


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
