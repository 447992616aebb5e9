"""Margin ReLU with partial L2 distance (OFD): the teacher's layer before its ReLU, cut off where it says only "off"."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tutelage.errors import ModelError
from tutelage.losses.base import Weight, require_choice
from tutelage.losses.layer_pairs import LayerKind
from tutelage.losses.map_pairs import MapPairs
from tutelage.losses.maps import Resize
from tutelage.losses.reduce import widen
from tutelage.signals import Batch

__all__ = ["MarginReLU", "negative_mean", "partial_distance"]


def negative_mean(weight: Tensor, bias: Tensor, variant: Literal["paper", "official"]) -> Tensor:
    """The margin `m_c = E[x | x < 0]` of each channel, for `x` normal with mean `β_c` and deviation `|γ_c|`.

    `m = β - |γ| · φ(β/|γ|) / Φ(-β/|γ|)`; "official" puts `-3|γ|` in its place where `Φ(-β/|γ|) <= 0.001`. Where
    `γ = 0` the channel is constant, and the margin is `min(β, 0)`.

    Args:
        weight: `γ`, `[C]`.
        bias: `β`, `[C]`.
        variant: "paper" or "official".

    Returns:
        `[C]`, float64; none is positive.
    """
    deviation, mean = weight.double().abs(), bias.double()
    varies = deviation > 0
    z = mean / torch.where(varies, deviation, 1.0)
    log_negative = torch.special.log_ndtr(-z)
    # The quotient in log space: both densities underflow from z = 38 on.
    ratio = torch.exp(-z.square() / 2 - math.log(2 * math.pi) / 2 - log_negative)
    margin = mean - deviation * ratio
    if variant == "official":
        margin = torch.where(log_negative.exp() > 0.001, margin, -3 * deviation)
    return torch.where(varies, margin, mean).clamp(max=0)


def partial_distance(student: Tensor, teacher: Tensor, margin: Tensor) -> Tensor:
    """`Σ_chw (max(t, m) - s)²`, without the places where `s <= max(t, m) <= 0`: `[B, C, H, W]` -> `[B]`.

    Args:
        student: `[B, C, H, W]`.
        teacher: The same shape, before the ReLU.
        margin: `m`, `[C]`.
    """
    student, teacher = widen(student, teacher)
    target = torch.maximum(teacher, margin.to(teacher)[:, None, None])
    difference = student - target
    counts = (difference > 0) | (target > 0)
    return torch.where(counts, difference, 0.0).square().flatten(1).sum(1)


class MarginReLU(MapPairs):
    """`Σ (max(t, m) - r(s))²` over all places but those where `r(s) <= max(t, m) <= 0`.

    `t` is the teacher's batch norm before its ReLU. A negative value means "off" and no more, so it is cut off at the
    margin `m_c`, the mean of the channel's negative values, and where the target is negative it is enough that the
    student is as low or lower. `m_c = E[x | x < 0]` is computed from weight and bias of that batch norm, for whose
    output they are deviation and mean, as if it were normal; the loss borrows the module from the teacher.

    `r` is a 1x1 convolution with bias, made by `prepare`; it trains with the loss and does not ship. The paper's is a
    1x1 convolution and a batch norm. The norm is left out here: in training it divides by the deviation of the piece of
    the batch at hand, so a sample's value would depend on its neighbours and a batch accumulated in pieces would be
    another loss than the same batch at once. The convolution can express the same map; only its scale is learnt instead
    of set.

    Variants: "paper" has the margin as it is defined; "official" (the authors' code) takes `-3|γ|` for a channel that
    is negative in 1 of 1000 cases or fewer, which is lower by far than its mean there (`-0.28|γ|` at the threshold).
    Both sum over channels and places. The code divides by 1000 and, for the layers before the last, by 2, 4, 8; here
    `weight` has these factors: give each layer a term of its own.

    Shapes: layers `[B, C, H, W]` -> `[B]`. Values are averaged over pairs.

    When to use it: convolutional networks with batch norm and ReLU, for classification, detection and segmentation
    alike; pair the last batch norms of the stages. The values are sums: weights of 0.001 are usual.

    Cost: the projector: `C_s·C_t·H·W` multiplications a sample and pair forward, twice that backward.

    Source: Heo, Kim, Yun, Park, Kwak, Choi, "A Comprehensive Overhaul of Feature Distillation", 2019.

    Args:
        pairs: Student's layer -> teacher's layer, each a dotted module path. The teacher's is a batch norm that is
            followed by a ReLU; the student's is a layer before its ReLU.
        variant: Which of the two margins above.
        projector: Whether `r` is made always, as in the paper, or only where widths differ.
        resize: What to do with maps of different size: `refuse` them, average-`pool` the larger one to the size of
            the smaller, or `interpolate` the student's to the size of the teacher's (bilinear).
        weight: Factor of this term in the total.

    Raises:
        ValueError: There are no pairs, or an argument is none of its choices.
    """

    compares: ClassVar[tuple[LayerKind, ...]] = ()

    def __init__(
        self,
        pairs: dict[str, str],
        *,
        variant: Literal["paper", "official"] = "official",
        projector: Literal["where_widths_differ", "always"] = "always",
        resize: Resize = "refuse",
        weight: Weight = 1.0,
    ) -> None:
        super().__init__(pairs, resize=resize, projector=projector, weight=weight)
        require_choice("variant", variant, ("paper", "official"))
        require_choice("projector", projector, ("where_widths_differ", "always"))
        self.variant = variant
        self._margins: dict[str, Tensor] = {}

    @property
    def borrows(self) -> frozenset[str]:
        """The teacher's batch norms."""
        return frozenset(self.pairs.values())

    def introduce(self, *, modules: Mapping[str, nn.Module], rows: int) -> None:
        """Computes the margins.

        Raises:
            ModelError: A layer of the teacher is no batch norm.
        """
        super().introduce(modules=modules, rows=rows)
        for path in sorted(self.borrows):
            norm = self.borrowed(path)
            if not isinstance(norm, _BatchNorm):
                raise ModelError(
                    f"MarginReLU on layer `{path}` of the teacher",
                    expected="a batch norm (BatchNorm2d) that is followed by a ReLU",
                    found=type(norm).__name__,
                    harm="without its weight and bias the margin is not known",
                    mend="name the batch norm before the ReLU; where there is none use ActivationBoundary or Hint",
                )
            # A norm without weight and bias puts out deviation 1 and mean 0.
            weight = torch.ones(norm.num_features) if norm.weight is None else norm.weight.detach()
            bias = torch.zeros_like(weight) if norm.bias is None else norm.bias.detach()
            self._margins[path] = negative_mean(weight, bias, self.variant)

    def compare_maps(self, path: str, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """The partial distance of one pair of maps: `[B]`."""
        return partial_distance(student, teacher, self._margins[self.pairs[path]])
