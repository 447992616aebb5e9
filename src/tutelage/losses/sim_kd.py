"""The features before the teacher's classifier, which the student takes over as it is (SimKD)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from tutelage.losses.base import Weight, require_choice, require_same_shape
from tutelage.losses.layer_pairs import LayerKind, LayerPairs
from tutelage.losses.logit_mse import logit_mse
from tutelage.losses.maps import Resize, same_size
from tutelage.losses.reduce import mean_per_position
from tutelage.signals import Batch

__all__ = ["SimKD"]


class SimKD(LayerPairs):
    """`mean (s - t)²` between the student's projector and the teacher's layer before its classifier.

    The student's classifier is the teacher's own, frozen: it can only be as good as the features that reach it, and
    these are all that is learnt. So the projector from the student's width to the teacher's is a part of the student
    and ships with it, unlike the projectors of other losses: without it there is nothing the classifier could read. It
    therefore is in the student, which `tutelage.students.ReusedClassifier` makes; this loss has no trained parts, and
    where widths differ it refuses.

    Shapes: layers `[B, C, H, W]` or `[B, D]` -> `[B]`; layers `[B, L, D]` -> `[B, L]` where the rows have a token mask,
    else `[B]`. Values are averaged over pairs.

    When to use it: classification with a student of another family, or one whose classifier would be the weak part.
    It needs no labels and no other loss. The student is larger by the projector and the teacher's classifier.

    Cost: negligible; the projector's cost is the student's, also when it is in use.

    Source: Chen, Mei, Zhang, Wang, Feng, Chen, "Knowledge Distillation with the Reused Teacher Classifier", 2022. Paper
    and code agree on the mean squared error; the code pools the larger map, as `resize` does by default.

    Args:
        pairs: Student's layer -> teacher's layer, each a dotted module path: with `ReusedClassifier`,
            `{"projector": "layer4"}` where `layer4` is what the teacher's pooling and classifier read.
        resize: What to do with maps of different size: average-`pool` the larger one to the size of the smaller,
            `refuse` them, or `interpolate` the student's to the size of the teacher's (bilinear).
        weight: Factor of this term in the total.

    Raises:
        ValueError: There are no pairs, or `resize` is none of its choices.
    """

    compares: ClassVar[tuple[LayerKind, ...]] = ()

    def __init__(self, pairs: dict[str, str], *, resize: Resize = "pool", weight: Weight = 1.0) -> None:
        super().__init__(pairs, weight=weight)
        require_choice("resize", resize, ("refuse", "pool", "interpolate"))
        self.resize: Resize = resize

    def compare(self, path: str, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """The mean squared error of one pair."""
        student, teacher = same_size("SimKD", path, student, teacher, self.resize)
        mend = "make the student with tutelage.students.ReusedClassifier and name its `projector`: it has this width"
        where = f"layer `{path}` of the student, paired with `{self.pairs[path]}`"
        require_same_shape("SimKD", student, teacher, where=where, mend=mend)
        if student.dim() == 3:
            return mean_per_position(logit_mse(student, teacher), batch)
        return logit_mse(student.flatten(1), teacher.flatten(1))
