"""Logit standardisation: a loss is handed Z-scores in place of logits."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from tutelage.losses.base import Loss, Weight, require_choice
from tutelage.losses.logits import paired_logits, require_wraps_outputs
from tutelage.losses.wrapped import WrappedLoss
from tutelage.signals import Batch, Signals

__all__ = ["LogitStandardization", "standardized"]


def standardized(logits: Tensor, variant: str) -> Tensor:
    """`(z - mean(z)) / σ(z)` over the last axis; constant logits, which have no spread, give 0 and pass no gradient.

    Args:
        logits: `[..., C]` in float32 or wider.
        variant: "paper": `σ² = Σ_c (z_c - mean)² / C`. "official": `/ (C - 1)`, and 1e-7 is added to `σ`.
    """
    mean = logits.mean(-1, keepdim=True)
    centred = logits - mean
    classes = logits.shape[-1]
    variance = centred.square().sum(-1, keepdim=True) / (classes if variant == "paper" else classes - 1)
    # The mean of equal numbers is not exact, and what is left of them would be blown up.
    known = variance.detach().sqrt() > 1e-7 + 1e-6 * mean.detach().abs()
    spread = torch.where(known, variance, 1.0).sqrt()
    scores = centred / (spread if variant == "paper" else spread + 1e-7)
    return torch.where(known, scores, 0.0)


class LogitStandardization(WrappedLoss):
    """`loss(z(s), z(t))` with `z(x) = (x - mean(x)) / σ(x)`: an inner loss on standardised logits of both models.

    Mean and spread are those of the classes at one position, so after it both models' logits have the same offset and
    the same size, and the student has to match the order and distances of the teacher's classes alone. The gradient
    passes through mean and spread. All else is the inner loss's own: its temperature (and its `T²`), its labels, what
    counts.

    Variants: "paper" divides the squares by `C`; "official" divides by `C - 1` (torch's `std`) and adds 1e-7 to `σ`.
    Logits that are constant have no spread: they give 0 and pass no gradient, so a student whose head starts at zero
    needs another term, such as `CrossEntropy`, to begin. Since the scores are small, the authors' code gives the term a
    weight of 9, at a temperature of 2.

    Shapes: those of the inner loss, with the classes on `axis`.

    When to use it: a student much smaller than its teacher, which can't reach the size of its logits; around
    `KLDivergence`, `DecoupledKD` or `MultiLevelLogit`. Not for outputs whose offset and size mean something.

    Cost: negligible beside the inner loss; some four tensors of each output's size.

    Source: Sun et al., "Logit Standardization in Knowledge Distillation", 2024.

    Args:
        loss: The inner loss; it compares softmax outputs, and its own weight is 1.
        variant: Which of the two forms above.
        axis: The class axis of the outputs, as in the inner loss; to be given for `[B, C, H, W]`.
        weight: Factor of this term in the total.

    Raises:
        ValueError: The inner loss does not compare softmax outputs, has another `axis` or a weight of its own, or
            `variant` is none of its choices.
    """

    def __init__(
        self,
        loss: Loss,
        *,
        variant: Literal["paper", "official"] = "official",
        axis: int = -1,
        weight: Weight = 1.0,
    ) -> None:
        super().__init__(loss, weight=weight)
        require_wraps_outputs("LogitStandardization", loss, axis)
        if getattr(loss, "outputs", "softmax") != "softmax":
            raise ValueError(
                f"loss must be one with softmax outputs, found {type(loss).__name__} with {loss.outputs}: "
                "the sign of such a logit means yes or no, and would be lost with the mean"
            )
        require_choice("variant", variant, ("paper", "official"))
        self.variant = variant
        self.axis = axis

    @property
    def leaves_free(self) -> frozenset[str]:  # type: ignore[override]
        """What the inner loss leaves free, and what standardising takes away."""
        return self.loss.leaves_free | {"shift", "scale"}

    def handed(self, student: Signals, teacher: Signals, batch: Batch) -> tuple[Signals, Signals]:
        """The outputs standardised, the features as they are."""
        assert student.output is not None and teacher.output is not None
        pair = paired_logits("LogitStandardization", student.output, teacher.output, self.axis, batch)
        known = (self.counted_alone(logits, batch) for logits in pair)
        s, t = (standardized(logits, self.variant).movedim(-1, self.axis) for logits in known)
        return Signals(output=s, features=student.features), Signals(output=t, features=teacher.features)
