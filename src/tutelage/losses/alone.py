"""A loss in a training loop of one's own: tensors in, one number out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tutelage.errors import SignalError
from tutelage.losses.base import Loss, weight_at
from tutelage.losses.counted import Counted
from tutelage.signals import Batch, Signals, output_of

__all__ = ["Given", "mean_loss"]

Given = Tensor | Signals | Mapping[str, Tensor] | None
"""An output; signals; outputs of inner layers by dotted path, with the model's own under `output`; or what a Hugging
Face model returns."""


def mean_loss(loss: Loss, student: Given, teacher: Given, labels: Tensor | None, mask: Tensor | None) -> Tensor:
    """The mean of a loss over the samples (or tokens) that count, times its weight: a scalar.

    A sample without a label (a negative class number, NaN) does not count for a loss that reads labels, nor a token
    where the mask is False. Where nothing counts it is 0. The first call, and one with layers of other sizes, makes the
    trained parts that a loss may have (`Loss.prepare`), on the device of the signals.

    Args:
        loss: What is computed.
        student: What the student said about B samples.
        teacher: What the teacher said about them; None for a loss that reads no teacher.
        labels: `[B]` class numbers or values, `[B, K]` values or yes-or-no labels.
        mask: `[B, L]` bool, True for tokens that count.

    Raises:
        SignalError: Something that the loss reads is not given, or not as tensors.
    """
    said, heard = _signals(student, "student"), _signals(teacher, "teacher")
    first = next((t for t in (said.output, *said.features.values()) if t is not None), None)
    if first is None:
        raise _lacks(loss, "an output or layers of the student", "none", "loss(student_logits, teacher_logits)")
    if labels is not None:
        _require_all_tokens(loss, first, labels)
    batch = _batch(first, labels, mask)
    _require(loss, said, heard, batch)
    sizes = (_sizes(said), _sizes(heard), mask is not None)
    if sizes != loss.alone_with:
        with torch.no_grad():
            loss.to(first.device)
            loss.prepare(said.map(Tensor.detach), heard.map(Tensor.detach), batch)
            loss.to(first.device)
        loss.alone_with = sizes
    counted = Counted.of(loss, batch, heard)
    total = counted.counts.sum()
    return weight_at(loss.weight, loss.progress) * counted.sum(loss, said, heard, batch) / total.clamp(min=1e-12)


def _signals(given: Given | Any, model: str) -> Signals:
    if given is None:
        return Signals()
    if isinstance(given, Signals):
        return given
    if isinstance(given, Tensor) or hasattr(given, "logits"):
        return Signals(output=output_of(given, model))
    if not isinstance(given, Mapping) or not all(isinstance(layer, Tensor) for layer in given.values()):
        raise SignalError(
            f"the {model}",
            expected="a tensor, tensors by the paths of their layers, or what a Hugging Face model returns",
            found=f"a {type(given).__name__}",
            mend="give the tensor itself; torch.from_numpy(array) makes one of an array",
        )
    layers = dict(given)
    return Signals(output=layers.pop("output", None), features=layers)


def _batch(first: Tensor, labels: Tensor | None, mask: Tensor | None) -> Batch:
    rows = torch.arange(len(first), device=first.device)
    batch = Batch(inputs=rows, rows=rows, views=torch.zeros_like(rows), mask=None if mask is None else mask.bool())
    if labels is None:
        return batch
    known = labels >= 0 if not labels.is_floating_point() else ~labels.isnan()
    known = known.reshape(len(labels), -1).all(1)
    filled = torch.where(known.view(-1, *[1] * (labels.dim() - 1)), labels, torch.zeros_like(labels))
    return replace(batch, labels=filled, labelled=known)


def _require_all_tokens(loss: Loss, output: Tensor, labels: Tensor) -> None:
    """Refuses labels of tokens of which some are none: the whole sample would count as one without a label."""
    if output.dim() < 3 or labels.dim() < 2 or labels.shape != output.shape[:-1] or labels.is_floating_point():
        return
    lacking = (labels < 0).flatten(1)
    if bool((lacking.any(1) & ~lacking.all(1)).any()):
        raise SignalError(
            f"{type(loss).__name__} alone: labels of tokens",
            expected="a label for each token that the mask does not leave out",
            found=f"{int(lacking.sum()):,} of {lacking.numel():,} labels that are none (negative)",
            harm="samples with such a token would not count at all",
            mend="mask=labels >= 0, labels=labels.clamp(min=0)",
        )


def _require(loss: Loss, student: Signals, teacher: Signals, batch: Batch) -> None:
    needs = loss.needs
    for model, signals, request in (("student", student, needs.student), ("teacher", teacher, needs.teacher)):
        if request.output and signals.output is None and signals.top is None:
            raise _lacks(loss, f"the output of the {model}", "none", 'give the tensor, or {"output": tensor, ...}')
        for path in sorted(request.features - signals.features.keys()):
            found = ", ".join(signals.features) or "none"
            raise _lacks(loss, f"layer `{path}` of the {model}", found, f'give it by its path: {{"{path}": tensor}}')
        for name in request.members:
            raise _lacks(loss, f"member `{name}` of the {model}", "no Signals with members", "give Signals and a Batch")
    if needs.labels and batch.labels is None:
        raise _lacks(loss, "labels", "none", "loss(student_logits, teacher_logits, labels=labels)")
    absent = loss.borrows - loss.lent
    if absent:
        mend = f'loss.introduce(modules={{"{min(absent)}": teacher.get_submodule("{min(absent)}")}}, rows=ROWS) before'
        raise _lacks(loss, f"module `{min(absent)}` of the teacher's, which it runs", "none", mend)


def _lacks(loss: Loss, expected: str, found: str, mend: str) -> SignalError:
    return SignalError(f"{type(loss).__name__} alone", expected=expected, found=found, mend=mend)


def _sizes(signals: Signals) -> tuple[Any, ...]:
    """What trained parts depend on: the shapes without the batch."""
    output = None if signals.output is None else tuple(signals.output.shape[1:])
    return output, tuple((path, tuple(tensor.shape[1:])) for path, tensor in sorted(signals.features.items()))
