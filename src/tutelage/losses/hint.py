"""Hints: inner layers of the student learn to predict inner layers of the teacher (FitNets)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from tutelage.losses.base import Weight, require_choice, require_same_shape
from tutelage.losses.layer_pairs import LayerPairs, Pairs
from tutelage.losses.maps import Resize, same_size
from tutelage.losses.projectors import Projectors
from tutelage.losses.reduce import mean_per_position, widen
from tutelage.losses.rows import squared_distance
from tutelage.signals import Batch, Signals

__all__ = ["Hint", "half_squared_error"]


def half_squared_error(student: Tensor, teacher: Tensor) -> Tensor:
    """`½ · Σ_c (s_c - t_c)²` over the channels, in float32 or wider.

    Args:
        student: `[B, C, H, W]`, or `[..., D]`.
        teacher: The same shape.

    Returns:
        `[B, H, W]`, or `[...]`.
    """
    student, teacher = widen(student, teacher)
    if student.dim() != 4:
        return squared_distance(student, teacher) / 2
    return (student - teacher).square().sum(1) / 2


class Hint(LayerPairs):
    """`½ ‖t - r(s)‖²` between pairs of inner layers, with a regressor `r` from the student's width to the teacher's.

    `r` is a 1x1 convolution for maps, a linear map for vectors and tokens, both with bias; it is made by `prepare`,
    trains with the loss and does not ship. (FitNets' own regressor is a convolution over a larger window, which also
    brings the maps to one size; the 1x1 convolution is what later work uses.)

    Variants: "paper" sums the squares over channels and positions (its equation 3); "official" (their `HintCost`)
    sums over channels and takes the mean over positions, so that the size of the maps does not change the scale.
    They are the same for vectors, and for masked tokens, each of which is a value.

    Shapes: layers `[B, C, H, W]` or `[B, D]` -> `[B]`; layers `[B, L, D]` -> `[B, L]` where the rows have a token mask,
    else `[B]`. Values are averaged over pairs.

    When to use it: a student that is thinner or deeper than its teacher, on layers in the middle; too near the output
    it constrains the student. Use `HiddenState` for transformers, `AttentionTransfer` where a projector is not wanted.

    Cost: the projector: `C_s·C_t·H·W` multiplications a sample and pair forward, twice that backward.

    Source: Romero et al., "FitNets: Hints for Thin Deep Nets", 2015.

    Args:
        pairs: Student's layer -> teacher's layer, each a dotted module path; or `auto`.
        variant: Which of the two forms above.
        projector: Whether `r` is made only where widths differ, or always, as in the paper.
        resize: What to do with maps of different size: `refuse` them, average-`pool` the larger one to the size of
            the smaller, or `interpolate` the student's to the size of the teacher's (bilinear).
        weight: Factor of this term in the total.

    Raises:
        ValueError: There are no pairs, or an argument is none of its choices.
    """

    def __init__(
        self,
        pairs: Pairs,
        *,
        variant: Literal["paper", "official"] = "official",
        projector: Literal["where_widths_differ", "always"] = "where_widths_differ",
        resize: Resize = "refuse",
        weight: Weight = 1.0,
    ) -> None:
        super().__init__(pairs, weight=weight)
        require_choice("variant", variant, ("paper", "official"))
        require_choice("projector", projector, ("where_widths_differ", "always"))
        require_choice("resize", resize, ("refuse", "pool", "interpolate"))
        self.variant = variant
        self.projector = projector
        self.resize: Resize = resize
        self.projectors = Projectors()

    def prepare(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        """Makes the regressors."""
        for path, teacher_path in self.pairs.items():
            s, t = student.features[path], teacher.features[teacher_path]
            if s.dim() == t.dim():
                self.projectors.ensure(path, s, t, bias=True, always=self.projector == "always")
        super().prepare(student, teacher, batch)

    def compare(self, path: str, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """`½ ‖t - r(s)‖²` of one pair."""
        student, teacher = same_size("Hint", path, student, teacher, self.resize)
        student = self.projectors.project(path, student)
        mend = "pair layers of one kind: maps with maps, tokens of one tokenizer, vectors with vectors"
        require_same_shape("Hint", student, teacher, where=f"layer `{path}` of the student", mend=mend)
        if student.dim() == 4:  # all places at once: the error of each need not be written down
            half = squared_distance(student.flatten(1), teacher.flatten(1)) / 2
            return half if self.variant == "paper" else half / student[0, 0].numel()
        values = half_squared_error(student, teacher)
        tokens = batch.mask is not None and values.shape == batch.mask.shape
        if self.variant == "paper" and not tokens:
            return values.reshape(len(values), -1).sum(1)
        return mean_per_position(values, batch)
