"""A sentence encoder: a token model and the pooling that makes one embedding of a sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Dense", "Pooling", "SentenceEncoder"]

Pooling = Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]


class Dense(nn.Module):
    """`f(W e + b)`: a layer on embeddings, `[B, D]` -> `[B, E]`, as sentence-transformers has it after the pooling.

    Args:
        inputs: `D`.
        outputs: `E`.
        bias: Whether there is a `b`.
        activation: `f`.
    """

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=bias)
        self.activation = nn.Identity() if activation is None else activation

    def forward(self, embeddings: Tensor) -> Tensor:
        """`[B, D]` -> `[B, E]`."""
        result: Tensor = self.activation(self.linear(embeddings.to(self.linear.weight.dtype)))
        return result


class SentenceEncoder(nn.Module):
    """Embeddings `[B, D]` of token ids `[B, L]`, so that teacher, student and export all see one tensor.

    With hidden states `h` of the last layer, the attention mask `m`, and `i` = 1, 2, ... from the first token that `m`
    lets through: `mean` is `Σ_l m_l h_l / Σ_l m_l`; `mean_sqrt_len_tokens` is `Σ_l m_l h_l / √(Σ_l m_l)`;
    `weightedmean` is `Σ_l i_l m_l h_l / Σ_l i_l m_l`; `max` is the largest of each channel; `cls` and `lasttoken` are
    `h` of the first and of the last token that `m` lets through. Several are put beside each other. Then come the
    `dense` layers, and with `normalize` the result is divided by its L2 norm. Pooling is computed in float32 or wider,
    and so is what is returned.

    Source: Reimers, Gurevych, "Sentence-BERT", 2019; the modes as in the package sentence-transformers.

    Args:
        model: A module that is called with `input_ids` and `attention_mask` and returns an object with a
            `last_hidden_state` `[B, L, D]` (the base models of Hugging Face).
        pooling: How the hidden states of a sentence become one vector, or several that are put beside each other.
        normalize: Whether embeddings have unit length.
        dense: Layers after the pooling.
    """

    def __init__(
        self,
        model: nn.Module,
        pooling: Pooling | Sequence[Pooling] = "mean",
        *,
        normalize: bool = True,
        dense: Sequence[nn.Module] = (),
    ) -> None:
        super().__init__()
        modes: tuple[str, ...] = (pooling,) if isinstance(pooling, str) else tuple(pooling)
        strange = next((mode for mode in modes if mode not in _POOLS), None)
        if strange is not None or not modes:
            raise ValueError(f"pooling must be of {', '.join(_POOLS)}, found `{strange}`")
        self.model = model
        self.modes = modes
        self.normalize = normalize
        self.dense = nn.Sequential(*dense) if dense else None

    @property
    def pooling(self) -> str:
        """The modes in words: `mean`, or `mean + max`."""
        return " + ".join(self.modes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **inputs: Tensor) -> Tensor:
        """Embeddings `[B, D]`. Without a mask every token counts; further `inputs` go to the model."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        hidden = self.model(input_ids=input_ids, attention_mask=mask, **inputs).last_hidden_state
        # In half precision a sum over hundreds of tokens loses bits.
        wide = torch.promote_types(hidden.dtype, torch.float32)
        hidden = hidden.to(wide)
        pooled = [_POOLS[mode](hidden, mask) for mode in self.modes]
        embeddings = pooled[0] if len(pooled) == 1 else torch.cat(pooled, dim=-1)
        if self.dense is not None:
            embeddings = self.dense(embeddings).to(wide)
        return F.normalize(embeddings, dim=-1) if self.normalize else embeddings

    def extra_repr(self) -> str:
        """Shows what the weights don't."""
        return f"pooling={self.pooling}, normalize={self.normalize}"


def mean_of_tokens(hidden: Tensor, mask: Tensor) -> Tensor:
    """`[B, L, D]`, `[B, L]` -> `[B, D]`: the mean over the tokens that count."""
    weight = mask.to(hidden.dtype)[..., None]
    return (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)


def scaled_sum(hidden: Tensor, mask: Tensor) -> Tensor:
    """The sum over the tokens that count, divided by the root of their number."""
    weight = mask.to(hidden.dtype)[..., None]
    return (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9).sqrt()


def weighted_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """The mean with the weights 1, 2, ... from the first token that counts."""
    places = torch.arange(1, mask.shape[1] + 1, device=mask.device)[None, :] - first_place(mask)[:, None]
    weight = (mask * places).to(hidden.dtype)[..., None]
    return (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)


def largest(hidden: Tensor, mask: Tensor) -> Tensor:
    """The largest value of each channel over the tokens that count."""
    return hidden.masked_fill(mask[..., None] == 0, float("-inf")).amax(dim=1)


def first_token(hidden: Tensor, mask: Tensor) -> Tensor:
    """`[B, L, D]`, `[B, L]` -> `[B, D]`: the first token that counts, also where sentences are padded on the left."""
    return token_at(hidden, first_place(mask))


def last_token(hidden: Tensor, mask: Tensor) -> Tensor:
    """The last token that counts, on whichever side sentences are padded."""
    return token_at(hidden, mask.shape[1] - 1 - first_place(mask.flip(1)))


def first_place(mask: Tensor) -> Tensor:
    """`[B, L]` -> `[B]`: the place of the first token that counts."""
    return mask.to(torch.int32).argmax(dim=1)


def token_at(hidden: Tensor, place: Tensor) -> Tensor:
    """`[B, L, D]`, `[B]` -> `[B, D]`: the states at one place of each row."""
    return hidden.gather(1, place[:, None, None].expand(-1, 1, hidden.shape[-1])).squeeze(1)


_POOLS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cls": first_token,
    "max": largest,
    "mean": mean_of_tokens,
    "mean_sqrt_len_tokens": scaled_sum,
    "weightedmean": weighted_mean,
    "lasttoken": last_token,
}
