"""Squared error against labels: the supervised term of regression."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from tutelage.errors import SignalError
from tutelage.losses.base import Loss, Needs, Weight
from tutelage.losses.labels import labels_of, match_labels
from tutelage.losses.logit_mse import logit_mse
from tutelage.signals import Batch, Request, Signals

__all__ = ["MeanSquaredError", "squared_error"]


def squared_error(student: Tensor, target: Tensor, keep: Tensor | None = None) -> Tensor:
    """`(1/K) · Σ_k (s_k - y_k)²` over all axes but the first: `[B, ...]` -> `[B]`, in float32 or wider.

    Rows where `keep` is False give 0.
    """
    wide = torch.promote_types(student.dtype, torch.float32)
    return logit_mse(student.to(wide).reshape(len(student), -1), target.to(wide).reshape(len(student), -1), keep)


class MeanSquaredError(Loss):
    """`(1/K) · Σ_k (s_k - y_k)²` between the student's `K` values and the labels. Only rows that have a label count.

    Shapes: outputs and labels `[B, K]` -> `[B]`; for one value also outputs `[B, 1]` or `[B]` with labels `[B]`.

    When to use it: the supervised term of regression, and its baseline. Against the teacher's values use `LogitMSE`.

    Cost: negligible.

    Source: least squares; the maximum likelihood of Gaussian noise of one size.

    Args:
        weight: Factor of this term in the total.
    """

    supervised: ClassVar[bool] = True
    compares_values: ClassVar[bool] = True

    def __init__(self, *, weight: Weight = 1.0) -> None:
        super().__init__(weight=weight)

    @property
    def needs(self) -> Needs:
        """The student's output and labels."""
        return Needs(student=Request(output=True), labels=True)

    def prepare(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        """Checks that labels are numbers.

        Raises:
            SignalError: A labelled row holds NaN or infinity.
        """
        labels, labelled = labels_of("MeanSquaredError", batch)
        if not torch.isfinite(labels[labelled]).all():
            raise SignalError(
                "MeanSquaredError on labels",
                expected="finite numbers in every labelled row",
                found="NaN or infinity",
                harm="the loss and every gradient would become NaN",
                mend="leave the label of these rows empty: they are then learnt from the teacher alone",
            )
        super().prepare(student, teacher, batch)

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
        """`[B]`."""
        assert student.output is not None
        output, labels = match_labels("MeanSquaredError", student.output, batch, fill=False)
        return squared_error(output, labels, batch.labelled)

    def counts(self, batch: Batch) -> Tensor:
        """The weight of the row, 0 where it has no label: `[B]`."""
        return super().counts(batch) * labels_of("MeanSquaredError", batch)[1]
