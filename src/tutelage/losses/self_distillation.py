"""Self-distillation: shallow layers of the student learn from its own output (Be Your Own Teacher)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from tutelage.errors import SignalError
from tutelage.losses.base import Loss, Needs, Weight
from tutelage.losses.cross_entropy import cross_entropy
from tutelage.losses.kl_divergence import softmax_kl
from tutelage.losses.labels import IGNORED, class_targets, count_positions, require_classes
from tutelage.losses.logits import require_positive
from tutelage.losses.projectors import Projectors
from tutelage.losses.reduce import visible, widen
from tutelage.losses.rows import keep_rows
from tutelage.signals import Batch, Request, Signals

__all__ = ["SelfDistillation"]


class SelfDistillation(Loss):
    """`mean_l [(1-α) · CE(q_l, y) + α · T² KL(p ‖ q_l)]`: classifiers on inner layers `l` learn from label and output.

    `q_l` is what a classifier on layer `l` says: the mean over the positions of the layer, then a linear map to the
    classes. `p` is the student's own output, softened by `T` and detached. The classifiers are made by `prepare`, train
    with the loss and do not ship: the student that leaves has no more parameters than it was made with. It needs no
    teacher. Give the output a loss of its own (`CrossEntropy`, or a teacher's).

    Left out of the paper's form: its third term, an L2 hint between the deepest layer and the others, is
    `Routed(Hint(...), teacher_model="student")`; its classifiers on shallow layers are bottlenecks of several
    convolutions, here they are linear.

    Shapes: layers `[B, C, H, W]`, `[B, L, D]` or `[B, D]`; output `[B, C]` -> `[B]`. Rows without a label do not count.

    When to use it: no teacher is at hand, or the student is deep and its early layers get weak gradients.

    Cost: one linear classifier a layer, `D·C` multiplications a sample.

    Source: Zhang et al., "Be Your Own Teacher: Improve the Performance of Convolutional Neural Networks via Self
    Distillation", 2019.

    Args:
        layers: Dotted paths of the student's layers that get a classifier.
        temperature: `T > 0`.
        alpha: Share of the student's own output, from 0 to 1 (the paper's α; 0.3 there).
        weight: Factor of this term in the total.

    Raises:
        ValueError: There is no layer, `temperature` is not positive, or `alpha` is not between 0 and 1.
    """

    leaves_free: ClassVar[frozenset[str]] = frozenset({"shift"})

    def __init__(
        self, layers: list[str], temperature: float = 3.0, alpha: float = 0.3, *, weight: Weight = 1.0
    ) -> None:
        super().__init__(weight=weight)
        if not layers:
            raise ValueError("layers must name at least one layer of the student, found none")
        require_positive("temperature", temperature)
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must be from 0 to 1, found {alpha}")
        self.layers = layers
        self.temperature = temperature
        self.alpha = alpha
        self.classifiers = Projectors()

    @property
    def needs(self) -> Needs:
        """The student's output, the layers, and labels."""
        return Needs(student=Request(output=True, features=frozenset(self.layers)), labels=True)

    def prepare(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        """Makes the classifiers.

        Raises:
            SignalError: The output is not one row of logits a sample, or the labels are not classes of it.
        """
        output = student.output
        assert output is not None
        if output.dim() != 2:
            raise SignalError(
                "SelfDistillation on the output",
                expected="logits [B, C]",
                found=f"shape {tuple(output.shape)}",
                mend="use Routed(KLDivergence(...), teacher_model='student') between layers that hold logits",
            )
        require_classes("SelfDistillation", batch, output.shape[1])
        for path in self.layers:
            self.classifiers.ensure(path, pooled(student.features[path], batch), output, bias=True, always=True)
        super().prepare(student, teacher, batch)

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
        """`[B]`."""
        assert student.output is not None
        targets = class_targets("SelfDistillation", batch)
        values = []
        for path in self.layers:
            features, output = widen(pooled(student.features[path], batch), student.output)
            # 0 · NaN of a row without a label would reach the gradient of the classifier.
            features, output = (keep_rows(said, targets != IGNORED) for said in (features, output))
            logits = self.classifiers.project(path, features)
            of_labels = cross_entropy(logits, targets, 0.0)
            of_output = softmax_kl(logits, output, self.temperature)
            values.append((1 - self.alpha) * of_labels + self.alpha * of_output)
        return torch.stack(values).mean(0)

    def counts(self, batch: Batch) -> Tensor:
        """The weight of each row that has a label."""
        return count_positions(class_targets("SelfDistillation", batch), batch)


def pooled(features: Tensor, batch: Batch) -> Tensor:
    """`[B, D]`: the mean over the positions of maps `[B, D, H, W]`, or over the tokens of `[B, L, D]` that count."""
    if features.dim() == 4:
        return features.mean((2, 3))
    if features.dim() == 2:
        return features
    if batch.mask is None or features.shape[:2] != batch.mask.shape:
        return features.mean(1)
    return visible(features, batch).sum(1) / batch.mask.sum(1, keepdim=True).clamp(min=1)
