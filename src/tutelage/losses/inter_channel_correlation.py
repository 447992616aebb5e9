"""Inter-channel correlation: which channels of a layer are active together (ICKD)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor

from tutelage.errors import SignalError
from tutelage.losses.base import Weight, require_choice
from tutelage.losses.layer_pairs import LayerKind, LayerPairs, Pairs
from tutelage.losses.projectors import Projectors, width
from tutelage.losses.reduce import full_precision, unit, widen
from tutelage.signals import Batch, Signals

__all__ = ["InterChannelCorrelation", "inter_channel_correlation"]


def cells(maps: Tensor, grid: int) -> Tensor:
    """Maps cut into `n × n` cells: `[B, C, H, W]` -> `[B, n², C, H·W/n²]`."""
    size, channels, height, width = maps.shape
    if grid == 1:
        return maps.reshape(size, 1, channels, height * width)
    parts = maps.reshape(size, channels, grid, height // grid, grid, width // grid)
    return parts.permute(0, 2, 4, 1, 3, 5).reshape(size, grid**2, channels, -1)


def inter_channel_correlation(
    student: Tensor, teacher: Tensor, variant: Literal["paper", "official"], grid: int = 1
) -> Tensor:
    """The squared difference of the channels' correlations, a mean over the cells: `[B, C, H, W]` twice -> `[B]`."""
    student, teacher = widen(cells(student, grid), cells(teacher, grid))
    with full_precision(student):
        s, t = student @ student.mT, teacher @ teacher.mT
    if variant == "paper":
        return F.mse_loss(s, t, reduction="none").mean((1, 2, 3))
    return F.mse_loss(unit(s), unit(t), reduction="none").mean((1, 2, 3)) * s.shape[-1]


class InterChannelCorrelation(LayerPairs):
    """`(1/C²) · ‖G(r(s)) - G(t)‖_F²` between pairs of layers; `G = F Fᵀ` holds the dot products of every two channels.

    `F` is `C × HW`, the channels' maps, and `r` a 1x1 convolution without bias from the student's width to the
    teacher's; it is made by `prepare` where they differ, trains with the loss and does not ship.

    Variants: "paper" is the above; it grows with the fourth power of the features and with the square of `HW`.
    "official" (the authors' code) divides each row of `G` by its length and the sum by `C`, so that it depends on
    neither. (That code also has its convolution where widths agree, and a batch normalisation behind it, with which the
    value of a sample would depend on the others; it is left out.)

    Shapes: layers `[B, C, H, W]` or `[B, L, C]` -> `[B]`; for tokens the places are the `L` tokens, without the masked
    ones. Sizes of maps may differ in "official". Values are averaged over pairs.

    When to use it: the last maps of convolutional networks; with `grid`, dense prediction, where what goes together
    differs from place to place (4 to 32 in the paper's segmentation).

    Cost: `C_t²·H·W` multiplications a sample and layer, and those of the projector, `C_s·C_t·H·W`; memory `C_t²`, times
    the cells.

    Source: Liu et al., "Exploring Inter-Channel Correlation for Diversity-Preserved Knowledge Distillation", 2021, and
    the authors' code; for the grid of cells, whose code is not published, the paper alone.

    Args:
        pairs: Student's layer -> teacher's layer, each a dotted module path; or `auto`.
        variant: Which of the two forms above.
        grid: `n`: the maps are cut into `n × n` cells, each with its own `G`, and the mean over the cells is taken.
        weight: Factor of this term in the total.

    Raises:
        ValueError: There are no pairs, `grid` is not positive, or `variant` is none of its choices.
    """

    compares: ClassVar[tuple[LayerKind, ...]] = ("maps", "tokens")

    def __init__(
        self,
        pairs: Pairs,
        *,
        variant: Literal["paper", "official"] = "official",
        grid: int = 1,
        weight: Weight = 1.0,
    ) -> None:
        super().__init__(pairs, weight=weight)
        require_choice("variant", variant, ("paper", "official"))
        if grid < 1:
            raise ValueError(f"grid must be 1 or more, found {grid}")
        self.variant: Literal["paper", "official"] = variant
        self.grid = grid
        self.projectors = Projectors()

    def prepare(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        """Makes the projectors."""
        for path, teacher_path in self.pairs.items():
            s, t = student.features[path], teacher.features[teacher_path]
            if s.dim() == t.dim() and s.dim() in (3, 4):
                self.projectors.ensure(path, s, t, bias=False)
        super().prepare(student, teacher, batch)

    def compare(self, path: str, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """The difference of one pair: `[B]`."""
        student = self.projectors.project(path, student)
        self._require_fit(path, student, teacher)
        if student.dim() == 3:
            student, teacher = student.mT[..., None], teacher.mT[..., None]
        return inter_channel_correlation(student, teacher, self.variant, self.grid)

    def _require_fit(self, path: str, student: Tensor, teacher: Tensor) -> None:
        shapes = f"shapes {tuple(student.shape)} and {tuple(teacher.shape)}"
        where = f"InterChannelCorrelation on layer `{path}` of the student, paired with `{self.pairs[path]}`"
        fit = student.dim() == teacher.dim() and student.dim() in (3, 4) and width(student) == width(teacher)
        if not fit or (student.dim() == 3 and self.grid > 1):
            raise SignalError(
                where,
                expected="maps [B, C, H, W] of both models, or tokens [B, L, C] of both and no grid",
                found=shapes,
                mend="name layers before the pooling, and leave out `grid` for tokens",
            )
        if self.variant == "paper" and student.shape != teacher.shape:
            raise SignalError(
                where,
                expected="layers of one size",
                found=shapes,
                harm="dot products over more places are larger",
                mend='pair layers of one size, or set `variant: "official"`',
            )
        if any(side % self.grid for maps in (student, teacher) if maps.dim() == 4 for side in maps.shape[2:]):
            raise SignalError(
                where,
                expected=f"maps whose height and width are multiples of `grid`, {self.grid}",
                found=shapes,
                harm="cells of different size would be compared",
                mend="set `grid` to a divisor of the maps' sides",
            )
