"""A sentence encoder: a token model and the pooling that makes one embedding of a sentence."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Pooling", "SentenceEncoder"]

Pooling = Literal["mean", "cls"]


class SentenceEncoder(nn.Module):
    """Embeddings `[B, D]` of token ids `[B, L]`, so that teacher, student and export all see one tensor.

    With hidden states `h` of the last layer and the attention mask `m`:
    `mean` is `Σ_l m_l h_l / Σ_l m_l`; `cls` is `h` of the first token that `m` lets through. With `normalize` the
    result is divided by its L2 norm. Pooling is computed in float32 or wider, and so is what is returned.

    Source: Reimers, Gurevych, "Sentence-BERT", 2019, as in the package sentence-transformers.

    Args:
        model: A module that is called with `input_ids` and `attention_mask` and returns an object with a
            `last_hidden_state` `[B, L, D]` (the base models of Hugging Face).
        pooling: How the hidden states of a sentence become one vector.
        normalize: Whether embeddings have unit length.
    """

    def __init__(self, model: nn.Module, pooling: Pooling = "mean", *, normalize: bool = True) -> None:
        super().__init__()
        if pooling not in ("mean", "cls"):
            raise ValueError(f"pooling must be `mean` or `cls`, found `{pooling}`")
        self.model = model
        self.pooling = pooling
        self.normalize = normalize

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **inputs: Tensor) -> Tensor:
        """Embeddings `[B, D]`. Without a mask every token counts; further `inputs` go to the model."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        hidden = self.model(input_ids=input_ids, attention_mask=mask, **inputs).last_hidden_state
        # In half precision a sum over hundreds of tokens loses bits.
        hidden = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
        pooled = mean_of_tokens(hidden, mask) if self.pooling == "mean" else first_token(hidden, mask)
        return F.normalize(pooled, dim=-1) if self.normalize else pooled

    def extra_repr(self) -> str:
        """Shows what the weights don't."""
        return f"pooling={self.pooling}, normalize={self.normalize}"


def mean_of_tokens(hidden: Tensor, mask: Tensor) -> Tensor:
    """`[B, L, D]`, `[B, L]` -> `[B, D]`: the mean over the tokens that count."""
    weight = mask.to(hidden.dtype)[..., None]
    return (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)


def first_token(hidden: Tensor, mask: Tensor) -> Tensor:
    """`[B, L, D]`, `[B, L]` -> `[B, D]`: the first token that counts, also where sentences are padded on the left."""
    first = mask.to(torch.int32).argmax(dim=1)
    return hidden.gather(1, first[:, None, None].expand(-1, 1, hidden.shape[-1])).squeeze(1)
