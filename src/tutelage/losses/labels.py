"""Labels: what the supervised losses share. Only rows with a label count, and what stands in the others is not read."""

from __future__ import annotations

import torch
from torch import Tensor

from tutelage.errors import SignalError
from tutelage.losses.rows import keep_rows
from tutelage.signals import Batch

__all__ = [
    "IGNORED",
    "class_targets",
    "count_positions",
    "labels_of",
    "match_labels",
    "mean_of_counted",
    "require_classes",
    "require_labelled_positions",
]

IGNORED = -100
"""The label of a position that does not count: torch's and Hugging Face's convention."""


def labels_of(loss: str, batch: Batch) -> tuple[Tensor, Tensor]:
    """The labels and which rows have one, `[B]` bool.

    Raises:
        SignalError: The batch has no labels.
    """
    if batch.labels is None or batch.labelled is None:
        raise SignalError(
            f"{loss} on labels",
            expected="labels for some rows",
            found="a batch without labels",
            mend=f"name the label column of the data, or leave {loss} out and learn from the teacher alone",
        )
    return batch.labels, batch.labelled


def match_labels(loss: str, output: Tensor, batch: Batch, *, fill: bool = True) -> tuple[Tensor, Tensor]:
    """Output and float labels in one shape, `[B]` or `[B, K]`; with `fill`, labels are 0 in rows that have none.

    An output `[B, 1]` fits labels `[B]`. Anything else that broadcasting would accept is refused.

    Raises:
        SignalError: There are no labels, or the shapes differ.
    """
    labels, labelled = labels_of(loss, batch)
    if output.dim() == labels.dim() + 1 and output.shape[-1] == 1:
        output = output.squeeze(-1)
    if output.shape != labels.shape:
        raise SignalError(
            f"{loss} on labels",
            expected=f"one output of the student for each value of the labels, {tuple(labels.shape)}",
            found=f"an output of shape {tuple(output.shape)}",
            harm="broadcasting would compare values that don't belong together",
            mend="give the student as many outputs as the labels have columns",
        )
    # Not the output's type: labels of 101.3 would be 101.5 in bf16.
    wide = torch.promote_types(output.dtype, torch.float32)
    labels = labels.to(wide)
    return output, keep_rows(labels.reshape(len(labels), -1), labelled).view_as(labels) if fill else labels


def class_targets(loss: str, batch: Batch) -> Tensor:
    """The class labels, and -100 where a row has none or a token is masked."""
    labels, labelled = labels_of(loss, batch)
    counted = labelled.view(-1, *[1] * (labels.dim() - 1))
    if batch.mask is not None and batch.mask.shape == labels.shape:
        counted = counted & batch.mask
    return torch.where(counted, labels.long(), IGNORED)


def count_positions(targets: Tensor, batch: Batch) -> Tensor:
    """The weight of the row where there is a target, 0 elsewhere: `[B]`, or `[B, L]` for targets `[B, L]`."""
    if targets.dim() > 2:
        targets = targets.flatten(1).amax(1)  # no class is below IGNORED
    counted = targets != IGNORED
    rows = 1.0 if batch.weights is None else batch.weights.float().view(-1, *[1] * (counted.dim() - 1))
    return counted.float() * rows


def mean_of_counted(values: Tensor, targets: Tensor) -> Tensor:
    """Values of pixels, `[B, H, W]`, as the mean of each sample over those that count; `[B]` and `[B, L]` as they are.

    Values that do not count have to be 0.
    """
    if values.dim() <= 2:
        return values
    return values.flatten(1).sum(1) / (targets != IGNORED).flatten(1).sum(1).clamp(min=1)


def require_classes(loss: str, batch: Batch, classes: int) -> None:
    """Checks the labels of the traced batch against the number of classes.

    Raises:
        SignalError: Labels are not class indices, are out of range, or there is only one class.
    """
    labels, _ = labels_of(loss, batch)
    if labels.is_floating_point() or classes < 2:
        raise SignalError(
            f"{loss} on labels",
            expected="class indices, and an output with 2 classes or more",
            found=f"labels of {labels.dtype}, and {classes} classes",
            mend="use MeanSquaredError or Regression for values, BinaryCrossEntropy or KLDivergence for yes or no",
        )
    targets = class_targets(loss, batch)
    counted = targets[targets != IGNORED]
    if counted.numel() and not (int(counted.min()) >= 0 and int(counted.max()) < classes):
        raise SignalError(
            f"{loss} on labels",
            expected=f"class indices from 0 to {classes - 1}, as the student has {classes} classes",
            found=f"labels from {int(counted.min())} to {int(counted.max())}",
            mend="give the student as many classes as the data has, and number them from 0",
        )


def require_labelled_positions(loss: str, positions: torch.Size, targets: Tensor) -> None:
    """Raises a `SignalError` when there is not one label for each position that the student puts out."""
    if positions != targets.shape:
        raise SignalError(
            f"{loss} on labels",
            expected=f"one label for each of the student's positions: {tuple(positions)}",
            found=f"labels of shape {tuple(targets.shape)}",
            mend="give labels for what the student puts out, or set `axis` to the axis that holds the classes",
        )
