"""Hidden states of transformer layers, token by token (TinyBERT)."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from tutelage.errors import SignalError
from tutelage.losses.base import Weight, require_choice, require_same_shape
from tutelage.losses.layer_pairs import LayerKind, LayerPairs, Pairs
from tutelage.losses.logit_mse import logit_mse
from tutelage.losses.projectors import Projectors
from tutelage.losses.reduce import mean_per_position, visible
from tutelage.losses.rows import token_mask
from tutelage.signals import Batch, Signals

__all__ = ["HiddenState"]


class HiddenState(LayerPairs):
    """`(1/D) · ‖s_l W_h - t_l‖²` for each token `l`, between the hidden states of pairs of layers.

    Variants: in "paper", `W_h` is a matrix without bias, made where the student is narrower or wider than the teacher;
    in "official" (the authors' code) it is a linear map with bias and always there. In both, all pairs of the same
    widths share one `W_h`. The official code also averages padding in; here padding never counts.

    Shapes: layers `[B, L, D]` -> `[B, L]` where the rows have a token mask, else `[B]`, the mean over tokens. Both
    models must read the same tokens. Values are averaged over pairs.

    When to use it: a shallower or narrower transformer; pair each student layer with every n-th of the teacher, and
    the embedding layers too. A student cut from its teacher's layers learns fastest with it.

    Cost: `D_s·D_t` multiplications a token and pair; `D_s·D_t` parameters that are trained and not shipped.

    Source: Jiao et al., "TinyBERT: Distilling BERT for Natural Language Understanding", 2020, equation 8.

    Args:
        pairs: Student's layer -> teacher's layer, each a dotted module path; or `auto`.
        variant: Which of the two forms above.
        weight: Factor of this term in the total.

    Raises:
        ValueError: There are no pairs, or `variant` is none of its choices.
    """

    compares: ClassVar[tuple[LayerKind, ...]] = ("tokens",)
    hides_padding: ClassVar[bool] = False

    def __init__(self, pairs: Pairs, *, variant: Literal["paper", "official"] = "paper", weight: Weight = 1.0) -> None:
        super().__init__(pairs, weight=weight)
        require_choice("variant", variant, ("paper", "official"))
        self.variant = variant
        self.projectors = Projectors()

    def prepare(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        """Makes `W_h` for each combination of widths."""
        for path, teacher_path in self.pairs.items():
            s, t = student.features[path], teacher.features[teacher_path]
            if s.dim() == t.dim() == 3:
                official = self.variant == "official"
                self.projectors.ensure(self._name(s, t), s, t, bias=official, always=official)
        super().prepare(student, teacher, batch)

    def compare(self, path: str, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """The mean over `D` for one pair: `[B, L]`, or `[B]`."""
        where = f"layer `{path}` of the student, paired with `{self.pairs[path]}`"
        if student.dim() != 3 or teacher.dim() != 3:
            raise SignalError(
                f"HiddenState on {where}",
                expected="one vector a token, [B, L, D], of both models",
                found=f"shapes {tuple(student.shape)} and {tuple(teacher.shape)}",
                mend="name layers of the transformer; for maps and vectors use Hint",
            )
        name = self._name(student, teacher)
        if name in self.projectors:  # the gradient of its weights reads every token
            student = self.projectors.project(name, visible(student, batch))
        mend = "give both models the same tokens, so that their lengths agree"
        require_same_shape("HiddenState", student, teacher, where=where, mend=mend)
        return mean_per_position(logit_mse(student, teacher, token_mask(student, batch)), batch)

    @staticmethod
    def _name(student: Tensor, teacher: Tensor) -> str:
        return f"{student.shape[-1]}_to_{teacher.shape[-1]}"
