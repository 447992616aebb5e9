"""Cutting a Hugging Face encoder in width: fewer residual channels, heads and intermediate units.

Each dimension of each weight has a role: it runs over the residual channels of the model, the heads of a layer or the
intermediate units of a layer. The roles tell both how much a channel, head or unit weighs and what is sliced.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.errors import ModelError
from tutelage.students.depth import layer_list, layer_list_path

__all__ = ["Widths", "cut_width", "planned_widths"]

CHANNELS, HEADS, UNITS = "channels", "heads", "units"
Role = tuple[str, int]
"""What a dimension runs over, and in which layer (-1: the whole model)."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Where a layer has its projections, and what the config calls the intermediate size."""

    query: str
    key: str
    value: str
    mix: str
    up: str
    down: str
    intermediate: str

    def roles(self, layer: int) -> dict[str, tuple[Role, Role]]:
        """The roles of (output, input) of each projection in layer number `layer`."""
        channels, heads, units = (CHANNELS, -1), (HEADS, layer), (UNITS, layer)
        into_heads = dict.fromkeys((self.query, self.key, self.value), (heads, channels))
        return {**into_heads, self.mix: (channels, heads), self.up: (units, channels), self.down: (channels, units)}


BLOCKS = (
    Block(  # BERT, MiniLM, RoBERTa, XLM-R, CamemBERT
        query="attention.self.query",
        key="attention.self.key",
        value="attention.self.value",
        mix="attention.output.dense",
        up="intermediate.dense",
        down="output.dense",
        intermediate="intermediate_size",
    ),
    Block(  # DistilBERT
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        mix="attention.out_lin",
        up="ffn.lin1",
        down="ffn.lin2",
        intermediate="hidden_dim",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Widths:
    """The widths of a student and the kind of its blocks."""

    block: Block
    hidden_size: int
    heads: int
    intermediate_size: int


def planned_widths(
    model: Any, stack: nn.ModuleList, *, hidden_size: int | None, heads: int | None, intermediate_size: int | None
) -> Widths:
    """The widths that are asked for, checked against the model; None keeps the teacher's.

    Raises:
        ModelError: The model's blocks are not supported, a width is larger than the teacher's, or hidden size and heads
            don't go together.
    """
    config = model.config
    block = next((b for b in BLOCKS if all(fits(layer, b, config) for layer in stack)), None)
    if block is None:
        raise ModelError(
            "student",
            expected="a teacher built of BERT's or DistilBERT's blocks, to cut its width",
            found=type(model).__name__,
            mend="cut its depth only (`layers`), or give the student as a module of its own (ModuleStudent)",
        )
    size = config.hidden_size // config.num_attention_heads
    if hidden_size is None:
        hidden_size = config.hidden_size if heads is None else heads * size
    if heads is None:
        heads = hidden_size // size
    if heads * size != hidden_size:
        near = max(1, round(hidden_size / size))
        raise ModelError(
            "student.hidden_size",
            expected=f"heads x {size}, the size of the teacher's heads",
            found=f"hidden_size {hidden_size} with {heads} heads",
            harm="heads of another size would mix weights that don't belong together",
            mend=f"hidden_size {near * size} has {near} heads; leave `heads` out to have them follow",
        )
    wide = getattr(config, block.intermediate)
    intermediate_size = wide if intermediate_size is None else intermediate_size
    no_wider("hidden_size", hidden_size, config.hidden_size)
    no_wider("intermediate_size", intermediate_size, wide)
    return Widths(block=block, hidden_size=hidden_size, heads=heads, intermediate_size=intermediate_size)


def no_wider(name: str, new: int, old: int) -> None:
    """Raises a `ModelError` if a cut would make the student wider than its teacher."""
    if new > old:
        raise ModelError(f"student.{name}", expected=f"at most the teacher's {old}", found=f"{new}")


def fits(layer: nn.Module, block: Block, config: Any) -> bool:
    """Whether a layer has the block's projections, in the shapes of ordinary multi-head attention."""
    names = dict(layer.named_modules())
    hidden, units = config.hidden_size, getattr(config, block.intermediate, None)
    sizes = {CHANNELS: hidden, HEADS: hidden, UNITS: units}
    return all(
        isinstance(linear := names.get(path), nn.Linear)
        and tuple(linear.weight.shape) == tuple(sizes[kind] for kind, _ in roles)
        for path, roles in block.roles(0).items()
    )


def cut_width(model: Any, widths: Widths) -> Any:
    """A new model of the same class with these widths and the heaviest channels, heads and units of `model`.

    Raises:
        ModelError: The class has a weight that none of the roles explains.
    """
    config = copy.deepcopy(model.config)
    setattr(config, widths.block.intermediate, widths.intermediate_size)
    config.hidden_size, config.num_attention_heads = widths.hidden_size, widths.heads
    student = type(model)(config)
    for name, child in model._modules.items():
        if child is None:  # a pooler that was taken out
            setattr(student, name, None)
    weights = model.state_dict()
    roles = all_roles(model, student, widths)
    kept = kept_indices(model, roles, widths)
    student.load_state_dict({name: sliced(weights[name], roles[name], kept) for name in roles})
    return student.to(model.device)


def all_roles(model: Any, student: Any, widths: Widths) -> dict[str, tuple[Role | None, ...]]:
    """The role of each dimension of each weight; None for one that stays whole.

    Outside the projections of its layers a model has one width, the residual channels'.
    """
    projections: dict[str, tuple[Role, Role]] = {}
    path = layer_list_path(model)
    for number in range(len(layer_list(model))):
        for name, roles in widths.block.roles(number).items():
            projections[f"{path}.{number}.{name}"] = roles
    targets = student.state_dict()
    found: dict[str, tuple[Role | None, ...]] = {}
    for name, weight in model.state_dict().items():
        target = tuple(targets[name].shape) if name in targets else ()
        owner = name.rpartition(".")[0]
        if owner in projections:
            found[name] = projections[owner][: weight.dim()]
        else:
            found[name] = tuple(
                (CHANNELS, -1) if (old, new) == (model.config.hidden_size, widths.hidden_size) else None
                for old, new in zip(weight.shape, target, strict=False)
            )
        if name not in targets or not explains(found[name], tuple(weight.shape), target):
            refuse_weight(model, name, tuple(weight.shape), target)
    for name in targets.keys() - found.keys():
        refuse_weight(model, name, (), tuple(targets[name].shape))
    return found


def explains(roles: tuple[Role | None, ...], old: tuple[int, ...], new: tuple[int, ...]) -> bool:
    """Whether each dimension that changes has a role."""
    return len(roles) == len(old) == len(new) and all(
        role is not None or a == b for role, a, b in zip(roles, old, new, strict=True)
    )


def refuse_weight(model: Any, name: str, old: tuple[int, ...], new: tuple[int, ...]) -> None:
    """Raises the `ModelError` about a weight that can't be cut by the rule."""
    raise ModelError(
        "student",
        expected="a teacher whose every weight has the width of its residual channels, heads or intermediate units",
        found=f"`{name}` of {type(model).__name__}: {old or 'none'} in the teacher, {new or 'none'} in the student",
        mend="cut its depth only (`layers`), or give the student as a module of its own (ModuleStudent)",
    )


def kept_indices(model: Any, roles: dict[str, tuple[Role | None, ...]], widths: Widths) -> dict[Role, Tensor]:
    """The indices to keep along each role: the heaviest, in their old order.

    A channel weighs what its LayerNorm gains do, which scale it for all that read it. Its rows and columns in the
    matrices are a worse guide than chance: on MiniLM, cut to 320 channels of 384 and not trained, the similarities of
    400 sentences correlate with the teacher's by 0.80 with the gains, 0.61 with the matrices, 0.64 to 0.75 at random.
    """
    scores: dict[Role, Tensor] = {}
    norms = {f"{path}.weight" for path, inner in model.named_modules() if isinstance(inner, nn.LayerNorm)}
    for name, weight in model.state_dict().items():
        for dim, role in enumerate(roles[name]):
            if role is not None and (name in norms if role[0] == CHANNELS else weight.dim() == 2):
                scores[role] = scores.get(role, 0) + share(weight, dim)
    return {role: kept_of(role, score, widths) for role, score in scores.items()}


def share(weight: Tensor, dim: int) -> Tensor:
    """Each index's share in the squared weights of a tensor, along `dim`; the shares sum to 1."""
    squares = weight.detach().float().square().movedim(dim, 0).reshape(weight.shape[dim], -1).sum(1)
    return squares / squares.sum().clamp(min=torch.finfo(torch.float32).tiny)


def kept_of(role: Role, score: Tensor, widths: Widths) -> Tensor:
    """The indices to keep along one role; a head is kept or left as a whole."""
    if role[0] == HEADS:
        size = widths.hidden_size // widths.heads
        heads = heaviest(score.view(-1, size).sum(1), widths.heads)
        return (heads[:, None] * size + torch.arange(size, device=heads.device)).flatten()
    return heaviest(score, widths.hidden_size if role[0] == CHANNELS else widths.intermediate_size)


def heaviest(score: Tensor, count: int) -> Tensor:
    """The indices of the `count` largest scores, in ascending order; of equal ones the first."""
    return torch.argsort(score, descending=True, stable=True)[:count].sort().values


def sliced(weight: Tensor, roles: tuple[Role | None, ...], kept: dict[Role, Tensor]) -> Tensor:
    """A weight with what is kept along each of its dimensions."""
    for dim, role in enumerate(roles):
        if role is not None:
            weight = weight.index_select(dim, kept[role])
    return weight
