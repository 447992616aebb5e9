"""What the models say about the first rows: the first time that they meet the data."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from tutelage.errors import OutOfMemory, SignalError, TutelageError, blame, within
from tutelage.signals import Batch, Inputs, Request, Signals
from tutelage.taps import observe
from tutelage.teachers import Teacher
from tutelage.teachers.chunks import out_of_memory

__all__ = ["ask_teacher", "forward_pass", "run_student"]


def ask_teacher(teacher: Teacher, batch: Batch, request: Request) -> Signals:
    """What a teacher says about the first rows.

    Raises:
        SignalError: It can't take them, or its output is not finite.
    """
    with within("teacher"), forward_pass("the teacher", batch.inputs):
        says = teacher.ask(batch, request)
    _require_finite("teacher", says)
    return says


def run_student(student: nn.Module, batch: Batch, request: Request) -> Signals:
    """What the student says about the first rows, in eval mode.

    Raises:
        SignalError: It can't take them, or its output is not finite.
    """
    student.eval()
    with within("student"), forward_pass("the student", batch.inputs), torch.no_grad():
        says = observe(student, batch.inputs, request, model="student")
    _require_finite("student", says)
    return says


def _require_finite(name: str, says: Signals) -> None:
    if says.output is not None and not bool(torch.isfinite(says.output).all()):
        raise SignalError(
            f"{name}: output",
            expected="finite numbers",
            found=f"NaN or infinity in an output of shape {tuple(says.output.shape)}",
            harm="the student would learn nothing but NaN",
            mend="look at the inputs' scale and at the weights",
        )


@contextlib.contextmanager
def forward_pass(model: str, inputs: Inputs | None = None) -> Iterator[None]:
    """A module that can't take the data's batch fails with an error of its own: say what that means."""
    try:
        yield
    except TutelageError:
        raise
    except Exception as error:  # a user's module may raise anything
        if out_of_memory(error):
            raise OutOfMemory(f"{model} on the first rows of the data: {blame(error)}") from error
        raise SignalError(
            f"{model} on the first two rows of the data",
            expected="a forward pass",
            found=blame(error),
            mend=_mend(inputs),
        ) from error


def _mend(inputs: Inputs | None) -> str:
    """What the data gives, and the settings that change it."""
    tensors = inputs if isinstance(inputs, dict) else {} if inputs is None else {"input": inputs}
    given = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in tensors.items())
    ways = "compare data.source with the module's forward"
    if any(tensor.dim() == 4 for tensor in tensors.values()):
        ways = "data.images.size sets the height and width of images, data.images.mode (RGB or L) their channels"
    elif any(tensor.dim() == 2 and tensor.is_floating_point() for tensor in tensors.values()):
        ways = "data.source.inputs lists the columns; give the module's init_args as many inputs"
    return f"the module does not take what the data gives{f' ({given})' if given else ''}: {ways}"
