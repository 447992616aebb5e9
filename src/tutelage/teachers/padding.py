"""The token that fills up the shorter texts of a batch, and the models that have to know it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["padding_id", "reads_padding", "tell_padding"]


def padding_id(tokenizer: Any) -> int:
    """The token id that batches are filled up with: the padding token's, or else one that ends no text.

    Without a padding token it is that of the end-of-sequence token where the tokenizer does not itself put it into each
    text, as usual for decoders; else 0.
    """
    if tokenizer.pad_token_id is not None:
        return int(tokenizer.pad_token_id)
    end, own = tokenizer.eos_token_id, tokenizer("")["input_ids"]
    return 0 if end is None or end in own else int(end)


def reads_padding(model: Any) -> bool:
    """Whether a model may tell a text's last token by the padding token's id, as decoders that classify do."""
    return type(model).__name__.endswith("ForSequenceClassification") and hasattr(model, "config")


def tell_padding(model: Any, folder: Path) -> None:
    """Tells a classifier without a padding token which one batches are filled up with; else it takes one row alone.

    Args:
        model: A model of transformers.
        folder: The folder with its tokenizer; without one the model stays as it is.
    """
    from transformers import AutoTokenizer

    config = model.config.get_text_config()
    if config.pad_token_id is not None or not reads_padding(model):
        return
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError):  # the plan finds that the model takes no batch
        return
    config.pad_token_id = padding_id(tokenizer)
