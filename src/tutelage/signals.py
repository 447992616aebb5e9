"""What teacher and student exchange: a `Batch` goes in, `Signals` come out, a `Request` says which.

Every model in tutelage is a `torch.nn.Module` whose forward gives its output: a tensor, or an object with `.logits`
(as Hugging Face's classifiers return). The output of a batch is `[B, ...]`: logits `[B, C]`, embeddings `[B, D]`,
values `[B]` or `[B, K]`, or logits of a token or pixel `[B, L, C]`, `[B, C, H, W]`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tutelage.errors import ModelError, SignalError
from tutelage.forms import TopK

__all__ = ["Batch", "Inputs", "Request", "Signals", "call", "lone_tensor", "output_of"]

Inputs = Tensor | dict[str, Tensor]
"""What a model is called with: one tensor (`model(x)`) or named ones (`model(**x)`)."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Some rows of the transfer set, as the models see them.

    Attributes:
        inputs: What the models are called with; first axis `B`.
        rows: Row numbers in the transfer set, `[B]`; negative for rows that are no part of it.
        views: The number of the view (augmentation) of each row, `[B]`; 0 is the row as it is.
        labels: `[B]` class indices, or values; where `labelled` is False the entry means nothing. None: no labels.
        labelled: `[B]` bool, which rows have a label. None exactly when `labels` is.
        mask: `[B, L]` bool, True for tokens that count, or None when rows are not sequences.
        weights: `[B]` importance of each row, or None for 1.
        tasks: The labels of further tasks, `[B]` each, by the task's name; `labelled` holds for them too.
        raw: Gives the columns of these rows as the source has them (texts, categories, numbers), without views: for
            teachers that read no tensors. It is called by those alone.
    """

    inputs: Inputs
    rows: Tensor
    views: Tensor
    labels: Tensor | None = None
    labelled: Tensor | None = None
    mask: Tensor | None = None
    weights: Tensor | None = None
    tasks: dict[str, Tensor] = field(default_factory=dict)
    raw: Callable[[], dict[str, np.ndarray[Any, Any]]] | None = None

    @classmethod
    def of(cls, inputs: Inputs) -> Batch:
        """The batch of some inputs that are rows of no transfer set.

        Where there is an `attention_mask` of `[B, L]`, it is the mask.

        Raises:
            SignalError: There is no row in them.
        """
        first = inputs if isinstance(inputs, Tensor) else next(iter(inputs.values()), torch.tensor(0))
        if first.dim() == 0 or not len(first):
            raise SignalError("inputs", expected="tensors of at least one row: [B, ...]", found=str(tuple(first.shape)))
        given = None if isinstance(inputs, Tensor) else inputs.get("attention_mask")
        rows = torch.full((len(first),), -1, dtype=torch.int64, device=first.device)
        mask = None if given is None or given.dim() != 2 else given.bool()
        return cls(inputs=inputs, rows=rows, views=torch.zeros_like(rows), mask=mask)

    def __len__(self) -> int:
        return int(self.rows.shape[0])

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The same batch with `change` applied to each of its tensors."""

        def of(value: Inputs | None) -> Any:
            if isinstance(value, Mapping):
                return {name: change(tensor) for name, tensor in value.items()}
            return None if value is None else change(value)

        return replace(self, **{f.name: of(getattr(self, f.name)) for f in fields(self) if f.name != "raw"})

    def some(self, at: np.ndarray[Any, Any]) -> Batch:
        """The rows at these positions, padded as in the whole batch."""
        raw = self.raw
        some = self.map(lambda tensor: tensor[torch.from_numpy(at).to(tensor.device)])
        return some if raw is None else replace(some, raw=lambda: {name: column[at] for name, column in raw().items()})

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))


@dataclass(frozen=True, kw_only=True)
class Signals:
    """What a model says about a batch.

    Attributes:
        output: The model's output, or None if it was not asked for.
        top: What a teacher gives in the place of dense logits: some classes, and the mass of the rest.
        features: Outputs of inner layers, by dotted module path.
        members: What each of several teachers says, by its name.
        answered: `[B]` bool: False where `output` means nothing, for there was no answer. None: all rows have one.
    """

    output: Tensor | None = None
    top: TopK | None = None
    features: dict[str, Tensor] = field(default_factory=dict)
    members: dict[str, Signals] = field(default_factory=dict)
    answered: Tensor | None = None

    @property
    def silent(self) -> Tensor | None:
        """Where there is no answer, `[B]` or `[B, L]` bool; None where every row is known to have one."""
        if self.top is not None:
            return self.top.silent
        return None if self.answered is None else ~self.answered

    def map(self, change: Callable[[Tensor], Tensor]) -> Signals:
        """The same signals with `change` applied to each tensor."""
        return Signals(
            output=None if self.output is None else change(self.output),
            top=None if self.top is None else self.top.map(change),
            features={path: change(tensor) for path, tensor in self.features.items()},
            members={name: member.map(change) for name, member in self.members.items()},
            answered=None if self.answered is None else change(self.answered),
        )

    def dense(self) -> Tensor:
        """The output; of a teacher that names a few classes, as log-probabilities (`TopK.dense`)."""
        if self.top is not None:
            return self.top.dense()
        assert self.output is not None
        return self.output

    def only(self, request: Request) -> Signals:
        """What was requested of these signals, and nothing else."""
        return Signals(
            output=self.output if request.output else None,
            top=self.top if request.output else None,
            features={path: self.features[path] for path in request.features},
            members={name: self.members[name].only(wanted) for name, wanted in request.members.items()},
            answered=self.answered if request.output else None,
        )


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked of a model: its output, the features of some layers, and the same of each of several teachers.

    `a | b` asks for both; a request that asks for nothing is false.
    """

    output: bool = False
    features: frozenset[str] = frozenset()
    members: Mapping[str, Request] = field(default_factory=dict)

    def __or__(self, other: Request) -> Request:
        names = [*self.members, *(name for name in other.members if name not in self.members)]
        nothing = Request()
        return Request(
            output=self.output or other.output,
            features=self.features | other.features,
            members={name: self.members.get(name, nothing) | other.members.get(name, nothing) for name in names},
        )

    def __bool__(self) -> bool:
        return self.output or bool(self.features) or any(self.members.values())


def call(module: nn.Module, inputs: Inputs) -> object:
    """Calls a module with the inputs of a batch: `module(x)` or `module(**x)`."""
    return module(**inputs) if isinstance(inputs, dict) else module(inputs)


def lone_tensor(inputs: Inputs) -> Tensor | None:
    """The tensor, where a model is called with a single one, whether it has a name or not; else None."""
    if isinstance(inputs, Tensor):
        return inputs
    return next(iter(inputs.values())) if len(inputs) == 1 else None


def output_of(result: object, model: str = "model") -> Tensor:
    """The output tensor in what a module returned.

    Raises:
        ModelError: The module returned neither a tensor nor something with `.logits`.
    """
    if isinstance(result, Tensor):
        return result
    logits = result.get("logits") if isinstance(result, Mapping) else getattr(result, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    raise ModelError(
        f"output of {model}",
        expected="a tensor, or an object with a tensor `.logits`",
        found=type(result).__name__,
        mend="wrap the module in one whose forward returns the tensor to be imitated",
    )
