"""A loss of tutelage beside another library's, how theirs follows from ours, and whether it does."""

from __future__ import annotations

import copy
import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from loss_case import Plain, objective, tensors_of
from torch import Tensor

from tutelage.losses import Loss, all_losses
from tutelage.signals import Batch, Signals

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Given:
    """What theirs is built from: our loss, whose trained parts it shares, and what else the batch holds."""

    loss: Any
    labels: Tensor | None = None
    mask: Tensor | None = None


@dataclass(frozen=True)
class Ours:
    """What ours says of a batch, and of which: a conversion may need any of it."""

    loss: Any
    student: Tensors
    teacher: Tensors
    batch: Batch
    mean: Tensor
    values: Tensor


def as_it_is(ours: Ours) -> Tensor:
    """The conversion of a pair that needs none."""
    return ours.mean


@dataclass(frozen=True)
class Pair:
    """One row of the comparison.

    Attributes:
        ours: The class.
        case: The `PLAIN` of its tests that gives the size.
        theirs: Class or function and settings, as they are written in Python.
        build: Makes theirs: a function of the student's and the teacher's signals.
        settings: Arguments of ours.
        formula: How theirs follows from ours, in a line.
        why: What explains the difference; to be given where `convert` is.
        convert: The value of theirs, from ours.
        same: Whether both compute the same but for a constant factor; else the time is not judged.
        slower: Why ours may take longer though both compute the same, where there is a reason.
        padding: Whether the values are compared with padding in the batch.
        tolerance: The largest relative difference, of the value and of gradients, in float64.
        size: Other shapes than those of the case: fields of `Plain`.
    """

    ours: str
    case: str
    theirs: str
    build: Callable[[Given], Callable[[Tensors, Tensors], Tensor]]
    settings: dict[str, Any] = field(default_factory=dict)
    formula: str = "theirs = ours"
    why: str = ""
    convert: Callable[[Ours], Tensor] = as_it_is
    same: bool = True
    slower: str = ""
    padding: bool = False
    tolerance: float = 1e-9
    size: dict[str, Any] = field(default_factory=dict)

    @property
    def our_text(self) -> str:
        """Ours as it is written in Python, without the names of layers."""
        texts = [
            f"{name}={type(value).__name__}({value.temperature:g})"
            if isinstance(value, Loss)
            else f"{name}={value:g}"
            if isinstance(value, float)
            else f'{name}="{value}"'
            if isinstance(value, str)
            else f"{name}={value}"
            for name, value in self.settings.items()
            if not isinstance(value, list | dict) and "layer" not in name
        ]
        return f"{self.ours}({', '.join(texts)})"

    def plain(self) -> Plain:
        """Ours and theirs as a case of `benchmarks/losses.py`, which measures them in turn."""
        kind = all_losses()[self.ours]
        plain = importlib.import_module(f"test_{kind.__module__.rpartition('.')[2]}").PLAIN[self.case]

        def make() -> Loss:
            loss = kind(**copy.deepcopy(self.settings))
            loss.progress = 1.0  # the stage of FactorTransfer in which the student learns
            return loss

        plain = replace(plain, make=make, **self.size)
        return replace(plain, expression=_Once(self.build, plain))


class _Once:
    """Theirs as the expression of a `Plain`: built once for a loss, not at every call."""

    def __init__(self, build: Callable[[Given], Callable[[Tensors, Tensors], Tensor]], plain: Plain) -> None:
        self.build, self.loss = build, None
        self.mask = None if plain.tokens is None else torch.ones(plain.samples, plain.tokens, dtype=torch.bool)

    def __call__(self, student: Tensors, teacher: Tensors, labels: Tensor | None, loss: Any) -> Tensor:
        if loss is not self.loss:
            self.loss, self.theirs = loss, self.build(Given(loss, labels, self.mask))
        return self.theirs(student, teacher)


@dataclass(frozen=True)
class Compared:
    """Values of theirs, ours converted and found; the largest relative difference of a gradient; whether all agree."""

    ours: float
    theirs: float
    gradient: float
    agrees: bool


def compare(pair: Pair) -> Compared:
    """Values and gradients of both on the same random signals, in float64.

    The gradients are those to the student's signals and to the trained parts, which both have in common.
    """
    loss, student, teacher, batch = pair.plain().set_up()
    loss = loss.double()
    student = student.map(lambda tensor: tensor.detach().double().requires_grad_())
    teacher = teacher.map(Tensor.double)
    batch = batch.map(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)
    if pair.padding:
        batch = replace(batch, mask=_with_padding(batch.mask))
    theirs = pair.build(Given(loss, batch.labels, batch.mask))
    inputs = [*tensors_of(student).values(), *(part for part in loss.parameters() if part.requires_grad)]
    found = theirs(tensors_of(student), tensors_of(teacher)).squeeze()
    expected = pair.convert(said(loss, student, teacher, batch))
    gradient = max(map(relative, gradients(expected, inputs), gradients(found, inputs)))
    value = relative(expected.detach(), found.detach())
    return Compared(expected.item(), found.item(), gradient, max(value, gradient) <= pair.tolerance)


def said(loss: Loss, student: Signals, teacher: Signals, batch: Batch) -> Ours:
    """What ours says of a batch."""
    mean, values = objective(loss, student, teacher, batch), loss(student, teacher, batch)
    return Ours(loss, tensors_of(student), tensors_of(teacher), batch, mean, values)


def gradients(value: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    """Of the value to each input; zeros where it has no part in it."""
    found = torch.autograd.grad(value, inputs, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found, strict=True)]


def relative(a: Tensor, b: Tensor) -> float:
    """`max |a - b| / max |b|`: 0 where both are 0, infinite where one is not finite or `b` alone is 0."""
    if not (a.isfinite().all() and b.isfinite().all()):
        return math.inf
    gap, largest = (a - b).abs().max().item(), b.abs().max().item()
    return gap / largest if largest else (math.inf if gap else 0.0)


def _with_padding(mask: Tensor | None) -> Tensor:
    """A mask of the same shape whose rows have all lengths from half to whole."""
    assert mask is not None
    size, length = mask.shape
    lengths = torch.linspace(length // 2, length, size).round()
    return torch.arange(length) < lengths[:, None]
