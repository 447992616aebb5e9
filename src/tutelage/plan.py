"""The plan: everything that can be known before compute, checked before compute.

`make_plan` loads the data and the teacher, builds the student, and traces both on two rows. What does not fit (a layer
that does not exist, a loss whose needs the teacher can't supply, labels that are lacking, shapes that don't match) is
refused here, all of it in one message, before the first batch is trained on.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from tutelage.devices import Target
from tutelage.errors import DataError, MissingExtra, RecipeError, SignalError, UserError, did_you_mean
from tutelage.evaluation.metrics import available_metrics
from tutelage.governance.policy import check_budget, check_gates
from tutelage.losses import Loss, all_losses
from tutelage.recipe import Recipe
from tutelage.signals import Batch, Request, Signals
from tutelage.students import ParameterCount, parameter_count
from tutelage.taps import Layer, find_layer, layers, observe
from tutelage.training import Training
from tutelage.training.loop import make_accelerator, reseed
from tutelage.training.step import Learner, global_scales, needs_of
from tutelage.transfer import Order, TransferSet

__all__ = ["Forecast", "Plan", "baseline_losses", "build_student", "labelled_order", "make_plan", "supervised_loss"]

SELECT = {
    "classification": ("accuracy", "agreement"),
    "multilabel": ("micro_f1", "agreement"),
    "regression": ("rmse", "rmse_to_teacher"),
    "embedding": ("cosine", "pair_spearman"),
}
"""The metric the best weights are kept by: the first that the development split allows."""

LOWER_IS_BETTER = frozenset({"nll", "brier", "ece", "kl", "rmse", "mae", "rmse_to_teacher", "negative_flips"})


@dataclass(kw_only=True)
class Plan:
    """What a run will do, with everything that it needs loaded and checked.

    Attributes:
        recipe: As given.
        data: The transfer set as the student may see it.
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
        return self.select not in LOWER_IS_BETTER

    def layers(self) -> dict[str, list[Layer]]:
        """The layers of teacher and student that taps can be set on, with their shapes for two rows."""
        batch = self.data.example(2).to(self.device)
        models = {"teacher": self.recipe.teacher.module, "student": build_student(self.recipe, 0, self.device)}
        return {name: layers(module, batch.inputs) for name, module in models.items() if module is not None}

    def forecast(self, timed_steps: int = 3) -> Forecast:
        """Times a few steps on copies, on real batches; nothing that is kept is trained."""
        recipe = self.recipe
        learner = Learner(build_student(recipe, 0, self.device), copy.deepcopy(self.losses)).to(self.device)
        order = self.data.order(recipe.training.batch_size, 0)
        teacher_seconds, seconds = [], []
        for step in range(timed_steps + 1):
            begin = time.perf_counter()
            batch = self.data.batch(*order.batch(step)).to(self.device)
            asked = time.perf_counter()
            signals = recipe.teacher.ask(batch, self.teacher_request) if self.teacher_request else Signals()
            answered = time.perf_counter()
            total, _ = learner(batch, signals, global_scales(self.losses, [batch]).to(self.device))
            total.backward()
            float(total.detach())
            seconds.append(time.perf_counter() - begin)
            teacher_seconds.append(answered - asked)
        learner.close()
        step_seconds, ask_seconds = sorted(seconds[1:])[timed_steps // 2], sorted(teacher_seconds[1:])[timed_steps // 2]
        baseline = (step_seconds - ask_seconds) * self.steps if self.has_baseline else 0.0
        return Forecast(
            step_seconds=step_seconds,
            teacher_share=ask_seconds / step_seconds,
            training_seconds=len(recipe.seeds) * (step_seconds * self.steps + baseline),
        )


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What training will cost, from a few timed steps.

    Attributes:
        step_seconds: Median seconds of a step.
        teacher_share: Share of a step that the teacher takes.
        training_seconds: All students and baselines of all seeds, without a teacher's training.
    """

    step_seconds: float
    teacher_share: float
    training_seconds: float


def build_student(recipe: Recipe, seed: int, device: torch.device) -> nn.Module:
    """The student as it is before training, the same for a seed each time."""
    reseed(seed, 0, 0)
    return recipe.student.build(recipe.teacher).to(device)


def supervised_loss(recipe: Recipe) -> Loss | None:
    """The task's loss against labels, or None where labels are no target."""
    names = {"classification": "CrossEntropy", "multilabel": "BinaryCrossEntropy", "regression": "MeanSquaredError"}
    name = names.get(recipe.task)
    return all_losses()[name]() if name else None


def baseline_losses(recipe: Recipe) -> list[Loss]:
    """What the student learns without its teacher: the recipe's own losses against labels, else the task's."""
    own = [loss for loss in recipe.losses if loss.needs.labels and not loss.needs.teacher]
    if own:
        return copy.deepcopy(own)
    loss = supervised_loss(recipe)
    return [loss] if loss is not None else []


def labelled_order(data: TransferSet, training: Training, seed: int) -> Order:
    """The order of a training on labelled rows alone."""
    rows = data.labelled_rows
    return Order(rows, training.batch_size, seed=seed, lengths=data.lengths(rows), views=data.views)


@contextlib.contextmanager
def _within(key: str) -> Iterator[None]:
    """Puts the recipe's key before that of an error that arises within."""
    try:
        yield
    except MissingExtra:
        raise
    except UserError as error:
        raise type(error)(
            f"{key}: {error.key}", expected=error.expected, found=error.found, harm=error.harm, mend=error.mend
        ) from error


def make_plan(recipe: Recipe) -> Plan:
    """Loads, builds and traces what the recipe names, and checks all of it against all of it.

    Raises:
        UserError: Something does not fit. Several mistakes that are independent are named in one message.
    """
    recipe.check()
    check_budget(recipe.budget)
    Target.parse(recipe.measure.device, key="measure.device")
    _check_extras(recipe)
    device = make_accelerator(recipe.training.precision).device
    if recipe.training.precision == "float16" and device.type == "cpu":
        raise RecipeError(
            "training.precision", expected="float32 or bfloat16 on a CPU", found="float16", mend="use bfloat16"
        )
    reseed(0, 0, 0)  # a teacher that is trained in the run starts the same each time
    with _within("teacher"):
        recipe.teacher.load(device)
    with _within("data"):
        data = recipe.data.load(recipe.teacher.tokenizer_folder)
        for split in ("train", "development", "test"):
            data.rows(split)
    _check_batches(recipe, data)
    student = build_student(recipe, recipe.seeds[0], device)
    losses = copy.deepcopy(recipe.losses)
    student_request, teacher_request, _ = needs_of(losses)
    student_request, teacher_request = (r | Request(output=True) for r in (student_request, teacher_request))
    _collect([lambda: _check_losses(recipe, data, student), lambda: recipe.teacher.check(teacher_request)])
    batch = data.example(2).to(device)
    teacher_says, student_says = _trace(recipe, student, batch, student_request, teacher_request)
    _check_outputs(recipe, data, teacher_says, student_says)
    reseed(recipe.seeds[0], 0, 1)  # and so do the losses' own trained parts
    for index, loss in enumerate(losses):
        with _within(f"losses[{index}] ({type(loss).__name__})"):
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
        notes=[*data.notes, *_notes(recipe, data, losses, has_baseline)],
    )


def _collect(checks: Sequence[object]) -> None:
    """Runs independent checks and raises what they found together."""
    found: list[UserError] = []
    for check in checks:
        assert callable(check)
        try:
            check()
        except UserError as error:
            found.append(error)
    if len(found) > 1:
        first = found[0]
        first.args = ("\n".join(str(error) for error in found),)
    if found:
        raise found[0]


def _check_extras(recipe: Recipe) -> None:
    if recipe.export.onnx:
        for package in ("onnx", "onnxscript", "onnxruntime"):
            if importlib.util.find_spec(package) is None:
                raise MissingExtra(package, "onnx", "export.onnx")


def _check_batches(recipe: Recipe, data: TransferSet) -> None:
    processes = make_accelerator(recipe.training.precision).num_processes
    training, rows = recipe.training, len(data.rows("train"))
    pieces = training.micro_batches * processes
    if min(training.batch_size, rows) < pieces:
        raise RecipeError(
            "training.micro_batches",
            expected=f"at most {min(training.batch_size, rows)} pieces of a batch over all processes",
            found=f"{training.micro_batches} pieces x {processes} processes",
            mend="lower micro_batches or raise batch_size",
        )


def _check_losses(recipe: Recipe, data: TransferSet, student: nn.Module) -> None:
    """Layers exist, and labels are there for the losses that need them."""
    checks = []
    for index, loss in enumerate(recipe.losses):
        key = f"losses[{index}] ({type(loss).__name__})"
        checks.append(lambda loss=loss, key=key: _check_loss(loss, key, recipe, data, student))
    _collect(checks)


def _check_loss(loss: Loss, key: str, recipe: Recipe, data: TransferSet, student: nn.Module) -> None:
    with _within(key):
        if loss.needs.labels and not len(data.labelled_rows):
            raise DataError(
                "labels",
                expected="training rows with a label",
                found="none" if recipe.data.labelled != 0 else "data.labelled: 0",
                harm="this loss would never have anything to learn from",
                mend="name the label column in data.source, raise data.labelled, or remove this loss",
            )
        for path in sorted(loss.needs.student.features):
            find_layer(student, path, model="student")
        recipe.teacher.check(loss.needs.teacher)


def _trace(
    recipe: Recipe, student: nn.Module, batch: Batch, student_request: Request, teacher_request: Request
) -> tuple[Signals, Signals]:
    """What both models say about two rows."""
    with _within("teacher"), _shape_errors("the teacher"):
        teacher_says = recipe.teacher.ask(batch, teacher_request)
    student.eval()
    with _within("student"), _shape_errors("the student"), torch.no_grad():
        student_says = observe(student, batch.inputs, student_request, model="student")
    return teacher_says, student_says


@contextlib.contextmanager
def _shape_errors(model: str) -> Iterator[None]:
    """A module that can't take the data's batch fails with torch's own error: say what that means."""
    try:
        yield
    except (RuntimeError, TypeError, ValueError, IndexError, KeyError) as error:
        raise SignalError(
            f"{model} on the first two rows of the data",
            expected="a forward pass",
            found=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            mend="the inputs that the data gives are not those that the module takes: "
            "compare data.source with the module's forward",
        ) from error


def _only(signals: Signals, request: Request) -> Signals:
    features = {path: signals.features[path] for path in request.features}
    return Signals(output=signals.output if request.output else None, features=features)


def _check_outputs(recipe: Recipe, data: TransferSet, teacher: Signals, student: Signals) -> None:
    """Outputs are finite, and as wide as the task and the labels say."""
    for name, says in (("teacher", teacher), ("student", student)):
        assert says.output is not None
        if not bool(torch.isfinite(says.output).all()):
            raise SignalError(
                f"{name}: output",
                expected="finite numbers",
                found=f"NaN or infinity in an output of shape {tuple(says.output.shape)}",
                harm="the student would learn nothing but NaN",
                mend="look at the inputs' scale and at the weights",
            )
    assert teacher.output is not None and student.output is not None
    if recipe.task != "classification" or data.labels is None:
        return
    known = recipe.teacher.classes
    if known and data.classes and known != data.classes and sorted(known) == sorted(data.classes):
        raise DataError(
            "classes",
            expected=f"the teacher's order: {', '.join(known)}",
            found=f"the data's order: {', '.join(data.classes)}",
            harm="labels and the teacher's logits would mean different classes by the same number",
            mend="give data.source the argument `classes` in the teacher's order",
        )
    classes = len(data.classes) or int(data.labels[data.labelled].max(initial=0)) + 1
    for name, output in (("teacher", teacher.output), ("student", student.output)):
        if classes not in output.shape[1:]:
            raise SignalError(
                f"{name}: output",
                expected=f"logits of {classes} classes: (2, {classes})",
                found=f"shape {tuple(output.shape)}",
                mend=f"give the {name} {classes} outputs, or another data.source",
            )


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


def _notes(recipe: Recipe, data: TransferSet, losses: Sequence[Loss], has_baseline: bool) -> list[str]:
    notes = []
    split = recipe.training.micro_batches * make_accelerator(recipe.training.precision).num_processes
    for index, loss in enumerate(losses):
        if not loss.per_sample and split > 1:
            notes.append(
                f"losses[{index}] ({type(loss).__name__}) compares the rows of a piece with each other: "
                f"a batch in {split} pieces is another loss than the whole batch"
            )
    known = recipe.teacher.classes
    if known and data.classes and sorted(known) != sorted(data.classes):
        notes.append(
            f"the teacher calls its classes {', '.join(known)}, the data {', '.join(data.classes)}: "
            "see that they stand in the same order"
        )
    if recipe.task != "embedding" and recipe.baseline and not has_baseline:
        notes.append("no baseline: there are no labels to train the student on without its teacher")
    budget = recipe.budget
    limits = (budget.latency_p95_ms, budget.size_mb, budget.peak_memory_mb, budget.latency_vs_teacher)
    if not recipe.policy and all(limit is None for limit in limits):
        notes.append("no budget and no policy: nothing will be judged, and the verdict will be INCONCLUSIVE")
    if importlib.util.find_spec("tensorboard") is None:
        notes.append('no TensorBoard logs: pip install "tutelage[tracking]" to have them')
    return notes
