"""How a loss is exercised: each `tests/losses/test_<module>.py` gives `CASES` for the losses of that module.

The contract suite (`tests/contracts/test_loss*.py`) runs every case. The golden formula of a case is written from the
paper in numpy and float64 and shares nothing with the package.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tutelage.losses import Loss
from tutelage.signals import Batch, Signals

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Numbers:
    """What a golden formula reads, all float64 (labels too): signals by name, `output` being one of the names."""

    student: dict[str, Array]
    teacher: dict[str, Array]
    weights: Array
    mask: NDArray[np.bool_] | None = None
    labels: NDArray | None = None
    labelled: NDArray[np.bool_] | None = None
    trained: dict[str, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """One way to use a loss.

    Attributes:
        make: Constructs it.
        student: Shapes of the student's signals by name, without the batch axis; `output` is the output.
        teacher: The same of the teacher.
        golden: Values `[B]` or `[B, L]`.
        tokens: L where the rows are masked sequences.
        labels: Draws labels for B rows.
        counts: What counts, where it is not the weight of the row (and of the token).
        floor: The value of every sample, or of each, where the teacher says what the student says; None where there is
            no such point (a projector stands between, or there is no teacher).
        samples: B.
        modules: The teacher's modules that the loss borrows, by path; the golden formula finds their weights in
            `trained`, under `borrowed/PATH.weight`.
        detached: Signals of the student that take the teacher's place: nothing flows back to them.
        adversary: What the gradient of the trained parts is multiplied with: -λ where they work against the student.
    """

    make: Callable[[], Loss]
    student: dict[str, tuple[int, ...]]
    teacher: dict[str, tuple[int, ...]]
    golden: Callable[[Numbers], Array]
    tokens: int | None = None
    labels: Callable[[np.random.Generator, int], NDArray] | None = None
    counts: Callable[[Numbers], Array] | None = None
    floor: float | Array | None = None
    samples: int = 4
    modules: Callable[[], dict[str, nn.Module]] = dict
    detached: tuple[str, ...] = ()
    adversary: float = 1.0

    def draw(self, seed: int = 0) -> Numbers:
        """Random signals, weights and, where the case has them, mask and labels (one row is not labelled)."""
        rng = np.random.default_rng(seed)
        B = self.samples

        def signals(shapes: dict[str, tuple[int, ...]]) -> dict[str, Array]:
            return {name: rng.normal(size=(B, *shape)) for name, shape in shapes.items()}

        student, teacher = signals(self.student), signals(self.teacher)
        mask = None
        if self.tokens is not None:
            lengths = rng.integers(1, self.tokens + 1, size=B)
            lengths[0], lengths[1] = self.tokens, self.tokens - 1
            mask = np.arange(self.tokens) < lengths[:, None]
        labels = None if self.labels is None else self.labels(rng, B)
        labelled = None if labels is None else np.arange(B) != 1
        weights = rng.integers(2, 9, size=B) / 4  # exact in float32, which counts are in
        return Numbers(student, teacher, weights, mask, labels, labelled)

    def counts_of(self, numbers: Numbers, ndim: int) -> Array:
        """What counts, derived apart from the package."""
        if self.counts is not None:
            return self.counts(numbers)
        rows = numbers.weights if numbers.labelled is None else numbers.weights * numbers.labelled
        return rows if ndim == 1 else rows[:, None] * numbers.mask

    def total(self, numbers: Numbers) -> float:
        """The golden objective: the counted mean of the golden values."""
        values = self.golden(numbers)
        counts = self.counts_of(numbers, values.ndim)
        return float((np.where(counts > 0, values, 0) * counts).sum() / counts.sum())


@dataclass(frozen=True)
class Plain:
    """A loss as one would write it in a training script, at the size of a real layer: what it costs is compared with.

    `benchmarks/losses.py` times it, and the contract suite checks that both say the same. The test file of a loss's
    module gives one or more, by name, as `PLAIN`.

    Attributes:
        make: Constructs the loss.
        student: Shapes of the student's signals by name, without the batch axis; `output` is the output.
        teacher: The same of the teacher.
        expression: The mean over the batch, as plain torch on the tensors: `(student, teacher, labels, loss)` with the
            signals by name, and the loss for its trained parts (`loss.projectors`) alone.
        labels: Draws labels for B rows.
        tokens: L where the rows are masked sequences (here: none is padding).
        samples: B.
        modules: The teacher's modules that the loss borrows, by path.
    """

    make: Callable[[], Loss]
    student: dict[str, tuple[int, ...]]
    teacher: dict[str, tuple[int, ...]]
    expression: Callable[[dict[str, Tensor], dict[str, Tensor], Tensor, Any], Tensor]
    labels: Callable[[np.random.Generator, int], NDArray] | None = None
    tokens: int | None = None
    samples: int = 64
    modules: Callable[[], dict[str, nn.Module]] = dict

    def set_up(self, seed: int = 0) -> tuple[Loss, Signals, Signals, Batch]:
        """The loss, prepared, on random float32 signals of both models."""
        generator = torch.Generator().manual_seed(seed)

        def signals(shapes: dict[str, tuple[int, ...]], *, grad: bool) -> Signals:
            drawn = {name: torch.randn(self.samples, *shape, generator=generator) for name, shape in shapes.items()}
            drawn = {name: tensor.requires_grad_(grad) for name, tensor in drawn.items()}
            return Signals(output=drawn.pop("output", None), features=drawn)

        labels = None
        if self.labels is not None:
            labels = torch.tensor(self.labels(np.random.default_rng(seed), self.samples))
        batch = Batch(
            inputs=torch.empty(self.samples, 0),
            rows=torch.arange(self.samples),
            views=torch.zeros(self.samples, dtype=torch.long),
            labels=labels,
            labelled=None if labels is None else torch.ones(self.samples, dtype=torch.bool),
            mask=None if self.tokens is None else torch.ones(self.samples, self.tokens, dtype=torch.bool),
        )
        torch.manual_seed(seed)
        loss = self.make()
        loss.introduce(modules=self.modules(), rows=self.samples)
        student, teacher = signals(self.student, grad=True), signals(self.teacher, grad=False)
        loss.prepare(student, teacher, batch)
        return loss, student, teacher, batch


def signals_of(arrays: dict[str, Array], dtype: torch.dtype, *, grad: bool = False) -> Signals:
    """Signals from arrays; `output` is the output, the rest are features."""
    tensors = {name: torch.tensor(array, dtype=dtype).requires_grad_(grad) for name, array in arrays.items()}
    return Signals(output=tensors.pop("output", None), features=tensors)


def batch_of(numbers: Numbers, dtype: torch.dtype = torch.float64) -> Batch:
    """A batch that holds what a loss may read; its inputs are empty, for no loss may look at them."""
    size = len(numbers.weights)
    labels = None if numbers.labels is None else torch.tensor(numbers.labels)
    if labels is not None and labels.is_floating_point():
        labels = labels.to(dtype)
    return Batch(
        inputs=torch.empty(size, 0),
        rows=torch.arange(size),
        views=torch.zeros(size, dtype=torch.long),
        labels=labels,
        labelled=None if numbers.labelled is None else torch.tensor(numbers.labelled),
        mask=None if numbers.mask is None else torch.tensor(numbers.mask),
        weights=torch.tensor(numbers.weights, dtype=torch.float64),
    )


def prepared(case: Case, numbers: Numbers, dtype: torch.dtype = torch.float64) -> Loss:
    """The loss of a case, prepared on its own signals (trained parts seeded)."""
    torch.manual_seed(0)
    loss = case.make()
    loss.introduce(modules={path: module.to(dtype) for path, module in case.modules().items()}, rows=case.samples)
    loss.prepare(signals_of(numbers.student, dtype), signals_of(numbers.teacher, dtype), batch_of(numbers, dtype))
    return loss


def with_trained(numbers: Numbers, loss: Loss) -> Numbers:
    """The numbers together with the trained parts of a loss, for its golden formula."""
    trained = {k: v.detach().double().numpy() for k, v in loss.state_dict().items()}
    for path in loss.borrows:
        for name, value in loss.borrowed(path).state_dict().items():
            trained[f"borrowed/{path}.{name}"] = value.double().numpy()
    return replace(numbers, trained=trained)


def objective(loss: Loss, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
    """The counted mean as the training step forms it."""
    counts = loss.counts(batch)
    values = torch.where(counts > 0, loss(student, teacher, batch), 0.0)
    return (values * counts).sum() / counts.sum()


def gradient_of(tensor: Tensor) -> Tensor:
    """The gradient that arrived at a tensor: zeros where none did."""
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad


def tensors_of(signals: Signals) -> dict[str, Tensor]:
    """All tensors of signals by name."""
    named = dict(signals.features)
    if signals.output is not None:
        named["output"] = signals.output
    return named
