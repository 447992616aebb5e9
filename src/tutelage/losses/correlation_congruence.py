"""Correlation congruence: the correlations between samples, by a kernel (CCKD)."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor

from tutelage.losses.base import Weight, require_choice, require_same_shape
from tutelage.losses.layer_pairs import LayerPairs, Pairs
from tutelage.losses.probabilistic_transfer import cosine_matrix
from tutelage.losses.reduce import full_precision, widen
from tutelage.losses.relational import require_samples
from tutelage.signals import Batch, Signals

__all__ = ["CorrelationCongruence", "consecutive_errors", "correlation_congruence", "gaussian_kernel"]


def gaussian_kernel(features: Tensor, gamma: float, order: int) -> Tensor:
    """`exp(-2γ) · Σ_{p≤P} (2γ)^p/p! · (f_i·f_j)^p` of the features over their length: `[B, D]` -> `[B, B]`.

    It is `exp(-γ ‖f_i - f_j‖²)` with the exponential of `2γ f_i·f_j` cut off behind the power `P`.
    """
    product = (2 * gamma) * cosine_matrix(features)
    series = 1 + product / order
    for power in range(order - 1, 0, -1):
        series = 1 + product * series / power
    return math.exp(-2 * gamma) * series


def correlation_congruence(
    student: Tensor, teacher: Tensor, kernel: Literal["gaussian", "bilinear"], gamma: float, order: int
) -> Tensor:
    """`(1/B) · Σ_j (K_ij(s) - K_ij(t))²` for each `i`: `[B, ...]` and `[B, ...]` -> `[B]`."""
    student, teacher = widen(student.flatten(1), teacher.flatten(1))
    with full_precision(student):
        if kernel == "bilinear":
            difference = student @ student.T - teacher @ teacher.T
        else:
            difference = gaussian_kernel(student, gamma, order) - gaussian_kernel(teacher, gamma, order)
    return difference.square().mean(1)


def consecutive_errors(student: Tensor, teacher: Tensor) -> Tensor:
    """`B/(2(B-1)) · Σ_j |s_i - t_i|·|s_j - t_j|` over the neighbours `j = i ± 1`: `[B, ...]` twice -> `[B]`."""
    student, teacher = widen(student.flatten(1), teacher.flatten(1))
    error = (student - teacher).abs()
    both = (error[:-1] * error[1:]).sum(1)
    scale = len(error) / (2 * max(len(error) - 1, 1))
    return (F.pad(both, (1, 0)) + F.pad(both, (0, 1))) * scale


class CorrelationCongruence(LayerPairs):
    """`(1/B²) · ‖K(s) - K(t)‖_F²` between the kernel matrices of the batch, for pairs of layers.

    `K_ij` is, with the kernel "gaussian", `exp(-γ ‖f_i - f_j‖²)` of the features divided by their length, by a Taylor
    series: `exp(-2γ) · Σ_{p≤P} (2γ)^p/p! · (f_i·f_j)^p`. With "bilinear" it is `f_i·f_j` of the features as they are,
    and grows with their scale. The value of a sample is its row's part.

    Variants: "paper" is the above. "official" is the code that the authors sent to the writers of RepDistiller and that
    most tables of CC come from: `1/(B-1) · Σ_i |s_i - t_i|·|s_{i+1} - t_{i+1}|`, the products of the errors of
    consecutive samples; it has no kernel, and the order of the batch matters. RepDistiller first maps
    both models to one width by linear layers that are trained with the loss, the teacher's too; here the features are
    taken as they are, so "official" needs layers of one width, and what the teacher says stays what it is.

    Shapes: layers `[B, ...]` of any shape -> `[B]`; student's and teacher's may differ but for "official". Masked
    tokens are left out. Values are averaged over pairs.

    When to use it: embeddings and penultimate layers, beside a loss on the outputs. It compares the samples of a
    batch (`per_sample` is False): it is another loss for another batch size. `SimilarityPreserving` is its bilinear
    form with each row divided by its length.

    Cost: `B²·D` multiplications for each layer, no parameters.

    Source: Peng et al., "Correlation Congruence for Knowledge Distillation", 2019; for "official", the file
    `distiller_zoo/CC.py` of RepDistiller.

    Args:
        pairs: Student's layer -> teacher's layer, each a dotted module path; or `auto`.
        variant: Which of the two forms above.
        kernel: The kernel of "paper".
        gamma: `γ > 0` of the Gaussian kernel.
        order: `P ≥ 1`, the highest power of the series.
        weight: Factor of this term in the total.

    Raises:
        ValueError: There are no pairs, `gamma` or `order` is not positive, or an argument is none of its choices.
    """

    per_sample: ClassVar[bool] = False
    fewest_rows: ClassVar[int] = 2

    def __init__(
        self,
        pairs: Pairs,
        *,
        variant: Literal["paper", "official"] = "paper",
        kernel: Literal["gaussian", "bilinear"] = "gaussian",
        gamma: float = 0.4,
        order: int = 2,
        weight: Weight = 1.0,
    ) -> None:
        super().__init__(pairs, weight=weight)
        require_choice("variant", variant, ("paper", "official"))
        require_choice("kernel", kernel, ("gaussian", "bilinear"))
        if not (math.isfinite(gamma) and gamma > 0):
            raise ValueError(f"gamma must be positive, found {gamma}")
        if order < 1:
            raise ValueError(f"order must be 1 or more, found {order}")
        self.variant = variant
        self.kernel: Literal["gaussian", "bilinear"] = kernel
        self.gamma = gamma
        self.order = order

    def prepare(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        """Checks that there are samples to compare."""
        require_samples("CorrelationCongruence", batch)
        super().prepare(student, teacher, batch)

    def compare(self, path: str, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """Each sample's part for one pair: `[B]`."""
        if self.variant == "paper":
            return correlation_congruence(student, teacher, self.kernel, self.gamma, self.order)
        mend = 'pair layers of one shape, or set `variant: "paper"`, which compares samples and not features'
        where = f"layer `{path}` of the student"
        require_same_shape("CorrelationCongruence", student, teacher, where=where, mend=mend)
        return consecutive_errors(student, teacher)
