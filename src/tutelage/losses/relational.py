"""Relational distillation: the distances between samples, and the angles that three of them form (RKD)."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.errors import SignalError
from tutelage.losses.base import Weight
from tutelage.losses.layer_pairs import LayerPairs, Pairs
from tutelage.losses.reduce import full_precision, widen
from tutelage.signals import Batch, Signals

__all__ = ["RelationalAngle", "RelationalDistance", "relational_angle", "relational_distance", "require_samples"]


def require_samples(loss: str, batch: Batch) -> None:
    """Raises a `SignalError` when a loss that compares the samples of a batch is given a single one."""
    if len(batch) < 2:
        raise SignalError(
            loss,
            expected="several samples in a batch",
            found="one",
            harm="there is nothing to compare it with, and nothing would be learnt",
            mend="raise the batch size",
        )


def distances(features: Tensor) -> Tensor:
    """`‖x_i - x_j‖` of the flattened features, `[B, ...]` -> `[B, B]`; where it is 0 no gradient passes.

    From the differences: by way of dot products, features far from the origin would lose what tells them apart. Where
    they differ by rounding alone it is 0: relative to others of that size, noise would be a relation.
    """
    flat = features.flatten(1)
    with full_precision(flat):
        distance = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist")
    rounding = 8 * torch.finfo(flat.dtype).eps * torch.linalg.vector_norm(flat.detach(), dim=1)
    return torch.where(distance > rounding, distance, 0.0)


def relative(distance: Tensor) -> Tensor:
    """Distances divided by the mean over all pairs of two samples, copies of each other too; as they are if it is 0."""
    size = len(distance)
    mean = distance.sum() / max(size * (size - 1), 1)
    return distance / torch.where(mean > 0, mean, 1.0)


def cosines(distance: Tensor) -> Tensor:
    """The cosine of the angle at each `j` between the directions to `i` and to `k`: `[B, B]` -> `[B, B, B]` by j, i, k.

    By the law of cosines, which takes `B³` numbers instead of the `B²·D` of the directions. A direction from a sample
    to itself or to a copy of it does not exist: the cosine is 0 there.
    """
    known = distance > 0
    inverse = torch.where(known, 1 / torch.where(known, distance, 1.0), 0.0)
    squares = distance.square()
    twice = squares[:, :, None] + squares[:, None, :] - squares
    # Of copies that differ by rounding alone the quotient is noise, but no cosine exceeds 1.
    return (twice * (inverse[:, :, None] * (inverse / 2)[:, None, :])).clamp(-1, 1)


def relational_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """`(1/B) · Σ_j h(d_ij(s) - d_ij(t))` for each `i`: `[B, ...]` and `[B, ...]` -> `[B]`.

    `d` are the distances relative to their mean, `h` is Huber's function with δ = 1.
    """
    student, teacher = widen(student, teacher)
    return F.smooth_l1_loss(relative(distances(student)), relative(distances(teacher)), reduction="none").mean(1)


def relational_angle(student: Tensor, teacher: Tensor) -> Tensor:
    """`(1/B²) · Σ_ik h(cos_jik(s) - cos_jik(t))` for each `j`, at which the angles are: `[B, ...]` twice -> `[B]`."""
    student, teacher = widen(student, teacher)
    s, t = cosines(distances(student)), cosines(distances(teacher))
    return F.smooth_l1_loss(s, t, reduction="none").mean((1, 2))


class RelationalDistance(LayerPairs):
    """`(1/B²) · Σ_ij h(d_ij(s) - d_ij(t))`, with `d_ij = ‖x_i - x_j‖ / mean` and Huber's function `h` (δ = 1).

    `h(x)` is `x²/2` up to `|x| = 1` and `|x| - 1/2` from there. The mean is that over all pairs `i ≠ j`, of
    student and teacher each, so that neither the scale nor the width of the features matters. Two samples that coincide
    are a pair at distance 0 and lower the mean, in the paper as in the authors' code (which sets such a distance to
    1e-6); copies of code that take "the positive distances" leave them out. The value of a sample is
    its row's part. The paper sums over the pairs; the mean over all `B²`, those of a sample with itself included, is
    what the authors' code takes. There, distances come from dot products; here from differences, which are exact.

    Shapes: layers `[B, ...]` of any shape, student's and teacher's may differ -> `[B]`. Masked tokens are left out.
    Values are averaged over pairs.

    When to use it: embeddings and penultimate layers of student and teacher of different width, together with
    `RelationalAngle`; the paper weighs them 1 : 2 for metric learning and 25 : 50 beside a classifier's own loss. It
    compares the samples of a batch (`per_sample` is False): it is another loss for another batch size, and of two
    samples or fewer it says nothing.

    Cost: `B²·D` differences for each layer, no parameters; memory `B²`.

    Source: Park, Kim, Lu, Cho, "Relational Knowledge Distillation", 2019, and the authors' code.

    Args:
        pairs: Student's layer -> teacher's layer, each a dotted module path; or `auto`.
        weight: Factor of this term in the total.

    Raises:
        ValueError: There are no pairs.
    """

    per_sample: ClassVar[bool] = False
    fewest_rows: ClassVar[int] = 3

    def __init__(self, pairs: Pairs, *, weight: Weight = 1.0) -> None:
        super().__init__(pairs, weight=weight)

    def prepare(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        """Checks that there are samples to compare."""
        require_samples("RelationalDistance", batch)
        super().prepare(student, teacher, batch)

    def compare(self, path: str, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """Each sample's part for one pair: `[B]`."""
        return relational_distance(student, teacher)


class RelationalAngle(LayerPairs):
    """`(1/B³) · Σ_ijk h(cos∠_ijk(s) - cos∠_ijk(t))`: the angle at `j` between those to `i` and `k`; `h` is Huber's.

    `h(x)` is `x²/2` up to `|x| = 1` and `|x| - 1/2` from there. The value of a sample is the part of the angles at it.
    The paper sums over triplets; the mean over all `B³`, in which a sample's angle with itself is 0, is what the
    authors' code takes. It holds the directions of all pairs, `B²·D` numbers; here the law of cosines gives the same
    cosines from the distances. Of samples that lie closer together than a ten-thousandth of the distance to a third
    one, float32 then gives the angles to two or three digits.

    Shapes: layers `[B, ...]` of any shape, student's and teacher's may differ -> `[B]`. Masked tokens are left out.
    Values are averaged over pairs.

    When to use it: with `RelationalDistance`, and twice its weight. It compares the samples of a batch (`per_sample`
    is False): it is another loss for another batch size, and of two samples or fewer it says nothing.

    Cost: `B²·D` differences for each layer, no parameters; memory `B³`: for batches of hundreds, not thousands.

    Source: Park, Kim, Lu, Cho, "Relational Knowledge Distillation", 2019, and the authors' code.

    Args:
        pairs: Student's layer -> teacher's layer, each a dotted module path; or `auto`.
        weight: Factor of this term in the total.

    Raises:
        ValueError: There are no pairs.
    """

    per_sample: ClassVar[bool] = False
    fewest_rows: ClassVar[int] = 3

    def __init__(self, pairs: Pairs, *, weight: Weight = 1.0) -> None:
        super().__init__(pairs, weight=weight)

    def prepare(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        """Checks that there are samples to compare."""
        require_samples("RelationalAngle", batch)
        super().prepare(student, teacher, batch)

    def compare(self, path: str, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """Each sample's part for one pair: `[B]`."""
        return relational_angle(student, teacher)
