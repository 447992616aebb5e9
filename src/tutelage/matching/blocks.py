"""Blocks: the layers of a model that a person would compare, out of all that one forward pass reaches."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tutelage.losses.layer_pairs import LayerKind
from tutelage.signals import Batch, Request
from tutelage.taps import Layer, layers, observe

__all__ = ["Block", "find_attention", "find_blocks", "token_maps"]


@dataclass(frozen=True, kw_only=True)
class Block:
    """A layer that may be paired.

    Attributes:
        path: Its dotted module path.
        kind: What it puts out.
        shape: The shape of that, without the batch.
    """

    path: str
    kind: LayerKind
    shape: tuple[int, ...]

    @property
    def size(self) -> tuple[int, ...]:
        """Height and width of maps, the length of token sequences: what a pair may have to agree in."""
        length = self.shape[:1]
        return {"maps": self.shape[1:], "tokens": length, "attention": length, "vectors": ()}[self.kind]


def find_blocks(module: nn.Module, batch: Batch) -> list[Block]:
    """The blocks of a model in the order of the calls, of each kind: maps, then tokens, then vectors.

    Only layers that one forward pass calls once are looked at, and none whose output is the model's.

    * Maps: the ends of stages, that is the last layer before the resolution changes. A block in which it changes (a
      residual block that halves it) counts as one layer, a container of several stages as its parts. Maps of a single
      place are left out: they are pooled.
    * Tokens: the blocks of the stack, that is layers of one class beside each other.
    * Vectors: each weight layer together with the activations that follow it.

    The module has to be in eval mode.
    """
    tree = _Tree(module, batch)
    found: list[tuple[LayerKind, list[Layer]]] = [
        ("maps", tree.stage_ends()),
        ("tokens", tree.stack()),
        ("vectors", tree.hidden_layers()),
    ]
    return [Block(path=x.path, kind=kind, shape=x.shape[1:]) for kind, of_kind in found for x in of_kind]


def find_attention(module: nn.Module, batch: Batch, projections: Sequence[str]) -> list[Block]:
    """The modules that have all these projections, in the order of the calls, with the shape of what the first gives.

    Projections put out tokens `[B, L, D]`, all with one `L`: where queries and keys are of other sequences it is no
    self-attention.

    Args:
        module: The model, in eval mode.
        batch: Rows to trace it with.
        projections: Their dotted paths within an attention module.
    """
    tokens = {path: x.shape for path, x in _Tree(module, batch).nodes.items() if len(x.shape) == 3}
    ends = [f".{name}" for name in projections]
    found = []
    for path in (path.removesuffix(ends[0]) for path in tokens if path.endswith(ends[0])):
        shapes = [tokens[path + end] for end in ends if path + end in tokens]
        if len(shapes) == len(ends) and len({shape[1] for shape in shapes}) == 1:
            found.append(Block(path=path, kind="attention", shape=shapes[0][1:]))
    return found


def token_maps(module: nn.Module, batch: Batch) -> dict[str, list[str]]:
    """Linear maps of tokens `[B, L, D]` beside each other: the module that they are in -> their names in it.

    Where the names are those of an earlier module, it is left out: the layers of a stack are alike.
    """
    tree = _Tree(module, batch)
    beside: dict[str, list[str]] = defaultdict(list)
    for path, layer in tree.nodes.items():
        inner = tree.modules[path]
        weight = None if isinstance(inner, nn.Embedding) else getattr(inner, "weight", None)
        if len(layer.shape) == 3 and "." in path and isinstance(weight, Tensor) and weight.dim() == 2:
            beside[path.rpartition(".")[0]].append(path.rpartition(".")[2])
    return {path: names for path, names in beside.items() if next(p for p in beside if beside[p] == names) == path}


def _kind(shape: tuple[int, ...]) -> LayerKind | None:
    if len(shape) == 4 and shape[2] * shape[3] > 1:
        return "maps"
    kinds: dict[int, LayerKind] = {3: "tokens", 2: "vectors"}
    return kinds.get(len(shape))


class _Tree:
    """The layers of one forward pass as a tree: those within a layer are its children, in the order of the calls."""

    def __init__(self, module: nn.Module, batch: Batch) -> None:
        self.modules = dict(module.named_modules())
        once = [x for x in layers(module, batch.inputs) if x.calls == 1 and x.shape[:1] == (len(batch),)]
        with torch.no_grad():
            says = observe(module, batch.inputs, Request(output=True, features=frozenset(x.path for x in once)))
        assert says.output is not None
        self.output = says.output
        nodes = {x.path: x for x in once if says.features[x.path].is_floating_point()}
        self.final = {path for path in nodes if torch.equal(says.features[path], self.output)}
        self.children: dict[str, list[Layer]] = defaultdict(list)
        for path, layer in nodes.items():
            parent = path.rpartition(".")[0]
            while parent and parent not in nodes:  # a list of modules is not called itself
                parent = parent.rpartition(".")[0]
            self.children[parent].append(layer)
        self.nodes = nodes
        tensors = batch.inputs.values() if isinstance(batch.inputs, dict) else [batch.inputs]
        self.input_size = next((tuple(t.shape[2:]) for t in tensors if isinstance(t, Tensor) and t.dim() == 4), None)

    def kind(self, layer: Layer) -> LayerKind | None:
        """What a layer puts out; None for what is of no such kind, and for the model's own output."""
        return None if layer.path in self.final else _kind(layer.shape)

    def stage_ends(self) -> list[Layer]:
        """The last layer of each run of one resolution."""
        runs = itertools.groupby(self._maps("", self.input_size), key=lambda layer: layer.shape[2:])
        return [list(run)[-1] for _, run in runs]

    def _maps(self, parent: str, size: tuple[int, ...] | None) -> list[Layer]:
        """The layers with maps one after the other; `size` is the resolution that comes in."""
        found: list[Layer] = []
        for layer in self.children[parent]:
            inner = self._maps(layer.path, size)
            if self.kind(layer) == "maps":
                # With one new resolution it is a block: what goes on inside, at the size that comes in, ends no stage.
                sizes = {x.shape[2:] for x in (*inner, layer)} - {size}
                found += [*inner, layer] if len(sizes) > 1 else [layer]
            else:
                found += inner
            size = found[-1].shape[2:] if found else size
        return found

    def stack(self) -> list[Layer]:
        """Layers of one class beside each other, made of layers themselves; the outermost such groups."""
        groups: dict[tuple[str, str], list[Layer]] = defaultdict(list)
        for path, layer in self.nodes.items():
            if self.kind(layer) == "tokens" and self.children[path]:
                groups[path.rpartition(".")[0], layer.kind].append(layer)
        several = [group for group in groups.values() if len(group) > 1]
        # A stack of one layer is still a list of modules; where there is no list either, what is outermost.
        listed = [group for (parent, _), group in groups.items() if isinstance(self.modules[parent], nn.ModuleList)]
        chosen = [x for group in several or listed or list(groups.values()) for x in group]
        paths = tuple(f"{x.path}." for x in chosen)
        order = list(self.nodes)
        outermost = [x for x in chosen if not x.path.startswith(paths)]
        return sorted(outermost, key=lambda x: order.index(x.path))

    def hidden_layers(self) -> list[Layer]:
        """Weight layers with the activations that follow."""
        found = self._vectors("")
        while len(found) == 1 and len(inner := self._vectors(found[0].path)) > 1:
            found = [*inner[:-1], found[0]]
        known = any(self._has_weights(path) and not self.children[path] for path in self.final)
        if found and not known and found[-1].shape == tuple(self.output.shape):
            return found[:-1]  # the logits, of which the model's output is a function (a softmax)
        return found

    def _vectors(self, parent: str) -> list[Layer]:
        found: list[Layer] = []
        for layer in self.children[parent]:
            inner = self._vectors(layer.path)
            if self.kind(layer) is None:
                found += inner
            elif self.kind(layer) != "vectors":
                continue  # vectors within a layer of maps or tokens (squeeze and excitation) are its own affair
            elif len(inner) > 1 and isinstance(self.modules[layer.path], nn.Sequential):
                found += [*inner[:-1], layer]
            elif self._has_weights(layer.path):
                found.append(layer)
            elif found:
                found[-1] = layer
        return found

    def _has_weights(self, path: str) -> bool:
        """Whether it holds matrices; a norm has gains alone."""
        return any(parameter.dim() > 1 for parameter in self.modules[path].parameters())
