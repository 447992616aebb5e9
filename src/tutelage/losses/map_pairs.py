"""Losses between feature maps: both come to one size, and where the method asks for it to one width."""

from __future__ import annotations

import abc
from typing import ClassVar, Literal

from torch import Tensor

from tutelage.errors import SignalError
from tutelage.losses.base import Weight, require_choice, require_same_shape
from tutelage.losses.layer_pairs import LayerKind, LayerPairs, Pairs
from tutelage.losses.maps import Resize, same_size
from tutelage.losses.projectors import Projectors
from tutelage.signals import Batch, Signals

__all__ = ["MapPairs", "Projection"]

Projection = Literal["never", "where_widths_differ", "always"]
"""When a trained 1x1 convolution with bias brings the student's map to the teacher's width."""


class MapPairs(LayerPairs):
    """Base of the losses between maps `[B, C, H, W]`: the mean, over pairs of layers, of what `compare_maps` gives.

    The pairs may be the levels of a pyramid, each of its own size.

    Args:
        pairs: Student's layer -> teacher's layer, each a dotted module path; or `auto`.
        resize: What to do with maps of different size: `refuse` them, average-`pool` the larger one to the size of
            the smaller, or `interpolate` the student's to the size of the teacher's (bilinear).
        projector: When a 1x1 convolution brings the student's map to the teacher's width.
        weight: Factor of this term in the total.

    Raises:
        ValueError: There are no pairs, or an argument is none of its choices.
    """

    compares: ClassVar[tuple[LayerKind, ...]] = ("maps",)

    one_width: ClassVar[bool] = True
    """Whether the method compares channel by channel, so that both maps must have as many."""

    def __init__(self, pairs: Pairs, *, resize: Resize, projector: Projection = "never", weight: Weight = 1.0) -> None:
        super().__init__(pairs, weight=weight)
        require_choice("resize", resize, ("refuse", "pool", "interpolate"))
        require_choice("projector", projector, ("never", "where_widths_differ", "always"))
        self.resize: Resize = resize
        self.projector: Projection = projector
        self.projectors = Projectors()

    def prepare(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        """Makes the projectors."""
        for path, teacher_path in self.pairs.items():
            s, t = student.features[path], teacher.features[teacher_path]
            if self.projector != "never" and s.dim() == t.dim() == 4:
                self.projectors.ensure(path, s, t, bias=True, always=self.projector == "always")
        super().prepare(student, teacher, batch)

    def compare(self, path: str, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """`[B]`."""
        loss = type(self).__name__
        for model, features in (("student", student), ("teacher", teacher)):
            if features.dim() != 4:
                raise SignalError(
                    f"{loss} on layer `{path}` of the student, paired with `{self.pairs[path]}`",
                    expected="maps [B, C, H, W]",
                    found=f"shape {tuple(features.shape)} from the {model}",
                    mend="name layers before the pooling; for transformers use HiddenState",
                )
        student, teacher = same_size(loss, path, student, teacher, self.resize)
        student = self.projectors.project(path, student)
        if self.one_width:
            mend = "pair layers of as many channels, or set `projector` where the loss has one"
            require_same_shape(loss, student, teacher, where=f"layer `{path}` of the student", mend=mend)
        return self.compare_maps(path, student, teacher, batch)

    @abc.abstractmethod
    def compare_maps(self, path: str, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """The loss of one pair of maps of one size, `[B]`.

        Args:
            path: The student's layer.
            student: Its map, through the projector if there is one: float32 or wider.
            teacher: The map of the teacher's layer, without a gradient.
            batch: The rows.
        """
