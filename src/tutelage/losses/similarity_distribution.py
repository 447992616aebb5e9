"""Similarity distributions: to which of the other samples a sample is alike, as a distribution (SEED)."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from torch import Tensor

from tutelage.losses.base import Loss, Needs, Weight, require_choice
from tutelage.losses.embeddings import embeddings_of, require_directions
from tutelage.losses.kl_divergence import softmax_kl
from tutelage.losses.reduce import full_precision, unit, widen
from tutelage.losses.relational import require_samples
from tutelage.signals import Batch, Request, Signals

__all__ = ["SimilarityDistribution", "others", "similarity_distribution"]


def others(matrix: Tensor) -> Tensor:
    """A square matrix without its diagonal: `[B, B]` -> `[B, B-1]`."""
    size = len(matrix)
    # Behind the first element, the diagonal is every (B+1)-th.
    return matrix.flatten()[1:].view(size - 1, size + 1)[:, :-1].reshape(size, size - 1)


def similarity_distribution(student: Tensor, teacher: Tensor, temperature: float, teacher_temperature: float) -> Tensor:
    """`KL(softmax_j(t_i·t_j/T_t) ‖ softmax_j(s_i·s_j/T_s))` over `j ≠ i`: `[B, D']` and `[B, D]` -> `[B]`."""
    student, teacher = widen(student, teacher)
    with full_precision(student):
        s, t = others(student @ student.T), others(teacher @ teacher.T)
    return softmax_kl(s / temperature, t / teacher_temperature, 1.0)


class SimilarityDistribution(Loss):
    """`KL(p_i ‖ q_i)`, with `p_i = softmax_j(sim(t_i, t_j) / T)` over the others `j ≠ i` of the batch, `q_i` alike.

    `p` says which samples are near `i` for the teacher, and most of it falls on the nearest few. Where the outputs are
    scores of K candidates a row already (`[B, K]`, as from a cross-encoder), this loss is `KLDivergence`: use that.

    sentence-transformers' `DistillKLDivLoss` takes dot products, `T = 1` and candidates that the rows name, and
    multiplies by the student's `T²`. Here nothing is multiplied by it: that is for temperatures above 1, and at those
    that cosines need it would leave a hundredth of the loss. SEED, too, has no such factor; it takes the cross-entropy,
    which has the same gradient, over a queue of earlier samples of the teacher.

    Shapes: outputs `[B, D']` and `[B, D]` -> `[B]`; the widths may differ and no projector is needed.

    When to use it: embeddings for search, where the nearest matter and the far ones do not; `PairwiseSimilarity`
    weighs all pairs alike. It compares the samples of a batch (`per_sample` is False): it is another loss for another
    batch size, better the more candidates there are, and of two samples or fewer it says nothing.

    Cost: `B²·D` multiplications for each model, no parameters.

    Source: Fang et al., "SEED: Self-supervised Distillation for Visual Representation", 2021; Lin, Yang, Lin,
    "Distilling Dense Representations for Ranking using Tightly-Coupled Teachers", 2020.

    Args:
        temperature: `T > 0`. It should be of the size of the differences between similarities: 0.02 to 0.2 for
            cosines; the smaller, the fewer neighbours count.
        teacher_temperature: The teacher's, where it is to be sharper than the student's (SEED: 0.01 and 0.2); None for
            the same, with which a student that says what the teacher says has the loss 0.
        similarity: Whether `sim` is the cosine or the dot product.
        weight: Factor of this term in the total.

    Raises:
        ValueError: A temperature is not a positive number, or `similarity` is none of its choices.
    """

    per_sample: ClassVar[bool] = False
    fewest_rows: ClassVar[int] = 3

    def __init__(
        self,
        temperature: float = 0.1,
        *,
        teacher_temperature: float | None = None,
        similarity: Literal["cosine", "dot"] = "cosine",
        weight: Weight = 1.0,
    ) -> None:
        super().__init__(weight=weight)
        for name, value in (("temperature", temperature), ("teacher_temperature", teacher_temperature)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive, found {value}")
        require_choice("similarity", similarity, ("cosine", "dot"))
        self.temperature = temperature
        self.teacher_temperature = teacher_temperature
        self.similarity = similarity

    @property
    def leaves_free(self) -> frozenset[str]:  # type: ignore[override]
        """A rotation of all embeddings, and of cosines their lengths."""
        return frozenset({"rotation", "scale"} if self.similarity == "cosine" else {"rotation"})

    @property
    def needs(self) -> Needs:
        """Both outputs."""
        return Needs(student=Request(output=True), teacher=Request(output=True))

    def prepare(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        """Checks the shapes, that there are samples to compare, and that every embedding has a direction."""
        require_samples("SimilarityDistribution", batch)
        super().prepare(student, teacher, batch)
        if self.similarity == "cosine":
            require_directions("SimilarityDistribution", student, teacher)

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
        """`[B]`."""
        s, t = embeddings_of("SimilarityDistribution", student, teacher)
        if self.similarity == "cosine":
            s, t = unit(s), unit(t)
        teacher_temperature = self.temperature if self.teacher_temperature is None else self.teacher_temperature
        return similarity_distribution(s, t, self.temperature, teacher_temperature)
