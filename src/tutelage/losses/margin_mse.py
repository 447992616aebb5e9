"""Margin-MSE: by how much a query's good passage is better than the others, for student and teacher."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from tutelage.errors import SignalError
from tutelage.losses.base import Loss, Needs, Weight, require_same_shape
from tutelage.losses.reduce import widen
from tutelage.signals import Batch, Request, Signals

__all__ = ["MarginMSE", "margin_mse"]


def margin_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """`1/(K-1) · Σ_k ((s_0 - s_k) - (t_0 - t_k))²` over the last axis: `[..., K]` -> `[...]`, in float32 or wider."""
    student, teacher = widen(student, teacher)
    error = student - teacher
    return (error[..., :1] - error).square().sum(-1) / (error.shape[-1] - 1)


class MarginMSE(Loss):
    """`1/(K-1) · Σ_{k≥1} ((s_0 - s_k) - (t_0 - t_k))²`, with the scores of K candidates a row, the first the positive.

    The scores themselves are free: those of a dot product and of a cross-encoder lie in different ranges, and only
    their differences are imitated. It is what sentence-transformers' `MarginMSELoss` computes from the teacher's scores
    of all candidates (that loss also takes the teacher's margins, which here are formed from its outputs); with two
    candidates it is the paper's loss.

    Shapes: outputs `[B, K]`, `K ≥ 2` -> `[B]`.

    When to use it: rerankers and retrievers that score a query's candidates, the first of which is known to be good.
    Student and teacher have to score in the same unit: logits with logits, not logits with probabilities. Where the
    order matters and not the distance, or no candidate is known to be good, use `KLDivergence`.

    Cost: negligible, no parameters.

    Source: Hofstätter et al., "Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge
    Distillation", 2020.

    Args:
        weight: Factor of this term in the total.
    """

    leaves_free: ClassVar[frozenset[str]] = frozenset({"shift"})

    def __init__(self, *, weight: Weight = 1.0) -> None:
        super().__init__(weight=weight)

    @property
    def needs(self) -> Needs:
        """Both outputs."""
        return Needs(student=Request(output=True), teacher=Request(output=True))

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
        """`[B]`.

        Raises:
            SignalError: The outputs are not scores of as many candidates, two or more.
        """
        assert student.output is not None and teacher.output is not None
        mend = "let both score the same candidates"
        require_same_shape("MarginMSE", student.output, teacher.output, where="outputs", mend=mend)
        if student.output.dim() != 2 or student.output.shape[1] < 2:
            raise SignalError(
                "MarginMSE on outputs",
                expected="the scores of two candidates or more a row, [B, K], the first the positive",
                found=f"shape {tuple(student.output.shape)}",
                harm="a margin is between two scores, so nothing would be learnt",
                mend="give each row its positive and its negatives, or use LogitMSE for single scores",
            )
        return margin_mse(student.output, teacher.output)
