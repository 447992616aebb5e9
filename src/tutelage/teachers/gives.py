"""What the numbers of a teacher's output are, and how they become what the student learns from."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tutelage.errors import ModelError

__all__ = ["FLOOR", "Gives", "log_odds", "log_of_probabilities", "probabilities_to_logits", "signal_of", "slack_of"]

Array = np.ndarray[Any, Any]
Gives = Literal["logits", "probabilities", "sigmoid", "values"]
"""`logits` and `values` are taken as they are. `probabilities` of classes that exclude each other (a softmax) become
log-probabilities, independent ones (a `sigmoid`) log-odds: their softmax and sigmoid are what was given."""

FLOOR = 1e-7
"""The least probability that is told of a class: losses on logits can't take minus infinity."""
SLACK, MOST_SLACK, ROUNDED = 1e-2, 0.1, 0.005
"""How far the probabilities of a row may be from a sum of 1: models in half precision round, and people to two
decimals, which is 0.005 for each class and no more than a tenth for all of them."""


def signal_of(answer: Tensor, gives: Gives, *, who: str, key: str = "teacher.gives") -> Tensor:
    """An output as the student learns from it, in float32 or wider where it is converted.

    Args:
        answer: `[B, C]`; `sigmoid` and `values` take any shape. Probabilities `[B]` or `[B, 1]` are those of the second
            of two classes: `[B, 2]` comes of them.
        gives: What its numbers are.
        who: The teacher's output, for errors.
        key: Where the recipe says what they are.

    Raises:
        ModelError: The numbers are not what `gives` says.
    """
    if gives in ("logits", "values"):
        return answer
    p = answer.to(torch.promote_types(answer.dtype, torch.float32))
    if gives == "sigmoid":
        if not _within(p, 0.0, 1.0):
            raise _not(p, who, key, "independent probabilities, from 0 to 1", "logits")
        return log_odds(p, resolution=torch.finfo(answer.dtype).eps / 2 if answer.is_floating_point() else FLOOR)
    if p.dim() == 1 or (p.dim() == 2 and p.shape[1] == 1):
        if not _within(p, 0.0, 1.0):
            raise _not(p, who, key, "probabilities of the second of two classes, from 0 to 1", "logits")
        return probabilities_to_logits(p.reshape(-1))
    if p.dim() != 2 or not _within(p, 0.0, np.inf) or bool(((p.sum(1) - 1).abs() > slack_of(p.shape[1])).any()):
        independent = p.dim() >= 2 and _within(p, 0.0, 1.0)
        expected = "probabilities [B, C] that come to 1 in each row"
        raise _not(p, who, key, expected, "sigmoid" if independent else "logits")
    return probabilities_to_logits(p)


def slack_of(classes: int) -> float:
    """How far probabilities of so many classes may be from a sum of 1."""
    return min(max(SLACK, ROUNDED * classes), MOST_SLACK)


def probabilities_to_logits(p: Tensor) -> Tensor:
    """Log-probabilities `[B, C]`, scaled to sum to 1, none below `FLOOR`. `[B]` are those of the second of two classes.

    They are logits at any temperature `T`: `softmax(log p / T)` is `p^(1/T)`, scaled.
    """
    if p.dim() == 1:
        p = torch.stack([1 - p, p], dim=1)
    p = (p / p.sum(1, keepdim=True)).clamp(min=FLOOR)
    return (p / p.sum(1, keepdim=True)).log()


def log_odds(p: Tensor, *, resolution: float = FLOOR) -> Tensor:
    """`log p - log(1 - p)`, whose sigmoid is `p`, of probabilities held between `FLOOR` and 1 less a resolution.

    So 0 and 1, which a saturated sigmoid gives, become finite: about ±16 in single precision.

    Args:
        p: Independent probabilities.
        resolution: How near to 1 the type that they were computed in can tell them from 1; at least `FLOOR` is taken.
    """
    p = p.clamp(FLOOR, 1 - max(FLOOR, resolution))
    return p.log() - torch.log1p(-p)


def log_of_probabilities(probabilities: Array) -> Array:
    """`probabilities_to_logits` of an array, in float64, so that 1 - p is known where p is near 1."""
    logs: Array = probabilities_to_logits(torch.from_numpy(np.array(probabilities, dtype=np.float64))).numpy()
    return logs


def _within(p: Tensor, low: float, high: float) -> bool:
    """Whether all numbers are in a range, but for rounding."""
    return p.numel() > 0 and bool(((p >= low - 1e-6) & (p <= high + 1e-6)).all())


def _not(p: Tensor, who: str, key: str, expected: str, better: str) -> ModelError:
    sums = p.reshape(len(p), -1).sum(1)
    rows = f", rows that come to {float(sums.min()):.4g} to {float(sums.max()):.4g}" if p.dim() == 2 else ""
    return ModelError(
        who,
        expected=expected,
        found=f"shape {list(p.shape)}, numbers from {float(p.min()):.4g} to {float(p.max()):.4g}{rows}",
        harm="the student would learn something else than the teacher says",
        mend=f"{key.rpartition('.')[2]}: {better}"
        + (" (each output is a probability by itself)" if better == "sigmoid" else ""),
    )
