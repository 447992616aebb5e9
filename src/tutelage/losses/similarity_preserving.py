"""Similarity-preserving distillation: samples that are alike for the teacher are to be alike for the student."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from tutelage.losses.base import Weight
from tutelage.losses.layer_pairs import LayerPairs, Pairs
from tutelage.losses.reduce import full_precision, unit, widen
from tutelage.signals import Batch

__all__ = ["SimilarityPreserving", "similarity_preserving"]


def similarity_preserving(student: Tensor, teacher: Tensor) -> Tensor:
    """`(1/B) · ‖Ĝ_T[i] - Ĝ_S[i]‖²` for each row `i` of the similarity matrices: `[B, ...]` and `[B, ...]` -> `[B]`.

    `G = Q Qᵀ` with `Q` the features of the batch, `[B, D]`; `Ĝ` is `G` with each row divided by its L2 norm. The mean
    over `i` is the paper's `(1/B²) · ‖Ĝ_T - Ĝ_S‖_F²`.
    """
    student, teacher = widen(student.flatten(1), teacher.flatten(1))
    with full_precision(student):
        g_s, g_t = unit(student @ student.T), unit(teacher @ teacher.T)
    return (g_t - g_s).square().mean(1)


class SimilarityPreserving(LayerPairs):
    """`(1/B²) · ‖Ĝ_T - Ĝ_S‖_F²` between the similarity matrices of the batch, for pairs of layers.

    `G = Q Qᵀ` holds the dot products of the flattened features of every two samples, and `Ĝ` is `G` with each row
    divided by its L2 norm (L2, as the paper says; some copies divide by L1). The value of a sample is its row's part.

    Shapes: layers `[B, ...]` of any shape, student's and teacher's may differ -> `[B]`. Masked tokens are left out.
    Values are averaged over pairs.

    When to use it: student and teacher of different families, whose features can't be compared one by one. It compares
    the samples of a batch (`per_sample` is False): it is another loss for another batch size, and accumulating small
    batches is not the same as one large one.

    Cost: `B²·D` multiplications for each layer, no parameters.

    Source: Tung, Mori, "Similarity-Preserving Knowledge Distillation", 2019.

    Args:
        pairs: Student's layer -> teacher's layer, each a dotted module path; or `auto`.
        weight: Factor of this term in the total (the paper's γ; 3000 there).

    Raises:
        ValueError: There are no pairs.
    """

    per_sample: ClassVar[bool] = False
    fewest_rows: ClassVar[int] = 2

    def __init__(self, pairs: Pairs, *, weight: Weight = 1.0) -> None:
        super().__init__(pairs, weight=weight)

    def compare(self, path: str, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """Each sample's part for one pair: `[B]`."""
        return similarity_preserving(student, teacher)
