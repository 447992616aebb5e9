"""The plan: everything that can be known before compute, checked before compute.

`make_plan` loads the data and the teacher, builds the student, and traces both on two rows. What does not fit (a layer
that does not exist, a loss whose needs the teacher can't supply, labels that are lacking, shapes that don't match) is
refused here, before the first batch is trained on. `tutelage.checks` holds the checks themselves.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch

from tutelage import checks
from tutelage.asking import asked_about, check_asking
from tutelage.errors import UserError, check_all, within
from tutelage.evaluation.metrics import available_metrics
from tutelage.forecast import EVALUATION_BATCH, Forecast, make_forecast
from tutelage.governance.licence import check_licences
from tutelage.governance.policy import check_gates
from tutelage.lessons import Lesson, checks_of, lessons_of, prepare, student_request
from tutelage.losses import Loss
from tutelage.matching import Proposal, propose_for, with_pairs
from tutelage.parts import baseline_losses, build_student, load_data, teacher_data, with_own_teacher
from tutelage.paths import look_beside
from tutelage.plan_notes import notes_on
from tutelage.probe import ask_teacher, run_student
from tutelage.recipe import Assistant, Recipe
from tutelage.recipe_types import check_types
from tutelage.selection import Selection, selection_of
from tutelage.signals import Batch, Request
from tutelage.students import ParameterCount, parameter_count
from tutelage.taps import Layer, layers
from tutelage.targets import with_standard_targets
from tutelage.teachers import ModuleTeacher, Teacher, TransferFacts
from tutelage.training.device import use_device
from tutelage.training.setup import make_accelerator, reseed
from tutelage.transfer import TransferSet

__all__ = ["Forecast", "Plan", "load_parts", "make_plan", "propose_pairs"]


@dataclass(kw_only=True)
class Plan:
    """What a run will do, with everything that it needs loaded and checked.

    Attributes:
        recipe: As given, but with pairs of layers in the place of `auto`.
        data: The transfer set as the student may see it.
        teacher_data: The rows the teacher is trained on, if the recipe trains it.
        device: Where training happens.
        lessons: The trainings that a student goes through, the main one last; their losses are prepared.
        assistants: The plans of the models between teacher and student, in order.
        baseline_selection: How the best weights of the baseline are told.
        metrics: The metrics this run will have, and their kinds.
        teacher_parameters: None for a teacher that is not a module.
        student_parameters: Before any training.
        has_baseline: Whether the student without distillation is trained as well.
        proposals: The pairs of layers that were found for `auto`.
        notes: What the user should know.
        teacher_lines: How good the teachers are on labelled rows.
        doubts: What the verdict repeats of them where no labelled test row judges it.
        later: Keys of the teachers that are held against labels once they are trained, or their answers stored.
        question: The memory of the largest question to the teacher; None where it is little or not known.
    """

    recipe: Recipe
    data: TransferSet
    teacher_data: TransferSet | None
    device: torch.device
    lessons: list[Lesson]
    baseline_selection: Selection
    metrics: dict[str, str]
    teacher_parameters: ParameterCount | None
    student_parameters: ParameterCount
    has_baseline: bool
    assistants: list[Plan] = field(default_factory=list)
    proposals: list[Proposal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    teacher_lines: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    later: list[str] = field(default_factory=list)
    question: checks.Question | None = None

    @property
    def losses(self) -> list[Loss]:
        """The losses of the main training, prepared for the traced shapes; each training takes a copy."""
        return self.lessons[-1].losses

    @property
    def guide(self) -> Teacher:
        """Who teaches in the main training: the recipe's teacher, or the last of its assistants."""
        return self.lessons[-1].teacher

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes: the data's or, where it has none, the teacher's."""
        return self.data.classes or self.recipe.teacher.classes

    @property
    def chunk(self) -> int:
        """Rows that a model is asked about at once, outside of training steps."""
        return self.recipe.chunk or EVALUATION_BATCH

    @property
    def steps(self) -> int:
        """Optimiser steps of a student over all its lessons; the baseline makes as many."""
        return sum(lesson.steps for lesson in self.lessons)

    @property
    def selection(self) -> Selection:
        """How the best weights of the main training are told."""
        selection = self.lessons[-1].select
        assert selection is not None, "only an earlier stage keeps its last weights"
        return selection

    @property
    def select(self) -> str:
        """The metric that the best weights are kept by."""
        return self.selection.metric

    def layers(self) -> dict[str, list[Layer]]:
        """The layers of teacher and student that taps can be set on, with their shapes for two rows."""
        batch = self.data.example(2).to(self.device)
        models = {"teacher": self.recipe.teacher.module, "student": build_student(self.recipe, 0, self.device)}
        return {name: layers(module, batch.inputs) for name, module in models.items() if module is not None}

    def rehearse(self) -> None:
        """Exports the untrained student as the trained one will be.

        Raises:
            RecipeError: It does not export: naming `export.onnx`, before anything is trained.
        """
        checks.check_export(self.recipe, self.data, build_student(self.recipe, self.recipe.seeds[0], self.device))

    def forecast(self, timed_steps: int = 3) -> Forecast:
        """Times a few steps of each training on copies, on real batches; nothing that is kept is trained."""
        return make_forecast(self, timed_steps)


def make_plan(recipe: Recipe) -> Plan:
    """Loads, builds and traces what the recipe names, and checks all of it against all of it.

    It goes in four stages: what the recipe alone shows; loading teachers and data; student, layers, labels and
    tokenizers; what the models say about a few rows. All that is wrong in a stage is named in one message; a later
    stage needs what the earlier ones loaded. Assistants are planned like students, one after the other.

    Raises:
        UserError: Something does not fit.
    """
    check_types(recipe)
    look_beside(recipe.folder)
    checks.check_recipe(recipe)
    recipe = with_own_teacher(recipe)
    use_device(recipe.device)
    device = make_accelerator(recipe.training.precision).device
    checks.check_precision(recipe, device)
    data, taught = _load(recipe, device)
    checks.check_answered(recipe, data)
    recipe, on_targets = with_standard_targets(recipe, data, taught, device)
    guide, assistants, found = recipe.teacher, [], list[Proposal]()
    for key, derived in _assistants(recipe):
        with within(key):
            assistants.append(_plan(derived, data, None, device, guide, trained=_is_ready(guide, recipe)))
        found += _named(key, assistants[-1].proposals)
        guide = ModuleTeacher(derived.student.deliver(build_student(derived, derived.seeds[0], device)))
        guide.load(device)
    full = _with_pairs_of(assistants, recipe)
    plan = _plan(full, data, taught, device, guide, trained=_is_ready(guide, recipe))
    looks = checks.look_at_teachers(plan.recipe, data, device)
    plan.teacher_lines, plan.doubts, plan.later = looks.lines, looks.doubts, looks.later
    plan.question = checks.question_memory(plan.recipe, data, device, plan.chunk)
    plan.notes += [*looks.notes, *(plan.question.notes() if plan.question else ())]
    plan.assistants = assistants
    plan.proposals = [*found, *plan.proposals]
    plan.notes[:0] = on_targets
    plan.notes += [line for proposal in plan.proposals for line in (proposal.summary(), *proposal.notes)]
    return plan


def load_parts(recipe: Recipe) -> TransferSet:
    """The data of a recipe, once its teachers are loaded and have met it: what it takes to ask them."""
    use_device(recipe.device)
    return _load(replace(recipe, teacher_training=None), make_accelerator(recipe.training.precision).device)[0]


def propose_pairs(recipe: Recipe) -> list[Proposal]:
    """Pairs of layers for each student that the recipe makes: what `tutelage match` shows.

    Only what the layers depend on is loaded and checked, so pairs can be looked for before the losses are right.

    Raises:
        UserError: The models can't be made, or no pairs can be proposed.
    """
    look_beside(recipe.folder)
    recipe.check()
    use_device(recipe.device)
    device = make_accelerator(recipe.training.precision).device
    data, _ = _load(replace(recipe, teacher_training=None), device)
    guide, found = recipe.teacher, list[Proposal]()
    for key, derived in [*_assistants(recipe), ("", recipe)]:
        student = build_student(derived, derived.seeds[0], device)
        with within(key) if key else contextlib.nullcontext():
            pairs = propose_for(derived, guide, student, data, device, trained=_is_ready(guide, recipe))
            found += _named(key, pairs)
        guide = ModuleTeacher(derived.student.deliver(student))
        guide.load(device)
    return found


def _is_ready(guide: Teacher, recipe: Recipe) -> bool:
    """Whether who teaches is so before the run: neither trained nor distilled in it."""
    return guide is recipe.teacher and recipe.teacher_training is None


def _named(key: str, proposals: Sequence[Proposal]) -> list[Proposal]:
    """Proposals by the key of the student that they are for."""
    return [replace(proposal, key=f"{key}: {proposal.key}" if key else proposal.key) for proposal in proposals]


def _assistants(recipe: Recipe) -> Iterator[tuple[str, Recipe]]:
    """Each assistant as a recipe whose student it is, and its key."""
    for index, assistant in enumerate(recipe.assistants):
        derived = replace(
            recipe,
            student=assistant.student,
            losses=assistant.losses or recipe.losses,
            training=assistant.training or recipe.training,
            teacher_training=None,
            earlier_stages=[],
            assistants=[],
            baseline=False,
            seeds=recipe.seeds[:1],
            similarity_sets=[],
            heads={},
            policy=[],
        )
        for _ in range(assistant.generations):
            yield f"assistants[{index}]", derived


def _with_pairs_of(plans: list[Plan], recipe: Recipe) -> Recipe:
    """The recipe with the pairs that were found for its assistants.

    Generations whose pairs differ become assistants of their own: the first learns from another model than the rest.
    """
    if not any(plan.proposals for plan in plans):
        return recipe
    assistants: list[Assistant] = []
    following = iter(plans)
    for assistant in recipe.assistants:
        own = [next(following) for _ in range(assistant.generations)]
        if len({str([p.layers for p in plan.proposals]) for plan in own}) == 1:
            assistants.append(replace(assistant, losses=own[0].recipe.losses) if own[0].proposals else assistant)
        else:
            assistants += [replace(assistant, losses=plan.recipe.losses, generations=1) for plan in own]
    return replace(recipe, assistants=assistants)


def _plan(
    recipe: Recipe,
    data: TransferSet,
    taught: TransferSet | None,
    device: torch.device,
    guide: Teacher,
    *,
    trained: bool,
) -> Plan:
    """The plan of the students of a recipe, which learn from `guide` and are compared with the recipe's teacher.

    `trained` says whether `guide` is ready before the run.
    """
    student = build_student(recipe, recipe.seeds[0], device)
    weights = {name for name, _ in student.named_parameters()}
    recipe, proposals = with_pairs(recipe, guide, student, data, device, trained=trained)
    lessons, heads = lessons_of(recipe, guide, asked_about(recipe.asking, data)), recipe.heads
    request = Request(output=True)
    check_all(
        [
            *(check for lesson in lessons for check in checks_of(lesson, recipe, data, student)),
            lambda: recipe.teacher.check(request),
            lambda: checks.check_tokenizers(recipe.teacher, recipe.student, data, recipe.data.text),
            lambda: checks.check_teacher_training(recipe, taught),
            lambda: checks.check_timing(recipe, data, student),
            lambda: check_asking(recipe.asking, data, student),
            *(functools.partial(checks.check_head, name, head, recipe, data, student) for name, head in heads.items()),
        ]
    )
    checks.check_longest_text(recipe, data, student, device)
    batch = data.example(2).to(device)
    teacher_says = ask_teacher(recipe.teacher, batch, request)
    student_says = run_student(student, batch, student_request(lessons))
    checks.check_weights(student, weights)
    checks.check_kinds(recipe, teacher_says, student_says, recipe.student.deliver(student))
    checks.check_labels(recipe, data, teacher_says, student_says)
    if taught is not None and taught is not data:
        checks.check_labels(recipe, taught, teacher_says, student_says)
    checks.check_answers(recipe, data, student, device)
    checks.check_extreme_rows(recipe, data, student, device)
    checks.check_training_mode(recipe, data, taught, student, device)
    on_student = [
        *checks.check_padding(recipe, data, student, device),
        *checks.check_storage(recipe, data, student),
    ]
    checks.check_supervised(recipe, data, taught, student, device)
    for lesson in lessons:
        prepare(lesson, student_says, batch, data=data, device=device, seed=recipe.seeds[0])
    labelled = bool(data.labelled[data.rows("test")].any())
    told, said = teacher_says.dense().shape[1:], student_says.dense().shape[1:]
    same_width = (told or (1,)) == (said or (1,))  # one value a row
    sets = [pairs.name for pairs in recipe.similarity_sets]
    several = teacher_says.dense()[0].numel() > 1
    metrics = available_metrics(recipe.task, labels=labelled, sets=sets, same_width=same_width, several=several)
    for name, head in recipe.heads.items():
        metrics |= available_metrics(head.task, labels=labelled and head.labels is not None, on=name)
    check_gates(recipe.policy, metrics, recipe.task)
    select = functools.partial(selection_of, recipe, data=data, same_width=same_width, several=several)
    for lesson, metric in zip(
        lessons, [*(stage.select for stage in recipe.earlier_stages), recipe.select], strict=True
    ):
        if metric is not None or lesson is lessons[-1]:
            lesson.select = select(lesson.losses, key=f"{lesson.key}select", metric=metric)
    supervised = baseline_losses(recipe)
    has_baseline = recipe.baseline and len(data.labelled_rows) > 0 and bool(supervised)
    return Plan(
        recipe=recipe,
        data=data,
        teacher_data=taught,
        device=device,
        lessons=lessons,
        baseline_selection=select(supervised, key="select", metric=recipe.select),
        metrics=dict(metrics),
        teacher_parameters=None if (measured := recipe.teacher.as_module()) is None else parameter_count(measured),
        student_parameters=parameter_count(recipe.student.deliver(student)),
        has_baseline=has_baseline,
        proposals=proposals,
        notes=[*data.notes, *on_student, *notes_on(recipe, data, lessons, student, has_baseline)],
    )


def _load(recipe: Recipe, device: torch.device) -> tuple[TransferSet, TransferSet | None]:
    """Loads the teacher and the data, and the rows that the teacher is trained on where the recipe trains it."""
    loaded: list[TransferSet] = []

    def load_teacher() -> None:
        reseed(0, 0, 0)  # a teacher that is trained in the run starts the same each time
        for key, teacher in recipe.teachers().items():
            with within(key):
                teacher.load(device)

    def load_rows() -> None:
        with within("data"):
            data = load_data(recipe)
            for split in ("train", "development", "test"):
                data.rows(split)
        loaded.append(data)

    licensed = functools.partial(check_licences, recipe.teachers(), recipe.licences)
    try:
        licensed()
    except UserError:  # such a teacher is not loaded; what is wrong with the data is told with it
        check_all([licensed, load_rows])
        raise
    check_all([load_teacher, load_rows])
    data = loaded[0]
    checks.check_kind(recipe, data)
    _introduce(recipe, data)
    return data, teacher_data(recipe, data) if recipe.teacher_training is not None else None


def _introduce(recipe: Recipe, data: TransferSet) -> None:
    """Tells every teacher which rows it will be asked about."""

    def labelled() -> Batch:
        taught = teacher_data(recipe, data)
        return taught.batch(taught.labelled_rows)

    asked = sum(data.sizes.values())
    if recipe.asking is not None:
        asked -= max(data.sizes["train"] - recipe.asking.rounds * recipe.asking.per_round, 0)
    facts = TransferFacts(
        inputs=data.inputs_fingerprint,
        rows=len(data),
        classes=data.classes,
        labelled=labelled,
        asked=asked,
        columns=data.columns.teacher_columns,
    )
    for key, teacher in recipe.teachers().items():
        with within(key):
            teacher.meet(facts)
