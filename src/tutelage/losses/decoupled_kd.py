"""Decoupled knowledge distillation: the target class and the others are two terms with a factor each."""

from __future__ import annotations

import torch
from torch import Tensor

from tutelage.losses.base import Weight
from tutelage.losses.kl_divergence import bernoulli_kl
from tutelage.losses.labelled_logits import LabelledLogits
from tutelage.losses.logits import require_not_negative, require_positive
from tutelage.losses.reduce import widen

__all__ = ["DecoupledKD", "decoupled_kd", "target_apart"]


def target_apart(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The target class against the rest, and the rest among themselves, both in log space.

    Args:
        logits: `[..., C]` with two classes or more.
        labels: The target class, `[...]`.

    Returns:
        The logit of the target class against all the others together, `log(p / (1 - p))`, `[...]`; and the log of
        each other class's share of what is not the target's, `[..., C]`, with -inf at the target.
    """
    target = logits.gather(-1, labels[..., None])
    others = logits.scatter(-1, labels[..., None], -torch.inf)
    rest = others.logsumexp(-1, keepdim=True)
    return (target - rest).squeeze(-1), others - rest


def decoupled_kd(
    student: Tensor, teacher: Tensor, labels: Tensor, *, alpha: float, beta: float, temperature: float
) -> Tensor:
    """`T² · (α · TCKD + β · NCKD)` over the last axis: `[..., C]` and classes `[...]` -> `[...]`, float32 or wider."""
    student, teacher = widen(student, teacher)
    s, log_q = target_apart(student / temperature, labels)
    t, log_p = target_apart(teacher / temperature, labels)
    target = bernoulli_kl(s[..., None], t[..., None], 1.0)
    # Both are -inf at the target, and their difference would be NaN.
    difference = (log_p - log_q).scatter(-1, labels[..., None], 0.0)
    return (alpha * target + beta * (log_p.exp() * difference).sum(-1)) * temperature**2


class DecoupledKD(LabelledLogits):
    """`T² · (α · TCKD + β · NCKD)`: the divergence on the target class, and that among the other classes.

    `TCKD = KL(b_T ‖ b_S)` with `b = (p_y, 1 - p_y)`, the softened probability of the target class `y` and of all the
    others together. `NCKD = KL(p̂_T ‖ p̂_S)` with `p̂` the softened distribution over the other classes alone. In
    `KLDivergence` the second has the factor `1 - p_y` of the teacher, so what a sure teacher knows of the other classes
    is not learnt; with `α = 1` and `β = 1 - p_y` both losses are the same.

    All is computed in log space. The authors' code takes the logarithm of a summed softmax and excludes the target by
    subtracting 1000 from its logit: the first is infinite for a very sure student, the second fails for large logits;
    where neither happens the values are the same. `T²` is in their code, not in the paper's formula. Their code lets
    the term rise over the first 20 of 240 epochs: `weight: [[0, 0], [0.083, 1]]`.

    Shapes: outputs `[B, C]` and labels `[B]` -> `[B]`; outputs `[B, L, C]` and labels `[B, L]` -> `[B, L]`; outputs
    `[B, C, H, W]` (with `axis=1`) and labels `[B, H, W]` -> `[B]`, the mean over the pixels that count. Rows without a
    label, label -100 and masked tokens do not count.

    When to use it: a classifier with many classes, good labels and a teacher that is sure of them. With two classes
    NCKD is 0: use `KLDivergence`. Beside it, `CrossEntropy` with weight 1.

    Cost: negligible; some ten tensors of the outputs' size.

    Source: Zhao et al., "Decoupled Knowledge Distillation", 2022.

    Args:
        alpha: Factor of the target class's part, 0 or more.
        beta: Factor of the other classes' part, 0 or more; 1 to 10, more for a teacher that is very sure.
        temperature: `T > 0`.
        axis: The class axis of the output, of student and teacher alike; to be given for `[B, C, H, W]`.
        weight: Factor of this term in the total.

    Raises:
        ValueError: `alpha` or `beta` is negative, both are 0, or `temperature` is not positive.
    """

    def __init__(
        self,
        alpha: float = 1.0,
        beta: float = 8.0,
        temperature: float = 4.0,
        *,
        axis: int = -1,
        weight: Weight = 1.0,
    ) -> None:
        super().__init__(axis=axis, weight=weight)
        require_not_negative("alpha", alpha)
        require_not_negative("beta", beta)
        require_positive("alpha + beta", alpha + beta)
        require_positive("temperature", temperature)
        self.alpha = alpha
        self.beta = beta
        self.temperature = temperature

    def compare(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """The decoupled divergence of each position."""
        return decoupled_kd(student, teacher, labels, alpha=self.alpha, beta=self.beta, temperature=self.temperature)
