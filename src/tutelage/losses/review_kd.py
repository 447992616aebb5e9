"""Review: each layer of the student, joined with all deeper ones, learns a layer of the teacher (ReviewKD)."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.errors import SignalError
from tutelage.losses.base import Weight
from tutelage.losses.layer_pairs import LayerKind, PairedLoss, Pairs
from tutelage.losses.reduce import widen
from tutelage.signals import Batch, Signals

__all__ = ["Fusion", "ReviewKD", "as_maps", "convolve", "hierarchical_context"]


def hierarchical_context(student: Tensor, teacher: Tensor) -> Tensor:
    """`Σ_l w_l · mean (P_l(s) - P_l(t))² / Σ_l w_l`: `[B, C, H, W]` and the same shape -> `[B]`, float32 or wider.

    `P_l` averages to a grid of `l × l` places. The levels are the map itself with `w = 1` and, of the grids 4, 2 and 1,
    those smaller than the map with `w = 1/2, 1/4, 1/8` in turn.
    """
    student, teacher = widen(student, teacher)
    difference = student - teacher  # the mean is linear: the pooled difference is the difference of the pooled
    total = difference.flatten(1).square().mean(1)
    weight = weights = 1.0
    for grid in (4, 2, 1):
        if grid < min(difference.shape[2:]):
            weight /= 2
            weights += weight
            total = total + weight * F.adaptive_avg_pool2d(difference, grid).flatten(1).square().mean(1)
    return total / weights


def convolve(layer: nn.Conv2d, maps: Tensor) -> Tensor:
    """The convolution of maps in float32 or wider, with weights in their type."""
    bias = None if layer.bias is None else layer.bias.to(maps.dtype)
    return F.conv2d(maps, layer.weight.to(maps.dtype), bias, padding=int(layer.padding[0]))


def as_maps(features: Tensor) -> Tensor:
    """Vectors `[B, D]` as maps of one place; maps as they are."""
    return features[..., None, None] if features.dim() == 2 else features


class Fusion(nn.Module):
    """One layer of the student joined with what came of the deeper ones.

    Args:
        channels: Of the student's layer.
        width: Channels of what is passed on to the next layer.
        teacher: Channels of the teacher's layer.
        fuses: Whether there is a deeper layer.
        device: Where its weights are.
        dtype: Their type.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        teacher: int,
        *,
        fuses: bool,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, width, 1, device=device, dtype=dtype)
        self.attention = nn.Conv2d(2 * width, 2, 1, device=device, dtype=dtype) if fuses else None
        self.expand = nn.Conv2d(width, teacher, 3, padding=1, device=device, dtype=dtype)
        for layer in (self.reduce, self.expand):
            nn.init.kaiming_uniform_(layer.weight, a=1)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def widths(self) -> tuple[int, int]:
        """The channels of student and teacher that it was made for."""
        return self.reduce.in_channels, self.expand.out_channels

    def forward(self, maps: Tensor, deeper: Tensor | None, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Maps of the teacher's channels at `size`, and what is passed on.

        Args:
            maps: The student's layer, `[B, C, H, W]`.
            deeper: What the deeper layer passed on, or None.
            size: Height and width of the teacher's layer.
        """
        joined = convolve(self.reduce, maps)
        if self.attention is not None:
            assert deeper is not None
            deeper = _resized(deeper, (maps.shape[2], maps.shape[3])).to(joined.dtype)
            share = torch.sigmoid(convolve(self.attention, torch.cat([joined, deeper], 1)))
            joined = joined * share[:, :1] + deeper * share[:, 1:]
        joined = _resized(joined, size)
        return convolve(self.expand, joined), joined


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return maps if maps.shape[2:] == size else F.interpolate(maps, size, mode="nearest")


class ReviewKD(PairedLoss):
    """`mean_i HCL(f_i(s_i, s_{i+1}, ..., s_n), t_i)`: the student's layer `i` and all deeper ones learn teacher's `i`.

    From deep to shallow, `f_i` brings `s_i` to a common width with a 1x1 convolution, joins it with what the deeper
    layers passed on, `u = a·x + b·y` with two attention maps `(a, b) = σ(conv([x, y]))` (ABF), passes `u` on and
    brings it to the teacher's width with a 3x3 convolution; sizes are brought to each other by the nearest neighbour.
    `HCL` is the mean squared error of the maps and of their means over grids of 4x4, 2x2 and 1 place, weighted 1, 1/2,
    1/4, 1/8 and divided by the sum of the weights. All convolutions train with the loss and do not ship.

    The authors' code has a batch norm after both convolutions, of which the paper does not speak. It is left out here,
    and the convolutions have a bias instead: a norm over the piece of the batch at hand would make a sample's value
    depend on its neighbours, and a batch accumulated in pieces or on several processes another loss. The code also sums
    over the layers; here it is the mean, so multiply `weight` by the number of pairs for theirs, and it raises the
    weight from 0 over the first epochs: `weight: [[0, 0], [0.1, 1]]`.

    Shapes: layers `[B, C, H, W]`, or vectors `[B, D]`, which are maps of one place -> `[B]`.

    When to use it: convolutional networks, detection and segmentation included, whose stages can be paired. Pair the
    ends of all stages and, in classifiers, the pooled features.

    Cost: per place of the pairs' maps `width·(C_s + 9·C_t)` multiplications forward, twice that backward, and as many
    parameters: this can be as much as the student itself. Lower `width` to make it cheaper.

    Source: Chen, Liu, Zhao, Jia, "Distilling Knowledge via Knowledge Review", 2021.

    Args:
        pairs: Student's layer -> teacher's layer, each a dotted module path, from shallow to deep; or `auto`.
        width: The common width; where the deepest layer of the student has fewer channels it is that number.
        weight: Factor of this term in the total.

    Raises:
        ValueError: There are no pairs, or `width` is not positive.
    """

    compares: ClassVar[tuple[LayerKind, ...]] = ("maps",)

    def __init__(self, pairs: Pairs, width: int = 512, *, weight: Weight = 1.0) -> None:
        super().__init__(pairs, weight=weight)
        if width < 1:
            raise ValueError(f"width must be positive, found {width}")
        self.width = width
        self.fusions = nn.ModuleDict()

    def prepare(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        """Makes the convolutions for the layers' channels.

        Raises:
            SignalError: Layers are no maps, or the convolutions are there already for other channels.
        """
        deeper: int | None = None
        for path, teacher_path in reversed(self.pairs.items()):
            s, t = student.features[path], teacher.features[teacher_path]
            self._require_maps(path, s, t, batch)
            key, width = path.replace(".", "/"), min(self.width, s.shape[1]) if deeper is None else deeper
            if key not in self.fusions:
                dtype = torch.promote_types(s.dtype, torch.float32)
                self.fusions[key] = Fusion(
                    s.shape[1], width, t.shape[1], fuses=deeper is not None, device=s.device, dtype=dtype
                )
            deeper = width
            self._require_widths(path, s, t)
        super().prepare(student, teacher, batch)

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
        """`[B]`: the mean over the pairs."""
        values, passed = [], None
        for path, teacher_path in reversed(self.pairs.items()):
            s, t = widen(as_maps(student.features[path]), as_maps(teacher.features[teacher_path]))
            maps, passed = self.fusions[path.replace(".", "/")](s, passed, (t.shape[2], t.shape[3]))
            values.append(hierarchical_context(maps.to(s.dtype), t))
        return torch.stack(values).mean(0)

    def _require_maps(self, path: str, s: Tensor, t: Tensor, batch: Batch) -> None:
        if s.dim() not in (2, 4) or t.dim() != s.dim() or not len(s) == len(t) == len(batch):
            raise SignalError(
                f"ReviewKD on layer `{path}` of the student, paired with `{self.pairs[path]}`",
                expected=f"maps [B, C, H, W] of both models, or vectors [B, D] of both, for a batch of {len(batch)}",
                found=f"shapes {tuple(s.shape)} and {tuple(t.shape)}",
                mend="name layers of one kind; for the tokens of transformers use HiddenState",
            )

    def _require_widths(self, path: str, s: Tensor, t: Tensor) -> None:
        fusion = self.fusions[path.replace(".", "/")]
        assert isinstance(fusion, Fusion)
        if fusion.widths() != (s.shape[1], t.shape[1]):
            raise SignalError(
                f"ReviewKD on layer `{path}` of the student, paired with `{self.pairs[path]}`",
                expected=f"the channels its convolutions were made for, {fusion.widths()}",
                found=f"shapes {tuple(s.shape)} and {tuple(t.shape)}",
                harm="new convolutions would forget what these have learnt",
                mend="make a new loss for these models",
            )
