"""Activation boundaries: the student's neurons are to be on and off where the teacher's are."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from tutelage.errors import SignalError
from tutelage.losses.base import Weight, require_choice, require_same_shape
from tutelage.losses.layer_pairs import LayerKind, LayerPairs
from tutelage.losses.logits import require_positive
from tutelage.losses.maps import Resize, same_size
from tutelage.losses.projectors import Projectors
from tutelage.losses.reduce import mean_per_position, visible, widen
from tutelage.signals import Batch, Signals

__all__ = ["ActivationBoundary", "boundary_hinge", "sum_over_positions"]


def boundary_hinge(student: Tensor, teacher: Tensor, margin: float) -> Tensor:
    """`Σ_c max(0, μ - s_c)²` where the teacher's neuron is on (`t_c > 0`), `max(0, μ + s_c)²` where it is off.

    Args:
        student: Pre-activations, `[B, C, H, W]` or `[..., D]`.
        teacher: The same shape.
        margin: `μ`.

    Returns:
        `[B, H, W]`, or `[...]`, in float32 or wider.
    """
    student, teacher = widen(student, teacher)
    one = student.new_ones(())
    short = torch.addcmul(margin * one, student, torch.where(teacher > 0, -one, one)).relu()
    return short.square().sum(1 if student.dim() == 4 else -1)


def sum_over_positions(values: Tensor, batch: Batch) -> Tensor:
    """Brings `[B, ...]` values to one a sample by summing over its positions; those of masked tokens stay `[B, L]`.

    Raises:
        SignalError: The values are `[B, L]` and the mask is of another length.
    """
    mean = mean_per_position(values, batch)
    return mean if mean.shape == values.shape else mean * values[0].numel()


class ActivationBoundary(LayerPairs):
    """`Σ max(0, μ - r(s))²` over the neurons that are on in the teacher (`t > 0`), `+ Σ max(0, μ + r(s))²` over others.

    `s` and `t` are values before the activation function; only the sign of `t` counts. `r` brings the student to the
    teacher's width: a 1x1 convolution for maps, a linear map for vectors and tokens, both with bias; it is made by
    `prepare`, trains with the loss and does not ship. The paper's has batch norm in place of the bias. That is left
    out here: its statistics would make a sample's value depend on its neighbours and on how a batch is split.

    The sum is over channels and positions, in the paper and in the official code, which then multiplies with 0.003
    (CIFAR) or 0.001 and, for the layers before the last, with 1/2, 1/4, 1/8; here `weight` has these factors: give each
    layer a term of its own.

    Shapes: layers `[B, C, H, W]` or `[B, D]` -> `[B]`; layers `[B, L, D]` -> `[B, L]` where the rows have a token mask,
    else `[B]`. Values are averaged over pairs.

    When to use it: to start the student: the paper trains on this loss alone first and on the task afterwards, for
    which a `weight` that falls to 0 serves. Name the layers before the ReLU, such as the batch norm.

    Cost: the projector: `C_s·C_t·H·W` multiplications a sample and pair forward, twice that backward.

    Source: Heo, Lee, Yun, Choi, "Knowledge Transfer via Distillation of Activation Boundaries Formed by Hidden
    Neurons", 2019.

    Args:
        pairs: Student's layer -> teacher's layer, each a dotted module path.
        margin: `μ > 0`, by how much a neuron is to be on or off.
        projector: Whether `r` is made only where widths differ, as in the official code, or always.
        resize: What to do with maps of different size: `refuse` them, average-`pool` the larger one to the size of
            the smaller, or `interpolate` the student's to the size of the teacher's (bilinear).
        weight: Factor of this term in the total.

    Raises:
        ValueError: There are no pairs, `margin` is not positive, or an argument is none of its choices.
    """

    compares: ClassVar[tuple[LayerKind, ...]] = ()

    def __init__(
        self,
        pairs: dict[str, str],
        margin: float = 1.0,
        *,
        projector: Literal["where_widths_differ", "always"] = "where_widths_differ",
        resize: Resize = "refuse",
        weight: Weight = 1.0,
    ) -> None:
        super().__init__(pairs, weight=weight)
        require_positive("margin", margin)
        require_choice("projector", projector, ("where_widths_differ", "always"))
        require_choice("resize", resize, ("refuse", "pool", "interpolate"))
        self.margin = margin
        self.projector = projector
        self.resize: Resize = resize
        self.projectors = Projectors()

    def prepare(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        """Makes the projectors.

        Raises:
            SignalError: A layer of the student is never negative, so it comes after the activation function.
        """
        for path, teacher_path in self.pairs.items():
            s, t = student.features[path], teacher.features[teacher_path]
            if s.dim() == t.dim():
                self.projectors.ensure(path, s, t, bias=True, always=self.projector == "always")
        super().prepare(student, teacher, batch)
        for path in self.pairs:
            if (visible(student.features[path], batch) >= 0).all():
                raise SignalError(
                    f"ActivationBoundary on layer `{path}` of the student",
                    expected="values before the activation function",
                    found="none that is negative",
                    harm="a neuron that is off has no gradient after its ReLU, so no boundary could be learnt",
                    mend="name the layer before the ReLU, such as the batch norm",
                )

    def compare(self, path: str, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """The hinges of one pair, summed."""
        student, teacher = same_size("ActivationBoundary", path, student, teacher, self.resize)
        student = self.projectors.project(path, student)
        mend = "pair layers of one kind: maps with maps, tokens of one tokenizer, vectors with vectors"
        require_same_shape("ActivationBoundary", student, teacher, where=f"layer `{path}` of the student", mend=mend)
        return sum_over_positions(boundary_hinge(student, teacher, self.margin), batch)
