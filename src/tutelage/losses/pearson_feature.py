"""Pearson feature distillation: channels of student and teacher are to correlate; their mean and scale are free."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor

from tutelage.errors import SignalError
from tutelage.losses.base import Weight, require_choice
from tutelage.losses.layer_pairs import Pairs
from tutelage.losses.map_pairs import MapPairs, Projection
from tutelage.losses.maps import Resize
from tutelage.losses.reduce import widen
from tutelage.signals import Batch, Signals

__all__ = ["PearsonFeature", "pearson_distance", "standardised"]


def standardised(maps: Tensor, variant: Literal["paper", "official"]) -> Tensor:
    """Each channel less its mean, divided by its standard deviation, both over batch and places: `[B, C, H, W]`.

    A channel that does not vary (beyond rounding) becomes 0 and passes no gradient: a floor on its deviation would
    give it one of 1e6 and more.
    """
    variance, mean = torch.var_mean(maps, dim=(0, 2, 3), keepdim=True, correction=int(variant == "official"))
    varies = variance > (1e-6 * mean.detach()).square() + 1e-24
    deviation = torch.where(varies, variance, 1.0).sqrt() + (1e-6 if variant == "official" else 0.0)
    return (maps - mean) * torch.where(varies, 1 / deviation, 0.0)


def pearson_distance(student: Tensor, teacher: Tensor, variant: Literal["paper", "official"]) -> Tensor:
    """`½ · mean_chw (ŝ - t̂)²` of standardised maps: `[B, C, H, W]` -> `[B]`, in float32 or wider."""
    student, teacher = widen(student, teacher)
    difference = standardised(student, variant) - standardised(teacher, variant)
    return difference.square().flatten(1).mean(1) / 2


class PearsonFeature(MapPairs):
    """`½ · mean (ŝ - t̂)²`, each channel standardised over the batch and its places.

    Its mean over the batch is `1 - r`, averaged over channels, with `r` the Pearson correlation of the student's and
    the teacher's channel over all `B·H·W` places: only the pattern is compared, not mean or scale. The value of a
    sample is its places' part.

    Variants: "paper" divides by the standard deviation of these `M = B·H·W` numbers, so that the value is exactly
    `1 - r`; "official" (the code in MMRazor) divides by the unbiased one, of `M - 1`, plus 1e-6, which multiplies the
    value with `(M-1)/M` and the gradient hardly at all. The code interpolates maps of different size; here `resize`
    says so.

    Shapes: layers `[B, C, H, W]` -> `[B]`. Values are averaged over pairs; the paper sums over the levels of the
    pyramid.

    When to use it: detectors of different kinds, whose features differ in scale; pair the levels of both pyramids.
    It standardises over the batch (`per_sample` is False): it is another loss for another batch size, and accumulating
    small batches is not the same as one large one. Of fewer than three places in a batch it says nothing.

    Cost: a few passes over the features, no parameters but the projector.

    Source: Cao, Zhang, Gao, Cheng, Cheng, Cheng, "PKD: General Distillation Framework for Object Detectors via Pearson
    Correlation Coefficient", 2022.

    Args:
        pairs: Student's layer -> teacher's layer, each a dotted module path; or `auto`.
        variant: Which of the two forms above.
        resize: What to do with maps of different size: `refuse` them, average-`pool` the larger one to the size of
            the smaller, or `interpolate` the student's to the size of the teacher's (bilinear).
        projector: When a trained 1x1 convolution brings the student's map to the teacher's width; the paper has none.
        weight: Factor of this term in the total.

    Raises:
        ValueError: There are no pairs, or an argument is none of its choices.
    """

    per_sample: ClassVar[bool] = False

    def __init__(
        self,
        pairs: Pairs,
        *,
        variant: Literal["paper", "official"] = "official",
        resize: Resize = "refuse",
        projector: Projection = "where_widths_differ",
        weight: Weight = 1.0,
    ) -> None:
        super().__init__(pairs, resize=resize, projector=projector, weight=weight)
        require_choice("variant", variant, ("paper", "official"))
        self.variant = variant
        self._places = 1

    @property
    def fewest_rows(self) -> int:  # type: ignore[override]
        """Those that make three places: two numbers, standardised, are ±1 whatever they were."""
        return math.ceil(3 / self._places)

    def prepare(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        """Notes how many places a row has at least."""
        super().prepare(student, teacher, batch)
        maps = [*student.features.values(), *teacher.features.values()]
        self._places = min(features[0, 0].numel() for features in maps)

    def compare_maps(self, path: str, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """Each sample's part of one pair of maps: `[B]`."""
        if student.shape[0] * student.shape[2] * student.shape[3] < 2:
            raise SignalError(
                f"PearsonFeature on layer `{path}` of the student",
                expected="two places or more in the batch",
                found=f"one: shape {tuple(student.shape)}",
                harm="one number has no deviation, so nothing would be learnt",
                mend="take larger batches, or a layer before the pooling",
            )
        return pearson_distance(student, teacher, self.variant)
