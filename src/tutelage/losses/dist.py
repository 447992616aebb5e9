"""DIST: correlations instead of a divergence, within each sample and within each class."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.errors import SignalError
from tutelage.losses.base import Loss, Needs, Weight, require_choice
from tutelage.losses.logits import paired_logits, require_not_negative, require_positive
from tutelage.losses.reduce import mean_per_position
from tutelage.signals import Batch, Request, Signals

__all__ = ["DIST", "correlation"]

ROUNDING = 8
"""Units in the last place of their mean by which equal numbers may seem to differ."""


def correlation(student: Tensor, teacher: Tensor, dim: int, floor: float, counted: Tensor | None = None) -> Tensor:
    """Pearson's `ρ` of two tensors along an axis, `⟨ŝ, t̂⟩ / (‖ŝ‖ · ‖t̂‖ + floor)` with `ŝ = s - mean(s)`.

    Where one of both is constant, but for rounding, it is 0 and passes no gradient: its slope grows as 1/‖ŝ‖, and what
    rounding leaves of equal numbers would be blown up by a million and more.

    Args:
        student: Any shape.
        teacher: The same shape.
        dim: The axis that `ρ` is taken along, and that the result lacks.
        floor: What the denominator is raised by.
        counted: Which entries of the axis count, 1 or 0, in a shape that broadcasts; None for all.
    """
    if counted is None:
        size: Tensor | int = student.shape[dim]
        means = [x.mean(dim, keepdim=True) for x in (student, teacher)]
        s, t = student - means[0], teacher - means[1]
    else:
        size = counted.sum(dim, keepdim=True).clamp(min=1)
        means = [(x * counted).sum(dim, keepdim=True) / size for x in (student, teacher)]
        s, t = ((x - mean) * counted for x, mean in zip((student, teacher), means, strict=True))
        size = size.squeeze(dim)
    of_both = [torch.linalg.vector_norm(x, dim=dim) for x in (s, t)]
    rounding = ROUNDING * torch.finfo(s.dtype).eps * size**0.5
    varies = [
        length.detach() > rounding * mean.detach().squeeze(dim).abs()
        for length, mean in zip(of_both, means, strict=True)
    ]
    lengths, known = of_both[0] * of_both[1], varies[0] & varies[1]
    return torch.where(known, (s * t).sum(dim) / torch.where(known, lengths + floor, 1.0), 0.0)


class DIST(Loss):
    """`T² · [β · (1 - ρ_i) + γ · (1/C) · Σ_c (1 - ρ_c)]` with Pearson's correlations `ρ` between both models' outputs.

    `ρ_i` is taken over the classes of sample `i` ("inter-class"), `ρ_c` over the batch for class `c` ("intra-class":
    for which samples a class is more probable); both between the softened probabilities of student and teacher. A
    correlation knows no scale and no offset, so the student need not be as sure as its teacher.

    Variants: "paper" is Pearson's `ρ` as it is; "official" adds 1e-8 to its denominator, so that a class that is
    improbable in the whole batch (as most are among many classes) counts for less. `T²` is not in the first
    version of their code, which had no temperature; the copies that have one have it.

    A student that is constant has no correlation: `ρ` is 0, the value of that part 1, and it passes no gradient (that
    of a nearly constant one grows without bound as its spread falls, in every direction alike). So a student whose head
    starts at zero, or that has collapsed, needs another term, such as `CrossEntropy`, to begin. A constant teacher has
    the same value, and teaches nothing. Of two classes `ρ_i` is ±1 and teaches nothing either.

    Shapes: outputs `[B, C]` -> `[B]`. Where outputs have positions (`[B, L, C]` or, with `axis=1`, `[B, C, H, W]`),
    each token is a value, `[B, L]`, if the rows have a token mask; else each sample is the mean of its positions. `ρ_c`
    is then over all tokens or pixels of the batch.

    When to use it: a teacher that is much stronger than the student, or trained otherwise, which `KLDivergence` asks
    the student to match in every number. It compares the samples of a batch (`per_sample` is False): it is another
    loss for another batch size, and wants batches in which classes occur several times; of fewer than three samples (or
    tokens, or pixels) `ρ_c` says nothing.

    Cost: negligible; some ten tensors of the outputs' size.

    Source: Huang et al., "Knowledge Distillation from A Stronger Teacher", 2022.

    Args:
        beta: `β`, the factor of the part within samples, 0 or more.
        gamma: `γ`, the factor of the part within classes, 0 or more.
        temperature: `T > 0`.
        variant: Which of the two forms above.
        axis: The class axis of the output, of student and teacher alike; to be given for `[B, C, H, W]`.
        outputs: What the logits are turned into probabilities by.
        weight: Factor of this term in the total.

    Raises:
        ValueError: `beta` or `gamma` is negative, both are 0, `temperature` is not positive, or an argument is none of
            its choices.
    """

    per_sample: ClassVar[bool] = False

    def __init__(
        self,
        beta: float = 1.0,
        gamma: float = 1.0,
        temperature: float = 1.0,
        *,
        variant: Literal["paper", "official"] = "official",
        axis: int = -1,
        outputs: Literal["softmax", "sigmoid"] = "softmax",
        weight: Weight = 1.0,
    ) -> None:
        super().__init__(weight=weight)
        require_not_negative("beta", beta)
        require_not_negative("gamma", gamma)
        require_positive("beta + gamma", beta + gamma)
        require_positive("temperature", temperature)
        require_choice("variant", variant, ("paper", "official"))
        require_choice("outputs", outputs, ("softmax", "sigmoid"))
        self.beta = beta
        self.gamma = gamma
        self.temperature = temperature
        self.variant = variant
        self.axis = axis
        self.outputs = outputs
        self._positions = 1

    @property
    def fewest_rows(self) -> int:  # type: ignore[override]
        """Those that make three samples, tokens or pixels: a correlation over two is ±1, and pulls at nothing."""
        return math.ceil(3 / self._positions) if self.gamma > 0 else 1

    @property
    def leaves_free(self) -> frozenset[str]:  # type: ignore[override]
        """A softmax ignores a number added to all classes."""
        return frozenset({"shift"}) if self.outputs == "softmax" else frozenset()

    @property
    def needs(self) -> Needs:
        """Both outputs."""
        return Needs(student=Request(output=True), teacher=Request(output=True))

    def prepare(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        """Checks that there is something to correlate.

        Raises:
            SignalError: The batch holds one position alone, or the outputs do not fit.
        """
        super().prepare(student, teacher, batch)
        assert student.output is not None
        self._positions = student.output[0].numel() // student.output.shape[self.axis]
        if len(batch) * self._positions == 1:
            raise SignalError(
                "DIST on outputs",
                expected="two samples or more in a batch",
                found=f"shape {tuple(student.output.shape)}",
                harm="a class has no correlation over one sample, so nothing would be learnt of it",
                mend="raise the batch size, or lower the number of pieces and processes",
            )

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
        """`[B]`, or `[B, L]` when the rows are masked sequences."""
        assert student.output is not None and teacher.output is not None
        logits = paired_logits("DIST", student.output, teacher.output, self.axis, batch)
        if self.outputs == "softmax":
            s, t = (F.softmax(x / self.temperature, dim=-1) for x in logits)
        else:
            s, t = (torch.sigmoid(x / self.temperature) for x in logits)
        floor = 1e-8 if self.variant == "official" else 0.0
        samples = mean_per_position(1 - correlation(s, t, -1, floor), batch)
        tokens = batch.mask is not None and batch.mask.shape == s.shape[:-1]
        counted = batch.mask.reshape(-1, 1).to(s.dtype) if tokens and batch.mask is not None else None
        classes = 1 - correlation(s.flatten(0, -2), t.flatten(0, -2), 0, floor, counted)
        return (self.beta * samples + self.gamma * classes.mean()) * self.temperature**2
