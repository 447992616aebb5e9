"""Whether models can be run as training runs them: in training mode, on the smallest piece of a batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from tutelage.errors import SignalError, blame
from tutelage.recipe import Recipe
from tutelage.signals import call, output_of
from tutelage.training.setup import make_accelerator
from tutelage.transfer import TransferSet

__all__ = ["check_training_mode"]

Array = np.ndarray[Any, Any]


def check_training_mode(
    recipe: Recipe, data: TransferSet, taught: TransferSet | None, student: nn.Module, device: torch.device
) -> None:
    """The student, and a teacher that the run trains, take the smallest piece of a batch in training mode.

    Of larger pieces two rows are tried: a batch norm, which normalises over rows, refuses one alone.

    Raises:
        SignalError: One of them does not.
    """
    for key, training in recipe.trainings().items():
        of_teacher = key == "teacher_training"
        rows = taught if of_teacher else data
        if rows is None or key.startswith("assistants"):  # these are planned like students, each by itself
            continue
        pieces = training.micro_batches * make_accelerator(training.precision).num_processes
        drawn = rows.rows("train")
        smallest = min(training.batch_size, len(drawn)) // pieces
        models = dict(recipe.teacher.modules) if of_teacher else {"student": student}
        for name, module in models.items():
            error = _failure(module, rows, drawn[: min(smallest, 2)], device)
            if error is None:
                continue
            if smallest < 2 <= len(drawn) // pieces and _failure(module, rows, drawn[:2], device) is None:
                raise SignalError(
                    f"{key}.batch_size",
                    expected=f"at least 2 rows in a piece, which the {name or 'teacher'} takes when it is trained",
                    found=f"1: {min(training.batch_size, len(drawn))} rows in {pieces} piece(s): {blame(error)}",
                    harm="training would end at its first step",
                    mend="raise batch_size, or lower micro_batches; or give a model without batch norm",
                )
            raise SignalError(
                f"{name or 'teacher'}: training mode",
                expected="a forward pass with one tensor or `.logits`, as it is when the model is evaluated",
                found=blame(error),
                harm="training would end at its first step",
                mend="see what forward does where `self.training` is true",
            )


def _failure(
    module: nn.Module, data: TransferSet, rows: np.ndarray[Any, Any], device: torch.device
) -> Exception | None:
    """What a module raises for these rows in training mode; neither it nor any random state is changed by it."""
    with _as_it_was(module), torch.no_grad(), torch.random.fork_rng():
        try:
            module.train()
            output_of(call(module, data.batch(rows).to(device).inputs))
        except Exception as error:  # a user's module may raise anything
            return error
    return None


@contextmanager
def _as_it_was(module: nn.Module) -> Iterator[None]:
    modes = {each: each.training for each in module.modules()}
    kept = {name: buffer.clone() for name, buffer in module.named_buffers()}  # the statistics of batch norm
    try:
        yield
    finally:
        for each, mode in modes.items():
            each.training = mode
        buffers = dict(module.named_buffers())
        for name, value in kept.items():
            buffers[name].copy_(value)
