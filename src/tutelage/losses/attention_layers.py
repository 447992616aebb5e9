"""Losses between attention modules, from what their query, key and value projections put out."""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from tutelage.errors import SignalError
from tutelage.losses.base import Needs, Weight
from tutelage.losses.layer_pairs import LayerKind, PairedLoss, Pairs
from tutelage.losses.reduce import full_precision, mean_per_position, widen
from tutelage.losses.rows import keep_rows
from tutelage.signals import Batch, Request, Signals

__all__ = ["AttentionLayers", "hidden", "scores", "shown"]


def scores(query: Tensor, key: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """`q_h kᵀ_h / √d` of each head, what attention takes the softmax of: `[B, L, h·d]` twice -> `[B, h, L, L]`.

    Where the mask, `[B, L]`, is False, the score is 0, whatever stands there.
    """
    size, length, width = query.shape

    def of_heads(projection: Tensor) -> Tensor:
        cut = projection.reshape(size, length, heads, width // heads).transpose(1, 2)
        return cut if mask is None else keep_rows(cut, mask[:, None])

    with full_precision(query):
        return torch.matmul(of_heads(query) / math.sqrt(width // heads), of_heads(key).mT)


def shown(batch: Batch, length: int, *, causal: bool) -> Tensor | None:
    """Which keys a query sees, `[B, 1, 1, L]` or `[B, 1, L, L]` bool: no padding and, where `causal`, none that follow.

    None where all are seen.
    """
    keys = None if batch.mask is None or batch.mask.shape[1] != length else batch.mask[:, None, None, :]
    if not causal:
        return keys
    past = torch.ones(length, length, dtype=torch.bool, device=batch.rows.device).tril()
    return past[None, None] if keys is None else keys & past


def hidden(relation: Tensor, seen: Tensor | None) -> Tensor:
    """Scores with the lowest finite number where a key is not seen: infinity would be NaN in the divergence."""
    return relation if seen is None else relation.masked_fill(~seen, torch.finfo(relation.dtype).min)


class AttentionLayers(PairedLoss):
    """Base of the losses between attention modules: the mean, over pairs of modules, of what `compare` gives for one.

    Args:
        pairs: Student's attention module -> teacher's, each a dotted module path; or `auto`.
        weight: Factor of this term in the total.

    Raises:
        ValueError: There are no pairs.
    """

    compares: ClassVar[tuple[LayerKind, ...]] = ("attention",)

    def __init__(self, pairs: Pairs, *, weight: Weight = 1.0) -> None:
        super().__init__(pairs, weight=weight)

    @property
    @abc.abstractmethod
    def projections(self) -> tuple[str, ...]:
        """The arguments that name the projections in the student's modules; with `teacher_` before it the teacher's."""

    @property
    def taps(self) -> list[tuple[str, str]]:
        """The names of the projections within an attention module: the student's and the teacher's."""
        names = [(getattr(self, name), getattr(self, f"teacher_{name}")) for name in self.projections]
        return [(student, teacher or student) for student, teacher in names]

    @property
    def needs(self) -> Needs:
        """The features of the projections in the modules of `pairs`."""
        student = {f"{path}.{name}" for path in self.pairs for name, _ in self.taps}
        teacher = {f"{path}.{name}" for path in self.pairs.values() for _, name in self.taps}
        return Needs(student=Request(features=frozenset(student)), teacher=Request(features=frozenset(teacher)))

    @abc.abstractmethod
    def compare(self, path: str, student: Sequence[Tensor], teacher: Sequence[Tensor], batch: Batch) -> Tensor:
        """The loss of one pair at each token: `[B, L]`.

        Args:
            path: The student's attention module.
            student: What its projections put out, in the order of `taps`: `[B, L, D]`, float32 or wider, anything at
                padding.
            teacher: The same of the teacher's, without a gradient.
            batch: The rows.
        """

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
        """`[B, L]` where the rows have a token mask, else `[B]`, the mean over tokens: the mean over the pairs."""
        values = []
        for path, teacher_path in self.pairs.items():
            both = [
                widen(student.features[f"{path}.{name}"], teacher.features[f"{teacher_path}.{teacher_name}"])
                for name, teacher_name in self.taps
            ]
            self._require_tokens(path, both, batch)
            s, t = ([layer[side] for layer in both] for side in (0, 1))
            values.append(mean_per_position(self.compare(path, s, t, batch), batch))
        return torch.stack(values).mean(0)

    def require_heads(self, path: str, tensors: Sequence[Tensor], heads: int, *, model: str) -> None:
        """Raises a `SignalError` when the projections of one module differ in width or can't be cut into heads."""
        widths = [tensor.shape[-1] for tensor in tensors]
        if len(set(widths)) > 1 or widths[0] % heads:
            raise SignalError(
                f"{type(self).__name__} on {self._names(path)}",
                expected=f"projections of the {model} of one width, a multiple of its {heads} heads",
                found=f"widths {widths}",
                harm="the dot products would be those of no head",
                mend="set the number of heads that divides the width; where keys and values have fewer heads than "
                "queries (grouped-query attention), use ValueRelation on one of them",
            )

    def _require_tokens(self, path: str, both: Sequence[tuple[Tensor, Tensor]], batch: Batch) -> None:
        shapes = [tuple(layer[side].shape) for side in (0, 1) for layer in both]
        if any(len(shape) != 3 or shape[0] != len(batch) or shape[:2] != shapes[0][:2] for shape in shapes):
            raise SignalError(
                f"{type(self).__name__} on {self._names(path)}",
                expected=f"one vector a token, [B, L, D] with B = {len(batch)}, and one L, of all projections",
                found=f"shapes {', '.join(map(str, shapes))}",
                harm="tokens would be compared with other tokens",
                mend="name attention modules whose projections are linear maps of tokens, and give both models the "
                "same tokens",
            )

    def _names(self, path: str) -> str:
        student = " and ".join(f"`{path}.{name}`" for name, _ in self.taps)
        teacher = " and ".join(f"`{self.pairs[path]}.{name}`" for _, name in self.taps)
        return f"layer {student} of the student, paired with {teacher}"
