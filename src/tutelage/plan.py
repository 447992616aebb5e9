"""The plan: everything that can be known before compute, checked before compute.

`make_plan` loads the data and the teacher, builds the student, and traces both on two rows. What does not fit (a layer
that does not exist, a loss whose needs the teacher can't supply, labels that are lacking, shapes that don't match) is
refused here, before the first batch is trained on. `tutelage.checks` holds the checks themselves.
"""

from __future__ import annotations

import copy
import functools
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from tutelage import checks
from tutelage.checks import within
from tutelage.devices import Target
from tutelage.errors import RecipeError, check_all, did_you_mean
from tutelage.evaluation.metrics import available_metrics, describe
from tutelage.forecast import Forecast, make_forecast
from tutelage.governance.policy import check_budget, check_gates
from tutelage.losses import Loss
from tutelage.parts import baseline_losses, build_student, introduce, teacher_data
from tutelage.recipe import Recipe
from tutelage.signals import Request, Signals
from tutelage.students import ParameterCount, parameter_count
from tutelage.taps import Layer, layers
from tutelage.training.setup import make_accelerator, reseed
from tutelage.training.step import needs_of
from tutelage.transfer import TransferSet

__all__ = [
    "SELECT",
    "Forecast",
    "Plan",
    "higher_is_better",
    "make_plan",
]

SELECT = {
    "classification": ("accuracy", "agreement"),
    "multilabel": ("micro_f1", "agreement"),
    "regression": ("rmse", "rmse_to_teacher"),
    "embedding": ("cosine", "pair_spearman"),
}
"""The metric the best weights are kept by: the first that the development split allows."""

_BATCH_NORM = nn.modules.batchnorm._BatchNorm


def higher_is_better(metric: str) -> bool:
    """Direction of a metric, as the evaluation describes it."""
    about = describe(metric)
    assert about is not None, f"no task has the metric {metric}"
    return about.higher_is_better


@dataclass(kw_only=True)
class Plan:
    """What a run will do, with everything that it needs loaded and checked.

    Attributes:
        recipe: As given.
        data: The transfer set as the student may see it.
        teacher_data: The rows the teacher is trained on, if the recipe trains it.
        device: Where training happens.
        losses: Prepared for the traced shapes; each training takes a copy.
        student_request: What the losses read of the student.
        teacher_request: What they read of the teacher.
        steps: Optimiser steps of a student.
        select: The metric the best weights are kept by; `higher_is_better` is its direction.
        metrics: The metrics this run will have, and their kinds.
        teacher_parameters: None for a teacher that is not a module.
        student_parameters: Before any training.
        has_baseline: Whether the student without distillation is trained as well.
        notes: What the user should know.
    """

    recipe: Recipe
    data: TransferSet
    teacher_data: TransferSet | None
    device: torch.device
    losses: list[Loss]
    student_request: Request
    teacher_request: Request
    steps: int
    select: str
    metrics: dict[str, str]
    teacher_parameters: ParameterCount | None
    student_parameters: ParameterCount
    has_baseline: bool
    notes: list[str] = field(default_factory=list)

    @property
    def higher_is_better(self) -> bool:
        """Direction of `select`."""
        return higher_is_better(self.select)

    def layers(self) -> dict[str, list[Layer]]:
        """The layers of teacher and student that taps can be set on, with their shapes for two rows."""
        batch = self.data.example(2).to(self.device)
        models = {"teacher": self.recipe.teacher.module, "student": build_student(self.recipe, 0, self.device)}
        return {name: layers(module, batch.inputs) for name, module in models.items() if module is not None}

    def forecast(self, timed_steps: int = 3) -> Forecast:
        """Times a few steps of each training on copies, on real batches; nothing that is kept is trained."""
        return make_forecast(self, timed_steps)


def make_plan(recipe: Recipe) -> Plan:
    """Loads, builds and traces what the recipe names, and checks all of it against all of it.

    It goes in four stages: what the recipe alone shows; loading teacher and data; student, layers, labels and
    tokenizers; what both models say about a few rows. All that is wrong in a stage is named in one message; a later
    stage needs what the earlier ones loaded.

    Raises:
        UserError: Something does not fit.
    """
    check_all(_checks_of_the_recipe(recipe))
    device = make_accelerator(recipe.training.precision).device
    checks.check_precision(recipe, device)
    data, taught = _load(recipe, device)
    student = build_student(recipe, recipe.seeds[0], device)
    losses = copy.deepcopy(recipe.losses)
    student_request, teacher_request, _ = needs_of(losses)
    student_request, teacher_request = (r | Request(output=True) for r in (student_request, teacher_request))
    check_all(
        [
            *_checks_of_losses(recipe, data, student),
            lambda: recipe.teacher.check(teacher_request),
            lambda: checks.check_batches(recipe, data),
            lambda: checks.check_tokenizers(recipe.teacher, recipe.student, data),
            lambda: checks.check_trained(student, recipe.training.freeze, "training", "student"),
            lambda: checks.check_teacher_training(recipe, taught),
        ]
    )
    batch = data.example(2).to(device)
    teacher_says, student_says = checks.trace(recipe, student, batch, student_request, teacher_request)
    checks.check_labels(recipe, data, teacher_says, student_says)
    if taught is not None and taught is not data:
        checks.check_labels(recipe, taught, teacher_says, student_says)
    checks.check_answers(recipe, data, student, device)
    checks.check_supervised(recipe, data, taught, student, device)
    reseed(recipe.seeds[0], 0, 1)  # the losses' own trained parts start the same each time
    for index, loss in enumerate(losses):
        with within(f"losses[{index}] ({type(loss).__name__})"):
            introduce([loss], recipe.teacher, data)
            loss.prepare(_only(student_says, loss.needs.student), _only(teacher_says, loss.needs.teacher), batch)
            loss.to(device)
    labelled = bool(data.labelled[data.rows("test")].any())
    assert teacher_says.output is not None and student_says.output is not None
    same_width = teacher_says.output.shape == student_says.output.shape
    sets = [pairs.name for pairs in recipe.similarity_sets]
    metrics = available_metrics(recipe.task, labels=labelled, sets=sets, same_width=same_width)
    check_gates(recipe.policy, metrics)
    has_baseline = recipe.baseline and len(data.labelled_rows) > 0 and bool(baseline_losses(recipe))
    return Plan(
        recipe=recipe,
        data=data,
        teacher_data=taught,
        device=device,
        losses=losses,
        student_request=student_request,
        teacher_request=needs_of(losses)[1],
        steps=recipe.training.total_steps(data.order(recipe.training.batch_size, 0).steps_per_epoch),
        select=_select(recipe, data, same_width),
        metrics=dict(metrics),
        teacher_parameters=None if (measured := recipe.teacher.as_module()) is None else parameter_count(measured),
        student_parameters=parameter_count(student),
        has_baseline=has_baseline,
        notes=[*data.notes, *_notes(recipe, data, losses, student, has_baseline)],
    )


def _checks_of_the_recipe(recipe: Recipe) -> list[Callable[[], object]]:
    sets = [pairs.name for pairs in recipe.similarity_sets]
    known = available_metrics(recipe.task, labels=True, sets=sets, same_width=True)
    return [
        recipe.check,
        lambda: check_budget(recipe.budget),
        lambda: check_gates(recipe.policy, known),
        lambda: Target.parse(recipe.measure.device, key="measure.device").require(key="measure.device"),
        lambda: checks.check_extras(recipe),
        lambda: checks.check_meaning(recipe),
        lambda: checks.check_pairs(recipe),
    ]


def _load(recipe: Recipe, device: torch.device) -> tuple[TransferSet, TransferSet | None]:
    """Loads the teacher and the data, and the rows that the teacher is trained on where the recipe trains it."""
    loaded: list[TransferSet] = []

    def load_teacher() -> None:
        reseed(0, 0, 0)  # a teacher that is trained in the run starts the same each time
        with within("teacher"):
            recipe.teacher.load(device)

    def load_data() -> None:
        with within("data"):
            data = recipe.data.load(recipe.teacher.tokenizer_folder)
            for split in ("train", "development", "test"):
                data.rows(split)
        loaded.append(data)

    check_all([load_teacher, load_data])
    data = loaded[0]
    return data, teacher_data(recipe, data) if recipe.teacher_training is not None else None


def _checks_of_losses(recipe: Recipe, data: TransferSet, student: nn.Module) -> list[Callable[[], None]]:
    def check(index: int, loss: Loss) -> None:
        with within(f"losses[{index}] ({type(loss).__name__})"):
            checks.check_loss(loss, recipe, data, student)

    return [functools.partial(check, index, loss) for index, loss in enumerate(recipe.losses)]


def _only(signals: Signals, request: Request) -> Signals:
    features = {path: signals.features[path] for path in request.features}
    return Signals(output=signals.output if request.output else None, features=features)


def _select(recipe: Recipe, data: TransferSet, same_width: bool) -> str:
    """The metric by which the best weights are kept."""
    labelled = bool(data.labelled[data.rows("development")].any())
    known = available_metrics(recipe.task, labels=labelled, sets=[], same_width=same_width)
    if recipe.select is not None:
        if recipe.select not in known:
            raise RecipeError(
                "select",
                expected="a metric of the development split",
                found=recipe.select,
                mend=did_you_mean(recipe.select, known),
            )
        return recipe.select
    return next(name for name in SELECT[recipe.task] if name in known)


def _notes(
    recipe: Recipe, data: TransferSet, losses: Sequence[Loss], student: nn.Module, has_baseline: bool
) -> list[str]:
    notes = []
    split = recipe.training.micro_batches * make_accelerator(recipe.training.precision).num_processes
    for index, loss in enumerate(losses):
        if not loss.per_sample and split > 1:
            notes.append(
                f"losses[{index}] ({type(loss).__name__}) compares the rows of a piece with each other: "
                f"a batch in {split} pieces is another loss than the whole batch"
            )
    normalised = [path for path, module in student.named_modules() if isinstance(module, _BATCH_NORM)]
    if normalised and split > 1:
        notes.append(
            f"the student normalises over a batch ({normalised[0]}): in {split} pieces each piece by its own "
            "statistics, which is not the same as the whole batch"
        )
    known = recipe.teacher.classes
    if known and data.classes and sorted(known) != sorted(data.classes):
        notes.append(
            f"the teacher calls its classes {', '.join(known)}, the data {', '.join(data.classes)}: "
            "see that they stand in the same order"
        )
    if recipe.task != "embedding" and recipe.baseline and not has_baseline:
        notes.append("no baseline: there are no labels to train the student on without its teacher")
    if not recipe.policy and not recipe.budget.limits():
        notes.append("no budget and no policy: nothing will be judged, and the verdict will be INCONCLUSIVE")
    if importlib.util.find_spec("tensorboard") is None:
        notes.append('no TensorBoard logs: pip install "tutelage[tracking]" to have them')
    return notes
