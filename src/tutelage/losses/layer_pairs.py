"""Losses between inner layers: each names pairs of them, and most compare each pair and average over the pairs."""

from __future__ import annotations

import abc
import copy
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from tutelage.errors import RecipeError, SignalError
from tutelage.losses.base import Loss, Needs, Weight
from tutelage.losses.reduce import visible, widen
from tutelage.signals import Batch, Request, Signals

__all__ = ["LayerKind", "LayerPairs", "PairedLoss", "Pairs"]

Pairs = dict[str, str] | Literal["auto"]
"""Student's layer -> teacher's layer, each a dotted module path; or `auto`, for which the plan finds them."""
LayerKind = Literal["maps", "tokens", "vectors", "attention"]
"""What a layer puts out: `[B, C, H, W]`, `[B, L, D]` or `[B, D]`; `attention`: a module whose projections are read."""


class PairedLoss(Loss):
    """Base of every loss that names pairs of layers; it reads them and nothing else.

    With `pairs: auto` the plan replaces the loss by one whose pairs it has found; until then it can't be used.

    Args:
        pairs: Student's layer -> teacher's layer, each a dotted module path; or `auto`.
        weight: Factor of this term in the total.

    Raises:
        ValueError: There are no pairs, or `auto` where layers have to be named.
    """

    compares: ClassVar[tuple[LayerKind, ...]] = ("maps", "tokens", "vectors")
    """The kinds of layers that it can compare: `auto` proposes no others. Empty for a loss that reads layers of a
    special place, such as those before an activation: they have to be named."""

    usual_pairs: ClassVar[int | None] = None
    """How many pairs `auto` is where the recipe does not say `match.count`; None for as many as there are."""

    def __init__(self, pairs: Pairs, *, weight: Weight = 1.0) -> None:
        super().__init__(weight=weight)
        if not pairs:
            raise ValueError("pairs must name at least one layer of the student and one of the teacher, found none")
        if isinstance(pairs, str) and pairs != "auto":
            raise ValueError(f"pairs must be layers by name, or `auto`, found {pairs!r}")
        if isinstance(pairs, str) and not self.compares:
            raise ValueError(
                f"pairs must be written out, found `auto`: {type(self).__name__} reads layers of a special place "
                "(`tutelage explain` says which) and not the ends of stages"
            )
        # The property `pairs` is what was found for `auto`; `vars(self)` holds the argument of that name.
        vars(self)["pairs"] = pairs
        self._pairs = None if isinstance(pairs, str) else pairs

    @property
    def pairs(self) -> dict[str, str]:
        """Student's layer -> teacher's layer.

        Raises:
            RecipeError: They are still `auto`.
        """
        if self._pairs is None:
            raise RecipeError(
                f"{type(self).__name__}: pairs",
                expected="pairs of layers by name",
                found="auto, for which no layers have been looked for yet",
                harm="there would be nothing to compare",
                mend="make a plan, which finds them (`make_plan(recipe).recipe` has them), or write what "
                "`tutelage match RECIPE` proposes",
            )
        return self._pairs

    @property
    def is_open(self) -> bool:
        """Whether the pairs are still to be found: `auto`."""
        return self._pairs is None

    def with_pairs(self, pairs: dict[str, str]) -> Self:
        """The same loss with these pairs; this one stays as it is."""
        other = copy.deepcopy(self)
        vars(other)["pairs"] = other._pairs = pairs
        return other

    @property
    def needs(self) -> Needs:
        """The features of the layers in `pairs`."""
        return Needs(
            student=Request(features=frozenset(self.pairs)), teacher=Request(features=frozenset(self.pairs.values()))
        )


class LayerPairs(PairedLoss):
    """Base of the losses that compare each pair by itself: the mean, over pairs, of what `compare` gives for one.

    Args:
        pairs: Student's layer -> teacher's layer, each a dotted module path; or `auto`.
        weight: Factor of this term in the total.

    Raises:
        ValueError: There are no pairs.
    """

    hides_padding: ClassVar[bool] = True
    """Whether `compare` gets 0 at padding. A loss that leaves padding out itself saves two copies with False."""

    @abc.abstractmethod
    def compare(self, path: str, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """The loss of one pair, `[B]` or `[B, L]`.

        Args:
            path: The student's layer.
            student: What it put out: float32 or wider, padding set to 0 unless `hides_padding` is False.
            teacher: The same of the teacher's layer, without a gradient.
            batch: The rows.
        """

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
        """`[B]`, or `[B, L]` when the layers put out masked sequences: the mean over the pairs."""
        values = []
        for path, teacher_path in self.pairs.items():
            of_student, of_teacher = widen(student.features[path], teacher.features[teacher_path])
            for model, name, tensor in (("student", path, of_student), ("teacher", teacher_path, of_teacher)):
                if tensor.dim() < 2 or tensor.shape[0] != len(batch):
                    raise SignalError(
                        f"layer `{name}` of the {model}",
                        expected=f"an output whose first axis is the batch of {len(batch)}",
                        found=f"shape {tuple(tensor.shape)}",
                        harm="samples would be compared with other samples",
                        mend="name a layer that puts out one entry a sample",
                    )
            if self.hides_padding:
                of_student, of_teacher = visible(of_student, batch), visible(of_teacher, batch)
            values.append(self.compare(path, of_student, of_teacher, batch))
        if any(value.shape != values[0].shape for value in values):
            raise SignalError(
                f"{type(self).__name__} on pairs {self.pairs}",
                expected="all pairs with one value a sample, or all with one a token",
                found=f"values of shapes {[tuple(value.shape) for value in values]}",
                mend="give the layers of sequences a term of their own",
            )
        return torch.stack(values).mean(0)
