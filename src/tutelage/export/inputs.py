"""What an exported model is called with, written down: names, types, axes and the range of values (`export.json`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from tutelage.devices.batch import LONE, named
from tutelage.errors import ModelError
from tutelage.signals import Batch, Inputs

__all__ = ["InputSpec", "describe_inputs", "dynamic_axes", "sample_inputs"]


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """One input of an exported model.

    Attributes:
        name: As the graph calls it.
        dtype: As torch calls it: `float32`, `int64`, `bool`.
        shape: A number for a fixed axis, a name (`batch`, `sequence`) for one that may change.
        sizes: Of the named axes but the batch, in the example.
        low: The smallest value in the example; what random inputs are drawn from. Integers that are all 0 or 1, as
            masks are, have `low == high`, so that every token counts.
        high: The largest.
        columns: Of whole numbers `[N, K]` with a fixed K, such as codes of categories: lowest and highest of each
            column, for one may have fewer than another.
    """

    name: str
    dtype: str
    shape: list[int | str]
    sizes: dict[str, int] = field(default_factory=dict)
    low: float = 0.0
    high: float = 1.0
    columns: list[list[int]] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        return cls(**data)


def describe_inputs(example: Inputs, dynamic: Mapping[str, Sequence[int]] | None) -> list[InputSpec]:
    """Describes a batch.

    Axes of one number and one size in the example share a name: the tokens and their mask both have a `sequence`.

    Args:
        example: The batch.
        dynamic: The axes that may change, by input; None: the first of each.

    Raises:
        ModelError: `dynamic` names an input or an axis that there is not.
    """
    tensors = named(example)
    dynamic = dynamic if dynamic is not None else dict.fromkeys(tensors, (0,))
    for name, axes in dynamic.items():
        if name not in tensors or any(not 0 <= axis < tensors[name].ndim for axis in axes):
            raise ModelError(
                f"dynamic axes of `{name}`",
                expected=", ".join(f"{known} {list(tensor.shape)}" for known, tensor in tensors.items()),
                found=f"{name}: {tuple(axes)}",
                mend="name the inputs of the module and axes that they have, counted from 0",
            )
    names: dict[tuple[int, int], str] = {}
    for name, axes in dynamic.items():
        for axis in axes:
            _name_axis(names, axis, tensors[name].shape[axis])
    return [_describe(name, tensor, dynamic.get(name, ()), names) for name, tensor in tensors.items()]


def _name_axis(names: dict[tuple[int, int], str], axis: int, size: int) -> None:
    if (axis, size) in names:
        return
    base = {0: "batch", 1: "sequence"}.get(axis, f"axis_{axis}")
    taken = sum(known == axis for known, _ in names)
    names[axis, size] = f"{base}_{taken + 1}" if taken else base


def _describe(name: str, tensor: Tensor, axes: Sequence[int], names: Mapping[tuple[int, int], str]) -> InputSpec:
    dynamic = {axis: names[axis, tensor.shape[axis]] for axis in axes}
    low, high = (float(tensor.min()), float(tensor.max())) if tensor.numel() else (0.0, 0.0)
    by_column = not tensor.is_floating_point() and tensor.ndim == 2 and 1 not in axes and bool(tensor.numel())
    if not tensor.is_floating_point() and (low, high) == (0.0, 1.0):
        low, by_column = high, False
    return InputSpec(
        name=name,
        dtype=str(tensor.dtype).removeprefix("torch."),
        shape=[dynamic.get(axis, size) for axis, size in enumerate(tensor.shape)],
        sizes={word: tensor.shape[axis] for axis, word in dynamic.items() if axis != 0},
        low=low,
        high=high,
        columns=_ranges(tensor) if by_column else None,
    )


def _ranges(tensor: Tensor) -> list[list[int]]:
    lows, highs = tensor.amin(0).tolist(), tensor.amax(0).tolist()
    return [[int(low), int(high)] for low, high in zip(lows, highs, strict=True)]


def sample_inputs(specs: Sequence[InputSpec], rows: int, *, seed: int = 0) -> Inputs:
    """Random inputs within the ranges of values: good for measuring, not for judging answers.

    Args:
        specs: The inputs; a single one named `input` is a lone tensor.
        rows: The size of the first axis.
        seed: Of the values.
    """
    generator = torch.Generator().manual_seed(seed)
    tensors = {spec.name: _sample(spec, rows, generator) for spec in specs}
    return tensors[LONE] if list(tensors) == [LONE] else tensors


def _sample(spec: InputSpec, rows: int, generator: torch.Generator) -> Tensor:
    dtype: torch.dtype = getattr(torch, spec.dtype)
    shape = [rows, *(spec.sizes[axis] if isinstance(axis, str) else axis for axis in spec.shape[1:])]
    if dtype.is_floating_point:
        return (spec.low + (spec.high - spec.low) * torch.rand(shape, generator=generator)).to(dtype)
    if spec.columns is not None:
        drawn = [torch.randint(low, high + 1, (rows,), generator=generator) for low, high in spec.columns]
        return torch.stack(drawn, dim=1).to(dtype)
    return torch.randint(int(spec.low), int(spec.high) + 1, shape, generator=generator).to(dtype)


def dynamic_axes(batch: Batch) -> dict[str, tuple[int, ...]]:
    """The axes of each input that vary: the batch, and the length of token sequences."""
    length = None if batch.mask is None else batch.mask.shape
    return {name: (0, 1) if tensor.shape == length else (0,) for name, tensor in named(batch.inputs).items()}
