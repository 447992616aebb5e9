"""Pairwise similarity: the cosines between the embeddings of a batch, for student and teacher."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from tutelage.errors import SignalError
from tutelage.losses.base import Loss, Needs, Weight
from tutelage.losses.embeddings import embeddings_of, require_directions
from tutelage.losses.reduce import full_precision, unit, widen
from tutelage.signals import Batch, Request, Signals

__all__ = ["PairwiseSimilarity", "pairwise_similarity"]


def pairwise_similarity(student: Tensor, teacher: Tensor) -> Tensor:
    """`1/(B-1) · Σ_{j≠i} (cos(s_i, s_j) - cos(t_i, t_j))²` for each row `i`: `[B, D']` and `[B, D]` -> `[B]`."""
    student, teacher = widen(student, teacher)
    s, t = unit(student), unit(teacher)
    with full_precision(student):
        difference = s @ s.T - t @ t.T
    itself = torch.eye(len(difference), dtype=torch.bool, device=difference.device)
    return difference.masked_fill(itself, 0).square().sum(1) / (len(difference) - 1)


class PairwiseSimilarity(Loss):
    """`1/(B-1) · Σ_{j≠i} (cos(s_i, s_j) - cos(t_i, t_j))²` for each sample `i` of the batch, over the outputs.

    The cosine of a sample with itself is 1 for both models and is left out.

    Shapes: outputs `[B, D']` and `[B, D]` -> `[B]`; the widths may differ and no projector is needed.

    When to use it: embeddings that serve to compare samples with each other (search, clustering, similarity), where a
    student may be narrower than its teacher. It says nothing of where an embedding lies: a rotated copy of the teacher
    is perfect. It compares the samples of a batch (`per_sample` is False): it is another loss for another batch size.

    Cost: `B²·D` multiplications for each model, no parameters.

    Source: the cosine form of Tung, Mori, "Similarity-Preserving Knowledge Distillation", 2019, on embeddings and
    without the diagonal; one of the relations of Park et al., "Relational Knowledge Distillation", 2019.

    Args:
        weight: Factor of this term in the total.
    """

    per_sample: ClassVar[bool] = False
    fewest_rows: ClassVar[int] = 2
    leaves_free: ClassVar[frozenset[str]] = frozenset({"rotation", "scale"})

    def __init__(self, *, weight: Weight = 1.0) -> None:
        super().__init__(weight=weight)

    @property
    def needs(self) -> Needs:
        """Both outputs."""
        return Needs(student=Request(output=True), teacher=Request(output=True))

    def prepare(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        """Checks the shapes, and that every embedding has a direction.

        Raises:
            SignalError: An embedding is zero, or the shapes don't fit.
        """
        super().prepare(student, teacher, batch)
        require_directions("PairwiseSimilarity", student, teacher)

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
        """`[B]`.

        Raises:
            SignalError: The batch holds a single sample.
        """
        s, t = embeddings_of("PairwiseSimilarity", student, teacher)
        if len(batch) < 2:
            raise SignalError(
                "PairwiseSimilarity",
                expected="two samples or more in a batch",
                found="one",
                harm="there is no pair to compare",
                mend="raise the batch size, or leave out the last batch of an epoch where it is a single sample",
            )
        return pairwise_similarity(s, t)
