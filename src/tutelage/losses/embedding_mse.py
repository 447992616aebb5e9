"""Squared error of embeddings."""

from __future__ import annotations

from torch import Tensor

from tutelage.losses.base import Weight
from tutelage.losses.embeddings import Embeddings
from tutelage.losses.logit_mse import logit_mse

__all__ = ["EmbeddingMSE"]


class EmbeddingMSE(Embeddings):
    """`(1/D) · Σ_d (s_d - t_d)²` between the embeddings of student and teacher.

    Shapes: outputs `[B, D]` -> `[B]`. With `projector`, the student's may be `[B, D']`: `s` is then `W s'`.

    When to use it: embeddings whose length matters, or that feed another model; for unit vectors it is
    `EmbeddingCosine` times `2/D`, so raise `weight` accordingly.

    Cost: negligible; with `projector`, `D'·D` parameters that are trained and not shipped.

    Source: Reimers, Gurevych, "Making Monolingual Sentence Embeddings Multilingual using Knowledge Distillation", 2020.

    Args:
        projector: Whether a linear map without bias from the student's width to the teacher's is learnt with the loss
            where the widths differ. It does not ship: the student's own embeddings stay in their own space.
        weight: Factor of this term in the total.
    """

    def __init__(self, *, projector: bool = False, weight: Weight = 1.0) -> None:
        super().__init__(projector=projector, weight=weight)

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The mean over `D`: `[B]`."""
        return logit_mse(student, teacher)
