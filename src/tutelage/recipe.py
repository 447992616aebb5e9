"""The recipe: everything a run is, as typed data. The same object from YAML, the command line or Python.

    teacher ──asked on──▶ data ──signals──▶ losses ──train──▶ student ──▶ evaluation ──▶ budget + policy ──▶ verdict

Each part is a dataclass, or a class of its family chosen by `class_path` and given its `init_args`; constructors only
store, so a recipe costs nothing to make. `tutelage.recipe_file` reads and writes it as YAML.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tutelage.asking import Asking
from tutelage.errors import RecipeError, check_all
from tutelage.governance.licence import Licence
from tutelage.governance.policy import Budget, Gate
from tutelage.losses import Loss
from tutelage.recipe_types import check_types
from tutelage.students import Student
from tutelage.teachers import Teacher
from tutelage.teachers.chunks import check_chunk
from tutelage.training import Training
from tutelage.transfer import Data, SimilarityPairs

__all__ = ["Assistant", "Export", "Head", "Match", "MatchBy", "Measure", "Recipe", "Stage", "Task"]

Task = Literal["classification", "multilabel", "regression", "embedding"]
MatchBy = Literal["stage", "depth", "cka"]


@dataclass(kw_only=True)
class Export:
    """In which forms the student is delivered, beside safetensors.

    Args:
        onnx: Also as ONNX with a dynamic batch, compared with the student over the whole test split.
        tolerance: Largest difference allowed between an output of the ONNX file and the student's, as a share of the
            student's largest output in absolute value, which counts for at least 1; values of a regression count in
            deviations from their mean. A predicted class may differ only
            where the student's outputs of the two classes are that close.
    """

    onnx: bool = True
    tolerance: float = 1e-3


@dataclass(kw_only=True)
class Measure:
    """How latency is measured.

    Args:
        device: `cpu:N` for a CPU with N threads, or `cuda:N`.
        batch_sizes: Rows in a call.
        rounds: Rounds in which teacher and student take turns; what a budget judges takes 40.
        seconds: Time to spend on all of it, about; what a budget judges may take ten times its part.
    """

    device: str = "cpu:1"
    batch_sizes: list[int] = field(default_factory=lambda: [1, 32])
    rounds: int = 15
    seconds: float = 20.0


@dataclass(kw_only=True)
class Stage:
    """A training that the student goes through before the main one, on the same rows.

    Args:
        losses: What is compared, and with which weights.
        training: How the student is trained.
        teacher: Who teaches in this stage, such as an earlier checkpoint of the teacher (route-constrained
            optimisation); null for the one who teaches in the main training.
        select: The metric on the development split by which the stage's best weights are kept; null to go on with its
            last ones: while only inner layers learn, the metrics of the output say nothing.
    """

    losses: list[Loss]
    training: Training
    teacher: Teacher | None = None
    select: str | None = None


@dataclass(kw_only=True)
class Assistant:
    """A model between teacher and student: it is distilled first and then teaches the next one.

    Of a size between the two it is a teacher assistant (TAKD); made like the student it is an earlier generation of it
    (born-again networks).

    Args:
        student: What the assistant is. Where it is cut, it is cut from the recipe's teacher.
        losses: What is compared; null for the recipe's.
        training: How it is trained; null for the recipe's.
        generations: How many such models follow each other, each learning from the one before.
    """

    student: Student
    losses: list[Loss] | None = None
    training: Training | None = None
    generations: int = 1


@dataclass(kw_only=True)
class Head:
    """A further output of the student, for a task of its own; it is evaluated beside the main one.

    The losses say how it learns: `Routed(loss, student=LAYER, member=NAME, labels=TASK)`.

    Args:
        student: The layer of the student whose output it is.
        task: What the output means, and so which metrics there are.
        teacher: The name of the one of `SeveralTeachers` that it is compared with.
        labels: The name of its labels in `data.tasks`; null where there are none.
    """

    student: str
    task: Task
    teacher: str
    labels: str | None = None


@dataclass(kw_only=True)
class Match:
    """How layers are paired for the losses that say `pairs: auto`, and by `tutelage match`.

    Args:
        by: `stage`: the ends of stages whose maps are of one size; other layers by depth. `depth`: the same share of
            the way through both models. `cka`: the pairs, in order, that are most alike on training rows; only worth
            it where the student starts from something.
        count: How many pairs; null for as many as there are.
        rows: Training rows on which CKA is measured.
    """

    by: MatchBy = "stage"
    count: int | None = None
    rows: int = 256


@dataclass(kw_only=True)
class Recipe:
    """Everything a run is.

    Args:
        name: Of the run; a folder name.
        task: What the output means, and so which metrics there are.
        data: The transfer set: inputs, with labels or without, and how they are split, encoded and varied.
        teacher: What is imitated.
        student: What imitates it.
        losses: What is compared, and with which weights.
        training: How the student is trained.
        teacher_training: Train the teacher first, on all the training labels; null for a teacher that is ready. Where
            there are several, each is trained.
        earlier_stages: Trainings that the student goes through before the main one, in order.
        assistants: Models between teacher and student, in order: the first learns from the teacher, each further one
            from the one before it, the student from the last. The student is evaluated against the teacher.
        heads: Further outputs of the student by name, each for a task of its own. Their metrics end in the name:
            `accuracy:NAME`.
        asking: Which training rows the teacher is asked about, in rounds; null for all of them.
        licences: On which terms each teacher may be learnt from, by its key: `teacher`, or `teacher.NAME` for one of
            several (`teacher.0` of an ensemble). A teacher that comes from elsewhere needs a record.
        match: How layers are paired for the losses that say `pairs: auto`; the word `auto` stands for the defaults.
        chunk: Rows that a model is asked about at once; null for 128 in labelling and evaluation, and all of a piece
            of the batch in a training step. Answers are the same. When memory runs out, a question is halved anyway.
        baseline: Train the same student for as many steps without the teacher as well, where there are labels.
        seeds: One student for each; the best on the development split is delivered.
        select: The metric on the development split by which the best weights are kept; null for one that the losses
            lower. Ties go to the better likelihood (or error), then to the later step.
        similarity_sets: Human-rated pairs on which embeddings are judged as well.
        export: In which forms the student is delivered.
        measure: How latency is measured.
        budget: What the student may cost.
        policy: How good it has to be.
        device: Where it trains: `cpu`, `cuda`, `cuda:N` or `mps`; null for the fastest device that there is.
    """

    name: str
    task: Task
    data: Data
    teacher: Teacher
    student: Student
    losses: list[Loss]
    training: Training
    teacher_training: Training | None = None
    earlier_stages: list[Stage] = field(default_factory=list)
    assistants: list[Assistant] = field(default_factory=list)
    heads: dict[str, Head] = field(default_factory=dict)
    asking: Asking | None = None
    licences: dict[str, Licence] = field(default_factory=dict)
    match: Match | Literal["auto"] = field(default_factory=Match)
    chunk: int | None = None
    baseline: bool = True
    seeds: list[int] = field(default_factory=lambda: [0])
    select: str | None = None
    similarity_sets: list[SimilarityPairs] = field(default_factory=list)
    export: Export = field(default_factory=Export)
    measure: Measure = field(default_factory=Measure)
    budget: Budget = field(default_factory=Budget)
    policy: list[Gate] = field(default_factory=list)
    device: str | None = None
    folder: Path | None = field(default=None, init=False, compare=False)  # of its file, where it came from one

    def check(self) -> None:
        """Refuses contradictions that the recipe alone shows, but for licences, before anything is loaded.

        Raises:
            RecipeError: Naming the key; all keys, where there are several.
        """
        check_types(self)
        check_all(
            [
                self._check_words,
                lambda: check_chunk(self.chunk),
                *(functools.partial(training.check, key) for key, training in self.trainings().items()),
                self._check_assistants,
                *([] if self.asking is None else [functools.partial(self.asking.check, self)]),
                self._check_teacher_training,
                self._check_similarity_sets,
                self._check_match,
                self._check_measure,
                self._check_budget,
            ]
        )

    def teachers(self) -> dict[str, Teacher]:
        """Every teacher that the recipe names, by its key."""
        stages = {f"earlier_stages[{i}].teacher": stage.teacher for i, stage in enumerate(self.earlier_stages)}
        return {key: each for key, each in {"teacher": self.teacher, **stages}.items() if each is not None}

    def trainings(self) -> dict[str, Training]:
        """Every training that the recipe describes, by its key."""
        found = {"training": self.training, "teacher_training": self.teacher_training}
        found |= {f"earlier_stages[{i}].training": stage.training for i, stage in enumerate(self.earlier_stages)}
        found |= {f"assistants[{i}].training": assistant.training for i, assistant in enumerate(self.assistants)}
        found |= {"asking.training": None if self.asking is None else self.asking.training}
        return {key: training for key, training in found.items() if training is not None}

    def terms(self) -> dict[str, Loss]:
        """Every loss that the recipe names, by its key."""
        lists = {"losses": self.losses}
        lists |= {f"earlier_stages[{i}].losses": stage.losses for i, stage in enumerate(self.earlier_stages)}
        lists |= {f"assistants[{i}].losses": assistant.losses or [] for i, assistant in enumerate(self.assistants)}
        return {f"{key}[{index}]": loss for key, losses in lists.items() for index, loss in enumerate(losses)}

    @property
    def matching(self) -> Match:
        """How layers are paired."""
        return Match() if isinstance(self.match, str) else self.match

    def _check_match(self) -> None:
        if self.matching.count is not None and self.matching.count < 1:
            raise RecipeError("match.count", expected="at least 1, or null", found=str(self.matching.count))
        if self.matching.rows < 4:
            raise RecipeError("match.rows", expected="at least 4, for CKA", found=str(self.matching.rows))

    def _check_assistants(self) -> None:
        for index, assistant in enumerate(self.assistants):
            if assistant.generations < 1:
                key, found = f"assistants[{index}].generations", str(assistant.generations)
                raise RecipeError(key, expected="at least 1", found=found)

    def _check_words(self) -> None:
        _check_name("name", self.name)
        for name in self.heads:
            _check_name("heads", name)
            if name in {"test", *(pairs.name for pairs in self.similarity_sets)}:
                mend = "name the head otherwise"
                raise RecipeError("heads", expected="a name that no evaluation set has", found=repr(name), mend=mend)
        lists = {"losses": self.losses}
        lists |= {f"earlier_stages[{i}].losses": stage.losses for i, stage in enumerate(self.earlier_stages)}
        lists |= {f"assistants[{i}].losses": a.losses for i, a in enumerate(self.assistants) if a.losses is not None}
        for key, losses in lists.items():
            if not losses:
                raise RecipeError(key, expected="at least one loss", found="none", mend="add one, e.g. KLDivergence")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise RecipeError("seeds", expected="different numbers from 0", found=str(self.seeds))

    def _check_teacher_training(self) -> None:
        if self.teacher_training is not None and self.task == "embedding":
            raise RecipeError(
                "teacher_training",
                expected="a task with labels: classification, multilabel or regression",
                found="task: embedding",
                mend="remove teacher_training, and give a teacher that is trained",
            )

    def _check_similarity_sets(self) -> None:
        if self.similarity_sets and self.task != "embedding":
            mend = "remove similarity_sets or change the task"
            raise RecipeError("similarity_sets", expected="task: embedding", found=f"task: {self.task}", mend=mend)

    def _check_measure(self) -> None:
        measure = self.measure
        if not measure.batch_sizes or min(measure.batch_sizes) < 1:
            raise RecipeError("measure.batch_sizes", expected="positive numbers", found=str(measure.batch_sizes))
        if measure.rounds < 1:
            raise RecipeError("measure.rounds", expected="at least 1", found=str(measure.rounds))
        for key, value in (("measure.seconds", measure.seconds), ("export.tolerance", self.export.tolerance)):
            if not (math.isfinite(value) and value > 0):
                raise RecipeError(key, expected="a number above 0", found=str(value))

    def _check_budget(self) -> None:
        """The budget must be on something that will be measured."""
        budget, sizes = self.budget, self.measure.batch_sizes
        if budget.peak_memory_mb is not None and not self.export.onnx:
            raise RecipeError(
                "budget.peak_memory_mb",
                expected="export.onnx: true",
                found="export.onnx: false",
                harm="peak memory is measured on the ONNX form, so this budget could not be judged",
                mend="set export.onnx: true, or drop the budget",
            )
        if budget.form == "onnxruntime" and not self.export.onnx:
            raise RecipeError(
                "budget.form",
                expected="a form that is delivered",
                found="onnxruntime, with export.onnx: false",
                harm="this budget could not be judged",
                mend="set export.onnx: true, or budget.form: torch",
            )
        timed = budget.latency_p95_ms is not None or budget.latency_vs_teacher is not None
        if timed and budget.batch not in sizes:
            raise RecipeError(
                "budget.batch",
                expected=f"one of measure.batch_sizes: {', '.join(map(str, sizes))}",
                found=str(budget.batch),
                harm="this budget could not be judged: calls of so many rows are not timed",
                mend=f"add {budget.batch} to measure.batch_sizes",
            )


def _check_name(key: str, name: str) -> None:
    """Refuses a name that can't be a part of a file's: the files of a run are called by it."""
    if not name or any(letter in name for letter in "/\\\0"):
        raise RecipeError(key, expected="a name that can be a folder's", found=repr(name))
