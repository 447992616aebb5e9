"""Multi-level logit distillation: predictions, their likeness between samples, and their likeness between classes."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from tutelage.errors import SignalError
from tutelage.losses.base import Loss, Needs, Weight, require_choice
from tutelage.losses.logits import paired_logits, require_not_negative, require_positive
from tutelage.losses.reduce import full_precision, widen
from tutelage.signals import Batch, Request, Signals

__all__ = ["MultiLevelLogit", "levels_of", "unsure_shares"]


def levels_of(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """What samples, pairs of samples and pairs of classes differ by, in float32 or wider.

    Args:
        student: Logits `[B, C]`.
        teacher: The same.
        temperature: `T`.

    Returns:
        `T² · KL(p_i ‖ q_i)`, `[B]`; `Σ_j ((P Pᵀ)_ij - (Q Qᵀ)_ij)²`, `[B]`; and `(1/C) · ‖Pᵀ P - Qᵀ Q‖_F²`, a scalar,
        with the softened probabilities of the batch as the rows of `P` (teacher) and `Q` (student).
    """
    student, teacher = widen(student, teacher)
    log_q, log_p = (x.div(temperature).log_softmax(-1) for x in (student, teacher))
    q, p = log_q.exp(), log_p.exp()
    with full_precision(student):
        samples = (p @ p.T - q @ q.T).square().sum(1)
        classes = (p.T @ p - q.T @ q).square().sum() / q.shape[1]
    return (p * (log_p - log_q)).sum(-1) * temperature**2, samples, classes


def unsure_shares(teacher: Tensor) -> tuple[Tensor, Tensor]:
    """The shares of samples, and of classes, on which the teacher is no surer than on the median one: two scalars.

    It is as sure of a sample as of its most probable class, and of a class as the sum of its probabilities says.
    """
    p = teacher.detach().softmax(-1)
    sure = (p.amax(1), p.sum(0))
    samples, classes = ((x <= x.quantile(0.5)).to(p.dtype).mean() for x in sure)
    return samples, classes


class MultiLevelLogit(Loss):
    """`Σ_T [T² · KL(p_i ‖ q_i) + (1/B) · ‖P Pᵀ - Q Qᵀ‖_F² + (1/C) · ‖Pᵀ P - Qᵀ Q‖_F²]` over several temperatures `T`.

    `p` and `q` are the softened predictions of teacher and student; those of the batch are the rows of `P` and `Q`. The
    second part compares how alike any two samples are to each model, the third how often any two classes are predicted
    together. Each part has a factor. The value of a sample is its divergence, its row's share of the second part, and
    the third part.

    Variants: "paper" is the formula. "official" is what their `KD_ours` does on a weakly augmented batch: it multiplies
    the first two parts with the share of samples, and the third with the share of classes, on which the teacher is no
    surer than on the median one. (Their masks are made to pick these, but multiply a mean that is already taken; so
    the factor is one half, or a little more where the number is odd or values are equal.)

    Their code sees each image twice, in a weak and a strong view. The second view there has the first part alone, in
    full. Here a batch holds one view of each row: for theirs, give the strong views a training of their own, or set
    `batch_factor` and `class_factor` to 0 for that part of the training.

    Shapes: outputs `[B, C]` -> `[B]`.

    When to use it: classifiers, where `KLDivergence` is too little and inner layers are out of reach. It compares the
    samples of a batch (`per_sample` is False): it is another loss for another batch size.

    Cost: `2·B·C·(B + C)` multiplications for each temperature, and twice that backward; no parameters. With some
    thousand classes the third part is the dearest of all.

    Source: Jin, Wang, Lin, "Multi-Level Logit Distillation", 2023.

    Args:
        temperatures: The temperatures, each above 0. (Theirs are 2, 3, 5, 6 and that of the experiment, mostly 4.)
        instance_factor: Factor of the first part, 0 or more.
        batch_factor: Factor of the second part, 0 or more.
        class_factor: Factor of the third part, 0 or more.
        variant: Which of the two forms above.
        weight: Factor of this term in the total.

    Raises:
        ValueError: There are no temperatures or one is not positive, a factor is negative or all are 0, or `variant`
            is none of its choices.
    """

    per_sample: ClassVar[bool] = False
    fewest_rows: ClassVar[int] = 2
    leaves_free: ClassVar[frozenset[str]] = frozenset({"shift"})

    def __init__(
        self,
        temperatures: list[float] | None = None,
        *,
        instance_factor: float = 1.0,
        batch_factor: float = 1.0,
        class_factor: float = 1.0,
        variant: Literal["paper", "official"] = "official",
        weight: Weight = 1.0,
    ) -> None:
        super().__init__(weight=weight)
        self.temperatures = [2.0, 3.0, 4.0, 5.0, 6.0] if temperatures is None else temperatures
        if not self.temperatures:
            raise ValueError("temperatures must be one or more, found none")
        for temperature in self.temperatures:
            require_positive("temperatures", temperature)
        require_not_negative("instance_factor", instance_factor)
        require_not_negative("batch_factor", batch_factor)
        require_not_negative("class_factor", class_factor)
        require_positive("the sum of the factors", instance_factor + batch_factor + class_factor)
        require_choice("variant", variant, ("paper", "official"))
        self.instance_factor = instance_factor
        self.batch_factor = batch_factor
        self.class_factor = class_factor
        self.variant = variant

    @property
    def needs(self) -> Needs:
        """Both outputs."""
        return Needs(student=Request(output=True), teacher=Request(output=True))

    def prepare(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        """Checks the outputs.

        Raises:
            SignalError: They are not `[B, C]`, or of different shapes, or of one sample alone.
        """
        super().prepare(student, teacher, batch)
        if len(batch) < 2:
            raise SignalError(
                "MultiLevelLogit on outputs",
                expected="two samples or more in a batch",
                found="one",
                harm="there are no two samples to compare, so a part of the loss would mean nothing",
                mend="raise the batch size, or lower the number of pieces and processes",
            )

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
        """`[B]`."""
        assert student.output is not None and teacher.output is not None
        if student.output.dim() != 2:
            raise SignalError(
                "MultiLevelLogit on outputs",
                expected="one prediction a sample, [B, C]",
                found=f"shape {tuple(student.output.shape)}",
                harm="the likeness of any two of so many positions would fill the memory",
                mend="use DIST, which correlates all tokens or pixels class by class",
            )
        s, t = paired_logits("MultiLevelLogit", student.output, teacher.output, -1, batch)
        levels = zip(*(levels_of(s, t, temperature) for temperature in self.temperatures), strict=True)
        instances, samples, classes = (torch.stack(level).sum(0) for level in levels)
        rows = self.instance_factor * instances + self.batch_factor * samples
        if self.variant == "paper":
            return rows + self.class_factor * classes
        of_samples, of_classes = unsure_shares(t)
        return rows * of_samples + self.class_factor * classes * of_classes
