"""Neuron selectivity transfer: the channels' maps, as a set, are to be distributed as the teacher's (MMD)."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor

from tutelage.losses.base import Weight, require_choice
from tutelage.losses.layer_pairs import Pairs
from tutelage.losses.map_pairs import MapPairs
from tutelage.losses.maps import Resize
from tutelage.losses.reduce import full_precision, unit, widen
from tutelage.signals import Batch

__all__ = ["NeuronSelectivity"]


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """`‖a_i - b_j‖²` between rows of length 1 (or 0): `[B, m, D]` and `[B, n, D]` -> `[B, m, n]`."""
    lengths = a.detach().square().sum(-1)[:, :, None] + b.detach().square().sum(-1)[:, None, :]
    return torch.baddbmm(lengths, a, b.mT, alpha=-2)


class NeuronSelectivity(MapPairs):
    """`MMD² = mean_ij k(t_i, t_j) + mean_ij k(s_i, s_j) - 2 · mean_ij k(t_i, s_j)` over the channels of a sample.

    `s_i`, `t_i` are the maps of channel `i`, flattened and divided by their L2 norm. The kernels:

    - "polynomial": `k(x, y) = (x·y + c)^d`; `d` = 2 and `c` = 0 is what the authors' code has. It then compares
      the Gram matrices of the places, not the channels one by one.
    - "linear": `k(x, y) = x·y`: the mean of the normalised channels, nearly `AttentionTransfer`.
    - "gaussian": `k(x, y) = exp(-‖x - y‖² / 2σ²)`. The paper takes for `σ²` the mean squared distance of "the pairs",
      not saying of which; here it is that between the teacher's channels in the sample, which does not depend on the
      student, unless `bandwidth` gives a number.

    The official code leaves the teacher's term out. That changes the value by a constant and no gradient; here it is
    kept, so that the loss is 0 where the channels agree in any order.

    Shapes: layers `[B, C, H, W]` -> `[B]`. Numbers of channels may differ. Values are averaged over pairs.

    When to use it: convolutional networks whose channels do not correspond one to one, at the end of the last stage.
    The authors' configuration for the polynomial kernel has a weight of 50.

    Cost: `(C_s² + C_s·C_t + C_t²)·H·W` multiplications a sample and pair, or, for `(x·y)²` where that is less,
    `(C_s + C_t)·(H·W)²`; no parameters.

    Source: Huang, Wang, "Like What You Like: Knowledge Distill via Neuron Selectivity Transfer", 2017.

    Args:
        pairs: Student's layer -> teacher's layer, each a dotted module path; or `auto`.
        kernel: Which of the three above.
        degree: `d` of the polynomial kernel, 1 or more.
        offset: `c` of the polynomial kernel, 0 or more.
        bandwidth: `σ²` of the gaussian kernel; None for the mean squared distance of the teacher's channels.
        resize: What to do with maps of different size: `refuse` them, average-`pool` the larger one to the size of
            the smaller, or `interpolate` the student's to the size of the teacher's (bilinear).
        weight: Factor of this term in the total.

    Raises:
        ValueError: There are no pairs, or an argument is out of its range or none of its choices.
    """

    one_width: ClassVar[bool] = False

    def __init__(
        self,
        pairs: Pairs,
        *,
        kernel: Literal["polynomial", "linear", "gaussian"] = "polynomial",
        degree: int = 2,
        offset: float = 0.0,
        bandwidth: float | None = None,
        resize: Resize = "refuse",
        weight: Weight = 1.0,
    ) -> None:
        super().__init__(pairs, resize=resize, weight=weight)
        require_choice("kernel", kernel, ("polynomial", "linear", "gaussian"))
        if degree < 1:
            raise ValueError(f"degree must be 1 or more, found {degree}")
        if not (math.isfinite(offset) and offset >= 0):
            raise ValueError(f"offset must be 0 or more, or the kernel is none; found {offset}")
        if bandwidth is not None and not (math.isfinite(bandwidth) and bandwidth > 0):
            raise ValueError(f"bandwidth must be positive, found {bandwidth}")
        self.kernel = kernel
        self.degree = degree
        self.offset = offset
        self.bandwidth = bandwidth

    def compare_maps(self, path: str, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """The squared discrepancy of one pair of maps: `[B]`."""
        student, teacher = widen(student, teacher)
        s, t = unit(student.flatten(2)), unit(teacher.flatten(2))
        if self.kernel == "polynomial" and self.degree == 2 and not self.offset and _places_are_fewer(s, t):
            with full_precision(s):
                return (_of_places(s) - _of_places(t)).square().sum((1, 2))
        measure = squared_distances if self.kernel == "gaussian" else _products
        with full_precision(s):
            tt, ss, ts = measure(t, t), measure(s, s), measure(t, s)
        scale = self._scale(tt) if self.kernel == "gaussian" else 1.0
        tt, ss, ts = (self._kernel(measured, scale) for measured in (tt, ss, ts))
        return tt.mean((1, 2)) + ss.mean((1, 2)) - 2 * ts.mean((1, 2))

    def _kernel(self, measured: Tensor, scale: Tensor | float) -> Tensor:
        """`k(x, y)` from `x·y`, or from `‖x - y‖²` for the gaussian."""
        if self.kernel == "gaussian":
            return torch.exp(measured * scale)
        if self.kernel == "linear":
            return measured
        shifted = measured + self.offset if self.offset else measured
        return shifted**self.degree

    def _scale(self, distances: Tensor) -> Tensor | float:
        """`-1/2σ²`, for each sample; σ² is 1 where the teacher's channels do not differ."""
        if self.bandwidth is not None:
            return -0.5 / self.bandwidth
        mean = distances.mean((1, 2), keepdim=True)
        return -0.5 / torch.where(mean > 1e-6, mean, 1.0)


def _products(a: Tensor, b: Tensor) -> Tensor:
    return a @ b.mT


def _of_places(channels: Tensor) -> Tensor:
    """The mean over channels of the products of two places: `[B, C, HW]` -> `[B, HW, HW]`."""
    return channels.mT @ channels / channels.shape[1]


def _places_are_fewer(s: Tensor, t: Tensor) -> bool:
    """Whether the Gram matrices of the places are the cheaper way to `mean_ij (x_i·y_j)²` over the channels."""
    of_student, of_teacher, places = s.shape[1], t.shape[1], s.shape[2]
    return places * (of_student + of_teacher) < of_student**2 + of_student * of_teacher + of_teacher**2
