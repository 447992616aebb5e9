"""Direction of hidden states, token by token (DistilBERT)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from tutelage.errors import SignalError
from tutelage.losses.base import Weight, require_same_shape
from tutelage.losses.embedding_cosine import cosine_distance
from tutelage.losses.layer_pairs import LayerKind, LayerPairs, Pairs
from tutelage.losses.projectors import Projectors
from tutelage.losses.reduce import mean_per_position
from tutelage.signals import Batch, Signals

__all__ = ["CosineHidden"]


class CosineHidden(LayerPairs):
    """`1 - cos(s_l, t_l)` for each token `l`, between the hidden states of pairs of layers.

    Shapes: layers `[B, L, D]` -> `[B, L]` where the rows have a token mask, else `[B]`, the mean over tokens; layers
    `[B, D]` -> `[B]`. Both models must read the same tokens. With `projector`, the student's width may differ: `s` is
    then `W s'`. Values are averaged over pairs.

    When to use it: a student cut from its teacher's layers, of the same width, on the last layer, beside a loss on the
    outputs. A layer norm that follows makes the length of hidden states meaningless, and this ignores it; `HiddenState`
    compares the values themselves.

    Cost: negligible; with `projector`, `D'·D` multiplications a token and pair, and as many parameters, which are
    trained and not shipped.

    Source: Sanh et al., "DistilBERT, a distilled version of BERT: smaller, faster, cheaper and lighter", 2019, and the
    authors' code.

    Args:
        pairs: Student's layer -> teacher's layer, each a dotted module path; or `auto`.
        projector: Whether a linear map without bias from the student's width to the teacher's is learnt with the loss
            where the widths differ.
        weight: Factor of this term in the total.

    Raises:
        ValueError: There are no pairs.
    """

    compares: ClassVar[tuple[LayerKind, ...]] = ("tokens", "vectors")

    def __init__(self, pairs: Pairs, *, projector: bool = False, weight: Weight = 1.0) -> None:
        super().__init__(pairs, weight=weight)
        self.projector = projector
        self.projectors = Projectors()

    def prepare(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        """Makes the projectors where widths differ and `projector` is set."""
        for path, teacher_path in self.pairs.items():
            s, t = student.features[path], teacher.features[teacher_path]
            if self.projector and s.dim() == t.dim() and s.dim() in (2, 3):
                self.projectors.ensure(path, s, t, bias=False)
        super().prepare(student, teacher, batch)

    def compare(self, path: str, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """`1 - cos` of one pair: `[B, L]`, or `[B]`."""
        where = f"layer `{path}` of the student, paired with `{self.pairs[path]}`"
        if student.dim() not in (2, 3) or teacher.dim() not in (2, 3):
            raise SignalError(
                f"CosineHidden on {where}",
                expected="one vector a token, [B, L, D], or a sample, [B, D], of both models",
                found=f"shapes {tuple(student.shape)} and {tuple(teacher.shape)}",
                mend="name layers of the transformer; for maps use Hint",
            )
        student = self.projectors.project(path, student)
        mend = "give both models the same tokens; where widths differ, set `projector: true`"
        require_same_shape("CosineHidden", student, teacher, where=where, mend=mend)
        return mean_per_position(cosine_distance(student, teacher), batch)
