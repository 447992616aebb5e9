"""Factor transfer: a paraphraser reduces the teacher's map to factors, and a translator finds them in the student's."""

from __future__ import annotations

import itertools
import math
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.losses.attention_transfer import attention_map
from tutelage.losses.base import Weight, require_choice
from tutelage.losses.layer_pairs import Pairs
from tutelage.losses.map_pairs import MapPairs
from tutelage.losses.maps import Resize
from tutelage.losses.networks import Networks
from tutelage.losses.reduce import unit, widen
from tutelage.signals import Batch, Signals

__all__ = ["FactorTransfer", "factor_distance"]

SLOPE = 0.1
"""Of the leaky ReLUs, for negative values."""


def factor_distance(student: Tensor, teacher: Tensor, p: int, variant: Literal["paper", "official"]) -> Tensor:
    """The distance of factors, each sample's divided by their L2 norm: `[B, ...]` -> `[B]`.

    "paper" is the norm `‖·‖_p`; "official" the mean, over the factor's numbers, of the absolute (`p` = 1) or squared
    (`p` = 2) differences.
    """
    student, teacher = widen(student, teacher)
    difference = unit(student.flatten(1)) - unit(teacher.flatten(1))
    if variant == "paper":
        norm: Tensor = torch.linalg.vector_norm(difference, ord=p, dim=1)
        return norm
    return (difference.abs() if p == 1 else difference.square()).mean(1)


def convolutions(*widths: int) -> nn.Sequential:
    """3x3 convolutions from each width to the next, each followed by a leaky ReLU."""
    layers: list[nn.Module] = []
    for inner, outer in itertools.pairwise(widths):
        layers += [nn.Conv2d(inner, outer, 3, padding=1), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers)


class Paraphraser(nn.Module):
    """An autoencoder of the teacher's map, and a fixed copy of its encoder, which gives the factors.

    The copy is in buffers: it has no gradient, is stored with the loss, and changes in `keep` alone.
    """

    def __init__(self, channels: int, factors: int) -> None:
        super().__init__()
        self.encoder = convolutions(channels, channels, factors, factors)
        self.decoder = convolutions(factors, factors, channels, channels)
        for index, convolution in enumerate(self._convolutions()):
            self.register_buffer(f"weight{index}", convolution.weight.detach().clone())
            assert convolution.bias is not None
            self.register_buffer(f"bias{index}", convolution.bias.detach().clone())

    def _convolutions(self) -> list[nn.Conv2d]:
        return [layer for layer in self.encoder if isinstance(layer, nn.Conv2d)]

    def forward(self, teacher: Tensor) -> Tensor:
        """The map from its factors."""
        reconstructed: Tensor = self.decoder(self.encoder(teacher))
        return reconstructed

    def factors(self, teacher: Tensor) -> Tensor:
        """The factors, from the fixed copy of the encoder."""
        for index in range(3):
            weight, bias = self.get_buffer(f"weight{index}"), self.get_buffer(f"bias{index}")
            teacher = F.leaky_relu(F.conv2d(teacher.to(weight.dtype), weight, bias, padding=1), SLOPE)
        return teacher

    def keep(self) -> None:
        """Takes the encoder as it is now for the copy."""
        with torch.no_grad():
            for index, convolution in enumerate(self._convolutions()):
                self.get_buffer(f"weight{index}").copy_(convolution.weight)
                assert convolution.bias is not None
                self.get_buffer(f"bias{index}").copy_(convolution.bias)


class FactorTransfer(MapPairs):
    """`‖ F_T/‖F_T‖₂ - F_S/‖F_S‖₂ ‖_p` between factors of the teacher's map and of the student's.

    With `factors: "trained"`, `F_T` comes from a paraphraser, three 3x3 convolutions with leaky ReLUs whose decoder (as
    many) reconstructs the teacher's map from them, and `F_S` from a translator, three 3x3 convolutions on the student's
    map. Both have `rate · C_T` channels in the end; they are made by `prepare` and do not ship.

    The paper trains the paraphraser first, on the teacher alone, and then fixes it. Here one training has both stages:
    until `paraphraser_share` of it is done, the value is the paraphraser's error of reconstruction, `‖t - P(t)‖²`, and
    neither student nor translator learns from this loss; from then on the value is the distance above and the
    paraphraser is fixed as it was at that moment. What differs from the paper: the paraphraser learns from the batches
    of this training, in a share of its steps, with its optimiser; the student learns from its other losses meanwhile.
    As in the official code, there is no batch norm in any of the three, and stride-1 convolutions stand for its
    stride-1 deconvolutions, which are the same functions.

    With `factors: "energy"` the factor is the mean square over the channels of each place, and nothing is trained: this
    is what goes by the name in several collections, where it is run without paraphraser and translator. It is
    `AttentionTransfer` with another norm.

    Variants: "paper" takes the p-norm of the difference, and sums the squares of the reconstruction's error; "official"
    takes the mean of the absolute (p = 1) or squared (p = 2) differences over the factor's numbers, and the mean of the
    absolute errors of the reconstruction. The authors' code has p = 1 alone; p = 2 is that of RepDistiller.

    Shapes: layers `[B, C, H, W]` -> `[B]`. Numbers of channels may differ. Values are averaged over pairs.

    When to use it: convolutional networks that differ in width, at the end of the last stage. The values of "official"
    are small: the authors' weight is 500.

    Cost: `9·(C_S² + C_S·F + F² + C_T² + C_T·F + F²)·H·W` multiplications a sample and pair forward, with `F` the
    factors' channels; twice the translator's part backward.

    Source: Kim, Park, Kwak, "Paraphrasing Complex Network: Network Compression via Factor Transfer", 2018.

    Args:
        pairs: Student's layer -> teacher's layer, each a dotted module path; or `auto`.
        factors: Whether they come from `trained` networks or are the `energy` of each place.
        rate: The paper's `k > 0`: the factors' channels, as a share of the teacher's.
        paraphraser_share: The share of the training in which the paraphraser learns, between 0 and 1.
        p: The norm, 1 or 2.
        variant: Which of the two forms above.
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
        factors: Literal["trained", "energy"] = "trained",
        rate: float = 0.5,
        paraphraser_share: float = 0.1,
        p: Literal[1, 2] = 1,
        variant: Literal["paper", "official"] = "official",
        resize: Resize = "refuse",
        weight: Weight = 1.0,
    ) -> None:
        super().__init__(pairs, resize=resize, weight=weight)
        require_choice("factors", factors, ("trained", "energy"))
        require_choice("variant", variant, ("paper", "official"))
        if not (math.isfinite(rate) and rate > 0):
            raise ValueError(f"rate must be positive, found {rate}")
        if not 0 < paraphraser_share < 1:
            raise ValueError(f"paraphraser_share must be between 0 and 1, found {paraphraser_share}")
        if p not in (1, 2):
            raise ValueError(f"p must be 1 or 2, found {p}")
        self.factors = factors
        self.rate = rate
        self.paraphraser_share = paraphraser_share
        self.p = p
        self.variant = variant
        self.paraphrasers = Networks()
        self.translators = Networks()

    def prepare(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        """Makes paraphrasers and translators."""
        for path, teacher_path in self.pairs.items():
            s, t = student.features[path], teacher.features[teacher_path]
            if self.factors == "trained" and s.dim() == t.dim() == 4:
                self._make(path, s, t)
        super().prepare(student, teacher, batch)

    def _make(self, path: str, student: Tensor, teacher: Tensor) -> None:
        inner, outer = student.shape[1], teacher.shape[1]
        factors = max(1, round(self.rate * outer))
        self.paraphrasers.ensure(path, lambda: Paraphraser(outer, factors), student, teacher)
        self.translators.ensure(path, lambda: convolutions(inner, inner, factors, factors), student, teacher)

    def after_step(self) -> None:
        """While the paraphrasers learn, the fixed copies follow."""
        if self.progress < self.paraphraser_share:
            for path in self.pairs if self.factors == "trained" else ():
                self._paraphraser(path).keep()

    def _paraphraser(self, path: str) -> Paraphraser:
        paraphraser = self.paraphrasers.of(path)
        assert isinstance(paraphraser, Paraphraser)
        return paraphraser

    def compare_maps(self, path: str, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """The distance of the factors of one pair, or the error of its reconstruction: `[B]`."""
        if self.factors == "energy":
            return factor_distance(attention_map(student), attention_map(teacher), self.p, self.variant)
        if self.progress < self.paraphraser_share:
            return self._reconstruction(path, teacher) + _nothing(student, self.translators.of(path))
        paraphraser = self._paraphraser(path)
        values = factor_distance(
            self.translators.run(path, student), paraphraser.factors(teacher), self.p, self.variant
        )
        return values + _nothing(None, paraphraser)

    def _reconstruction(self, path: str, teacher: Tensor) -> Tensor:
        """`[B]`."""
        error = (self.paraphrasers.run(path, teacher) - teacher).flatten(1)
        return error.square().sum(1) if self.variant == "paper" else error.abs().mean(1)


def _nothing(student: Tensor | None, idle: nn.Module) -> Tensor:
    """0, with a gradient of 0 for what has no part in this stage: no process waits for it, no step lacks it."""
    zero = sum((parameter.sum() for parameter in idle.parameters()), torch.zeros(())) * 0.0
    return zero if student is None else zero + student.flatten(1).sum(1) * 0.0
