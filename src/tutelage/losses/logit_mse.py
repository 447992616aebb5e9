"""Squared error of the raw outputs: regression on logits."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from tutelage.losses.base import Loss, Needs, Weight, require_same_shape
from tutelage.losses.reduce import mean_per_position, widen
from tutelage.losses.rows import squared_distance, token_mask
from tutelage.signals import Batch, Request, Signals

__all__ = ["LogitMSE", "logit_mse"]


def logit_mse(student: Tensor, teacher: Tensor, keep: Tensor | None = None) -> Tensor:
    """`(1/C) · Σ_c (s_c - t_c)²` over the last axis: `[..., C]` -> `[...]`, in float32 or wider; 0 where not `keep`."""
    return squared_distance(*widen(student, teacher), keep) / student.shape[-1]


class LogitMSE(Loss):
    """`(1/C) · Σ_c (s_c - t_c)²` between the raw outputs (logits, or values of a regression) of student and teacher.

    The papers write the sum over classes; the mean does not grow with `C`: multiply `weight` by `C` for theirs.

    Shapes: outputs `[B, C]` or `[B]`, which is `[B, 1]`, -> `[B]`. Where outputs have positions (`[B, L, C]`,
    `[B, C, H, W]`), each token is a value, `[B, L]`, if the rows have a token mask, and else each sample is the mean
    of its positions, `[B]`.

    When to use it: instead of `KLDivergence` for few classes or a high temperature, of which it is the limit; and for
    regression, where the outputs are the values themselves. It also imitates what a softmax ignores, the offset of
    the logits.

    Cost: negligible.

    Source: Ba, Caruana, "Do Deep Nets Really Need to be Deep?", 2014; compared with the KL divergence in Kim et al.,
    "Comparing Kullback-Leibler Divergence and Mean Squared Error Loss in Knowledge Distillation", 2021.

    Args:
        weight: Factor of this term in the total.
    """

    compares_values: ClassVar[bool] = True

    def __init__(self, *, weight: Weight = 1.0) -> None:
        super().__init__(weight=weight)

    @property
    def needs(self) -> Needs:
        """Both outputs."""
        return Needs(student=Request(output=True), teacher=Request(output=True))

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
        """`[B]`, or `[B, L]` when the rows are masked sequences."""
        assert student.output is not None and teacher.output is not None
        s, t = (output[:, None] if output.dim() == 1 else output for output in (student.output, teacher.output))
        require_same_shape("LogitMSE", s, t, where="outputs", mend="give both as many outputs")
        return mean_per_position(logit_mse(s, t, token_mask(s, batch)), batch)
