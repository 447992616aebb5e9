"""Cutting a Hugging Face model in depth: a copy with some of its layers."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from tutelage.errors import ModelError

__all__ = ["copy_layers", "layer_list", "layer_list_path"]


def layer_list_path(model: Any) -> str:
    """The dotted path of the model's stack of layers: its one `nn.ModuleList` as long as its config says it is deep.

    Raises:
        ModelError: There is none, or more than one.
    """
    depth = getattr(model.config, "num_hidden_layers", None)
    found: list[str] = [
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and depth is not None and len(module) == depth
    ]
    if len(found) != 1:
        raise ModelError(
            "student.layers",
            expected=f"a teacher with one stack of num_hidden_layers ({depth}) layers",
            found=f"{type(model).__name__} with {', '.join(f'`{path}`' for path in found) or 'none'}",
            mend="give the student as a module of its own (ModuleStudent)",
        )
    return found[0]


def layer_list(model: Any) -> nn.ModuleList:
    """The model's stack of layers; see `layer_list_path`."""
    stack = model.get_submodule(layer_list_path(model))
    assert isinstance(stack, nn.ModuleList)
    return stack


def copy_layers(model: Any, kept: list[int]) -> Any:
    """A copy of `model` with the layers `kept` alone; it shares no memory with `model`, whose config stays as it is."""
    path = layer_list_path(model)
    stack = layer_list(model)
    depth = len(stack)
    # What deepcopy finds in its memo it does not copy: the layers that go cost no memory.
    gone: dict[int, Any] = {id(layer): nn.Identity() for i, layer in enumerate(stack) if i not in kept}
    student = copy.deepcopy(model, gone)
    layers = student.get_submodule(path)
    parent, _, name = path.rpartition(".")
    setattr(student.get_submodule(parent), name, nn.ModuleList([layers[i] for i in kept]))
    renumber(student.get_submodule(path))
    shorten(student.config, depth, kept)
    return student


def renumber(stack: nn.Module) -> None:
    """Gives each layer the number of its new place, which the cache of a decoder goes by."""
    for number, layer in enumerate(stack.children()):
        for inner in layer.modules():
            if isinstance(getattr(inner, "layer_idx", None), int):
                vars(inner)["layer_idx"] = number


def shorten(config: Any, depth: int, kept: list[int]) -> None:
    """Sets the new depth in the config, and picks the entries of its lists that have one for each layer."""
    for name, value in list(vars(config).items()):
        if isinstance(value, list) and len(value) == depth and "layer" in name:
            setattr(config, name, [value[i] for i in kept])
    config.num_hidden_layers = len(kept)
