"""Small Hugging Face models with random weights that all differ, LayerNorms and biases included."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn

os.environ["HF_HUB_OFFLINE"] = "1"

from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    DistilBertModel,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
    RobertaModel,
)

from tutelage.teachers import ModuleTeacher, SentenceEncoder

IDS = torch.tensor([[2, 5, 6, 9, 3], [2, 7, 3, 1, 1]])
TOKENS = {"input_ids": IDS, "attention_mask": (IDS != 1).long()}
SIZES = {"hidden_size": 24, "num_attention_heads": 6, "num_hidden_layers": 4, "intermediate_size": 40}
COMMON = {"vocab_size": 13, "pad_token_id": 1, "num_labels": 3}

MODELS: dict[str, Any] = {
    "bert": (BertModel, BertConfig, SIZES),
    "bert-classifier": (BertForSequenceClassification, BertConfig, SIZES),
    "roberta": (RobertaModel, RobertaConfig, SIZES),
    "roberta-classifier": (RobertaForSequenceClassification, RobertaConfig, SIZES),
    "distilbert": (DistilBertModel, DistilBertConfig, {"dim": 24, "n_heads": 6, "n_layers": 4, "hidden_dim": 40}),
    "distilbert-classifier": (
        DistilBertForSequenceClassification,
        DistilBertConfig,
        {"dim": 24, "n_heads": 6, "n_layers": 4, "hidden_dim": 40},
    ),
    "llama-classifier": (LlamaForSequenceClassification, LlamaConfig, {**SIZES, "num_key_value_heads": 3}),
}
ENCODERS = [name for name in MODELS if not name.startswith("llama")]


def model(name: str, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A small model of this kind in eval mode."""
    kind, config, sizes = MODELS[name]
    torch.manual_seed(seed)
    made: PreTrainedModel = kind(config(**COMMON, **{**sizes, **changes}))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return made.eval()


def teacher_of(module: nn.Module) -> ModuleTeacher:
    """The loaded teacher that this module is; base models are wrapped in a SentenceEncoder."""
    teacher = ModuleTeacher(
        module if "For" in type(module).__name__ else SentenceEncoder(module, "cls", normalize=False)
    )
    teacher.load(torch.device("cpu"))
    return teacher


def output(module: nn.Module) -> Tensor:
    """The output for `TOKENS`, in eval mode."""
    with torch.no_grad():
        result = module.eval()(**TOKENS)
    return result if isinstance(result, Tensor) else result.logits


def inner(module: nn.Module) -> Any:
    """The Hugging Face model in a student."""
    return module.model if isinstance(module, SentenceEncoder) else module
