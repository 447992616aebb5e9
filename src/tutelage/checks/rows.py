"""Both models on the rows that would break them, before a training comes to these rows hours later.

The modules are run as they are, not through the teacher's `ask`: what is tried here is not to be stored as an answer.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tutelage.checks.answers_of_task import modules_of
from tutelage.devices.batch import change_inputs
from tutelage.errors import SignalError, blame
from tutelage.recipe import Recipe
from tutelage.signals import Inputs, call, output_of
from tutelage.teachers.padding import reads_padding
from tutelage.transfer import TransferSet
from tutelage.transfer.extremes import extreme_rows, longest_row

__all__ = ["check_extreme_rows", "check_longest_text", "check_padding"]

_TRIED = 32
"""Extreme rows that are tried at most."""


def check_longest_text(recipe: Recipe, data: TransferSet, student: nn.Module, device: torch.device) -> None:
    """Both models take the longest text there is.

    Raises:
        SignalError: One of them does not, but takes a shorter one: the setting that cuts it is named.
    """
    longest = longest_row(data)
    if longest is None:
        return
    length = longest.length
    batch = data.batch(np.array([longest.row])).to(device)
    shape = None if batch.mask is None else batch.mask.shape

    def cut(tokens: int) -> Inputs:
        return change_inputs(batch.inputs, lambda tensor: tensor[:, :tokens] if tensor.shape == shape else tensor)

    found: list[tuple[int, str, Exception]] = []
    for name, module in _models(recipe, student):

        def takes(tokens: int, module: nn.Module = module) -> bool:
            return _failure(module, cut(tokens)) is None

        error = _failure(module, batch.inputs)
        if error is not None and (most := _most_tokens(takes, longest.shortest_length, length)) is not None:
            found.append((most, name, error))  # where it takes no length at all, that is not what it fails for
    if found:
        least, name, error = min(found, key=lambda each: each[0])
        raise SignalError(
            "data.text.max_length",
            expected=f"texts that the {name} takes: up to {least} tokens",
            found=f"{length} tokens in row {longest.row}: {blame(error)}",
            harm="the run would end when it comes to such a row",
            mend=f"write data.text.max_length: {least}, which cuts longer texts",
        )


def check_extreme_rows(recipe: Recipe, data: TransferSet, student: nn.Module, device: torch.device) -> None:
    """Both models answer the rows with the largest and smallest numbers with finite ones.

    Raises:
        SignalError: One of them does not; row and number are named.
    """
    rows = dict(itertools.islice(extreme_rows(data).items(), _TRIED))
    if not rows:
        return
    together = data.batch(np.array(list(rows))).to(device).inputs
    for name, module in _models(recipe, student):
        if _failure(module, together) is None:
            continue
        for row, what in rows.items():
            error = _failure(module, data.batch(np.array([row])).to(device).inputs)
            if error is not None:
                raise SignalError(
                    f"{name}: row {row} of the data, {what}",
                    expected="a forward pass with a finite output",
                    found=blame(error),
                    harm="the run would end when it comes to this row",
                    mend="correct the number in the data, or make room for it in the model: an embedding has one entry "
                    "more than the largest number that it is asked for",
                )


def check_padding(recipe: Recipe, data: TransferSet, student: nn.Module, device: torch.device) -> list[str]:
    """The answer to a text is the same whether it stands alone or is filled up to the length of another.

    Returns:
        Notes on models whose answers change.

    Raises:
        SignalError: That of a classifier of transformers does, which reads the text's last token: it takes another
            token for padding than the one that batches are filled up with.
    """
    longest, tokenizer = longest_row(data), data.columns.tokenizer
    if longest is None or tokenizer is None or longest.length == longest.shortest_length:
        return []
    pair = data.batch(np.array([longest.shortest, longest.row])).to(device)
    alone = data.batch(np.array([longest.shortest])).to(device)
    notes = []
    for name, module in _models(recipe, student):
        with torch.no_grad():
            together, single = (output_of(call(module.eval(), each.inputs)) for each in (pair, alone))
        if together[0].shape != single[0].shape:
            continue
        difference = float((together[0] - single[0]).abs().max())
        narrow = any(p.dtype in (torch.float16, torch.bfloat16) for p in module.parameters())
        if difference <= (5e-2 if narrow else 1e-3) * max(1.0, float(single.abs().max())):
            continue
        if reads_padding(module):
            raise SignalError(
                f"{name}: pad_token_id",
                expected=f"{tokenizer.pad}, the token id that batches are filled up with",
                found=f"{getattr(module.config, 'pad_token_id', None)} in its config: a text's output changes by up to "
                f"{difference:.2g} when it is filled up to a longer one's length",
                harm="it would answer for the padding and not for the text, and differently in each batch",
                mend="save model and tokenizer with one padding token (`tokenizer.pad_token`, "
                "`model.config.pad_token_id`)",
            )
        notes.append(
            f"the {name}'s output for a text changes by up to {difference:.2g} when it is filled up to the length of "
            "another in its batch: let its forward use `attention_mask`"
        )
    return notes


def _models(recipe: Recipe, student: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules that are run on the data, and whose they are."""
    for module in modules_of(recipe.teacher):
        yield "teacher", module
    yield "student", student


def _most_tokens(takes: Callable[[int], bool], shortest: int, length: int) -> int | None:
    """The most tokens that a model takes of a text which is too long for it as a whole; None where it takes none."""
    low = next((tokens for tokens in (shortest, length // 2, 8, 2) if 0 < tokens < length and takes(tokens)), None)
    if low is None:
        return None
    high = length
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if takes(middle) else (low, middle)
    return low


@torch.no_grad()
def _failure(module: nn.Module, inputs: Inputs) -> Exception | None:
    """What a module raises for these inputs, in eval mode; an output that is not finite counts as an error."""
    try:
        with _counted_embeddings(module.eval()):
            output = output_of(call(module, inputs))
    except Exception as error:  # a user's module may raise anything
        return error
    if not bool(torch.isfinite(output).all()):
        return ValueError("NaN or infinity in the output")
    return None


@contextmanager
def _counted_embeddings(module: nn.Module) -> Iterator[None]:
    """Has embeddings refuse numbers that they have no entry for: on a GPU that would end the process's use of it."""

    def guard(path: str, embedding: nn.Embedding) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def look(_: nn.Module, arguments: tuple[Any, ...]) -> None:
            numbers = next((each for each in arguments if isinstance(each, Tensor) and each.numel()), None)
            if numbers is None:
                return
            low, high = int(numbers.min()), int(numbers.max())
            if low < 0 or high >= embedding.num_embeddings:
                wrong = low if low < 0 else high
                raise IndexError(f"`{path}` has entries 0 to {embedding.num_embeddings - 1} and was asked for {wrong}")

        return look

    handles = [
        inner.register_forward_pre_hook(guard(path, inner))
        for path, inner in module.named_modules()
        if isinstance(inner, nn.Embedding)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
