"""Recipes whose losses say `pairs: auto`: the layers are looked for on real rows, and the pairs written out."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from tutelage.errors import DataError, ModelError, RecipeError, did_you_mean, within
from tutelage.losses import Loss
from tutelage.losses.attention_layers import AttentionLayers
from tutelage.losses.layer_pairs import PairedLoss
from tutelage.losses.routed import Routed
from tutelage.losses.wrapped import WrappedLoss, innermost
from tutelage.matching.blocks import Block, find_attention, find_blocks, token_maps
from tutelage.matching.proposal import Proposal, as_recipe, propose
from tutelage.matching.similarity import grams_of
from tutelage.probe import forward_pass
from tutelage.recipe import Recipe
from tutelage.standardized import unwrapped
from tutelage.teachers import SeveralTeachers, Teacher, uncached
from tutelage.transfer import TransferSet

__all__ = ["has_open_pairs", "propose_for", "with_pairs", "written_pairs"]

BY_DEPTH = "attention modules are paired by depth: CKA would compare what they put out, not where they attend"
UNTRAINED = "CKA was measured before the teacher is trained in the run: on the trained one it may say otherwise"


def has_open_pairs(losses: Sequence[Loss]) -> bool:
    """Whether a loss says `pairs: auto`, or one that it wraps."""
    return any(_pairs_of(loss) is not None and _pairs_of(loss).is_open for loss in losses)  # type: ignore[union-attr]


def written_pairs(recipe: Recipe) -> list[str]:
    """The pairs that a recipe states, a line for each loss, as the recipe says them."""
    inner = {f"{key} ({type(loss).__name__})": _pairs_of(loss) for key, loss in recipe.terms().items()}
    return [f"{key}: {as_recipe(loss.pairs)}" for key, loss in inner.items() if loss is not None and not loss.is_open]


def with_pairs(
    recipe: Recipe, guide: Teacher, student: nn.Module, data: TransferSet, device: torch.device, *, trained: bool
) -> tuple[Recipe, list[Proposal]]:
    """The recipe with pairs in the place of `auto`, in its losses and those of its earlier stages, and what was found.

    The recipe as given stays as it is, and where nothing is open it is the answer.

    Args:
        recipe: The recipe.
        guide: Who teaches in the main training.
        student: The student as it is before training; it is set to eval mode.
        data: The rows; some training rows are shown to the models.
        device: Where the models are.
        trained: Whether the guide is ready before the run: neither trained nor distilled in it.

    Raises:
        RecipeError: The teacher of such a loss is no torch module, or more pairs are asked for than there can be.
        ModelError: No layer of one model has a counterpart in the other.
    """
    if not has_open_pairs([*recipe.losses, *(loss for stage in recipe.earlier_stages for loss in stage.losses)]):
        return recipe, []
    matcher, found = _Matcher(recipe, student, data, device), list[Proposal]()

    def closed(losses: Sequence[Loss], teacher: Teacher | None, key: str) -> list[Loss]:
        ready = teacher is not None or trained
        teacher, result = teacher or guide, []
        for index, loss in enumerate(losses):
            name, inner = f"{key}[{index}] ({type(loss).__name__})", _pairs_of(loss)
            if inner is None or not inner.is_open:
                result.append(loss)
                continue
            heard = _teacher_of(loss, teacher, name)
            found.append(matcher.propose(name, heard, inner, trained=ready))
            result.append(_closed(loss, found[-1].layers))
        return result

    stages = [
        replace(stage, losses=closed(stage.losses, stage.teacher, f"earlier_stages[{index}].losses"))
        for index, stage in enumerate(recipe.earlier_stages)
    ]
    return replace(recipe, losses=closed(recipe.losses, None, "losses"), earlier_stages=stages), found


def propose_for(
    recipe: Recipe, guide: Teacher, student: nn.Module, data: TransferSet, device: torch.device, *, trained: bool
) -> list[Proposal]:
    """What would be found: for each loss that says `auto`; where none does, for any loss between the two models."""
    if found := with_pairs(recipe, guide, student, data, device, trained=trained)[1]:
        return found
    matcher = _Matcher(recipe, student, data, device)
    return [matcher.propose("student and teacher", guide, None, trained=trained)]


def _pairs_of(loss: Loss) -> PairedLoss | None:
    """The loss between layers that a loss is, or wraps."""
    inner = innermost(loss)
    return inner if isinstance(inner, PairedLoss) else None


def _closed(loss: Loss, pairs: dict[str, str]) -> Loss:
    """The loss with these pairs, within whatever wraps it."""
    if isinstance(loss, PairedLoss):
        return loss.with_pairs(pairs)
    assert isinstance(loss, WrappedLoss)
    other = copy.deepcopy(loss)
    other.loss = _closed(loss.loss, pairs)
    return other


def _teacher_of(loss: Loss, teacher: Teacher, key: str) -> Teacher:
    """Who a loss hears: the teacher, or the one of several that it is routed to."""
    while isinstance(loss, WrappedLoss):
        if isinstance(loss, Routed) and loss.teacher_model == "student":
            raise RecipeError(
                f"{key}: pairs",
                expected="pairs of layers by name where the student teaches itself",
                found="auto",
                harm="each layer would be paired with itself",
                mend="write the pairs; `tutelage doctor RECIPE --layers` lists the layers",
            )
        if isinstance(loss, Routed) and loss.member is not None:
            several = uncached(teacher)
            members = several.teachers if isinstance(several, SeveralTeachers) else {}
            if loss.member not in members:
                raise ModelError(
                    f"{key}: member `{loss.member}` of the teacher",
                    expected="the name of one of several teachers",
                    found=teacher.describe(),
                    mend=did_you_mean(loss.member, members) or "leave out `member`",
                )
            teacher = members[loss.member]
        loss = loss.loss
    return teacher


def _no_attention(
    key: str, loss: AttentionLayers, model: str, names: list[str], maps: dict[str, list[str]]
) -> ModelError:
    """What is wrong where no module has the projections that a loss reads, with what could be meant."""
    arguments = [name if model == "student" else f"teacher_{name}" for name in loss.projections]
    listed = [f"{_and(names)} in `{path}`" for path, names in maps.items()]
    mend = f"set {_and(arguments)} to the names in the {model}'s attention modules"
    return ModelError(
        key,
        expected=f"modules of the {model} with {_and(names)}: linear maps of tokens, each called once",
        found="none; the maps of tokens are " + ("; ".join(listed) or "none"),
        harm="no pairs can be proposed",
        mend=f"{mend}, if it has any; where queries and keys come from one map, choose another loss",
    )


def _and(names: Sequence[str]) -> str:
    return " and ".join(f"`{name}`" for name in names)


class _Matcher:
    """Proposes pairs between one student and its teachers; each model is traced once."""

    def __init__(self, recipe: Recipe, student: nn.Module, data: TransferSet, device: torch.device) -> None:
        self.recipe, self.data, self.device = recipe, data, device
        self.student = unwrapped(student.eval())
        # What is delivered is matched, not what surrounds it in training: the first of several peers.
        delivered = unwrapped(recipe.student.deliver(student))
        path = next((path for path, module in self.student.named_modules() if module is delivered), "")
        self.prefix = f"{path}." if path else ""
        self.batch = data.example(2).to(device)
        self._blocks: dict[nn.Module, list[Block]] = {}
        self._grams: dict[nn.Module, dict[str, Tensor]] = {}

    def propose(self, key: str, teacher: Teacher, loss: PairedLoss | None, *, trained: bool) -> Proposal:
        """Pairs for one loss, or for any; `trained` says whether its teacher is ready before the run."""
        module = None if teacher.module is None else unwrapped(teacher.module)
        if module is None:
            raise RecipeError(
                f"{key}: pairs",
                expected="a teacher that is one torch module, whose layers can be traced",
                found=f"auto, with the teacher {teacher.describe()}",
                harm="there are no layers to pair the student's with",
                mend="take a single teacher, or one of SeveralTeachers, or leave out the losses between layers",
            )
        match, notes = self.recipe.matching, list[str]()
        if isinstance(loss, AttentionLayers):
            ours = self._attention_of(self.student, loss, key, "student")
            theirs = self._attention_of(module, loss, key, "teacher")
            match, notes = replace(match, by="depth"), [BY_DEPTH] if match.by == "cka" else []
        else:
            inside = {head.student for head in self.recipe.heads.values()}
            ours = [block for block in self._blocks_of(self.student, "student") if block.path not in inside]
            theirs = self._blocks_of(module, "teacher")
        if loss is not None and match.count is None:
            match = replace(match, count=loss.usual_pairs)
        size = self.batch.inputs.shape[2:] if isinstance(self.batch.inputs, Tensor) else ()
        found = propose(
            key,
            ours,
            theirs,
            match,
            PairedLoss.compares if loss is None else loss.compares,
            grams=(
                lambda paths: self._grams_of(self.student, paths, "student"),
                lambda paths: self._grams_of(module, paths, "teacher"),
            ),
            input_size=tuple(size) if len(size) == 2 else None,
        )
        if found.by == "cka" and not trained:
            notes.append(UNTRAINED)
        return replace(found, notes=notes)

    def _blocks_of(self, module: nn.Module, model: str) -> list[Block]:
        if module not in self._blocks:
            with within(model), forward_pass(f"the {model}", self.batch.inputs):
                found = find_blocks(module.eval(), self.batch)
            ours = module is self.student
            inside = [block for block in found if not ours or block.path.startswith(self.prefix)]
            self._blocks[module] = inside
        return self._blocks[module]

    def _attention_of(self, module: nn.Module, loss: AttentionLayers, key: str, model: str) -> list[Block]:
        """The modules with the projections that an attention loss reads.

        Raises:
            ModelError: There are none; the message lists what there is.
        """
        ours = module is self.student
        names = [student if ours else teacher for student, teacher in loss.taps]
        with within(model), forward_pass(f"the {model}", self.batch.inputs):
            found = find_attention(module.eval(), self.batch, names)
            found = [block for block in found if not ours or block.path.startswith(self.prefix)]
            if found:
                return found
            maps = token_maps(module, self.batch)
        raise _no_attention(f"{key}: pairs", loss, model, names, maps)

    @cached_property
    def _probe(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Training rows drawn at random, the same ones each time."""
        rows = self.data.rows("train")
        count = min(self.recipe.matching.rows, len(rows))
        if count < 4:
            raise DataError(
                "training rows",
                expected="at least 4, for CKA",
                found=str(len(rows)),
                harm="how alike two layers are could not be estimated",
                mend="match layers by stage or by depth",
            )
        return np.sort(np.random.default_rng(0).choice(rows, count, replace=False))

    def _grams_of(self, module: nn.Module, paths: list[str], model: str) -> dict[str, Tensor]:
        known = self._grams.setdefault(module, {})
        missing = [path for path in paths if path not in known]
        if missing:
            batch = self.data.batch(self._probe).to(self.device)
            with within(model), forward_pass(f"the {model}", batch.inputs):
                known |= grams_of(module.eval(), batch, missing, model=model)
        return {path: known[path] for path in paths}
