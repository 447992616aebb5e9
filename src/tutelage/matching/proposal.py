"""Proposals: pairs of layers with their reasons, to be read, to be trained on or to be pasted into a recipe."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import yaml
from torch import Tensor

from tutelage.errors import ModelError, RecipeError
from tutelage.losses.layer_pairs import LayerKind
from tutelage.matching.blocks import Block
from tutelage.matching.similarity import best_pairing, cka
from tutelage.recipe import Match, MatchBy

__all__ = ["Proposal", "as_recipe", "propose"]

Grams = Callable[[list[str]], dict[str, Tensor]]
"""The centred Gram matrices of layers: computed only where they are asked for."""
Found = list[tuple[int, int, str]]
"""Positions of the student's and of the teacher's layer, and the reason."""


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """Which layers of the student are to be compared with which of the teacher's.

    Attributes:
        key: Whose pairs they are: a loss of the recipe, or the two models.
        by: How they were found.
        pairs: Student's layer, teacher's layer, and the reason: place in the stack, resolution, or CKA.
        left: The blocks of student and teacher that are in no pair.
        notes: What the user should know.
    """

    key: str
    by: MatchBy
    pairs: list[tuple[Block, Block, str]]
    left: tuple[list[Block], list[Block]]
    notes: list[str] = field(default_factory=list)

    @property
    def layers(self) -> dict[str, str]:
        """Student's layer -> teacher's layer."""
        return {student.path: teacher.path for student, teacher, _ in self.pairs}

    def summary(self) -> str:
        """One line."""
        return f"{self.key}: pairs by {self.by}: " + ", ".join(f"{s} -> {t}" for s, t in self.layers.items())

    def table(self) -> str:
        """The pairs with shapes and reasons, the blocks that are left over, and what a recipe says."""
        column = {"stage": "size", "depth": "depth", "cka": "CKA"}[self.by]
        rows = [("student", "shape", "teacher", "shape", column)]
        rows += [(s.path, str(s.shape), t.path, str(t.shape), why) for s, t, why in self.pairs]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [f"{self.key}: pairs by {self.by}"]
        lines += ["  " + "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        for model, blocks in zip(("student", "teacher"), self.left, strict=True):
            lines += [f"  not paired, {model}: {', '.join(f'{b.path} {b.shape}' for b in blocks)}"] if blocks else []
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join([*lines, f"  {as_recipe(self.layers)}"])


def as_recipe(pairs: dict[str, str]) -> str:
    """The pairs as a recipe says them, to be pasted there."""
    written: str = yaml.safe_dump(pairs, default_flow_style=True, sort_keys=False, allow_unicode=True, width=math.inf)
    return f"pairs: {written.strip()}"


def propose(
    key: str,
    student: Sequence[Block],
    teacher: Sequence[Block],
    match: Match,
    kinds: Sequence[LayerKind],
    *,
    grams: tuple[Grams, Grams],
    input_size: tuple[int, ...] | None = None,
) -> Proposal:
    """Pairs of blocks of one kind: the one of which most can be paired.

    Args:
        key: Whose pairs they are.
        student: The blocks of the student in the order of the calls.
        teacher: Those of the teacher.
        match: How to look for pairs, and for how many.
        kinds: The kinds that may be compared.
        grams: What gives the Gram matrices of layers, the student's and the teacher's.
        input_size: Height and width of pictures that come in.

    Raises:
        ModelError: No layer of one has a counterpart in the other.
        RecipeError: More pairs are asked for than there can be.
    """
    ours, theirs = _comparable(key, student, teacher, kinds)
    by: MatchBy = "depth" if match.by == "stage" and ours[0].kind != "maps" else match.by
    most = min(len(ours), len(theirs))
    if by == "stage":
        equal = [[0.0 if s.size == t.size else -math.inf for t in theirs] for s in ours]
        most = max(count for count in range(most + 1) if count == 0 or best_pairing(equal, count))
    if most == 0:
        raise ModelError(
            f"{key}: pairs",
            expected="stages of student and teacher with maps of one size",
            found=f"maps of {_sizes(ours)} in the student, {_sizes(theirs)} in the teacher",
            harm="no pairs by stage can be proposed",
            mend="match: {by: depth} pairs them by their order; the loss then needs `resize`",
        )
    if match.count is not None and match.count > most:
        raise RecipeError(
            f"{key}: match.count",
            expected=f"at most {most}: so many {ours[0].kind} of the student have a counterpart by {by}",
            found=f"{match.count}; the student has {_names(ours)}, the teacher {_names(theirs)}",
            harm="a layer would be paired twice",
            mend="leave out match.count for as many as there are, or write the pairs by hand "
            "(`tutelage doctor RECIPE --layers` lists all layers)",
        )
    count = match.count or most
    if by == "stage":
        found = [(i, j, _size(ours[i], input_size)) for i, j in best_pairing(equal, count)]
    elif by == "depth":
        found = _by_depth(len(ours), len(theirs), count)
    else:
        found = _by_similarity(ours, theirs, count, grams)
    used = [{pair[side] for pair in found} for side in (0, 1)]
    left = [[b for i, b in enumerate(blocks) if i not in used[side]] for side, blocks in enumerate((ours, theirs))]
    pairs = [(ours[i], theirs[j], why) for i, j, why in found]
    return Proposal(key=key, by=by, pairs=pairs, left=(left[0], left[1]))


def _comparable(
    key: str, student: Sequence[Block], teacher: Sequence[Block], kinds: Sequence[LayerKind]
) -> tuple[list[Block], list[Block]]:
    """The blocks of the kind of which most can be paired; token sequences have to be of one length."""
    groups: dict[tuple[object, ...], tuple[list[Block], list[Block]]] = defaultdict(lambda: ([], []))
    for side, blocks in enumerate((student, teacher)):
        for block in blocks:
            if block.kind in kinds:
                groups[block.kind, () if block.kind == "maps" else block.size][side].append(block)
    best = max(groups.values(), key=lambda sides: min(map(len, sides)), default=([], []))
    if min(map(len, best)) == 0:
        raise ModelError(
            f"{key}: pairs",
            expected=f"layers with {' or '.join(kinds)} in both models, tokens of one length",
            found=f"{_names(student)} in the student, {_names(teacher)} in the teacher",
            harm="no pairs can be proposed",
            mend="write the pairs by hand (`tutelage doctor RECIPE --layers` lists all layers), or choose another loss",
        )
    return best


def _names(blocks: Sequence[Block]) -> str:
    return ", ".join(f"{b.path} ({b.kind} {b.shape})" for b in blocks) or "none"


def _sizes(blocks: Sequence[Block]) -> str:
    return ", ".join(_size(block, None) for block in blocks)


def _size(block: Block, input_size: tuple[int, ...] | None) -> str:
    size = "x".join(map(str, block.size))
    return size if input_size is None else f"{size} of {'x'.join(map(str, input_size))}"


def _by_depth(ours: int, theirs: int, count: int) -> Found:
    """Pair `k` of `count` at the depth nearest to `k / count` in both; halves go to the deeper layer."""
    places = [(math.floor(k * ours / count + 0.5), math.floor(k * theirs / count + 0.5)) for k in range(1, count + 1)]
    return [(i - 1, j - 1, f"{i}/{ours} -> {j}/{theirs}") for i, j in places]


def _by_similarity(ours: list[Block], theirs: list[Block], count: int, grams: tuple[Grams, Grams]) -> Found:
    """The pairs that keep the order of both and have the largest sum of CKA."""
    of_student, of_teacher = grams[0]([b.path for b in ours]), grams[1]([b.path for b in theirs])
    # Rounded, so that two machines choose the same of pairs that are equally alike.
    scores = [[round(cka(of_student[s.path], of_teacher[t.path]), 6) for t in theirs] for s in ours]
    return [(i, j, f"{scores[i][j]:.3f}") for i, j in best_pairing(scores, count)]
