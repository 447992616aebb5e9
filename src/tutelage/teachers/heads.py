"""Which head the model in a Hugging Face folder has: what it answers, and whether that is what is asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from tutelage.errors import ModelError
from tutelage.teachers.sentence_layout import SentenceLayout

__all__ = ["Head", "base_class", "choose_head", "dropped_head"]

Head = Literal["classification", "embedding"]

CLASSIFIER = "ForSequenceClassification"
LANGUAGE = ("ForMaskedLM", "ForPreTraining")
"""Heads that a model is pretrained with and whose encoder is what it is used for afterwards."""

ANSWERS = {
    "ForTokenClassification": "a class for each token, not for a text",
    "ForQuestionAnswering": "where in a text an answer begins and ends",
    "ForCausalLM": "the next token",
    "HeadModel": "the next token",
    "HeadsModel": "the next token, and which of several texts is right",
    "WithLMHead": "the next token",
    "ForConditionalGeneration": "the tokens of a text that it writes",
    "ForMultipleChoice": "which of several texts is right",
    "ForNextSentencePrediction": "whether one text follows another",
    "ForImageClassification": "the class of an image",
    "ForAudioClassification": "the class of a sound",
    "ForVideoClassification": "the class of a film",
    "ForObjectDetection": "boxes in an image",
    "ForSemanticSegmentation": "a class for each pixel",
    "ForCTC": "letters for a sound",
}
"""What models answer, by the ends of their classes' names."""


def choose_head(config: Mapping[str, Any], layout: SentenceLayout, asked: str, key: str) -> Head:
    """The head that is loaded: the one asked for, or for `auto` the one that the folder's files name.

    Args:
        config: The content of `config.json`.
        layout: What the folder says of sentence-transformers.
        asked: `auto`, `classification` or `embedding`.
        key: How to name the folder in messages.

    Raises:
        ModelError: The folder's model has another head than the one asked for, or for `auto` one that is neither, or
            it is not known.
    """
    names = [str(name) for name in config.get("architectures") or ()]
    name = next((name for name in names if name.endswith(CLASSIFIER)), names[0] if names else "")
    if asked == "embedding" or (asked == "auto" and layout.stated and layout.pooling):
        return "embedding"
    if name.endswith(CLASSIFIER):
        return "classification"
    if asked == "classification":
        if is_base(name) or not name:  # its weights tell whether there is a classifier
            return "classification"
        raise _another_head(key, f"a classifier of texts (...{CLASSIFIER})", name, config)
    if is_base(name) or name.endswith(LANGUAGE):
        return "embedding"
    if not name:
        raise ModelError(
            key,
            expected="`architectures` in config.json, which says what the model answers",
            found="none",
            harm="a head that it was trained with might be left out",
            mend="state `head: classification` or `head: embedding`",
        )
    raise _another_head(key, f"a classifier of texts (...{CLASSIFIER}) or a sentence encoder", name, config)


def base_class(transformers: Any, config: Mapping[str, Any], layout: SentenceLayout, key: str) -> str:
    """The class of transformers that gives the hidden states of the texts themselves.

    Raises:
        ModelError: The model reads a text and writes another, whose states it would give.
    """
    name = str(next(iter(config.get("architectures") or ()), ""))
    if name.endswith("EncoderModel") and hasattr(transformers, name):
        return name
    if not config.get("is_encoder_decoder"):
        return "AutoModel"
    encoder = re.sub(r"(For[A-Z]\w*|Model)$", "EncoderModel", name)
    if not (layout.stated and hasattr(transformers, encoder)):
        raise ModelError(
            key,
            expected="a model whose last states are those of the text that it reads",
            found=f"{name or 'a model'}, with an encoder and a decoder, which writes a text of its own",
            harm="the embedding would be one of the decoder's states",
            mend="save its encoder alone" + (f" ({encoder})" if hasattr(transformers, encoder) else ""),
        )
    return encoder


def dropped_head(architectures: Sequence[str] | None) -> str:
    """The head that is left out where a model is used as an encoder, by the name of the model's class; else empty."""
    name = str(next(iter(architectures or ()), ""))
    return "" if not name or is_base(name) else name


def is_base(name: str) -> bool:
    """Whether a class of transformers has no head: its name ends in `Model`, and no head is named before."""
    return name.endswith("Model") and not name.endswith(("HeadModel", "HeadsModel"))


def _another_head(key: str, expected: str, name: str, config: Mapping[str, Any]) -> ModelError:
    answers = next((what for end, what in ANSWERS.items() if name.endswith(end)), "something else")
    encoder = "or state `head: embedding`, if the embedding of its encoder is wanted and not its answers"
    if config.get("is_encoder_decoder"):
        encoder = "or save its encoder alone, if the embedding of the text that it reads is wanted and not its answers"
    return ModelError(
        key,
        expected=expected,
        found=f"{name}, which answers {answers}",
        harm="its head would be left out, and the student would learn nothing of what it was trained for",
        mend=f"give a torch module whose forward returns one answer for each row (ModuleTeacher); {encoder}",
    )
