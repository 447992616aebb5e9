"""Several teachers that answer as one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.errors import ModelError, RecipeError
from tutelage.forms import TopK
from tutelage.signals import Batch, Request, Signals, output_of
from tutelage.teachers.base import Teacher, TransferFacts, named_modules, refuse_members
from tutelage.teachers.gate import SampleGate
from tutelage.teachers.served import Reads, Served
from tutelage.teachers.settings import require_choice
from tutelage.teachers.vocabulary import require_same_ids

__all__ = ["Ensemble", "mean_logits", "mean_probabilities"]


class Ensemble(Teacher):
    """The weighted mean of what several teachers say. It supplies outputs only: the members' layers differ.

    With weights `w_k`, scaled to sum to 1, and the members' logits `z_k`:

    * `mean_of="probabilities"`, softmax outputs: answers `log Σ_k w_k softmax(z_k)`, which as logits give exactly the
      mean distribution at temperature 1.
    * `mean_of="probabilities"`, sigmoid outputs: answers the logits of `Σ_k w_k σ(z_k)`.
    * `mean_of="logits"`: answers `Σ_k w_k z_k`. It is also the mean for embeddings and regression values.

    With a gate, `w_k` is another for each sample `x`: `w_k g_k(x) / Σ_j w_j g_j(x)`. The gate works on what the members
    answered, so each of them may be remembered or remote for itself.

    Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015 (both means are named there).

    Args:
        members: The teachers; their outputs have one shape and the classes one order.
        mean_of: What the mean is taken of.
        weights: How much each member counts: one positive number each. None: all alike.
        axis: The class axis of the outputs.
        outputs: What turns logits into probabilities.
        gate: How much each member counts for each sample, beside the fixed weights.

    Raises:
        RecipeError: There is no member, the count of weights differs from theirs, or a weight is not positive.
    """

    def __init__(
        self,
        members: list[Teacher],
        mean_of: Literal["probabilities", "logits"] = "probabilities",
        *,
        weights: list[float] | None = None,
        axis: int = -1,
        outputs: Literal["softmax", "sigmoid"] = "softmax",
        gate: SampleGate | None = None,
    ) -> None:
        if not members:
            raise RecipeError(
                "teacher.members", expected="at least one teacher", found="none", mend="list the teachers"
            )
        if weights is not None and len(weights) != len(members):
            raise RecipeError(
                "teacher.weights",
                expected=f"one weight for each of the {len(members)} members",
                found=f"{len(weights)} weights",
                mend="give as many weights as members, or none for equal ones",
            )
        if weights is not None and not all(0 < weight < float("inf") for weight in weights):
            raise RecipeError(
                "teacher.weights",
                expected="positive numbers",
                found=f"{weights}",
                harm="a member that counts nothing, or against the others, is no part of a mean",
                mend="leave out members that should not count",
            )
        self.members = members
        self.mean_of = mean_of
        self.weights = weights
        self.axis = axis
        self.outputs = outputs
        self.gate = gate

    def load(self, device: torch.device) -> None:
        """Loads every member, and the gate.

        Raises:
            ModelError: Members name their classes in different orders, or there is no such mean.
        """
        require_choice("teacher.mean_of", self.mean_of, ("probabilities", "logits"))
        require_choice("teacher.outputs", self.outputs, ("softmax", "sigmoid"))
        for member in self.members:
            member.load(device)
        if self.gate is not None:
            self.gate.load(device)
        orders = {member.classes: index for index, member in enumerate(self.members) if member.classes}
        if len(orders) > 1:
            raise ModelError(
                "teacher.members",
                expected="the same classes in the same order",
                found="; ".join(f"members[{index}]: {', '.join(names)}" for names, index in orders.items()),
                harm="the mean would mix classes that don't belong together",
                mend="use members that were trained on the same classes",
            )

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of the members that know their names."""
        return next((member.classes for member in self.members if member.classes), ())

    @property
    def tokenizer_folder(self) -> Path | None:
        """The tokenizer of the members that read text.

        Raises:
            ModelError: Members read different token ids, so no one batch is right for all.
        """
        folders = [(i, folder) for i, m in enumerate(self.members) if (folder := m.tokenizer_folder) is not None]
        for index, folder in folders[1:]:
            require_same_ids(f"teacher.members[{index}]", reader=folder, encoder=folders[0][1])
        return folders[0][1] if folders else None

    def meet(self, facts: TransferFacts) -> None:
        """Passes it on to each."""
        for teacher in self.members:
            teacher.meet(facts)

    @property
    def notes(self) -> list[str]:
        """Those of each."""
        return [note for teacher in self.members for note in teacher.notes]

    def check(self, request: Request) -> None:
        """Raises a `ModelError` if features are requested, or a member can't supply its output."""
        refuse_members(self, request)
        if request.features:
            raise ModelError(
                f"features of {', '.join(f'`{path}`' for path in sorted(request.features))}",
                expected="a teacher that supplies features",
                found=f"{self.describe()}, which supplies its output only",
                mend="use a loss on outputs, or one of the members as the teacher",
            )
        for member in self.members:
            member.check(request)

    def ask(self, batch: Batch, request: Request) -> Signals:
        """The mean of the members' outputs, in float32 or wider.

        Raises:
            ModelError: Features are requested, or the members' outputs differ in shape or have no logits to take a
                mean of.
        """
        self.check(request)
        if not request.output:
            return Signals()
        return self._answer(batch, [member.ask(batch, request) for member in self.members])

    def _answer(self, batch: Batch, answers: list[Signals]) -> Signals:
        """The mean of what the members said."""
        self._require_logits(answers)
        outputs = [answer.dense() for answer in answers]
        self._require_alike(outputs)
        with torch.no_grad():
            combined = self.combine(batch, outputs)
            silences = [silent for answer in answers if (silent := answer.silent) is not None]
            if all(answer.top is None for answer in answers):
                return Signals(output=combined, answered=~torch.stack(silences).any(0) if silences else None)
            order = torch.arange(combined.shape[-1], device=combined.device).expand(combined.shape)
            p = combined.softmax(-1)
            for silent in silences:
                p = p.masked_fill(silent[..., None], 0)  # a mean without one of the members is not their mean
            return Signals(top=TopK.of_probabilities(p, order, combined.shape[-1]))

    @property
    def inner(self) -> dict[str, Teacher]:
        """The members, by their numbers."""
        return {str(index): member for index, member in enumerate(self.members)}

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The modules of the members, by the members' numbers."""
        return named_modules(self.inner)

    def as_module(self) -> nn.Module | None:
        """A module that runs all members and takes the mean, to be timed; None if a member is none.

        So it is with a gate that reads more than the inputs.
        """
        modules = [member.as_module() for member in self.members]
        members = [module for module in modules if module is not None]
        if len(members) < len(modules) or (self.gate is not None and self.gate.reads_rows):
            return None
        return EnsembleModule(members, self.combine, None if self.gate is None else self.gate.module)

    def served(self) -> Served | None:
        """All members and the gate; None if a member can't be timed."""
        members = [served for member in self.members if (served := member.served()) is not None]
        if len(members) < len(self.members):
            return None
        reads: frozenset[Reads] = frozenset().union(*(member.reads for member in members))
        gate = None if self.gate is None else self.gate.module
        if self.gate is not None and (gate is not None or self.gate.reads_rows):
            reads |= {"inputs", "raw"} if self.gate.reads_rows else {"inputs"}
        files = [member.files for member in members]
        return Served(
            open=lambda threads: self._opened([member.open(threads) for member in members]),
            reads=reads,
            files=None if None in files else tuple(file for some in files for file in some or ()),
            modules=(*(module for member in members for module in member.modules), *([] if gate is None else [gate])),
        )

    def _opened(self, members: list[Callable[[Batch], Signals]]) -> Callable[[Batch], Signals]:
        return lambda batch: self._answer(batch, [ask(batch) for ask in members])

    def combine(self, batch: Batch, outputs: list[Tensor]) -> Tensor:
        """The weighted mean of the members' outputs, in float32 or wider."""
        shares = self._log_shares(batch, outputs)
        if self.mean_of == "logits":
            return mean_logits(outputs, shares)
        return mean_probabilities(outputs, shares, axis=self.axis, outputs=self.outputs)

    def fingerprint(self) -> str:
        """SHA-256 of the members' fingerprints, their shares, and the kind of mean."""
        parts = [self.mean_of, self.outputs, str(self.axis), *(share.hex() for share in self._shares())]
        parts += [] if self.gate is None else [self.gate.fingerprint()]
        return hashlib.sha256("\n".join([*parts, *(m.fingerprint() for m in self.members)]).encode()).hexdigest()

    def describe(self) -> str:
        """How many members, the kind of mean, and who they are."""
        names = ", ".join(member.describe() for member in self.members)
        gate = "" if self.gate is None else f", {type(self.gate).__name__}"
        return f"Ensemble of {len(self.members)} (mean of {self.mean_of}{gate}): {names}"

    def _shares(self) -> list[float]:
        """The weights, scaled to sum to 1."""
        weights = self.weights or [1.0] * len(self.members)
        return [weight / sum(weights) for weight in weights]

    def _log_shares(self, batch: Batch, outputs: list[Tensor]) -> Tensor:
        """The logarithms of what each member counts, `[K, 1, ...]` for all samples or `[K, B, 1, ...]` for each."""
        wide = [widened(output) for output in outputs]
        shares = wide[0].new_tensor(self._shares()).log()[None]
        if self.gate is not None:
            weights = self.gate.log_weights(batch, wide, axis=self.axis, outputs=self.outputs)
            shares = torch.log_softmax(shares + weights.to(shares), dim=1)
        return shares.T.reshape(len(outputs), -1, *[1] * (outputs[0].dim() - 1))

    def _require_logits(self, answers: list[Signals]) -> None:
        """A class that a member does not name has no logit: a mean of logits would be of numbers that nobody told."""
        few = [m.describe() for m, answer in zip(self.members, answers, strict=True) if answer.top is not None]
        if few and (self.mean_of == "logits" or self.outputs == "sigmoid"):
            own = "teacher.mean_of" if self.mean_of == "logits" else "teacher.outputs"
            raise ModelError(
                own,
                expected="members that answer with logits of all classes",
                found=f"{few[0]}, which answers with labels or its likeliest classes alone",
                harm="a class that is not named has the logit minus infinity: there is no mean",
                mend="`mean_of: probabilities` with `outputs: softmax`",
            )

    def _require_alike(self, outputs: list[Tensor]) -> None:
        shapes = [tuple(output.shape) for output in outputs]
        if len(set(shapes)) > 1:
            found = "; ".join(f"{m.describe()}: {s}" for m, s in zip(self.members, shapes, strict=True))
            raise ModelError(
                "teacher.members",
                expected="outputs of one shape: the same classes in the same order",
                found=found,
                harm="the mean would mix classes that don't belong together",
                mend="use members that were trained on the same classes",
            )
        if self.mean_of == "probabilities" and self.outputs == "softmax":
            shape = shapes[0]
            # Of `[B]` the last axis is the batch: a softmax over it would mix the rows.
            if not -len(shape) < self.axis < len(shape) or self.axis == 0 or shape[self.axis] == 1:
                raise ModelError(
                    "teacher.mean_of",
                    expected=f"two classes or more on axis {self.axis} of the outputs",
                    found=f"outputs of shape {shape}",
                    harm="the softmax of a single value is 1 whatever the teacher says",
                    mend="`mean_of: logits` for values and embeddings, `outputs: sigmoid` for a single logit",
                )


class EnsembleModule(nn.Module):
    """The members of an ensemble and its gate as one module, called like each of them."""

    def __init__(
        self,
        members: list[nn.Module],
        combine: Callable[[Batch, list[Tensor]], Tensor],
        gate: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.combine = combine
        self.gate = gate

    def forward(self, *args: Tensor, **inputs: Tensor) -> Tensor:
        """The combined output of the members."""
        outputs = [output_of(member(*args, **inputs), "teacher") for member in self.members]
        rows = torch.arange(len(outputs[0])).neg() - 1  # of no transfer set
        return self.combine(Batch(inputs=args[0] if args else inputs, rows=rows, views=rows * 0), outputs)


def mean_logits(outputs: list[Tensor], log_shares: Tensor) -> Tensor:
    """`Σ_k w_k z_k`, in float32 or wider; `log_shares` are `log w_k`, `[K, ...]`."""
    stacked = torch.stack([widened(z) for z in outputs])
    # A member that does not count may have said anything.
    return torch.where(log_shares == -torch.inf, 0.0, stacked * log_shares.exp()).sum(0)


def mean_probabilities(
    logits: list[Tensor], log_shares: Tensor, *, axis: int = -1, outputs: Literal["softmax", "sigmoid"] = "softmax"
) -> Tensor:
    """Logits of `Σ_k w_k p_k`, computed on the log scale in float32 or wider, so that nothing underflows."""
    wide = [widened(z) for z in logits]

    def log_mean(log_probabilities: list[Tensor]) -> Tensor:
        return torch.logsumexp(torch.stack(log_probabilities) + log_shares, dim=0)

    if outputs == "softmax":
        return log_mean([F.log_softmax(z, dim=axis) for z in wide])
    return log_mean([F.logsigmoid(z) for z in wide]) - log_mean([F.logsigmoid(-z) for z in wide])


def widened(output: Tensor) -> Tensor:
    """The tensor in float32, or wider if it is."""
    return output.to(torch.promote_types(output.dtype, torch.float32))
