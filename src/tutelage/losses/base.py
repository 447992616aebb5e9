"""What a loss is: one value a sample (or a token), and which of them count.

Reduction happens once, in `tutelage.training.step`: the sum of value times count, over all pieces and ranks of the
batch, divided once by the global count. A loss never takes a mean over samples or tokens itself, so masks,
accumulation, ranks and packing can't change what is learnt.
"""

from __future__ import annotations

import abc
import copy
import itertools
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tutelage.errors import SignalError, did_you_mean
from tutelage.losses.reduce import visible
from tutelage.signals import Batch, Request, Signals

__all__ = [
    "Loss",
    "Needs",
    "Weight",
    "require_choice",
    "require_finite",
    "require_form",
    "require_same_shape",
    "weight_at",
]

Weight = float | list[list[float]]
"""The factor of a term: a number, or points `[share of the training, factor]` with straight lines between them."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a loss reads: of the student, of the teacher, and whether it needs labels."""

    student: Request = field(default_factory=Request)
    teacher: Request = field(default_factory=Request)
    labels: bool = False


class Loss(nn.Module, abc.ABC):
    """Base of all losses. A new one is one file beside this one and one test.

    Hyper-parameters are stored by the constructor and checked there; trained parts (projectors) are made by `prepare`
    from traced shapes, live on the loss, and so train, shard and resume with it and never ship in the student.

    Args:
        weight: Factor of this term in the total, 0 or more. Or a schedule of it: points `[share, factor]` with shares
            of the training from 0 to 1 in rising order, between which the factor changes along a line, e.g.
            `[[0, 1], [0.5, 1], [1, 0]]`.

    Raises:
        ValueError: `weight` is negative or not finite, or its shares do not rise.
    """

    per_sample: ClassVar[bool] = True
    """Whether the value of a sample depends on that sample alone. False for losses that compare the samples of a
    batch: accumulating smaller batches is then another loss, and the plan says so. To be read of an instance: that
    of a wrapper is the inner loss's."""

    supervised: ClassVar[bool] = False
    """Whether it compares an output with labels and no more: what the baseline without distillation is trained by."""

    takes_top_k: ClassVar[bool] = False
    """Whether the teacher's output may be a `TopK` in the place of dense logits. Like `per_sample`, to be read of an
    instance."""

    compares_values: ClassVar[bool] = False
    """Whether it compares outputs number by number, each with the target of its own place, so that it means the same
    where targets are standardised one by one. Like `per_sample`, to be read of an instance."""
    leaves_free: ClassVar[frozenset[str]] = frozenset()
    """What may be done to the student's outputs without changing the loss: `shift` (a number added to all values of a
    row), `scale` (a row times a positive number), `rotation` (one of all rows). A metric that would change by it can't
    show what the loss learns, so the weights are kept by another. To be read of an instance."""

    fewest_rows: ClassVar[int] = 1
    """Rows of a piece below which the loss, or a part of it that is asked for, is constant and teaches nothing; the
    plan refuses smaller ones. To be read of an instance that is prepared: it may depend on what the loss was given."""

    def __init__(self, *, weight: Weight = 1.0) -> None:
        super().__init__()
        require_weight(weight)
        self.weight = weight
        self.per_token = False
        self.progress = 0.0
        """The share of the training that is done, from 0 to 1; the training step keeps it up to date."""
        self.rows = 0
        """How many rows the transfer set has: `batch.rows` are numbers below it."""
        self.units: tuple[float, ...] = ()
        """The deviation of each target, in its own unit, where outputs and targets come in standard units; else none.
        The training step sets it."""
        self._modules_lent: dict[str, nn.Module] = {}
        self.alone_with: object = None
        """The sizes of signals for which `prepare` was called by a call with tensors alone."""

    def __call__(self, student: Any, teacher: Any = None, batch: Any = None, **alone: Tensor | None) -> Tensor:
        """The loss of what two models said, in a run or in a training loop of one's own.

        `loss(student, teacher, batch)` with `Signals` and a `Batch` is `forward`: a value a sample, or a token. Else it
        is their mean as a scalar (`tutelage.losses.alone.mean_loss`): `loss(student_logits, teacher_logits)`,
        `loss(logits, labels=labels)`, with `mask` where tokens don't all count. Inner layers are given by their paths:
        `loss({"layer1": features}, {"layer3": others})`.
        """
        if isinstance(batch, Batch):
            values: Tensor = super().__call__(student, teacher, batch)
            return values
        from tutelage.losses.alone import mean_loss  # which runs a loss, and so is above it

        labels = alone.pop("labels", batch)
        return mean_loss(self, student, teacher, labels, alone.pop("mask", None), **alone)

    @property
    def lent(self) -> frozenset[str]:
        """The teacher's modules that `introduce` was given, by path."""
        return frozenset(self._modules_lent)

    @property
    @abc.abstractmethod
    def needs(self) -> Needs:
        """What `forward` reads, and nothing else is supplied to it."""

    @property
    def borrows(self) -> frozenset[str]:
        """Dotted paths of the teacher's own modules that the loss runs, such as its classifier.

        A teacher that is not a torch module can't lend any.
        """
        return frozenset()

    def introduce(self, *, modules: Mapping[str, nn.Module], rows: int) -> None:
        """Told before `prepare`, and again when a training begins: what the shapes of signals don't show.

        The modules are copied, frozen and in eval mode; they are no part of the loss's parameters or state, so they are
        neither trained nor stored.

        Args:
            modules: The teacher's modules that `borrows` names, by path.
            rows: How many rows the transfer set has.
        """
        self.rows = rows
        self._modules_lent = {path: _frozen_copy(modules[path]) for path in self.borrows}

    def borrowed(self, path: str) -> nn.Module:
        """The teacher's module at `path`, which `borrows` names. Gradients pass through it, but do not change it."""
        return self._modules_lent[path]

    @property
    def plain_steps(self) -> tuple[float, list[nn.Parameter]]:
        """`η`, and the own trained parts that take the plain gradient step `θ - η · ∇` in the place of the optimiser's.

        For a part whose speed is a setting of the method, such as that of an adversary: AdamW divides a gradient by its
        own size, so that no factor on it would have an effect. `η` follows the schedule of the training's learning
        rate: it is its highest value. Such a part is no part of the norm that gradients are clipped to, nor decayed.
        """
        return 0.0, []

    def after_step(self) -> None:
        """Called on every process once a step of the optimiser is done: where a memory takes in what it saw.

        What changes here is kept in buffers, so that it is stored and resumed; it has to come out the same on every
        process.
        """

    def prepare(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        """Checks traced signals against each other and makes trained parts for their shapes.

        Called before training, with what both models said about one batch. A loss with trained parts makes them and
        then calls this, which runs it once and notes whether its values are those of samples or of tokens. A second
        call with the same shapes keeps the trained parts, so a checkpoint may be loaded between the two.

        Raises:
            SignalError: The shapes don't fit, and both are named; or a signal that counts holds NaN or infinity, and
                the model and the layer are named.
        """
        self.check_finite(student, teacher, batch)
        with torch.no_grad():
            self.per_token = self(student, teacher, batch).dim() == 2

    def check_finite(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        """Raises a `SignalError` that names the model and the layer when a signal that counts is NaN or infinite."""
        name, needs, rows = type(self).__name__, self.needs, self.rows_that_count(batch)
        for model, signals, request in (("student", student, needs.student), ("teacher", teacher, needs.teacher)):
            if request.output and signals.top is None:
                require_finite(name, f"output of the {model}", signals.output, batch, rows)
            for path in sorted(request.features):
                require_finite(name, f"layer `{path}` of the {model}", signals.features[path], batch, rows)

    @abc.abstractmethod
    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
        """The loss of each sample, `[B]`, or of each token, `[B, L]`: the shape that `counts` gives."""

    def counts(self, batch: Batch) -> Tensor:
        """How much each value of `forward` counts: the weight of its row, or 0 where the token mask is False.

        It depends on the batch alone, so the global count is known before the first forward pass.
        """
        rows = torch.ones(len(batch), device=batch.rows.device) if batch.weights is None else batch.weights.float()
        return batch.mask * rows[:, None] if self.per_token and batch.mask is not None else rows

    def rows_that_count(self, batch: Batch) -> Tensor:
        """Rows of which some value counts: `[B]` bool."""
        return (self.counts(batch) > 0).reshape(len(batch), -1).any(1)

    def extra_repr(self) -> str:
        """Shows the hyper-parameters."""
        plain = (bool, int, float, str, dict, list)
        hidden = ("training", "per_token", "progress", "rows")
        return ", ".join(
            f"{name}={value}"
            for name, value in vars(self).items()
            if isinstance(value, plain) and name not in hidden and not name.startswith("_")
        )


def _frozen_copy(module: nn.Module) -> nn.Module:
    """The module for use by a loss: its own copy, in eval mode, frozen, in float32 or wider."""
    own = copy.deepcopy(module).eval().requires_grad_(False)
    dtype = next((parameter.dtype for parameter in own.parameters()), torch.float32)
    return own.to(torch.promote_types(dtype, torch.float32))


def weight_at(weight: Weight, progress: float) -> float:
    """The factor after a share of the training; before the first point and after the last it stays."""
    if not isinstance(weight, list):
        return weight
    if progress <= weight[0][0]:
        return weight[0][1]
    for (start, low), (stop, high) in itertools.pairwise(weight):
        if progress <= stop:
            return low + (high - low) * (progress - start) / (stop - start)
    return weight[-1][1]


def require_weight(weight: Weight) -> None:
    """Raises a `ValueError` when a weight is negative or not finite, or a schedule's points are out of order."""
    points = weight if isinstance(weight, list) else [[0.0, weight]]
    if not points or any(len(point) != 2 for point in points):
        raise ValueError(f"weight must be a number or points [share, factor], found {weight}")
    if not all(math.isfinite(factor) and factor >= 0 for _, factor in points):
        raise ValueError(f"weight must be a finite number that is not negative, found {weight}")
    shares = [share for share, _ in points]
    if not all(0 <= share <= 1 for share in shares) or any(a >= b for a, b in itertools.pairwise(shares)):
        raise ValueError(f"weight must have rising shares from 0 to 1, found {shares}")


def require_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Raises a `ValueError` when a hyper-parameter is none of its choices."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {sorted(choices)}, found {value!r}: {did_you_mean(value, choices)}")


def require_form(loss: Loss, teacher: Signals) -> None:
    """Raises a `SignalError` when the teacher names a few classes, and a loss needs all, or at another temperature."""
    request = loss.needs.teacher
    heard = [(teacher, request), *((teacher.members[name], wanted) for name, wanted in request.members.items())]
    if any(wanted.output and said.top is not None for said, wanted in heard) and not loss.takes_top_k:
        raise SignalError(
            f"{type(loss).__name__} on outputs",
            expected="the teacher's logits of all classes",
            found="its likeliest classes, its samples or its label alone",
            harm="what it says of the other classes would have to be invented",
            mend="use KLDivergence or SoftCrossEntropy with softmax outputs, ForwardCorrection, or a teacher (a cache "
            "of its answers) that gives dense logits",
        )
    for part in loss.modules():
        temperature: Any = getattr(part, "temperature", None)
        for said, wanted in heard if isinstance(part, Loss) and part.takes_top_k and temperature else ():
            if wanted.output and said.top is not None:
                said.top.log_probabilities(temperature)


def require_same_shape(loss: str, student: Tensor, teacher: Tensor, *, where: str, mend: str) -> None:
    """Raises a `SignalError` that names both shapes when student and teacher differ in shape."""
    if student.shape != teacher.shape:
        raise SignalError(
            f"{loss} on {where}",
            expected=f"the teacher's shape {tuple(teacher.shape)}",
            found=f"the student's shape {tuple(student.shape)}",
            harm="broadcasting would compare values that don't belong together",
            mend=mend,
        )


def require_finite(loss: str, where: str, signal: Tensor | None, batch: Batch, rows: Tensor) -> None:
    """Raises a `SignalError` that names the signal when it holds NaN or infinity at a place that counts.

    `rows` are those that count, `[B]` bool.
    """
    assert signal is not None, f"{loss} was given no {where}"
    finite = torch.isfinite(visible(signal, batch))
    if len(finite) == len(rows):  # a layer with another first axis is refused later, by the loss
        finite |= ~rows.view(-1, *[1] * (finite.dim() - 1))
    if not finite.all():
        first = torch.nonzero(~finite)[0].tolist()
        raise SignalError(
            f"{loss}: {where}",
            expected="finite numbers",
            found=f"NaN or infinity in {int((~finite).sum())} of {finite.numel()} values, first at {first}",
            harm="the loss and every gradient of the student would become NaN",
            mend="look at that sample of the batch (its index comes first) and at the precision (float16 ends "
            "at 65504); a model whose weights hold NaN has to be replaced",
        )
