"""Contrastive representation distillation: a sample is nearer to itself in the other model than to others (CRD)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor

from tutelage.errors import SignalError
from tutelage.losses.base import Loss, Needs, Weight, require_choice
from tutelage.losses.logits import require_positive
from tutelage.losses.projectors import Projectors
from tutelage.losses.reduce import full_precision, unit, widen
from tutelage.signals import Batch, Request, Signals

__all__ = ["ContrastiveRepresentation", "noise_contrastive"]


def noise_contrastive(positive: Tensor, all_: Tensor, own: Tensor, log_odds: Tensor) -> Tensor:
    """`-log h(z⁺) - Σ_k log(1 - h(z_k))` with `h(z) = e^z / (e^z + c)`, and `own` left out of the sum: `[B]`.

    Args:
        positive: `z⁺`, `[B]`.
        all_: `z_k` for each entry of the memory, `[B, K]`.
        own: The entry that is the sample's own, `[B]`, or -1.
        log_odds: `log c`, `[B]`.
    """
    # -log h = softplus(log c - z), and -log(1 - h) = softplus(z - log c); logsigmoid would save a second tensor.
    at_own = all_.gather(1, own.clamp(min=0)[:, None])[:, 0]
    of_own = torch.where(own >= 0, F.softplus(at_own - log_odds), 0.0)
    return F.softplus(log_odds - positive) + F.softplus(all_ - log_odds[:, None]).sum(1) - of_own


class ContrastiveRepresentation(Loss):
    """`-log h(u, v) - Σ_n log(1 - h(u, v_n))`, plus the same with `u` and `v` exchanged.

    `h(u, v) = e^{u·v/τ} / (e^{u·v/τ} + N/M)` says whether two embeddings are of one sample; `N` is the number of
    negatives and `M` that of the rows of the transfer set. `u` and `v` are unit vectors: linear embeddings of what
    student and teacher say, both trained with the loss and not shipped. The teacher's embedding is trained, the teacher
    is not.

    The negatives are all entries of a memory of the `memory` rows that came last, but for the row itself; at first they
    are random unit vectors. The memory takes in what all processes saw once a step of the optimiser is done: it is the
    same for any number of processes and of pieces of a batch, is stored with the loss and resumed, and draws nothing at
    random. A row that comes again takes the place of its own entry.

    Variants: in "paper" the positive is the pair at hand, and an entry is what was said of a row last. In "official"
    (the authors' code) the positive, too, is in the memory (the pair at hand until it is) and an entry is a running
    mean with a `momentum`, `unit(m · old + (1 - m) · new)`. The code keeps an entry for each row of the data and draws
    `N` of them; it also divides `e^{u·v/τ}` by a constant `Z`, the mean of the first batch times `M`. Both
    are left out here: `Z` has to be the same on every process and after a resumed run, and what one random batch gave
    with untrained weights is no property of the data.

    Shapes: layers `[B, D']` and `[B, D]` -> `[B]`.

    When to use it: classification and embeddings, on the pooled features; beside `KLDivergence` as a rule. The value is
    a sum over `N` negatives: weights of 1 or less are usual (0.8 in the paper).

    Cost: `2·B·N·width` multiplications forward, twice that backward; `memory · width` numbers for each model.

    Source: Tian, Krishnan, Isola, "Contrastive Representation Distillation", 2020.

    Args:
        layer: The student's layer, a dotted module path.
        teacher_layer: The teacher's.
        width: Of the embeddings.
        memory: How many rows are remembered, 2 or more; the number of negatives. At most the number of rows is filled.
        temperature: `τ > 0`.
        variant: Which of the two forms above.
        momentum: `m` of "official", from 0 up to, but not including, 1.
        weight: Factor of this term in the total.

    Raises:
        ValueError: A number is out of its range, or `variant` is none of its choices.
    """

    student_memory: Tensor | None
    teacher_memory: Tensor | None
    memory_rows: Tensor | None
    memory_next: Tensor | None

    def __init__(
        self,
        layer: str,
        teacher_layer: str,
        *,
        width: int = 128,
        memory: int = 16384,
        temperature: float = 0.07,
        variant: Literal["paper", "official"] = "official",
        momentum: float = 0.5,
        weight: Weight = 1.0,
    ) -> None:
        super().__init__(weight=weight)
        if width < 1 or memory < 2:
            raise ValueError(f"width must be 1 or more, memory 2 or more, found {width} and {memory}")
        require_positive("temperature", temperature)
        require_choice("variant", variant, ("paper", "official"))
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be 0 or more and below 1, found {momentum}")
        self.layer = layer
        self.teacher_layer = teacher_layer
        self.width = width
        self.memory = memory
        self.temperature = temperature
        self.variant = variant
        self.momentum = momentum
        self.projectors = Projectors()
        for name in ("student_memory", "teacher_memory", "memory_rows", "memory_next"):
            self.register_buffer(name, None)
        self._seen: list[tuple[Tensor, Tensor, Tensor]] = []

    @property
    def needs(self) -> Needs:
        """The features of both layers."""
        return Needs(
            student=Request(features=frozenset({self.layer})), teacher=Request(features=frozenset({self.teacher_layer}))
        )

    def prepare(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        """Makes the embeddings and the memory.

        Raises:
            SignalError: A layer gives no vectors, or the embeddings are there already for other widths.
        """
        features = {"student": student.features[self.layer], "teacher": teacher.features[self.teacher_layer]}
        for (model, vectors), path in zip(features.items(), (self.layer, self.teacher_layer), strict=True):
            if vectors.dim() != 2 or len(vectors) != len(batch):
                raise SignalError(
                    f"ContrastiveRepresentation on layer `{path}` of the {model}",
                    expected=f"one vector a sample, [B, D], of a batch of {len(batch)}",
                    found=f"shape {tuple(vectors.shape)}",
                    mend="name the layer after the pooling",
                )
            self.projectors.ensure(model, vectors, vectors.new_empty(1, self.width), bias=True, always=True)
        if self.memory_rows is None:
            self._make_memory(features["student"])
        super().prepare(student, teacher, batch)

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
        """`[B]`."""
        assert self.student_memory is not None and self.teacher_memory is not None and self.memory_rows is not None
        s, t = widen(student.features[self.layer], teacher.features[self.teacher_layer])
        u, v = (unit(self.projectors.project(name, x)) for name, x in (("student", s), ("teacher", t)))
        if torch.is_grad_enabled():
            self._seen.append((batch.rows, u.detach(), v.detach()))
        matches = self.memory_rows == batch.rows[:, None]
        found = matches.any(1)
        own = torch.where(found, matches.int().argmax(1), -1)
        log_odds = ((self.memory - found.to(u.dtype)) / self.rows).log()
        return self._one_way(u, v, self.teacher_memory.to(u.dtype), own, log_odds) + self._one_way(
            v, u, self.student_memory.to(u.dtype), own, log_odds
        )

    def _one_way(self, anchor: Tensor, partner: Tensor, memory: Tensor, own: Tensor, log_odds: Tensor) -> Tensor:
        """The sum for one side as the anchor: `[B]`."""
        if self.variant == "official":
            partner = torch.where(own[:, None] >= 0, memory[own.clamp(min=0)], partner)
        positive = (anchor * partner).sum(1) / self.temperature
        with full_precision(anchor):
            all_ = (anchor / self.temperature) @ memory.T
        return noise_contrastive(positive, all_, own, log_odds)

    @torch.no_grad()
    def after_step(self) -> None:
        """Takes in what every process saw since the last step, in the order of the processes and pieces."""
        assert self.student_memory is not None and self.teacher_memory is not None
        memory = self.student_memory
        none = (memory.new_empty(0, dtype=torch.long), memory[:0], memory[:0])
        rows, u, v = (torch.cat(parts) for parts in zip(none, *self._seen, strict=True))
        self._seen.clear()
        pair = _of_all_processes(torch.cat([u, v], 1).to(memory.dtype))
        self._remember(_of_all_processes(rows), pair[:, : self.width], pair[:, self.width :])

    def _remember(self, rows: Tensor, u: Tensor, v: Tensor) -> None:
        """Rows that are in the memory take their own places, new ones those of the oldest."""
        assert self.student_memory is not None and self.teacher_memory is not None
        assert self.memory_rows is not None and self.memory_next is not None
        last = ~(rows[:, None] == rows).triu(1).any(1)  # of a row that was seen twice, the later view
        rows, u, v = rows[last][-self.memory :], u[last][-self.memory :], v[last][-self.memory :]
        matches = self.memory_rows == rows[:, None]
        known = matches.any(1)
        places = matches.int().argmax(1)[known]
        new = ~known
        oldest = (self.memory_next + torch.arange(int(new.sum()), device=rows.device)) % self.memory
        for memory, said in ((self.student_memory, u), (self.teacher_memory, v)):
            again = said[known]
            if self.variant == "official":
                again = unit(self.momentum * memory[places] + (1 - self.momentum) * again)
            memory[places] = again
            memory[oldest] = said[new]
        self.memory_rows[oldest] = rows[new]
        self.memory_next.copy_((self.memory_next + len(oldest)) % self.memory)

    def _make_memory(self, like: Tensor) -> None:
        dtype = torch.promote_types(like.dtype, torch.float32)
        for name in ("student_memory", "teacher_memory"):
            drawn = torch.randn(self.memory, self.width, dtype=dtype)
            self.register_buffer(name, unit(drawn).to(like.device))
        self.register_buffer("memory_rows", torch.full((self.memory,), -1, device=like.device))
        self.register_buffer("memory_next", torch.zeros((), dtype=torch.long, device=like.device))


def _of_all_processes(local: Tensor) -> Tensor:
    """The rows of every process, one process after the other; they may have different numbers of rows."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return local
    count = torch.tensor([len(local)], device=local.device)
    counts = [torch.zeros_like(count) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(counts, count)
    lengths = [int(length) for length in counts]
    padded = local.new_zeros(max(lengths), *local.shape[1:])
    padded[: len(local)] = local
    pieces = [torch.empty_like(padded) for _ in lengths]
    torch.distributed.all_gather(pieces, padded)
    return torch.cat([piece[:length] for piece, length in zip(pieces, lengths, strict=True)])
