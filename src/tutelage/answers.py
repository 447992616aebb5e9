"""What the models say about the evaluation sets: the raw evidence of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from tutelage import beat
from tutelage.balance import decisions, note_on
from tutelage.errors import RunError
from tutelage.evaluation.evidence import Evidence, PairEvidence
from tutelage.forecast import EVALUATION_BATCH
from tutelage.parts import baseline_losses, build_student
from tutelage.plan import Plan
from tutelage.recipe import Head
from tutelage.selection import selection_of
from tutelage.signals import Batch, Request, Signals, call, output_of
from tutelage.taps import observe
from tutelage.teachers import Teacher
from tutelage.teachers.chunks import Chunks
from tutelage.transfer import SimilarityPairs, TransferSet, evaluation_batches, in_original_order

__all__ = ["EVALUATION_BATCH", "TeacherSays", "answers", "gather_evidence", "select_anew", "teacher_answers"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class TeacherSays:
    """What a teacher says about some rows.

    Attributes:
        outputs: `[N, ...]` float32.
        heard: `[N]` bool: False where it is silent, and the output means nothing.
    """

    outputs: Array
    heard: Array


def _collect(
    ask: Callable[[Batch], Signals], batches: Iterable[tuple[Array, Batch]], device: torch.device, model: str
) -> Array:
    """Answers to batches, in the original order of the rows, as float32."""
    chunks = Chunks(model=model)
    parts = ((at, chunks.ask(ask, batch.to(device)).dense().float().cpu()) for at, batch in _counted(batches, model))
    return np.ascontiguousarray(in_original_order(parts).numpy())


def _counted(batches: Iterable[tuple[Array, Batch]], model: str) -> Iterator[tuple[Array, Batch]]:
    """Passes batches on and tells the phase how many rows are through."""
    rows = 0
    for at, batch in batches:
        yield at, batch
        rows += len(at)
        beat.at(f"{model} has answered {rows:,} rows")


def _asking(model: nn.Module | Teacher) -> Callable[[Batch], Signals]:
    """How a module or a teacher is asked for its output."""

    def ask(batch: Batch) -> Signals:
        if isinstance(model, nn.Module):
            return Signals(output=output_of(call(model, batch.inputs)))
        return model.ask(batch, Request(output=True))

    return ask


@torch.no_grad()
def answers(
    module: nn.Module, data: TransferSet, rows: Array, device: torch.device, chunk: int = EVALUATION_BATCH
) -> Array:
    """A module's outputs on rows as they are (view 0), `[N, ...]` float32, in eval mode, `chunk` rows at a time."""
    training = module.training
    module.eval()
    result = _collect(_asking(module), evaluation_batches(data, rows, chunk), device, "the student")
    module.train(training)
    return result


def teacher_answers(
    teacher: Teacher, data: TransferSet, rows: Array, device: torch.device, chunk: int = EVALUATION_BATCH
) -> TeacherSays:
    """What a teacher says about rows as they are, `chunk` of them at a time."""
    return _heard_of(lambda batch: teacher.ask(batch, Request(output=True)), data, rows, device, chunk)


def _heard_of(
    ask: Callable[[Batch], Signals], data: TransferSet, rows: Array, device: torch.device, chunk: int
) -> TeacherSays:
    """A teacher's answers, and on which rows it has any."""
    heard, chunks = np.ones(len(rows), dtype=bool), Chunks()

    def parts() -> Iterator[tuple[Array, torch.Tensor]]:
        for at, batch in _counted(evaluation_batches(data, rows, chunk), "the teacher"):
            signals = chunks.ask(ask, batch.to(device))
            if (silent := signals.silent) is not None:
                heard[at] = ~silent.reshape(len(at), -1).all(1).cpu().numpy()
            yield at, signals.dense().float().cpu()

    return TeacherSays(np.ascontiguousarray(in_original_order(parts()).numpy()), heard)


def select_anew(plan: Plan, says: TeacherSays) -> list[str]:
    """Chooses anew how weights are kept, where no development label but only the teacher says how answers are spread.

    Args:
        plan: Of the run; its selections, and those of its assistants, are set.
        says: What the teacher says about the development split.

    Returns:
        Notes for the user.
    """
    task, data = plan.recipe.task, plan.data
    if task not in ("classification", "multilabel") or data.labelled[data.rows("development")].any():
        return []
    said = says.outputs[says.heard]
    for each in (plan, *plan.assistants):
        stated: dict[str, Any] = {"key": "select", "metric": each.recipe.select}
        each.lessons[-1].select = selection_of(each.recipe, each.losses, data, **stated, teacher_says=said)
        supervised = baseline_losses(each.recipe)
        each.baseline_selection = selection_of(each.recipe, supervised, data, **stated, teacher_says=said)
    whose = f"the teacher's answers to {len(said):,} development rows"
    return note_on(task, decisions(task, said), data.classes, whose, labels=False)


def _where_heard(evidence: Evidence, heard: Array) -> Evidence:
    """The evidence on the rows that the teacher has answered: a silent one neither agrees nor disagrees.

    Raises:
        RunError: It has answered none.
    """
    if not heard.any():
        raise RunError(f"the teacher has answered none of the {len(heard):,} rows of `{evidence.set}`")
    return evidence if heard.all() else evidence.only(heard)


def gather_evidence(
    plan: Plan, students: dict[int, nn.Module], baselines: dict[int, nn.Module], shipped: int
) -> list[Evidence | PairEvidence]:
    """The raw pairs: what every model says about the test split, and about the further sets."""
    data, rows, recipe, chunk = plan.data, plan.data.rows("test"), plan.recipe, plan.chunk
    models: dict[str, nn.Module] = {"student": students[shipped]}
    if shipped in baselines:
        models["baseline"] = baselines[shipped]
    else:  # without a baseline, the student before training shows what the training did
        models["untrained"] = recipe.student.deliver(build_student(recipe, shipped, plan.device))
    for seed in (s for s in recipe.seeds if s != shipped):
        models[f"student@{seed}"] = students[seed]
        if seed in baselines:
            models[f"baseline@{seed}"] = baselines[seed]
    labelled = data.labelled[rows]
    has_labels = data.labels is not None and bool(labelled.any())
    said = teacher_answers(recipe.teacher, data, rows, plan.device, chunk)
    test = Evidence(
        set="test",
        task=recipe.task,
        rows=rows,
        digests=data.digests(rows),
        outputs={
            "teacher": said.outputs,
            **{name: answers(module, data, rows, plan.device, chunk) for name, module in models.items()},
        },
        labels=data.labels[rows] if data.labels is not None and has_labels else None,
        labelled=labelled if has_labels else None,
        classes=list(plan.classes) or None,
        groups=data.groups(rows),
        seed=shipped,
    )
    heads = [_head_evidence(plan, models, name, head, test) for name, head in recipe.heads.items()]
    return [
        _where_heard(test, said.heard),
        *heads,
        *(_pair_evidence(plan, models, pairs, shipped) for pairs in recipe.similarity_sets),
    ]


@torch.no_grad()
def _head_evidence(plan: Plan, models: dict[str, nn.Module], name: str, head: Head, test: Evidence) -> Evidence:
    """What every model says about the test split for the task of a head."""
    labels = plan.data.tasks[head.labels] if head.labels is not None and test.labelled is not None else None

    def of_teacher(batch: Batch) -> Signals:
        request = Request(members={head.teacher: Request(output=True)})
        return plan.recipe.teacher.ask(batch, request).members[head.teacher]

    def of(module: nn.Module) -> Callable[[Batch], Signals]:
        request = Request(features=frozenset({head.student}))

        def ask(batch: Batch) -> Signals:
            said = observe(module.eval(), batch.inputs, request, model="student")
            return Signals(output=said.features[head.student])

        return ask

    said = _heard_of(of_teacher, plan.data, test.rows, plan.device, plan.chunk)
    evidence = replace(
        test,
        set=name,
        task=head.task,
        outputs={
            "teacher": said.outputs,
            **{
                model: _collect(
                    of(module), evaluation_batches(plan.data, test.rows, plan.chunk), plan.device, "the student"
                )
                for model, module in models.items()
            },
        },
        labels=None if labels is None else labels.values[test.rows],
        labelled=None if labels is None else test.labelled,
        classes=list(labels.classes) or None if labels is not None else None,
    )
    return _where_heard(evidence, said.heard)


@torch.no_grad()
def _pair_evidence(plan: Plan, models: dict[str, nn.Module], source: SimilarityPairs, shipped: int) -> PairEvidence:
    """Cosine similarities of human-rated pairs, for every model."""
    pairs = source.load()
    texts = list(dict.fromkeys([*pairs.text_a, *pairs.text_b]))  # the same few texts make many pairs
    place = {text: index for index, text in enumerate(texts)}
    left, right = ([place[text] for text in side] for side in (pairs.text_a, pairs.text_b))
    everyone: dict[str, nn.Module | Teacher] = {"teacher": plan.recipe.teacher, **models}
    embedded = {
        name: _collect(_asking(model), plan.data.encode_texts(texts, plan.chunk), plan.device, f"the {name}")
        for name, model in everyone.items()
    }
    return PairEvidence.from_embeddings(
        source.name,
        pairs.scores,
        left={name: vectors[left] for name, vectors in embedded.items()},
        right={name: vectors[right] for name, vectors in embedded.items()},
        ends=(left, right),
        seed=shipped,
    )
