"""Softmax regression representation learning: the student's features are judged by the teacher's classifier (SRRL)."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from torch import Tensor

from tutelage.errors import SignalError
from tutelage.losses.base import Weight, require_choice
from tutelage.losses.kl_divergence import softmax_kl
from tutelage.losses.layer_pairs import LayerKind, LayerPairs
from tutelage.losses.projectors import Projectors, width
from tutelage.losses.reduce import full_precision, mean_per_position
from tutelage.losses.rows import squared_distance
from tutelage.signals import Batch, Signals, output_of

__all__ = ["SoftmaxRegression"]


class SoftmaxRegression(LayerPairs):
    """`‖W t - W r(s)‖² + α ‖t - r(s)‖²`: features that the teacher's classifier `W` can't tell from the teacher's.

    `s` and `t` are what the classifiers of student and teacher read, `r` a linear map with bias from the student's
    width to the teacher's where they differ; it is made by `prepare`, trains with the loss and does not ship. `W` is a
    frozen copy of the teacher's own classifier, which the loss borrows; the student keeps a classifier of its own.

    Variants: "paper" sums the squares, as written above; "official" (the authors' code) takes their means over classes
    and over channels, so that neither number changes the scale. The code's `r` is always there and goes on with a batch
    norm and a ReLU. Both are left out here: a norm over the piece of the batch at hand would make a sample's value
    depend on its neighbours, and a batch accumulated in pieces another loss.

    With `logits="divergence"` the first term is `KL(softmax(W t) ‖ softmax(W r(s)))`, whose gradient is that of the
    cross-entropy that the paper compares with; it found the squares to be better.

    Shapes: layers `[B, D]`, or maps `[B, C, H, W]`, of which the mean over places is taken -> `[B]`; layers
    `[B, L, D]` -> `[B, L]` where the rows have a token mask, else `[B]`.

    When to use it: classification, instead of or beside `KLDivergence`: it pulls at the features in the directions that
    decide the classes. Add a loss for the student's own classifier, `CrossEntropy` or `KLDivergence`; with `SimKD` the
    student takes over the teacher's instead.

    Cost: two passes through the teacher's classifier, one of them without gradient; `C_s·C_t` parameters that are
    trained and not shipped.

    Source: Yang, Martinez, Bulat, Tzimiropoulos, "Knowledge Distillation via Softmax Regression Representation
    Learning", 2021.

    Args:
        pairs: Student's layer -> teacher's layer, each a dotted module path: what the classifier reads, before or after
            the pooling. One pair as a rule.
        classifier: The dotted path of the teacher's classifier, which reads vectors of the teacher's width.
        variant: Which of the two forms above.
        logits: How the classifier's answers are compared: `squares`, or `divergence` of their softmax.
        features: `α`, the factor of the second term, 0 or more.
        weight: Factor of this term in the total.

    Raises:
        ValueError: There are no pairs, an argument is none of its choices, or `features` is negative or not finite.
    """

    compares: ClassVar[tuple[LayerKind, ...]] = ()

    def __init__(
        self,
        pairs: dict[str, str],
        classifier: str,
        *,
        variant: Literal["paper", "official"] = "official",
        logits: Literal["squares", "divergence"] = "squares",
        features: float = 1.0,
        weight: Weight = 1.0,
    ) -> None:
        super().__init__(pairs, weight=weight)
        require_choice("variant", variant, ("paper", "official"))
        require_choice("logits", logits, ("squares", "divergence"))
        if not (math.isfinite(features) and features >= 0):
            raise ValueError(f"features must be a finite factor that is not negative, found {features}")
        self.classifier = classifier
        self.variant = variant
        self.logits = logits
        self.features = features
        self.projectors = Projectors()

    @property
    def borrows(self) -> frozenset[str]:
        """The teacher's classifier."""
        return frozenset({self.classifier})

    def prepare(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        """Makes the projectors, and checks that the classifier reads the teacher's layer.

        Raises:
            SignalError: It does not, or the layers are of different kinds.
        """
        for path, teacher_path in self.pairs.items():
            s, t = (_pooled(signals) for signals in (student.features[path], teacher.features[teacher_path]))
            self._require_one_kind(path, s, t)
            self._require_readable(teacher_path, t)
            self.projectors.ensure(path, s, t, bias=True)
        super().prepare(student, teacher, batch)

    def compare(self, path: str, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """Both terms of one pair: `[B]`, or `[B, L]`."""
        student, teacher = self.projectors.project(path, _pooled(student)), _pooled(teacher)
        answers, target = self._classify(student), self._classify(teacher)
        share = self.variant == "official"
        if self.logits == "divergence":
            values = softmax_kl(answers, target, 1.0)
        else:
            values = squared_distance(answers, target) / (answers.shape[-1] if share else 1)
        if self.features:
            distance = squared_distance(student, teacher) / (student.shape[-1] if share else 1)
            values = values + self.features * distance
        return mean_per_position(values, batch)

    def _classify(self, features: Tensor) -> Tensor:
        """The teacher's classifier on features, in its own precision, answered in theirs."""
        classifier = self.borrowed(self.classifier)
        dtype = next((p.dtype for p in classifier.parameters()), features.dtype)
        with full_precision(features):
            answers = classifier(features.to(dtype))
        return output_of(answers, "teacher's classifier").to(features.dtype)

    def _require_one_kind(self, path: str, s: Tensor, t: Tensor) -> None:
        if s.dim() != t.dim() or s.shape[:-1] != t.shape[:-1]:
            raise SignalError(
                f"SoftmaxRegression on layer `{path}` of the student, paired with `{self.pairs[path]}`",
                expected="one vector a sample of both models, or one a token of the same tokens",
                found=f"shapes {tuple(s.shape)} and {tuple(t.shape)} (of maps: after the mean over places)",
                mend="name what the classifiers read: the pooled features, or the last maps before the pooling",
            )

    def _require_readable(self, path: str, t: Tensor) -> None:
        matrix = next((p for p in self.borrowed(self.classifier).parameters() if p.dim() == 2), None)
        if matrix is not None and matrix.shape[1] != width(t):
            raise SignalError(
                f"SoftmaxRegression on layer `{path}` of the teacher",
                expected=f"what its classifier `{self.classifier}` reads, vectors of {matrix.shape[1]}",
                found=f"features of {width(t)}",
                mend="pair the student with the layer right before the teacher's classifier",
            )


def _pooled(features: Tensor) -> Tensor:
    """The mean over the places of maps; other features as they are."""
    return features.mean((2, 3)) if features.dim() == 4 else features
