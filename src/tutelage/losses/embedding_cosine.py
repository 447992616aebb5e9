"""Cosine distance of embeddings."""

from __future__ import annotations

from torch import Tensor

from tutelage.losses.base import Weight
from tutelage.losses.embeddings import Embeddings, require_directions
from tutelage.losses.reduce import unit, widen
from tutelage.signals import Batch, Signals

__all__ = ["EmbeddingCosine", "cosine_distance"]


def cosine_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """`1 - cos(s, t)` over the last axis: `[..., D]` -> `[...]`, in float32 or wider.

    Computed as `½ ‖s/‖s‖ - t/‖t‖‖²`, which is the same number and does not cancel where student and teacher agree.
    """
    student, teacher = widen(student, teacher)
    return (unit(student) - unit(teacher)).square().sum(-1) / 2


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
