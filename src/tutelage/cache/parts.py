"""Signals as a flat list of named parts: what a cache stores a column for.

`output` is the output in either form, `features/PATH` the output of an inner layer, `members/NAME/...` the same of one
of several teachers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar, cast

import torch
from torch import Tensor

from tutelage.errors import ModelError
from tutelage.forms import TopK
from tutelage.signals import Request, Signals

__all__ = ["Part", "joined", "names_of", "parts_of", "request_of", "signals_of"]

Part = Tensor | TopK
"""One signal of some rows, first axis the rows (or the tokens that count)."""

T = TypeVar("T")
OUTPUT, FEATURES, MEMBERS = "output", "features/", "members/"


def parts_of(signals: Signals) -> dict[str, Part]:
    """The parts of signals, by name.

    Raises:
        ModelError: A row has no answer and the others have dense ones: that is no part.
    """
    if signals.answered is not None and not bool(signals.answered.all()):
        raise ModelError(
            "answers to be stored",
            expected="an answer to every row",
            found=f"{int((~signals.answered).sum())} rows without one",
            mend="take the teacher whose answers are columns of the data out of Cached: they are stored already",
        )
    said: Part | None = signals.output if signals.top is None else signals.top
    parts: dict[str, Part] = {} if said is None else {OUTPUT: said}
    parts |= {f"{FEATURES}{path}": tensor for path, tensor in signals.features.items()}
    for name, member in signals.members.items():
        parts |= {f"{MEMBERS}{name}/{inner}": part for inner, part in parts_of(member).items()}
    return parts


def signals_of(parts: Mapping[str, Part]) -> Signals:
    """The signals that parts are of: the inverse of `parts_of`."""
    said = parts.get(OUTPUT)
    return Signals(
        output=said if isinstance(said, Tensor) else None,
        top=said if isinstance(said, TopK) else None,
        features={n.removeprefix(FEATURES): cast("Tensor", p) for n, p in parts.items() if n.startswith(FEATURES)},
        members={name: signals_of(inner) for name, inner in _members(parts).items()},
    )


def names_of(request: Request) -> tuple[str, ...]:
    """The parts that a request asks for, in a fixed order."""
    names = [OUTPUT] if request.output else []
    names += [f"{FEATURES}{path}" for path in sorted(request.features)]
    for name in sorted(request.members):
        names += [f"{MEMBERS}{name}/{inner}" for inner in names_of(request.members[name])]
    return tuple(names)


def request_of(names: Iterable[str]) -> Request:
    """The request that asks for these parts: the inverse of `names_of`."""
    parts = dict.fromkeys(names)
    return Request(
        output=OUTPUT in parts,
        features=frozenset(name.removeprefix(FEATURES) for name in parts if name.startswith(FEATURES)),
        members={name: request_of(inner) for name, inner in _members(parts).items()},
    )


def joined(parts: Sequence[Part], order: Tensor | None = None) -> Part:
    """Parts of some rows after each other, in another order where one is given: row `i` is the `order[i]`-th of all.

    Where answers name different numbers of classes, all get as many places as the longest: `TopK` has unused ones.
    """
    if isinstance(parts[0], TopK):
        tops = [part for part in parts if isinstance(part, TopK)]
        k = max(top.indices.shape[-1] for top in tops)
        tops = [padded(top, k) for top in tops]
        first = tops[0]
        indices, logits, tails = (
            _ordered(torch.cat([getattr(top, name) for top in tops]), order) for name in ("indices", "logits", "tails")
        )
        return TopK(indices=indices, logits=logits, tails=tails, temperatures=first.temperatures, classes=first.classes)
    return _ordered(torch.cat([part for part in parts if isinstance(part, Tensor)]), order)


def padded(top: TopK, k: int) -> TopK:
    """The same with `k` places: further ones are not used, and repeat a class that is."""
    more = k - top.indices.shape[-1]
    if more <= 0:
        return top
    first = top.indices.gather(-1, top.logits.argmax(-1, keepdim=True))
    return TopK(
        indices=torch.cat([top.indices, first.expand(*first.shape[:-1], more)], dim=-1),
        logits=torch.nn.functional.pad(top.logits, (0, more), value=-torch.inf),
        tails=top.tails,
        temperatures=top.temperatures,
        classes=top.classes,
    )


def _ordered(tensor: Tensor, order: Tensor | None) -> Tensor:
    return tensor if order is None else tensor[order]


def _members(parts: Mapping[str, T]) -> dict[str, dict[str, T]]:
    """Parts of members, by member and by their names there."""
    found: dict[str, dict[str, T]] = {}
    for name, part in parts.items():
        if name.startswith(MEMBERS):
            member, _, inner = name.removeprefix(MEMBERS).partition("/")
            found.setdefault(member, {})[inner] = part
    return found
