"""Attention maps: to which tokens each token attends, head by head (TinyBERT)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from tutelage.errors import SignalError
from tutelage.losses.attention_layers import AttentionLayers, hidden, scores, shown
from tutelage.losses.base import Weight, require_choice
from tutelage.losses.layer_pairs import Pairs
from tutelage.losses.rows import squared_distance, token_mask
from tutelage.signals import Batch, Signals

__all__ = ["AttentionMap", "attention_map_error"]


def attention_map_error(student: Tensor, teacher: Tensor, seen: Tensor | None) -> Tensor:
    """The mean square of the differences over heads and the keys that are seen: `[B, h, L, L]` twice -> `[B, L]`.

    Where a key is not seen, both have to be the same.
    """
    keys = student.shape[-1] if seen is None else seen.sum(-1).clamp(min=1)[:, 0]
    return squared_distance(student, teacher).sum(1) / (keys * student.shape[1])


class AttentionMap(AttentionLayers):
    """`1/(h·n) · Σ_{a,j} (A^S_alj - A^T_alj)²` at each token `l`, over `h` heads `a` and `n` keys `j`; `A = QKᵀ/√d`.

    The model need not give out its attention: `A` is computed from what its query and key projections put out, which
    are linear maps at `{module}.{query}` and `{module}.{key}`. Where a model changes queries and keys behind these
    (rotary position embeddings, query-key norms) or adds to `A` (relative positions), this `A` is not the model's own,
    and position plays no part in it.

    The paper and its authors' code both compare the scores before the softmax; their code takes the mean over padding
    too. Here keys that are padding are left out, and queries that are padding do not count.

    Shapes: projections `[B, L, D]`, student's and teacher's `D` may differ -> `[B, L]` where the rows have a token
    mask, else `[B]`, the mean over tokens. Both models must read the same tokens. Values are averaged over pairs.

    When to use it: a transformer with as many heads as its teacher, fewer layers or narrower heads, together with
    `HiddenState`, before the outputs are imitated. With another number of heads use `AttentionRelation`.

    Cost: `L²·D` multiplications a sample, model and pair; memory `h·L²` a sample and model.

    Source: Jiao et al., "TinyBERT: Distilling BERT for Natural Language Understanding", 2020, equation 7, and the
    authors' code.

    Args:
        pairs: Student's attention module -> teacher's, each a dotted module path; or `auto`: the modules of both that
            have the projections named below, by depth, as in the paper.
        student_heads: The number of heads of the student's modules.
        teacher_heads: The same of the teacher's; it has to be the same number.
        compare_as: Whether `A` are the scores before the softmax or the probabilities behind it. Probabilities lie
            between 0 and 1, most of them near 0, and teach less.
        causal: Whether tokens attend only to themselves and to earlier tokens, as in decoders; later ones are left out.
        query: The name of the query projection within a module.
        key: The name of the key projection.
        teacher_query: The teacher's name of it; None for the same.
        teacher_key: The teacher's name of it; None for the same.
        weight: Factor of this term in the total.

    Raises:
        ValueError: There are no pairs, a number of heads is not positive, or `compare_as` is none of its choices.
    """

    projections = ("query", "key")

    def __init__(
        self,
        pairs: Pairs,
        *,
        student_heads: int,
        teacher_heads: int,
        compare_as: Literal["scores", "probabilities"] = "scores",
        causal: bool = False,
        query: str = "query",
        key: str = "key",
        teacher_query: str | None = None,
        teacher_key: str | None = None,
        weight: Weight = 1.0,
    ) -> None:
        super().__init__(pairs, weight=weight)
        for name, heads in (("student_heads", student_heads), ("teacher_heads", teacher_heads)):
            if heads < 1:
                raise ValueError(f"{name} must be 1 or more, found {heads}")
        require_choice("compare_as", compare_as, ("scores", "probabilities"))
        self.student_heads = student_heads
        self.teacher_heads = teacher_heads
        self.compare_as = compare_as
        self.causal = causal
        self.query = query
        self.key = key
        self.teacher_query = teacher_query
        self.teacher_key = teacher_key

    def prepare(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        """Checks that there are as many heads.

        Raises:
            SignalError: There are not, or the shapes don't fit.
        """
        if self.student_heads != self.teacher_heads:
            raise SignalError(
                "AttentionMap",
                expected=f"as many heads as the teacher has, {self.teacher_heads}",
                found=f"{self.student_heads} of the student",
                harm="the maps of heads that have no counterpart would be compared",
                mend="use AttentionRelation, whose relation heads are independent of the models' own",
            )
        super().prepare(student, teacher, batch)

    def compare(self, path: str, student: Sequence[Tensor], teacher: Sequence[Tensor], batch: Batch) -> Tensor:
        """The mean square of the differences at each token: `[B, L]`."""
        self.require_heads(path, student, self.student_heads, model="student")
        self.require_heads(path, teacher, self.teacher_heads, model="teacher")
        mask, seen = token_mask(student[0], batch), shown(batch, student[0].shape[1], causal=self.causal)
        s, t = (
            self._map(scores(side[0], side[1], heads, mask), seen)
            for side, heads in ((student, self.student_heads), (teacher, self.teacher_heads))
        )
        return attention_map_error(s, t, seen)

    def _map(self, relation: Tensor, seen: Tensor | None) -> Tensor:
        """What is compared; 0 where a key is not seen."""
        if self.compare_as == "probabilities":
            return F.softmax(hidden(relation, seen), dim=-1)
        return relation if seen is None else relation.masked_fill(~seen, 0)
