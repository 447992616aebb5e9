"""Cutting a Hugging Face model in depth: a copy with some of its layers."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from tutelage.errors import ModelError

__all__ = ["copy_layers", "layer_list", "layer_list_path"]

NUMBERS = {"layer_id", "layer_idx", "layer_index", "layer_num", "layer_number"}
"""Attributes by which a layer of transformers, or a part of one, knows its place in the stack."""


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
        groups = getattr(model.config, "num_hidden_groups", None)
        shared = "" if groups is None else f", whose {depth} layers share the weights of {groups} group(s)"
        raise ModelError(
            "student.layers",
            expected=f"a teacher with one stack of num_hidden_layers ({depth}) layers",
            found=f"{type(model).__name__} with {', '.join(f'`{path}`' for path in found) or 'none'}{shared}",
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
    renumber(student.get_submodule(path), kept)
    shorten(student.config, depth, kept)
    return student


def renumber(stack: nn.Module, kept: list[int]) -> None:
    """Gives each layer the number of its new place, which the cache of a decoder goes by."""
    for number, (old, layer) in enumerate(zip(kept, stack.children(), strict=True)):
        for inner in layer.modules():
            for name in NUMBERS & vars(inner).keys():
                if type(vars(inner)[name]) is int and vars(inner)[name] == old:
                    vars(inner)[name] = number


def shorten(config: Any, depth: int, kept: list[int]) -> None:
    """Sets the new depth in the config and in its lists about layers.

    Of a list with one entry for each layer (`layer_types`) those of the layers that stay are kept; a list of layers'
    numbers (`mlp_only_layers`) names the same layers by their new numbers.
    """
    for name, value in list(vars(config).items()):
        if not isinstance(value, (list, tuple)) or "layer" not in name:
            continue
        if value and all(type(each) is int and each < depth for each in value) and list(value) == sorted(set(value)):
            setattr(config, name, [kept.index(each) for each in value if each in kept])
        elif len(value) == depth:
            setattr(config, name, [value[i] for i in kept])
    if getattr(config, "num_hidden_groups", None) == depth:  # ALBERT, each of whose layers has weights of its own
        config.num_hidden_groups = len(kept)
    config.num_hidden_layers = len(kept)
