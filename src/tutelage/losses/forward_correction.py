"""Forward correction: the student's answer is passed through the teacher's noise before it is compared."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.errors import SignalError
from tutelage.losses.base import Loss, Needs, Weight
from tutelage.losses.events import divergence_on_events
from tutelage.losses.logits import paired_logits
from tutelage.losses.reduce import class_last, mean_per_position
from tutelage.losses.rows import cut_gradient, token_mask
from tutelage.signals import Batch, Request, Signals

__all__ = ["ForwardCorrection", "log_noisy", "log_symmetric_noisy"]


def log_symmetric_noisy(logits: Tensor, noise_rate: float) -> Tensor:
    """`log((1 - ε - ε/(C-1)) q_j + ε/(C-1))` with `q = softmax(logits)`: `[..., C]` -> `[..., C]`."""
    if noise_rate == 0:
        return F.log_softmax(logits, dim=-1)
    stray = noise_rate / (logits.shape[-1] - 1)  # more than 0, so the logarithm is finite where q is 0
    q = F.softmax(logits, dim=-1)
    return torch.add(q.new_tensor(stray), q, alpha=1 - noise_rate - stray).log()


def log_noisy(logits: Tensor, transition: Tensor) -> Tensor:
    """`log Σ_i q_i T_ij` with `q = softmax(logits)`, on the log scale: `[..., C]` and `[C, C]` -> `[..., C]`."""
    log_q = F.log_softmax(logits, dim=-1)
    return torch.logsumexp(log_q[..., :, None] + transition.to(log_q).log(), dim=-2)


class ForwardCorrection(Loss):
    """`-Σ_j p_j log Σ_i q_i T_ij`: the cross-entropy of a teacher's answers `p` with what noise `T` makes of `q`.

    `T_ij` is the probability that the teacher says class `j` of a row that is of class `i`; symmetric noise of rate `ε`
    has `T_ii = 1 - ε` and `ε/(C-1)` elsewhere. The student's own distribution `q` is compared after that noise, so it
    need not explain the teacher's slips: the minimum is where `q` is the distribution without them.

    The rate is given and not estimated here: a student in training can't tell noise from what it has not learnt yet.
    Where some rows have labels, it is 1 - the teacher's accuracy on them; of answers that are drawn several times,
    `tutelage ledger` shows how often two agree, `a`, and a small `ε` is about `(1 - a) / 2`.

    Shapes: outputs `[B, C]` -> `[B]`. Where outputs have positions (`[B, L, C]` or, with `axis=1`, `[B, C, H, W]`),
    each token is a value, `[B, L]`, if the rows have a token mask; else each sample is the mean of its positions.

    When to use it: a black box that gives a label alone and is often wrong, with a rate that is known well enough; too
    high a rate makes the student unsure. Where the teacher gives probabilities, they say more: `KLDivergence`.

    Cost: negligible with a rate; with a matrix `C²` numbers a sample or token.

    Source: Patrini, Rozza, Menon, Nock, Qu, "Making Deep Neural Networks Robust to Label Noise: A Loss Correction
    Approach", 2017, for labels; here the teacher's answer, a label or a distribution, stands in the label's place.

    Args:
        noise_rate: `ε`, the share of answers that are of another class, all others alike; below `1 - 1/C`.
        transition: `T`, rows that sum to 1, in the place of a rate.
        axis: The class axis of the output, of student and teacher alike; to be given for `[B, C, H, W]`.
        weight: Factor of this term in the total.

    Raises:
        ValueError: Not exactly one of rate and matrix is given, the rate is not in [0, 1), or the matrix is not square,
            its rows are no distributions, or a class is never said of itself.
    """

    takes_top_k: ClassVar[bool] = True
    temperature: ClassVar[float] = 1.0
    """Noise acts on the answer as it is: no other temperature has a meaning."""

    leaves_free: ClassVar[frozenset[str]] = frozenset({"shift"})

    def __init__(
        self,
        noise_rate: float | None = None,
        *,
        transition: list[list[float]] | None = None,
        axis: int = -1,
        weight: Weight = 1.0,
    ) -> None:
        super().__init__(weight=weight)
        if (noise_rate is None) == (transition is None):
            raise ValueError("noise_rate or transition must be given, and not both")
        if noise_rate is not None and not 0 <= noise_rate < 1:
            raise ValueError(f"noise_rate must be 0 or more and below 1, found {noise_rate}")
        if transition is not None:
            _require_transition(transition)
        self.noise_rate = noise_rate
        self.transition = transition
        self.axis = axis

    @property
    def needs(self) -> Needs:
        """Both outputs."""
        return Needs(student=Request(output=True), teacher=Request(output=True))

    def prepare(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        """Checks the noise against the number of classes.

        Raises:
            SignalError: The matrix is of another number of classes, or at this rate other classes are as likely.
        """
        assert student.output is not None
        classes = class_last(student.output, self.axis).shape[-1]
        if self.transition is not None and len(self.transition) != classes:
            raise SignalError(
                "ForwardCorrection.transition",
                expected=f"{classes} rows and columns, one for each class of the student",
                found=f"{len(self.transition)}",
                mend="give the matrix of these classes",
            )
        if self.noise_rate is not None and self.noise_rate >= 1 - 1 / classes:
            raise SignalError(
                "ForwardCorrection.noise_rate",
                expected=f"a rate below {1 - 1 / classes:.3g}, at which an answer of {classes} classes says nothing",
                found=f"{self.noise_rate:g}",
                harm="the student would learn to say anything else than the teacher",
                mend="lower the rate",
            )
        super().prepare(student, teacher, batch)

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
        """`[B]`, or `[B, L]` when the rows are masked sequences."""
        assert student.output is not None
        if teacher.top is not None:
            s = class_last(student.output, self.axis)
            noisy = self._noisy(cut_gradient(s.to(torch.promote_types(s.dtype, torch.float32)), token_mask(s, batch)))
            last = noisy.dim() - 1
            return divergence_on_events(
                "ForwardCorrection", noisy, teacher.top, last, batch, temperature=1.0, cross_entropy=True
            )
        assert teacher.output is not None
        s, t = paired_logits("ForwardCorrection", student.output, teacher.output, self.axis, batch)
        return mean_per_position(-((F.softmax(t, dim=-1) * self._noisy(s)).sum(-1)), batch)

    def _noisy(self, logits: Tensor) -> Tensor:
        if self.transition is None:
            assert self.noise_rate is not None
            return log_symmetric_noisy(logits, self.noise_rate)
        return log_noisy(logits, logits.new_tensor(self.transition))


def _require_transition(transition: list[list[float]]) -> None:
    size = len(transition)
    if size < 2 or any(len(row) != size for row in transition):
        raise ValueError(f"transition must be a square matrix of two classes or more, found rows of {size} classes")
    if any(not 0 <= value <= 1 for row in transition for value in row):
        raise ValueError("transition must hold probabilities from 0 to 1")
    if any(abs(sum(row) - 1) > 1e-6 for row in transition):
        raise ValueError("transition must have rows that sum to 1: T[i][j] is how often class i is called j")
    if any(transition[at][at] <= 0 for at in range(size)):
        raise ValueError("transition must have a diagonal above 0: a class that is never called itself can't be learnt")
