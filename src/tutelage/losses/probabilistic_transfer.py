"""Probabilistic knowledge transfer: how likely each sample is a neighbour of each other one (PKT)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from tutelage.losses.base import Weight, require_choice
from tutelage.losses.layer_pairs import LayerPairs, Pairs
from tutelage.losses.reduce import full_precision, widen
from tutelage.losses.relational import require_samples
from tutelage.losses.similarity_distribution import others
from tutelage.signals import Batch, Signals

__all__ = ["ProbabilisticTransfer", "cosine_matrix", "probabilistic_transfer"]

SMALLEST = 1e-7


def cosine_matrix(features: Tensor) -> Tensor:
    """`cos(f_i, f_j)`: `[B, D]` -> `[B, B]`; 0, and no gradient, where one has no length.

    The products are divided and not the features, which are the larger: `B² < B·D`.
    """
    length = torch.linalg.vector_norm(features, dim=1)
    known = length > 1e-12
    inverse = torch.where(known, 1 / torch.where(known, length, 1.0), 0.0)
    with full_precision(features):
        return (features @ features.T) * inverse[:, None] * inverse


def affinities(features: Tensor) -> Tensor:
    """`½ (1 + cos(f_i, f_j))` between the flattened features: `[B, ...]` -> `[B, B]`, from 0 to 1."""
    return (cosine_matrix(features.flatten(1)) + 1) / 2


def probabilistic_transfer(student: Tensor, teacher: Tensor, variant: Literal["paper", "official"]) -> Tensor:
    """`Σ_j p_ij · log(p_ij / q_ij)` for each `i`: `[B, ...]` and `[B, ...]` -> `[B]`."""
    student, teacher = widen(student, teacher)
    s, t = affinities(student), affinities(teacher)
    if variant == "paper":
        s, t = others(s).clamp(min=SMALLEST), others(t).clamp(min=SMALLEST)
        s, t = s / s.sum(1, keepdim=True), t / t.sum(1, keepdim=True)
        return (t * (t.log() - s.log())).sum(1)
    s, t = s / s.sum(1, keepdim=True), t / t.sum(1, keepdim=True)
    return (t * ((t + SMALLEST).log() - (s + SMALLEST).log())).mean(1)


class ProbabilisticTransfer(LayerPairs):
    """`Σ_j p_ij · log(p_ij / q_ij)` for each sample `i`, with `p_ij = K(t_i, t_j) / Σ_k K(t_i, t_k)`, `q` alike.

    `K(x, y) = ½ (1 + cos(x, y))`, of the features of the batch: no bandwidth is to be chosen.

    Variants: "paper" leaves out the sample itself (`j, k ≠ i`) and sums over `j`; `K` is kept above 1e-7, where the
    logarithm would not exist. "official" (the authors' code) has the sample itself among its neighbours, divides the
    sum by `B`, and adds 1e-7 to the probabilities within the logarithm. Its values are much smaller: weights of 10⁴
    are usual.

    Shapes: layers `[B, ...]` of any shape, student's and teacher's may differ -> `[B]`. Masked tokens are left out.
    Values are averaged over pairs.

    When to use it: penultimate layers of student and teacher of different width, for retrieval as well as
    classification. It compares the samples of a batch (`per_sample` is False): it is another loss for another batch
    size, and in the form of the paper it says nothing of two samples or fewer. `K` is flat: to make the nearest samples
    count more, use `SimilarityDistribution`.

    Cost: `B²·D` multiplications for each layer, no parameters.

    Source: Passalis, Tefas, "Learning Deep Representations with Probabilistic Knowledge Transfer", 2018, and the
    authors' code.

    Args:
        pairs: Student's layer -> teacher's layer, each a dotted module path; or `auto`.
        variant: Which of the two forms above.
        weight: Factor of this term in the total.

    Raises:
        ValueError: There are no pairs, or `variant` is none of its choices.
    """

    per_sample: ClassVar[bool] = False

    def __init__(self, pairs: Pairs, *, variant: Literal["paper", "official"] = "paper", weight: Weight = 1.0) -> None:
        super().__init__(pairs, weight=weight)
        require_choice("variant", variant, ("paper", "official"))
        self.variant: Literal["paper", "official"] = variant

    @property
    def fewest_rows(self) -> int:  # type: ignore[override]
        """Of two samples each has one neighbour, all of whose probability it has; beside itself it has not."""
        return 3 if self.variant == "paper" else 2

    def prepare(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        """Checks that there are samples to compare."""
        require_samples("ProbabilisticTransfer", batch)
        super().prepare(student, teacher, batch)

    def compare(self, path: str, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """Each sample's part for one pair: `[B]`."""
        return probabilistic_transfer(student, teacher, self.variant)
