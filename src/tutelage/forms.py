"""The forms in which a teacher gives a distribution over classes.

Dense logits are a tensor. `TopK` is everything else: the likeliest classes with the mass of the rest, drawn samples
with their shares, or a label alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tutelage.errors import SignalError

__all__ = ["TopK"]


@dataclass(frozen=True, kw_only=True)
class TopK:
    """Some classes of a distribution, and the mass of all the others together.

    With `z` the logits, `S` the classes that are named and `T` a temperature, the probabilities at `T` are

        p_c = exp(z_c / T) / Z   for c in S,     p_rest = exp(tail) / Z,     Z = Σ_{c in S} exp(z_c / T) + exp(tail),

    with `tail = log Σ_{c not in S} exp(z_c / T)`. The tail of one temperature does not tell that of another, so there
    is one for each temperature that may be asked for.

    A row in which no slot is used is silent: nothing is known of it, and all the mass is in the rest. It teaches
    nothing, and evaluation leaves it out.

    A label alone is `k = 1` with nothing in the tail; shares of drawn samples, and probabilities that are rounded or
    cut off, are known at temperature 1.

    Attributes:
        indices: The classes, `[..., k]` int64. A slot that is not used repeats a class that is.
        logits: Their logits, or log-probabilities, `[..., k]`; -inf in slots that are not used.
        tails: `[..., n]`, one for each temperature; -inf where the other classes have no mass.
        temperatures: The `n` temperatures.
        classes: How many classes there are.
    """

    indices: Tensor
    logits: Tensor
    tails: Tensor
    temperatures: tuple[float, ...]
    classes: int

    @classmethod
    def of(cls, logits: Tensor, k: int, temperatures: Sequence[float] = (1.0,)) -> TopK:
        """The `k` likeliest of dense logits `[..., C]`."""
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        k = min(k, wide.shape[-1])
        top, indices = wide.topk(k, dim=-1)
        rest = wide.scatter(-1, indices, -torch.inf)
        tails = torch.stack([torch.logsumexp(rest / t, dim=-1) for t in temperatures], dim=-1)
        return cls(indices=indices, logits=top, tails=tails, temperatures=tuple(temperatures), classes=logits.shape[-1])

    @classmethod
    def of_probabilities(cls, probabilities: Tensor, indices: Tensor, classes: int) -> TopK:
        """Probabilities `[..., k]` of some classes, known at temperature 1; what is missing to 1 is the rest's.

        Slots with a probability of 0 are not used. Where the probabilities come to more than 1, as rounded ones may,
        or every class is named, the rest has nothing, and those that are named are scaled to come to 1.
        """
        wide = probabilities.to(torch.promote_types(probabilities.dtype, torch.float32))
        rest = (1 - wide.sum(-1, keepdim=True)).clamp(min=0)
        rest = torch.where(rest < 1e-6, 0.0, rest)  # what float32 makes of 1 - 1
        first = indices.gather(-1, wide.argmax(-1, keepdim=True))
        used = torch.where(wide > 0, indices, first)
        named = torch.zeros(*used.shape[:-1], classes, device=used.device).scatter(-1, used, 1.0).sum(-1, keepdim=True)
        rest = torch.where(named == classes, 0.0, rest)  # no class is left to have it
        return cls(indices=used, logits=wide.log(), tails=rest.log(), temperatures=(1.0,), classes=classes)

    @classmethod
    def of_labels(cls, labels: Tensor, classes: int) -> TopK:
        """Nothing but a class, `[...]` int64."""
        return cls.of_probabilities(torch.ones(*labels.shape, 1, device=labels.device), labels[..., None], classes)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that dense logits would have, `[..., C]`."""
        return (*self.indices.shape[:-1], self.classes)

    @property
    def silent(self) -> Tensor:
        """Where no class is named, `[...]` bool."""
        return (self.logits == -torch.inf).all(-1)

    def map(self, change: Callable[[Tensor], Tensor]) -> TopK:
        """The same with `change` applied to each tensor."""
        return replace(self, indices=change(self.indices), logits=change(self.logits), tails=change(self.tails))

    def log_probabilities(self, temperature: float) -> Tensor:
        """Of the named classes and, last, of the rest: `[..., k + 1]`, in float32 or wider.

        Raises:
            SignalError: The tail at this temperature is not known.
        """
        wide = torch.promote_types(self.logits.dtype, torch.float32)
        tail = self.tails[..., self._place(temperature)]
        scores = torch.cat([self.logits.to(wide) / temperature, tail[..., None].to(wide)], dim=-1)
        return torch.log_softmax(scores, dim=-1)

    def dense(self) -> Tensor:
        """Log-probabilities `[..., C]` at temperature 1, the mass of the rest spread evenly over its classes.

        Classes without mass are -inf. Where it is silent all are alike.
        """
        log_p = self.log_probabilities(1.0)
        others = self.classes - torch.zeros(self.shape, device=log_p.device).scatter(-1, self.indices, 1.0).sum(-1)
        even = log_p[..., -1:] - others.clamp(min=1).log()[..., None]
        dense = even.expand(self.shape).clone()
        used = self.logits > -torch.inf
        # Slots that are not used repeat a class: the likeliest value that a class is given is its own.
        dense.scatter_(-1, self.indices, -torch.inf)
        dense = dense.scatter_reduce(-1, self.indices, torch.where(used, log_p[..., :-1], -torch.inf), "amax")
        return torch.where(self.silent[..., None], -math.log(self.classes), dense)

    def _place(self, temperature: float) -> int:
        for place, known in enumerate(self.temperatures):
            if abs(known - temperature) <= 1e-9 * known:
                return place
        raise SignalError(
            "what the teacher says of its likeliest classes",
            expected=f"a temperature at which the mass of the others is known: {_listed(self.temperatures)}",
            found=f"temperature {temperature:g}",
            harm="the mass of the others at one temperature does not tell that at another",
            mend=f"set the loss's temperature to {self.temperatures[0]:g}, or have the teacher's answers stored for "
            "this one or as dense logits",
        )


def _listed(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)
