"""Taps: outputs of inner layers, by dotted module path.

A tap is a forward hook on that one module instance (never on its class, so two models of a class don't share it), and
it is removed when the `with` block ends. What it captures is a copy, so that an in-place operation that follows (a
`ReLU(inplace=True)`) can't change it. Set before `torch.compile` or DDP wraps the module, a tap works in both.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tutelage.errors import ModelError, SignalError, did_you_mean
from tutelage.signals import Inputs, Request, Signals, call, output_of
from tutelage.standardized import unwrapped

__all__ = ["Layer", "Taps", "find_layer", "layers", "observe"]


def find_layer(module: nn.Module, path: str, *, model: str = "model") -> nn.Module:
    """The inner module at a dotted path such as `encoder.layer.2`; paths of a `Standardized` are those inside it.

    Raises:
        ModelError: There is none; the message names the nearest path.
    """
    module = unwrapped(module)
    known: dict[str, nn.Module] = dict(module.named_modules(remove_duplicate=False))
    if path and path in known:
        return known[path]
    raise ModelError(
        f"layer `{path}` of the {model}",
        expected="the dotted path of a module inside it",
        found=f"no such module in {type(module).__name__}",
        mend=did_you_mean(path, (name for name in known if name), list_up_to=8)
        + " `tutelage doctor` lists the layers with their shapes.",
    )


def first_tensor(result: object) -> Tensor | None:
    """The tensor a layer puts out: itself, or the first one of a tuple or mapping (as attention blocks return)."""
    if isinstance(result, Tensor):
        return result
    if isinstance(result, dict):
        result = tuple(result.values())
    if isinstance(result, (tuple, list)):
        return next((tensor for item in result if (tensor := first_tensor(item)) is not None), None)
    return None


class Taps:
    """Captures the outputs of layers of `module` in each forward pass until `close`.

    Only what happens inside a call of `module` is captured, so layers that are run again outside of it (recomputed by
    activation checkpointing in the backward pass) leave nothing behind. Each call of `module` begins anew.

    Args:
        module: The model; it is not changed but for hooks on the named layers and on itself.
        paths: Dotted module paths.
        model: How to name the model in messages ("teacher", "student").

    Raises:
        ModelError: A path does not exist.
    """

    def __init__(self, module: nn.Module, paths: Iterable[str], *, model: str = "model") -> None:
        self.model = model
        self.paths = tuple(sorted(set(paths)))
        found = [(path, find_layer(module, path, model=model)) for path in self.paths]
        self._captured: dict[str, list[Tensor]] = {}
        self._running = False
        self._handles: list[RemovableHandle] = []
        if found:
            self._handles += [
                module.register_forward_pre_hook(self._begin),
                module.register_forward_hook(self._end, always_call=True),
                *(layer.register_forward_hook(functools.partial(self._capture, path)) for path, layer in found),
            ]

    def _begin(self, _module: nn.Module, _args: object) -> None:
        self._captured = {path: [] for path in self.paths}
        self._running = True

    def _end(self, _module: nn.Module, _args: object, _result: object) -> None:
        self._running = False

    def _capture(self, path: str, _module: nn.Module, _args: object, result: object) -> None:
        tensor = first_tensor(result) if self._running else None
        if tensor is not None:
            self._captured[path].append(tensor.clone())

    def take(self) -> dict[str, Tensor]:
        """What the last forward pass gave, by path; the taps are then empty.

        Raises:
            SignalError: A layer was not reached, put out no tensor, or was called more than once.
        """
        captured, self._captured = self._captured, {}
        return {path: self._only(path, captured.get(path, [])) for path in self.paths}

    def _only(self, path: str, tensors: list[Tensor]) -> Tensor:
        if len(tensors) == 1:
            return tensors[0]
        if tensors:
            raise SignalError(
                f"layer `{path}` of the {self.model}",
                expected="one call in the forward pass",
                found=f"{len(tensors)} calls",
                harm="which of its outputs is meant would be a guess",
                mend="tap a layer that is called once, such as the block that follows; where a block is shared, give "
                "each call an `nn.Identity` of its own to tap. `tutelage doctor` lists the layers with their calls",
            )
        raise SignalError(
            f"layer `{path}` of the {self.model}",
            expected="a tensor in the forward pass",
            found="the layer was not called, or its output holds no tensor",
            mend="tap a layer that each forward pass goes through; `tutelage doctor` lists them",
        )

    def close(self) -> None:
        """Removes the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._captured = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def observe(module: nn.Module, inputs: Inputs, request: Request, *, model: str = "model") -> Signals:
    """One forward pass of `module` with what was requested of it. Taps are set for this pass alone."""
    if not request.features:
        return Signals(output=output_of(call(module, inputs), model) if request.output else None)
    with Taps(module, request.features, model=model) as taps:
        result = call(module, inputs)
        return Signals(output=output_of(result, model) if request.output else None, features=taps.take())


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A place where a tap can be set: what `tutelage doctor` lists.

    Attributes:
        path: Its dotted module path.
        kind: Its class.
        shape: The shape of its output (of the first tensor in it, on the first call).
        parameters: Its parameters, those of inner layers included.
        calls: How often one forward pass calls it; a tap can be set only where this is 1.
    """

    path: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    calls: int


def layers(module: nn.Module, inputs: Inputs) -> list[Layer]:
    """Every inner layer that one forward pass reaches, in the order of the calls, with its output's shape."""
    module = unwrapped(module)
    shapes: dict[str, tuple[int, ...]] = {}
    calls: dict[str, int] = {}

    def note(path: str, _module: nn.Module, _args: object, result: object) -> None:
        calls[path] = calls.get(path, 0) + 1
        tensor = first_tensor(result)
        if tensor is not None:
            shapes.setdefault(path, tuple(tensor.shape))

    handles = [
        inner.register_forward_hook(functools.partial(note, path)) for path, inner in module.named_modules() if path
    ]
    training = {inner: inner.training for inner in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            call(module, inputs)
    finally:
        for inner, mode in training.items():
            inner.training = mode
        for handle in handles:
            handle.remove()
    known = dict(module.named_modules())
    return [
        Layer(
            path=path,
            kind=type(known[path]).__name__,
            shape=shape,
            parameters=sum(p.numel() for p in known[path].parameters()),
            calls=calls[path],
        )
        for path, shape in shapes.items()
    ]
