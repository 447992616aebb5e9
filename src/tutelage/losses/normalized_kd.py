"""Normalized knowledge distillation: the classes that are not the target, brought to the same sum before comparing."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from tutelage.losses.base import Weight
from tutelage.losses.decoupled_kd import target_apart
from tutelage.losses.labelled_logits import LabelledLogits
from tutelage.losses.logits import require_not_negative, require_positive
from tutelage.losses.reduce import widen

__all__ = ["NormalizedKD", "normalized_kd"]


def normalized_kd(student: Tensor, teacher: Tensor, labels: Tensor, gamma: float, temperature: float) -> Tensor:
    """`-p_y · log q_y - γ · T² · Σ_{c≠y} p̂_c · log q̂_c` over the last axis: `[..., C]`, classes `[...]` -> `[...]`."""
    student, teacher = widen(student, teacher)
    at = labels[..., None]
    log_q = student.gather(-1, at).squeeze(-1) - student.logsumexp(-1)
    p = F.softmax(teacher, dim=-1).gather(-1, at).squeeze(-1)
    _, log_others = target_apart(student / temperature, labels)
    _, log_targets = target_apart(teacher / temperature, labels)
    others = (log_targets.exp() * log_others.scatter(-1, at, 0.0)).sum(-1)
    return -p * log_q - gamma * temperature**2 * others


class NormalizedKD(LabelledLogits):
    """`-p_y · log q_y - γ · T² · Σ_{c≠y} p̂_c · log q̂_c` with `y` the target class.

    `p` and `q` are the softmax of teacher and student without a temperature; `p̂` and `q̂` are those over the other
    classes alone, softened by `T`, each brought to the sum 1. In the cross-entropy with soft targets the other classes
    of student and teacher have different sums, and so can never agree.

    The first part is a cross-entropy with the label, weighted by how sure the teacher is of it: it pulls on even where
    both models agree. So the value has no floor but the entropy of `p̂` where the teacher is certain of the label.

    Paper and code agree, but for one version of the authors' code, which leaves the target class among the others.

    Shapes: outputs `[B, C]` and labels `[B]` -> `[B]`; outputs `[B, L, C]` and labels `[B, L]` -> `[B, L]`; outputs
    `[B, C, H, W]` (with `axis=1`) and labels `[B, H, W]` -> `[B]`, the mean over the pixels that count. Rows without a
    label, label -100 and masked tokens do not count.

    When to use it: as `DecoupledKD`, from which it differs in the target's part. Beside it, `CrossEntropy`.

    Cost: negligible; some ten tensors of the outputs' size.

    Source: Yang et al., "From Knowledge Distillation to Self-Knowledge Distillation: A Unified Approach with
    Normalized Loss and Customized Soft Labels", 2023.

    Args:
        gamma: `γ`, the factor of the other classes' part, 0 or more.
        temperature: `T > 0`, of the other classes' part alone.
        axis: The class axis of the output, of student and teacher alike; to be given for `[B, C, H, W]`.
        weight: Factor of this term in the total.

    Raises:
        ValueError: `gamma` is negative or `temperature` is not positive.
    """

    def __init__(self, gamma: float = 1.5, temperature: float = 1.0, *, axis: int = -1, weight: Weight = 1.0) -> None:
        super().__init__(axis=axis, weight=weight)
        require_not_negative("gamma", gamma)
        require_positive("temperature", temperature)
        self.gamma = gamma
        self.temperature = temperature

    def compare(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """Both parts of each position."""
        return normalized_kd(student, teacher, labels, self.gamma, self.temperature)
