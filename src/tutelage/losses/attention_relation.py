"""Self-attention relations: softmaxes of dot products of queries, keys or values, in common heads (MiniLM)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from tutelage.losses.attention_layers import AttentionLayers, hidden, scores, shown
from tutelage.losses.base import Weight
from tutelage.losses.layer_pairs import Pairs
from tutelage.losses.rows import token_mask
from tutelage.signals import Batch

__all__ = ["AttentionRelation", "ValueRelation", "log_relation", "relation_kl"]


def log_relation(relation: Tensor, seen: Tensor | None) -> Tensor:
    """The logarithm of the softmax over the keys that are seen: `[B, h, L, L]` -> the same."""
    return F.log_softmax(hidden(relation, seen), dim=-1)


def relation_kl(log_q: Tensor, log_p: Tensor) -> Tensor:
    """`KL(p ‖ q)` over the keys of each query, mean of heads: the logarithms of both, `[B, h, L, L]` -> `[B, L]`."""
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1).mean(1)


class Relation(AttentionLayers):
    """Base of both relations: the divergence of the relation of the first projection with the last one."""

    usual_pairs: ClassVar[int | None] = 1

    def __init__(self, pairs: Pairs, relation_heads: int, *, causal: bool, weight: Weight) -> None:
        super().__init__(pairs, weight=weight)
        if relation_heads < 1:
            raise ValueError(f"relation_heads must be 1 or more, found {relation_heads}")
        self.relation_heads = relation_heads
        self.causal = causal

    def compare(self, path: str, student: Sequence[Tensor], teacher: Sequence[Tensor], batch: Batch) -> Tensor:
        """The divergence at each token: `[B, L]`."""
        self.require_heads(path, student, self.relation_heads, model="student")
        self.require_heads(path, teacher, self.relation_heads, model="teacher")
        mask, seen = token_mask(student[0], batch), shown(batch, student[0].shape[1], causal=self.causal)
        # One after the other: scores that nothing holds on to are gone before the next are there.
        log_q, log_p = (
            log_relation(scores(side[0], side[-1], self.relation_heads, mask), seen) for side in (student, teacher)
        )
        return relation_kl(log_q, log_p)


class AttentionRelation(Relation):
    """`(1/A) · Σ_a KL(p_al ‖ q_al)` at each token `l`, `p_al = softmax_j(Q_al·K_aj/√d)`, `q` the student's.

    Queries and keys of all heads are put side by side and cut anew into `A` relation heads, so that the models may
    differ in heads and in width; `d` is the width of a relation head, in each model its own. With `A` the number of
    heads of both models, `p` and `q` are their attention probabilities (MiniLM's attention transfer).

    It reads what the query and key projections put out, linear maps at `{module}.{query}` and `{module}.{key}`. Where
    a model changes queries and keys behind these (rotary position embeddings) the relation is not its own attention,
    and position plays no part in it. Keys that are padding are left out, and queries that are padding do not count.

    Shapes: projections `[B, L, D]`, student's and teacher's `D` may differ -> `[B, L]` where the rows have a token
    mask, else `[B]`, the mean over tokens. Both models must read the same tokens. Values are averaged over pairs.

    When to use it: transformers of different width; one pair is enough, the student's last layer with the teacher's
    last (or, for a large teacher, an upper one), together with `ValueRelation`. It leaves the student's layers free.

    Cost: `L²·D` multiplications a sample, model and pair; memory `A·L²` a sample and model.

    Source: Wang et al., "MiniLM: Deep Self-Attention Distillation for Task-Agnostic Compression of Pre-Trained
    Transformers", 2020; the relation heads are those of Wang et al., "MiniLMv2: Multi-Head Self-Attention Relation
    Distillation for Compressing Pretrained Transformers", 2021. Their code is not published.

    Args:
        pairs: Student's attention module -> teacher's, each a dotted module path; or `auto`: the last modules of both
            that have the projections named below, as in MiniLM. `match.count` asks for more, spread over the depth.
        relation_heads: `A`; it divides the width of both models.
        causal: Whether tokens attend only to themselves and to earlier tokens, as in decoders; later ones are left out.
        query: The name of the query projection within a module.
        key: The name of the key projection.
        teacher_query: The teacher's name of it; None for the same.
        teacher_key: The teacher's name of it; None for the same.
        weight: Factor of this term in the total.

    Raises:
        ValueError: There are no pairs, or `relation_heads` is not positive.
    """

    projections = ("query", "key")

    def __init__(
        self,
        pairs: Pairs,
        relation_heads: int = 12,
        *,
        causal: bool = False,
        query: str = "query",
        key: str = "key",
        teacher_query: str | None = None,
        teacher_key: str | None = None,
        weight: Weight = 1.0,
    ) -> None:
        super().__init__(pairs, relation_heads, causal=causal, weight=weight)
        self.query = query
        self.key = key
        self.teacher_query = teacher_query
        self.teacher_key = teacher_key


class ValueRelation(Relation):
    """`(1/A) · Σ_a KL(p_al ‖ q_al)` at each token `l`, `p_al = softmax_j(V_al·V_aj/√d)`, `q` the student's.

    The values of all heads are put side by side and cut anew into `A` relation heads, so that the models may differ in
    heads and in width; `d` is the width of a relation head, in each model its own. With `layer` "query" or "key" it is
    the relation of queries or of keys: MiniLMv2 is the sum of the three, each a term of its own.

    It reads what the projection puts out, a linear map at `{module}.{layer}`; rotary position embeddings come after it.
    Tokens that are padding are left out and do not count.

    Shapes: projections `[B, L, D]`, student's and teacher's `D` may differ -> `[B, L]` where the rows have a token
    mask, else `[B]`, the mean over tokens. Both models must read the same tokens. Values are averaged over pairs.

    When to use it: transformers of different width: with `AttentionRelation` (MiniLM), or on queries, keys and values
    (MiniLMv2), which also suits models with rotary position embeddings or fewer key heads. One pair is enough, the
    student's last layer with an upper layer of the teacher.

    Cost: `L²·D` multiplications a sample, model and pair; memory `A·L²` a sample and model.

    Source: Wang et al., "MiniLM: Deep Self-Attention Distillation for Task-Agnostic Compression of Pre-Trained
    Transformers", 2020; Wang et al., "MiniLMv2: Multi-Head Self-Attention Relation Distillation for Compressing
    Pretrained Transformers", 2021. Their code is not published.

    Args:
        pairs: Student's attention module -> teacher's, each a dotted module path; or `auto`: the last modules of both
            that have the projection named below, as in MiniLM. `match.count` asks for more, spread over the depth.
        relation_heads: `A`; it divides the width of both models. MiniLMv2 takes 48 for a teacher of width 768, more
            than it has heads: finer relations.
        causal: Whether later tokens are left out, as decoders can't attend to them.
        layer: The name of the projection within a module.
        teacher_layer: The teacher's name of it; None for the same.
        weight: Factor of this term in the total.

    Raises:
        ValueError: There are no pairs, or `relation_heads` is not positive.
    """

    projections = ("layer",)

    def __init__(
        self,
        pairs: Pairs,
        relation_heads: int = 12,
        *,
        causal: bool = False,
        layer: str = "value",
        teacher_layer: str | None = None,
        weight: Weight = 1.0,
    ) -> None:
        super().__init__(pairs, relation_heads, causal=causal, weight=weight)
        self.layer = layer
        self.teacher_layer = teacher_layer
