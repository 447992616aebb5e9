"""Labels: what the supervised losses share. Only rows with a label count, and what stands in the others is not read."""

from __future__ import annotations

import torch
from torch import Tensor

from tutelage.errors import SignalError
from tutelage.losses.rows import keep_rows
from tutelage.signals import Batch

__all__ = ["labels_of", "match_labels"]


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
