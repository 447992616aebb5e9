"""Losses between embeddings: what they share is a pair of outputs `[B, D]` and, on request, a projector."""

from __future__ import annotations

import abc

from torch import Tensor

from tutelage.errors import SignalError
from tutelage.losses.base import Loss, Needs, Weight, require_same_shape
from tutelage.losses.projectors import Projectors
from tutelage.losses.reduce import unit, widen
from tutelage.signals import Batch, Request, Signals

__all__ = ["Embeddings", "embeddings_of", "require_directions"]


class Embeddings(Loss):
    """Base of the losses that compare the embedding of each sample, `[B, D]`, with the teacher's.

    Args:
        projector: Whether a linear map without bias from the student's width to the teacher's is learnt with the loss
            where the widths differ. It does not ship: the student's own embeddings stay in their own space.
        weight: Factor of this term in the total.
    """

    def __init__(self, *, projector: bool = False, weight: Weight = 1.0) -> None:
        super().__init__(weight=weight)
        self.projector = projector
        self.projectors = Projectors()

    @property
    def needs(self) -> Needs:
        """Both outputs."""
        return Needs(student=Request(output=True), teacher=Request(output=True))

    def prepare(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        """Makes the projector where widths differ and `projector` is set."""
        s, t = embeddings_of(type(self).__name__, student, teacher)
        if self.projector:
            self.projectors.ensure("output", s, t, bias=False)
        super().prepare(student, teacher, batch)

    @abc.abstractmethod
    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss of each sample: `[B, D]` and `[B, D]`, float32 or wider -> `[B]`."""

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
        """`[B]`."""
        name = type(self).__name__
        s, t = embeddings_of(name, student, teacher)
        s = self.projectors.project("output", s)
        mend = "set `projector: true` to learn a map to the teacher's width, or give the student that width"
        require_same_shape(name, s, t, where="embeddings", mend=mend)
        return self.compare(s, t)


def embeddings_of(loss: str, student: Signals, teacher: Signals) -> tuple[Tensor, Tensor]:
    """Both outputs, `[B, D]`, in float32 or wider.

    Raises:
        SignalError: One of them is not `[B, D]`.
    """
    assert student.output is not None and teacher.output is not None
    for model, output in (("student", student.output), ("teacher", teacher.output)):
        if output.dim() != 2:
            raise SignalError(
                f"{loss} on the output of the {model}",
                expected="one embedding a sample, [B, D]",
                found=f"shape {tuple(output.shape)}",
                mend="pool the tokens (an encoder with pooling), or compare the layers with HiddenState",
            )
    return widen(student.output, teacher.output)


def require_directions(loss: str, student: Signals, teacher: Signals) -> None:
    """Raises a `SignalError` when an embedding is zero: its cosine does not exist, and it would never learn."""
    for model, output in zip(("student", "teacher"), embeddings_of(loss, student, teacher), strict=True):
        lost = (unit(output) == 0).all(-1)
        if lost.any():
            raise SignalError(
                f"{loss} on the output of the {model}",
                expected="embeddings that have a direction",
                found=f"{int(lost.sum())} of {len(lost)} that are zero",
                harm="a vector of length 0 has no cosine and gets no gradient",
                mend="initialise the last layer with other numbers than 0, or use EmbeddingMSE",
            )
