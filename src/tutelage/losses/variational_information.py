"""Variational information distillation: the student predicts the teacher's layer, with a variance a channel."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.losses.activation_boundary import sum_over_positions
from tutelage.losses.base import Weight, require_choice, require_same_shape
from tutelage.losses.layer_pairs import LayerPairs, Pairs
from tutelage.losses.maps import Resize, same_size
from tutelage.losses.networks import Networks
from tutelage.losses.projectors import width
from tutelage.losses.reduce import mean_per_position, widen
from tutelage.signals import Batch, Signals

__all__ = ["VariationalInformation", "gaussian_loss"]

SMALLEST = 1e-5
"""What is added to the variance, that it never is 0."""


def gaussian_loss(mean: Tensor, variance: Tensor, teacher: Tensor) -> Tensor:
    """`½ · ((t - μ)²/σ² + log σ²)` of each number, in float32 or wider.

    Args:
        mean: `μ`, `[B, C, H, W]` or `[..., D]`.
        variance: `σ²` of each channel.
        teacher: The shape of `mean`.
    """
    mean, teacher = widen(mean, teacher)
    variance = variance[:, None, None] if mean.dim() == 4 else variance
    return ((teacher - mean).square() / variance + variance.log()) / 2


class Gaussian(nn.Module):
    """`μ(s)` from three layers of 1x1 convolutions (or linear maps) and ReLUs, and `σ² = softplus(α)`."""

    def __init__(self, inner: int, outer: int, *, maps: bool, identity: bool, variance: float) -> None:
        super().__init__()
        self.mean = nn.Sequential()
        if not identity:
            for wide in (inner, outer, outer):
                layer = nn.Conv2d(wide, outer, 1, bias=False) if maps else nn.Linear(wide, outer, bias=False)
                self.mean.extend([layer, nn.ReLU()])
            self.mean.pop(-1)
        self.alpha = nn.Parameter(torch.full((outer,), math.log(math.expm1(variance - SMALLEST))))

    def forward(self, student: Tensor) -> Tensor:
        """`μ`."""
        mean: Tensor = self.mean(student)
        return mean

    def variance(self) -> Tensor:
        """`σ²` of each channel."""
        return F.softplus(self.alpha) + SMALLEST


class VariationalInformation(LayerPairs):
    """`-log q(t|s) = Σ_c Σ_hw [½ log σ_c² + (t - μ(s))² / 2σ_c²]`, a Gaussian whose mean and variances are learnt.

    It bounds the mutual information of the two layers from below. `μ` is three 1x1 convolutions (linear maps for
    vectors and tokens), the inner ones of the teacher's width, without bias and with ReLUs between them, as in the
    official code; `σ_c² = softplus(α_c) + 1e-5` is one number a channel that does not depend on the input. Both are
    made by `prepare`, train with the loss and do not ship. The constant `½ log 2π` of each number is left out, so the
    value may be negative.

    Variants: "paper" sums over channels and positions; "official" (the authors' code, in the form in which RepDistiller
    has it) takes the mean over both.

    Shapes: layers `[B, C, H, W]` or `[B, D]` -> `[B]`; layers `[B, L, D]` -> `[B, L]` where the rows have a token mask,
    else `[B]`. Values are averaged over pairs.

    When to use it: as `Hint`, where some of the teacher's channels can't be predicted by the student: their variance
    grows and they stop to matter.

    Cost: `(C_s + 2·C_t)·C_t·H·W` multiplications a sample and pair forward, twice that backward.

    Source: Ahn, Hu, Damianou, Lawrence, Dai, "Variational Information Distillation for Knowledge Transfer", 2019.

    Args:
        pairs: Student's layer -> teacher's layer, each a dotted module path; or `auto`.
        variant: Which of the two forms above.
        variance: What every `σ_c²` begins with, more than 1e-5.
        projector: Whether `μ` is made always, or only where widths differ; elsewhere it is then the student's layer
            itself.
        resize: What to do with maps of different size: `refuse` them, average-`pool` the larger one to the size of
            the smaller, or `interpolate` the student's to the size of the teacher's (bilinear).
        weight: Factor of this term in the total.

    Raises:
        ValueError: There are no pairs, `variance` is too small, or an argument is none of its choices.
    """

    def __init__(
        self,
        pairs: Pairs,
        *,
        variant: Literal["paper", "official"] = "official",
        variance: float = 5.0,
        projector: Literal["where_widths_differ", "always"] = "always",
        resize: Resize = "refuse",
        weight: Weight = 1.0,
    ) -> None:
        super().__init__(pairs, weight=weight)
        require_choice("variant", variant, ("paper", "official"))
        if not SMALLEST < variance <= 100:
            raise ValueError(f"variance must be more than {SMALLEST} and at most 100, found {variance}")
        require_choice("projector", projector, ("where_widths_differ", "always"))
        require_choice("resize", resize, ("refuse", "pool", "interpolate"))
        self.variant = variant
        self.variance = variance
        self.projector = projector
        self.resize: Resize = resize
        self.gaussians = Networks()

    def prepare(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        """Makes the networks of the means, and the variances."""
        for path, teacher_path in self.pairs.items():
            s, t = student.features[path], teacher.features[teacher_path]
            if s.dim() == t.dim():
                self.gaussians.ensure(path, lambda s=s, t=t: self._gaussian(s, t), s, t)  # type: ignore[misc]
        super().prepare(student, teacher, batch)

    def _gaussian(self, student: Tensor, teacher: Tensor) -> Gaussian:
        inner, outer = width(student), width(teacher)
        identity = self.projector == "where_widths_differ" and inner == outer
        return Gaussian(inner, outer, maps=student.dim() == 4, identity=identity, variance=self.variance)

    def compare(self, path: str, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """The negative log-likelihood of one pair."""
        student, teacher = same_size("VariationalInformation", path, student, teacher, self.resize)
        where = f"layer `{path}` of the student"
        mend = "pair layers of one kind: maps with maps, tokens of one tokenizer, vectors with vectors"
        if student.dim() != teacher.dim():
            require_same_shape("VariationalInformation", student, teacher, where=where, mend=mend)
        gaussian = self.gaussians.of(path)
        assert isinstance(gaussian, Gaussian)
        mean = self.gaussians.run(path, student)
        require_same_shape("VariationalInformation", mean, teacher, where=where, mend=mend)
        values = gaussian_loss(mean, gaussian.variance(), teacher)
        channels = 1 if values.dim() == 4 else -1
        if self.variant == "paper":
            return sum_over_positions(values.sum(channels), batch)
        return mean_per_position(values.mean(channels), batch)
