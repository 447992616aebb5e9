"""What a black box says, as a form of a distribution: labels, shares of samples, rounded or cut-off probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tutelage.forms import TopK

__all__ = ["top_of_answers", "top_of_probabilities"]


def top_of_probabilities(probabilities: Tensor, answered: Tensor | None = None) -> TopK:
    """Probabilities `[B, C]` of all classes, some of which may be rounded or cut off to 0.

    What is missing to 1 is spread over the classes at 0. A row in which all are 0 says nothing of any class: it is
    uniform. One that is not `answered`, `[B]`, is silent.
    """
    nothing = probabilities.sum(-1, keepdim=True) <= 0
    classes = probabilities.shape[-1]
    p = torch.where(nothing, 1 / classes, probabilities.float())
    p = p if answered is None else p * answered[:, None]
    k = max(int((p > 0).sum(-1).max()), 1)
    top, indices = p.topk(k, dim=-1)
    return TopK.of_probabilities(top, indices, classes)


def top_of_answers(answers: Sequence[Sequence[int]], classes: int) -> TopK:
    """Shares of the classes among the answers to each row, `[B][samples]` class indices. A row of none is silent."""
    of_row = [torch.bincount(torch.tensor(row, dtype=torch.long), minlength=classes) for row in answers]
    counts = torch.stack(of_row).float()
    total = counts.sum(-1, keepdim=True)
    return top_of_probabilities(counts / total.clamp(min=1), total[:, 0] > 0)
