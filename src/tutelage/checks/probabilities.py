"""Probabilities that are taken for logits: what a model that ends in softmax or sigmoid would teach is nonsense."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tutelage.errors import SignalError
from tutelage.signals import Inputs, call, output_of
from tutelage.teachers.gives import slack_of

__all__ = ["last_operation", "refuse_log_odds_of_classes", "refuse_probabilities"]

SUM_SLACK = 1e-3
"""How far rows may be from a sum of 1 and are still those of a softmax; in half precision they are no nearer."""
FEW_ROWS, ALIKE = 8, 0.1
"""Rows from which sums are compared, and the share of the deviation of independent numbers below which they are one."""
ENOUGH = 64
"""Numbers from 0 to 1, with none outside, that are taken for probabilities where nothing else tells."""
THROUGH = (
    "Squeeze",
    "Unsqueeze",
    "View",
    "UnsafeView",
    "Alias",
    "Clone",
    "ToCopy",
    "Clamp",
    "T",
    "Transpose",
    "Permute",
)
"""What a forward may do to probabilities that leaves them what they are, as autograd names it."""
OTHERS = ("Addmm", "Mm", "Bmm", "Linear", "Relu", "Convolution", "Mean", "NativeBatchNorm", "LogSoftmax", "Add")
"""What ends in numbers of any size: that they are from 0 to 1 on some rows is chance."""


def refuse_probabilities(
    output: Tensor, task: str, *, who: str, mend: dict[str, str], operation: str = "", by_size: bool = True
) -> None:
    """Raises a `SignalError` if an output that is to be logits is probabilities.

    Rows of at least two numbers that are all >= 0 and come to 1 are a softmax's; so are those that come to 1 but for
    rounding, by far nearer than independent numbers would. If all come to another sum, they are in another unit
    (percentages). Numbers from 0 to 1 are a sigmoid's,
    if the model's last operation is one; where that is not known, if there are many of them and none outside. Values
    and embeddings may be anything, and so may log-probabilities, which are logits.

    Args:
        output: `[B, ...]`, as the losses would take it.
        task: What outputs mean.
        who: The output, for errors.
        mend: What to do about `probabilities` and about `sigmoid`.
        operation: The model's `last_operation`, or nothing where it is not known.
        by_size: Whether many numbers from 0 to 1 are enough to go by: those of a model before training may be any.
    """
    if task not in ("classification", "multilabel") or not output.is_floating_point() or not output.numel():
        return
    wide = output.detach().to(torch.promote_types(output.dtype, torch.float32))
    low, high = float(wide.min()), float(wide.max())
    if low < 0 or low == high:
        return
    if wide.dim() == 2 and wide.shape[1] > 1:
        if _is_softmax(wide, torch.finfo(output.dtype).eps) or (operation == "Softmax" and high <= 1 + SUM_SLACK):
            raise _probabilities(output, who, "rows of numbers from 0 that come to 1: a softmax", mend["probabilities"])
        if _have_one_sum(wide):
            total = float(wide.sum(1).mean())
            found = f"rows of numbers from 0 that all come to {total:.4g}: probabilities in another unit"
            raise _probabilities(output, who, found, f"divide them by {total:.4g} where they are made, then say so")
    if high > 1 + SUM_SLACK:
        return
    sure = operation in ("Sigmoid", "Hardsigmoid")
    if sure or (operation not in OTHERS and by_size and output.numel() >= ENOUGH):
        one = task == "classification" and (wide.dim() == 1 or wide.shape[1] == 1)
        found = f"nothing but numbers from {low:.3g} to {high:.3g}: a sigmoid"
        raise _probabilities(output, who, found, mend["probabilities" if one else "sigmoid"])


def refuse_log_odds_of_classes(log_odds: Tensor, task: str, *, who: str) -> None:
    """Raises a `SignalError` if probabilities of classes that exclude each other were taken for independent ones.

    Args:
        log_odds: `[B, C]` of a teacher that `gives: sigmoid`.
        task: What outputs mean.
        who: The output, for errors.
    """
    p = log_odds.detach().float().sigmoid()
    if task == "classification" and p.dim() == 2 and p.shape[1] > 1 and _is_softmax(p, torch.finfo(p.dtype).eps):
        raise SignalError(
            who,
            expected="independent probabilities (gives: sigmoid)",
            found="probabilities that come to 1 in each row: a softmax",
            harm="the student would learn other probabilities than the teacher says",
            mend="write `gives: probabilities` among its init_args",
        )


def _is_softmax(numbers: Tensor, eps: float) -> bool:
    """Whether rows of numbers >= 0 come to 1, but for rounding of their own or of one who wrote them down."""
    gap = float((numbers.sum(1) - 1).abs().max())
    return gap <= max(SUM_SLACK, 4 * eps) or (gap <= slack_of(numbers.shape[1]) and _have_one_sum(numbers))


def _have_one_sum(numbers: Tensor) -> bool:
    """Whether the sums of the rows differ by far less than those of independent numbers would."""
    apart = float(numbers.var(0).sum().sqrt()) if len(numbers) >= FEW_ROWS else 0.0
    return apart > 0 and float(numbers.sum(1).std()) <= ALIKE * apart


def last_operation(module: nn.Module, inputs: Inputs) -> str:
    """Name of the operation that makes a module's output, as autograd has it (`Softmax`, `Addmm`); else nothing.

    Reshaping, copying and clamping are looked through. A module without trainable parameters shows none.
    """
    with torch.enable_grad():
        node = output_of(call(module, inputs)).grad_fn
    while node is not None:
        name = node.name().partition("Backward")[0]
        if name not in THROUGH:
            return name
        node = node.next_functions[0][0] if node.next_functions else None
    return ""


def _probabilities(output: Tensor, who: str, found: str, mend: str) -> SignalError:
    return SignalError(
        who,
        expected="logits (also log-probabilities)",
        found=f"{found} (shape {list(output.shape)})",
        harm="a softmax of probabilities is nearly uniform: the student would learn that the teacher is unsure of "
        "everything"
        if not who.startswith("student")
        else "losses and metrics take their softmax or sigmoid themselves: the student could never be sure",
        mend=mend,
    )
