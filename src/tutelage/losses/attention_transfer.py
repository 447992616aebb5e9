"""Attention transfer: where a convolutional teacher is active, the student is to be active too."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from tutelage.errors import SignalError
from tutelage.losses.base import Weight, require_choice
from tutelage.losses.layer_pairs import LayerKind, LayerPairs, Pairs
from tutelage.losses.maps import Resize, same_size
from tutelage.losses.reduce import unit, widen
from tutelage.signals import Batch

__all__ = ["AttentionTransfer", "attention_distance", "attention_map"]


def attention_map(features: Tensor) -> Tensor:
    """`Σ_c A_c²`: `[B, C, H, W]` -> `[B, 1, H, W]`, in float32 or wider."""
    wide = torch.promote_types(features.dtype, torch.float32)
    return features.to(wide).square().sum(1, keepdim=True)


def attention_distance(student: Tensor, teacher: Tensor, variant: Literal["paper", "official"]) -> Tensor:
    """The distance of two attention maps of one size, each divided by its length: `[B, 1, H, W]` -> `[B]`."""
    student, teacher = widen(student, teacher)
    difference = unit(student.flatten(1)) - unit(teacher.flatten(1))
    if variant == "official":
        return difference.square().mean(1)
    length: Tensor = torch.linalg.vector_norm(difference, dim=1)
    return 0.5 * length


class AttentionTransfer(LayerPairs):
    """The distance between attention maps `Q = Σ_c A_c²` of pairs of layers, each map divided by its length.

    Variants: "paper" is `½ ‖ Q_S/‖Q_S‖₂ - Q_T/‖Q_T‖₂ ‖₂` (its equation 2, the ½ of its β/2 included, so `weight` is β);
    "official" (the authors' code) squares the differences and takes their mean over positions, `1/(HW) · ‖·‖₂²`.
    The gradient of "paper" does not get smaller as the maps get nearer; that of "official" does.

    Shapes: layers `[B, C, H, W]` -> `[B]`. Numbers of channels may differ. Values are averaged over pairs.

    When to use it: convolutional networks of the same family; pair the ends of the stages. No projector is needed, so
    nothing is trained but the student. The values of "official" are small: weights of 1000 are usual.

    Cost: two passes over the features, no parameters.

    Source: Zagoruyko, Komodakis, "Paying More Attention to Attention: Improving the Performance of Convolutional
    Neural Networks via Attention Transfer", 2017.

    Args:
        pairs: Student's layer -> teacher's layer, each a dotted module path; or `auto`.
        variant: Which of the two forms above.
        resize: What to do with attention maps of different size: `refuse` them, average-`pool` the larger one to the
            size of the smaller, or `interpolate` the student's to the size of the teacher's (bilinear).
        weight: Factor of this term in the total.

    Raises:
        ValueError: There are no pairs, or an argument is none of its choices.
    """

    compares: ClassVar[tuple[LayerKind, ...]] = ("maps",)

    def __init__(
        self,
        pairs: Pairs,
        *,
        variant: Literal["paper", "official"] = "official",
        resize: Resize = "refuse",
        weight: Weight = 1.0,
    ) -> None:
        super().__init__(pairs, weight=weight)
        require_choice("variant", variant, ("paper", "official"))
        require_choice("resize", resize, ("refuse", "pool", "interpolate"))
        self.variant = variant
        self.resize: Resize = resize

    def compare(self, path: str, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """The distance of one pair of attention maps: `[B]`."""
        for model, features in (("student", student), ("teacher", teacher)):
            if features.dim() != 4:
                raise SignalError(
                    f"AttentionTransfer on layer `{path}` of the student, paired with `{self.pairs[path]}`",
                    expected="maps [B, C, H, W]",
                    found=f"shape {tuple(features.shape)} from the {model}",
                    mend="name layers before the pooling; for transformers use HiddenState",
                )
        maps = same_size("AttentionTransfer", path, attention_map(student), attention_map(teacher), self.resize)
        return attention_distance(*maps, self.variant)
