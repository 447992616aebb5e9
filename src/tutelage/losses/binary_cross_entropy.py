"""Binary cross-entropy: the supervised term where a row can belong to several classes."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from tutelage.errors import SignalError
from tutelage.losses.base import Loss, Needs, Weight
from tutelage.losses.labels import labels_of, match_labels
from tutelage.losses.rows import clear_, differentiable_once
from tutelage.signals import Batch, Request, Signals

__all__ = ["BinaryCrossEntropy", "binary_cross_entropy"]


def binary_cross_entropy(logits: Tensor, labels: Tensor, keep: Tensor | None = None) -> Tensor:
    """`-Σ_c y_c · log σ(s_c) + (1 - y_c) · log σ(-s_c)` over all axes but the first: `[B, ...]` -> `[B]`.

    Rows where `keep` is False give 0.
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32)).reshape(len(logits), -1)
    labels = labels.to(wide.dtype).reshape(len(labels), -1)
    values = _BinaryCrossEntropy.apply(wide, labels, keep)  # type: ignore[no-untyped-call]
    return cast("Tensor", values)


class _BinaryCrossEntropy(torch.autograd.Function):
    """Its gradient `σ(s) - y` in one tensor, and none in rows that do not count."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, keep: Tensor | None) -> Tensor:
        # log(1 + e^-|s|) + max(s, 0) - y s, in place: torch's own takes more room for the same number.
        softplus = logits.abs().neg_().exp_().log1p_()
        values = softplus.add_(logits.clamp(min=0).addcmul_(logits, labels, value=-1)).sum(1)
        values = values if keep is None else values.masked_fill(~keep, 0)
        ctx.save_for_backward(values, logits, labels, keep)
        return values

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        _, logits, labels, keep = ctx.saved_tensors
        slope = torch.sigmoid(logits).sub_(labels)
        return (slope if keep is None else clear_(slope, keep)).mul_(gradient[:, None]), None, None


class BinaryCrossEntropy(Loss):
    """`-Σ_c [ y_c · log σ(s_c) + (1 - y_c) · log σ(-s_c) ]` against labels `y_c` in [0, 1], summed over the classes.

    The sum over classes (not their mean) is the likelihood of the row, and so the scale of
    `KLDivergence(outputs="sigmoid")`: for a teacher that is sure of the labels, both are the same number. Only rows
    that have a label count.

    Shapes: outputs and labels `[B, C]` -> `[B]`; for one class also outputs `[B, 1]` or `[B]` with labels `[B]`.

    When to use it: multi-label classification, or two classes with a single logit. For classes that exclude each
    other use `CrossEntropy`.

    Cost: negligible.

    Source: the maximum likelihood of independent Bernoulli variables.

    Args:
        weight: Factor of this term in the total.
    """

    supervised: ClassVar[bool] = True

    def __init__(self, *, weight: Weight = 1.0) -> None:
        super().__init__(weight=weight)

    @property
    def needs(self) -> Needs:
        """The student's output and labels."""
        return Needs(student=Request(output=True), labels=True)

    def prepare(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        """Checks that labels lie in [0, 1].

        Raises:
            SignalError: They don't.
        """
        labels, labelled = labels_of("BinaryCrossEntropy", batch)
        counted = labels[labelled]
        if not ((counted >= 0) & (counted <= 1)).all():
            raise SignalError(
                "BinaryCrossEntropy on labels",
                expected="numbers from 0 (no) to 1 (yes) for each class",
                found=f"labels from {counted.min().item()} to {counted.max().item()}",
                mend="give one column a class, or use CrossEntropy for class indices",
            )
        super().prepare(student, teacher, batch)

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
        """`[B]`."""
        assert student.output is not None
        output, labels = match_labels("BinaryCrossEntropy", student.output, batch, fill=False)
        return binary_cross_entropy(output, labels, batch.labelled)

    def counts(self, batch: Batch) -> Tensor:
        """The weight of the row, 0 where it has no label: `[B]`."""
        return super().counts(batch) * labels_of("BinaryCrossEntropy", batch)[1]
