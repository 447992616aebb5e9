"""Small classifiers of texts in folders, with a tokenizer of whole words."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

import tutelage as tt

os.environ["HF_HUB_OFFLINE"] = "1"

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    PreTrainedTokenizerFast,
)

__all__ = ["bert", "gpt2", "plan_of", "texts"]

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{i}" for i in range(40))]


def _tokenizer(folder: Path, **names: Any) -> None:
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", **names}
    PreTrainedTokenizerFast(tokenizer_object=made, **special).save_pretrained(folder)


def _saved(model: Any, folder: Path) -> str:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder)
    return str(folder)


def bert(folder: Path, positions: int, *, vocabulary: int = len(WORDS)) -> str:
    """A BERT with that many positions, whose tokenizer states no limit."""
    _tokenizer(folder, pad_token="[PAD]")
    size = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
    config = BertConfig(vocab_size=vocabulary, max_position_embeddings=positions, num_labels=2, **size)
    return _saved(BertForSequenceClassification(config), folder)


def gpt2(folder: Path, *, pad: int | None = None, **config: Any) -> str:
    """A GPT-2 whose tokenizer has no padding token, and ends each text with the token for the end of sequences."""
    _tokenizer(folder, eos_token="[SEP]", **({} if pad is None else {"pad_token": "[PAD]"}))
    size = {"n_embd": 8, "n_layer": 4, "n_head": 2, "n_positions": 64, "bos_token_id": 2, "eos_token_id": 3}
    made = GPT2Config(vocab_size=len(WORDS), num_labels=2, pad_token_id=pad, **size, **config)
    return _saved(GPT2ForSequenceClassification(made), folder)


def texts(lengths: dict[int, int], rows: int = 60) -> list[str]:
    """Texts of 3 to 7 words; those of the rows named have as many as is said."""
    return [
        " ".join(f"w{(7 * row + 3 * place) % 40}" for place in range(lengths.get(row, 3 + row % 5)))
        for row in range(rows)
    ]


def plan_of(
    teacher: tt.Teacher, student: tt.students.Student | nn.Module, rows: list[str], **text: Any
) -> tt.plan.Plan:
    """The plan of a classification without labels, in which the last 20 rows are for development and test."""
    split = ["train"] * (len(rows) - 20) + ["development"] * 10 + ["test"] * 10
    if isinstance(student, nn.Module):
        student = tt.ModuleStudent(student)
    return tt.make_plan(
        tt.Recipe(
            name="texts",
            task="classification",
            data=tt.Data(source=tt.Arrays({"text": rows}, split=split), text=tt.Text(**text) if text else None),
            teacher=teacher,
            student=student,
            licences={"teacher": tt.Licence(use="allowed", basis="made by this test", date="2026-01-31")},
            losses=[tt.losses.KLDivergence()],
            training=tt.Training(steps=2, batch_size=8),
        )
    )
