"""Weighted soft labels: samples that the student knows better than its teacher count for less."""

from __future__ import annotations

import torch
from torch import Tensor

from tutelage.losses.base import Weight
from tutelage.losses.cross_entropy import cross_entropy
from tutelage.losses.labelled_logits import LabelledLogits
from tutelage.losses.logits import require_positive
from tutelage.losses.reduce import widen
from tutelage.losses.soft_cross_entropy import softmax_cross_entropy

__all__ = ["WeightedSoftLabels", "weighted_soft_labels"]


def weighted_soft_labels(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """`(1 - exp(-L_S / L_T)) · T² · CE(p, q)` over the last axis: `[..., C]` and classes `[...]` -> `[...]`."""
    student, teacher = widen(student, teacher)
    with torch.no_grad():
        of_student, of_teacher = cross_entropy(student, labels), cross_entropy(teacher, labels)
        share = -torch.expm1(-of_student / (of_teacher + 1e-7))
    return share * softmax_cross_entropy(student, teacher, temperature)


class WeightedSoftLabels(LabelledLogits):
    """`(1 - exp(-L_S / L_T)) · T² · CE(p, q)`: the cross-entropy with the teacher's soft labels, weighted by sample.

    `L_S` and `L_T` are the cross-entropies of student and teacher with the label, without a temperature; `p` and `q`
    are their softmax at temperature `T`. The weight is near 1 where the student is much worse than its teacher, and
    falls to 0 where it is better, for there the soft label only regularises. No gradient passes through the weight.

    Where both models agree the weight is `1 - 1/e`, and the value that share of `T²` times the teacher's entropy.

    The authors' code adds 1e-7 to `L_T`, which is kept: a teacher that is certain has `L_T = 0`. Their factor α (2.5
    for ImageNet) is `weight`, and `CrossEntropy` with weight 1 is the other term of their total.

    Shapes: outputs `[B, C]` and labels `[B]` -> `[B]`; outputs `[B, L, C]` and labels `[B, L]` -> `[B, L]`; outputs
    `[B, C, H, W]` (with `axis=1`) and labels `[B, H, W]` -> `[B]`, the mean over the pixels that count. Rows without a
    label, label -100 and masked tokens do not count.

    When to use it: good labels, and a teacher whose soft labels help on some rows and blur on others.

    Cost: negligible; some six tensors of the outputs' size.

    Source: Zhou et al., "Rethinking Soft Labels for Knowledge Distillation: A Bias-Variance Tradeoff Perspective",
    2021.

    Args:
        temperature: `T > 0`, of the soft labels; the weight is always computed without one.
        axis: The class axis of the output, of student and teacher alike; to be given for `[B, C, H, W]`.
        weight: Factor of this term in the total.

    Raises:
        ValueError: `temperature` is not positive.
    """

    def __init__(self, temperature: float = 4.0, *, axis: int = -1, weight: Weight = 1.0) -> None:
        super().__init__(axis=axis, weight=weight)
        require_positive("temperature", temperature)
        self.temperature = temperature

    def compare(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """The weighted cross-entropy of each position."""
        return weighted_soft_labels(student, teacher, labels, self.temperature)
