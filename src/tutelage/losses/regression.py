"""Regression on the teacher's values: how an error is judged, output by output."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.errors import SignalError
from tutelage.losses.base import Loss, Needs, Weight, require_choice, require_same_shape
from tutelage.losses.logits import require_positive
from tutelage.losses.reduce import widen
from tutelage.signals import Batch, Request, Signals

__all__ = ["Regression", "pinball"]


def pinball(student: Tensor, teacher: Tensor, quantile: Tensor | float) -> Tensor:
    """`q · max(t - s, 0) + (1 - q) · max(s - t, 0)`, element by element; the slope where both are equal is 0."""
    error = teacher - student
    return quantile * error.relu() + (1 - quantile) * (-error).relu()


class Regression(Loss):
    """`(1/K) · Σ_k φ((s_k - t_k) / c_k)` between the `K` values of student and teacher, with scales `c_k`.

    * "mse": `φ(d) = d²`.
    * "smooth_l1": `φ(d) = d² / (2β)` where `|d| < β`, else `|d| - β/2`: a line beyond `β`, so that no single row, on
      which the teacher may be wrong, outweighs the others.
    * "quantile": `φ(d) = (1 - q) · max(d, 0) + q · max(-d, 0)`: the student learns the quantile `q` of what the teacher
      says about rows that look alike to it; with a quantile for each output, an interval. `q = 0.5` is half the
      absolute error.

    `LogitMSE` is the special case "mse" without scales, and goes on to outputs with positions and to logits;
    `MeanSquaredError` compares with labels instead of the teacher. This loss is for values: it has scales, for outputs
    in different units, and errors that are not squared.

    Shapes: outputs `[B, K]` -> `[B]`; for one value also `[B]`.

    When to use it: a teacher for regression: "smooth_l1" as a rule, "quantile" where the student is to give bounds.

    Cost: negligible.

    Source: Girshick, "Fast R-CNN", 2015, for the smooth L1 (`β` as in later work); Koenker, Bassett, "Regression
    Quantiles", 1978.

    Args:
        kind: Which `φ`.
        beta: `β > 0` of "smooth_l1", in units of the scale.
        quantile: `q` of "quantile", between 0 and 1; or one for each output.
        scales: `c_k > 0`, one for each output, in its unit, such as the spread of its labels; null for 1, or for the
            deviation of each target where the plan standardises them.
        weight: Factor of this term in the total.

    Raises:
        ValueError: `kind` is none of its choices, or another argument is out of its range.
    """

    compares_values: ClassVar[bool] = True

    def __init__(
        self,
        kind: Literal["mse", "smooth_l1", "quantile"] = "smooth_l1",
        *,
        beta: float = 1.0,
        quantile: float | list[float] = 0.5,
        scales: list[float] | None = None,
        weight: Weight = 1.0,
    ) -> None:
        super().__init__(weight=weight)
        require_choice("kind", kind, ("mse", "smooth_l1", "quantile"))
        require_positive("beta", beta)
        for q in quantile if isinstance(quantile, list) else [quantile]:
            if not 0 < q < 1:
                raise ValueError(f"quantile must be between 0 and 1, found {q}")
        for scale in scales or []:
            require_positive("scales", scale)
        self.kind = kind
        self.beta = beta
        self.quantile = quantile
        self.scales = scales

    @property
    def needs(self) -> Needs:
        """Both outputs."""
        return Needs(student=Request(output=True), teacher=Request(output=True))

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
        """`[B]`."""
        assert student.output is not None and teacher.output is not None
        s, t = widen(*(x[:, None] if x.dim() == 1 else x for x in (student.output, teacher.output)))
        require_same_shape("Regression", s, t, where="outputs", mend="give both as many values")
        if s.dim() != 2:
            raise SignalError(
                "Regression on outputs",
                expected="one row of values a sample, [B, K] or [B]",
                found=f"shape {tuple(student.output.shape)}",
                mend="use LogitMSE for outputs with positions",
            )
        if self.scales is not None:
            scales = self._per_output("scales", self.scales, s)
            if self.units:  # the scales are in the unit of the targets, which come standardised
                scales = scales / self._per_output("units", list(self.units), s)
            s, t = s / scales, t / scales
        # Not mean(1): its backward pass would write out a tensor of the outputs' size.
        return self._errors(s, t).sum(1) / s.shape[1]

    def _errors(self, student: Tensor, teacher: Tensor) -> Tensor:
        if self.kind == "mse":
            return (student - teacher).square()
        if self.kind == "smooth_l1":
            return F.smooth_l1_loss(student, teacher, reduction="none", beta=self.beta)
        if isinstance(self.quantile, list):
            return pinball(student, teacher, self._per_output("quantile", self.quantile, student))
        return pinball(student, teacher, self.quantile)

    def _per_output(self, name: str, numbers: list[float], values: Tensor) -> Tensor:
        if len(numbers) != values.shape[1]:
            raise SignalError(
                "Regression on outputs",
                expected=f"as many outputs as there are numbers in `{name}`, {len(numbers)}",
                found=f"{values.shape[1]}",
                mend=f"give one number for each output in `{name}`",
            )
        return torch.tensor(numbers, dtype=values.dtype, device=values.device)
