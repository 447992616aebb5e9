"""Cosine distance of embeddings."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from tutelage.losses.base import Weight
from tutelage.losses.embeddings import Embeddings, require_directions
from tutelage.losses.reduce import widen
from tutelage.losses.rows import differentiable_once
from tutelage.signals import Batch, Signals

__all__ = ["EmbeddingCosine", "cosine_distance"]


def cosine_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """`1 - cos(s, t)` over the last axis: `[..., D]` -> `[...]`, in float32 or wider.

    Computed as `½ ‖s/‖s‖ - t/‖t‖‖²`, which is the same number and does not cancel where student and teacher agree.
    """
    values = _CosineDistance.apply(*widen(student, teacher))  # type: ignore[no-untyped-call]
    return cast("Tensor", values)


class _CosineDistance(torch.autograd.Function):
    """With `u = s/‖s‖` and `d = u - t/‖t‖`, the gradient is `(d - (u·d) u) / ‖s‖`: two tensors are saved, not six."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor) -> Tensor:
        (u, inverse), (v, inverse_t) = _unit(student), _unit(teacher)
        difference = u - v
        value: Tensor = torch.linalg.vector_norm(difference, dim=-1).square() / 2
        # u·d = ½ (‖d‖² + ‖u‖² - ‖v‖²), and a unit vector's length is 1, or 0 where it has no direction.
        along = value + ((inverse > 0).to(value.dtype) - (inverse_t > 0).to(value.dtype)).squeeze(-1) / 2
        ctx.save_for_backward(value, u, difference, inverse, along[..., None])
        return value

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        _, u, difference, inverse, along = ctx.saved_tensors
        return torch.addcmul(difference, u, along, value=-1).mul_(inverse * gradient[..., None]), None


def _unit(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """What `reduce.unit` gives, and one over the length, 0 where there is no direction."""
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    inverse = torch.where(length > 1e-12, 1 / length, 0.0)
    return vectors * inverse, inverse


class EmbeddingCosine(Embeddings):
    """`1 - cos(s, t)` between the embeddings of student and teacher: 0 for one direction, 2 for opposite ones.

    Shapes: outputs `[B, D]` -> `[B]`. With `projector`, the student's may be `[B, D']`: `s` is then `W s'`.

    When to use it: embeddings that are compared by cosine (search, similarity), where length has no meaning. A student
    of the teacher's width can then answer queries against the teacher's index.

    Cost: negligible; with `projector`, `D'·D` parameters that are trained and not shipped.

    Source: Sanh et al., "DistilBERT, a distilled version of BERT", 2019, for hidden states; for sentence embeddings
    the cosine takes the place of the squared error of Reimers, Gurevych, "Making Monolingual Sentence Embeddings
    Multilingual using Knowledge Distillation", 2020.

    Args:
        projector: Whether a linear map without bias from the student's width to the teacher's is learnt with the loss
            where the widths differ. It does not ship: the student's own embeddings stay in their own space.
        weight: Factor of this term in the total.
    """

    leaves_free: ClassVar[frozenset[str]] = frozenset({"scale"})

    def __init__(self, *, projector: bool = False, weight: Weight = 1.0) -> None:
        super().__init__(projector=projector, weight=weight)

    def prepare(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        """Makes the projector where it is needed, and checks that every embedding has a direction.

        Raises:
            SignalError: An embedding is zero, or the shapes don't fit.
        """
        super().prepare(student, teacher, batch)
        require_directions("EmbeddingCosine", student, teacher)

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """`1 - cos(s, t)`: `[B]`."""
        return cosine_distance(student, teacher)
