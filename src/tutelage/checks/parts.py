"""Parts of a recipe that have to fit together: losses, layers, tokenizers, trainings, extras."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn

from tutelage.errors import (
    DataError,
    MissingExtra,
    ModelError,
    RecipeError,
    check_all,
    did_you_mean,
    within,
)
from tutelage.losses import DIST, ForwardCorrection, KLDivergence, Loss, Routed, SoftCrossEntropy
from tutelage.parts import baseline_losses, prepared, teacher_loss
from tutelage.paths import resolve_path
from tutelage.recipe import Head, Recipe
from tutelage.signals import Request
from tutelage.students import HuggingFaceStudent, Student
from tutelage.taps import find_layer
from tutelage.teachers import Ensemble, Teacher, uncached
from tutelage.teachers.sentence_layout import read_layout
from tutelage.teachers.torch_teacher import TorchTeacher
from tutelage.teachers.vocabulary import readers, require_same_form, require_same_ids
from tutelage.training import Training
from tutelage.training.setup import make_accelerator
from tutelage.transfer import Text, TransferSet

__all__ = [
    "check_batches",
    "check_extras",
    "check_fewest_rows",
    "check_head",
    "check_loss",
    "check_meaning",
    "check_pairs",
    "check_precision",
    "check_supervised",
    "check_teacher_training",
    "check_tokenizers",
    "check_trained",
]


def check_extras(recipe: Recipe) -> None:
    """Refuses an export whose packages are not installed."""
    if recipe.export.onnx:
        for package in ("onnx", "onnxscript", "onnxruntime"):
            if importlib.util.find_spec(package) is None:
                raise MissingExtra(package, "onnx", "export.onnx")


def check_precision(recipe: Recipe, device: torch.device) -> None:
    """Refuses float16 on a CPU, for student and teacher."""
    for key, training in recipe.trainings().items():
        if training.precision == "float16" and device.type == "cpu":
            raise RecipeError(
                f"{key}.precision", expected="float32 or bfloat16 on a CPU", found="float16", mend="use bfloat16"
            )


def check_meaning(recipe: Recipe) -> None:
    """Refuses means and divergences of distributions where the outputs are none, or are others."""
    divergences = [functools.partial(_check_divergence, loss, key, recipe.task) for key, loss in recipe.terms().items()]
    check_all([lambda: _check_mean(recipe.teacher, "teacher", recipe.task), *divergences])


def _check_mean(teacher: Teacher, key: str, task: str) -> None:
    if (inner := uncached(teacher)) is not teacher:
        _check_mean(inner, f"{key}.teacher", task)
    if not isinstance(teacher, Ensemble):
        return
    if teacher.mean_of == "probabilities" and task in ("embedding", "regression"):
        raise RecipeError(
            f"{key}.mean_of",
            expected=f"logits: the mean of the outputs themselves, for task {task}",
            found="probabilities",
            harm="the student would learn from the softmax of what is no logit",
            mend="write mean_of: logits",
        )
    right = {"classification": "softmax", "multilabel": "sigmoid"}.get(task)
    if teacher.mean_of == "probabilities" and teacher.outputs != right:
        raise _other_distribution(f"{key}.outputs", str(right), teacher.outputs, task)
    for index, member in enumerate(teacher.members):
        _check_mean(member, f"{key}.members[{index}]", task)


def _check_divergence(loss: Loss, key: str, task: str) -> None:
    """A loss on distributions, or one inside a wrapper, takes the outputs for what the task says they are."""
    if task != "multilabel" or isinstance(loss, Routed):  # what is routed may be of another task
        return
    for part in loss.modules():
        if isinstance(part, KLDivergence | SoftCrossEntropy | DIST) and part.outputs == "softmax":
            raise _other_distribution(f"{key}.outputs", "sigmoid", part.outputs, task)
        if isinstance(part, ForwardCorrection):
            raise RecipeError(
                key,
                expected=f"a loss for task {task}",
                found="ForwardCorrection, whose classes exclude each other",
                mend="use KLDivergence or SoftCrossEntropy with outputs: sigmoid",
            )


def _other_distribution(key: str, right: str, found: str, task: str) -> RecipeError:
    return RecipeError(
        key,
        expected=f"{right}, for task {task}",
        found=found,
        harm="classes that exclude each other are another distribution than labels that are on or off",
        mend=f"write outputs: {right}",
    )


def check_pairs(recipe: Recipe) -> None:
    """Reads the similarity sets: a package or file that is missing is found now."""
    for index, pairs in enumerate(recipe.similarity_sets):
        with within(f"similarity_sets[{index}]"):
            pairs.load()


def check_batches(training: Training, data: TransferSet, key: str) -> None:
    """Refuses more pieces of a batch than it has rows."""
    processes = make_accelerator(training.precision).num_processes
    rows = len(data.rows("train"))
    pieces = training.micro_batches * processes
    if min(training.batch_size, rows) < pieces:
        raise RecipeError(
            f"{key}.micro_batches",
            expected=f"at most {min(training.batch_size, rows)} pieces of a batch over all processes",
            found=f"{training.micro_batches} pieces x {processes} processes",
            mend="lower micro_batches or raise batch_size",
        )


def check_fewest_rows(training: Training, losses: Mapping[str, Loss], data: TransferSet, key: str) -> None:
    """Refuses pieces of a batch that are too small for a loss between rows, which is prepared."""
    rows = len(data.rows("train"))
    pieces = training.micro_batches * make_accelerator(training.precision).num_processes
    smallest = min(training.batch_size, rows) // pieces
    for name, loss in losses.items():
        if smallest < loss.fewest_rows:
            raise RecipeError(
                f"{key}.batch_size",
                expected=f"at least {loss.fewest_rows} rows in a piece, for {name}",
                found=f"{smallest}: {min(training.batch_size, rows)} rows in {pieces} piece(s)",
                harm="this loss compares the rows of a piece, and of so few it, or a part of it, teaches nothing",
                mend="raise batch_size, or lower micro_batches",
            )


def check_tokenizers(teacher: Teacher, student: Student, data: TransferSet, text: Text | None) -> None:
    """Refuses models that read other token ids than those the texts are encoded as."""
    encoder = data.tokenizer_folder
    if encoder is None or not encoder.is_dir():
        return
    folder = teacher.tokenizer_folder
    if folder is not None:
        require_same_ids("teacher", reader=folder, encoder=encoder)
    if data.text_form is not None:
        stated = text is not None and text.prompt is not None
        check_all(functools.partial(require_same_form, each, data.text_form, stated) for each in readers(teacher))
    if isinstance(made := student.innermost.delivered, HuggingFaceStudent):
        path = resolve_path(made.path, key="student.path", error=ModelError)
        require_same_ids("student.path", reader=read_layout(path).model, encoder=encoder)


def check_trained(module: nn.Module, freeze: Sequence[str] | None, key: str, model: str) -> None:
    """Frozen layers exist, and something is left to train."""
    frozen: set[int] = set()
    with within(f"{key}.freeze"):
        for path in freeze or ():
            frozen |= {id(parameter) for parameter in find_layer(module, path, model=model).parameters()}
    if not any(p.requires_grad and id(p) not in frozen for p in module.parameters()):
        raise RecipeError(
            f"{key}.freeze" if freeze else model,
            expected=f"a {model} with at least one parameter that is trained",
            found="all are frozen" if frozen else "none that requires a gradient",
            harm=f"the {model} would stay as it is",
            mend="freeze fewer layers" if freeze else f"give a {model} with parameters",
        )


def check_loss(loss: Loss, teacher: Teacher, recipe: Recipe, data: TransferSet, student: nn.Module) -> None:
    """The layers that a loss reads exist, and labels are there if it needs them."""
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
    teacher.check(loss.needs.teacher)


def check_head(name: str, head: Head, recipe: Recipe, data: TransferSet, student: nn.Module) -> None:
    """The layer, the teacher and the labels of a head exist."""
    with within(f"heads.{name}"):
        find_layer(student, head.student, model="student")
        recipe.teacher.check(Request(members={head.teacher: Request(output=True)}))
        if head.labels is not None and head.labels not in data.tasks:
            raise RecipeError(
                "labels",
                expected="one of data.tasks",
                found=head.labels,
                mend=did_you_mean(head.labels, data.tasks) or "name the column in data.tasks",
            )


def check_teacher_training(recipe: Recipe, data: TransferSet | None) -> None:
    """The teacher can be trained: it is made of modules, and there are labels to learn and to choose by."""
    training, modules = recipe.teacher_training, recipe.teacher.modules
    if training is None or data is None:
        return
    if not modules:
        raise RecipeError(
            "teacher_training",
            expected="a teacher that is a torch module, or made of some",
            found=recipe.teacher.describe(),
            mend="remove teacher_training, or use ModuleTeacher",
        )
    for name, each in _torch_teachers(recipe.teacher, "teacher"):
        if each.gives not in ("logits", "values"):
            raise RecipeError(
                f"{name}.gives",
                expected="logits, of a teacher that the run trains",
                found=each.gives,
                harm="it would be trained on probabilities as if they were logits",
                mend="take softmax or sigmoid out of its forward, and leave `gives` out",
            )
    for module in modules.values():
        check_trained(module, training.freeze, "teacher_training", "teacher")
    splits = {"training": data.labelled_rows, "development": data.rows("development")}
    for name, rows in splits.items():
        if not data.labelled[rows].any():
            raise DataError(
                "teacher_training",
                expected=f"labels on {name} rows",
                found="none",
                harm="there would be nothing to train the teacher on"
                if name == "training"
                else "the teacher's best weights are chosen by labels",
                mend=f"label {name} rows, or remove teacher_training and give a teacher that is trained",
            )


def _torch_teachers(teacher: Teacher, key: str) -> Iterator[tuple[str, TorchTeacher]]:
    """Every torch module that a teacher is or is made of, with its key."""
    if isinstance(teacher, TorchTeacher):
        yield key, teacher
    for name, inner in teacher.inner.items():
        yield from _torch_teachers(inner, f"{key}.{name}".rstrip("."))


def check_supervised(
    recipe: Recipe, data: TransferSet, taught: TransferSet | None, student: nn.Module, device: torch.device
) -> None:
    """The losses of the baseline and of the teacher's training take what the models say and the labels."""
    if recipe.baseline and len(data.labelled_rows):
        with within("baseline"):
            prepared(baseline_losses(recipe), student, data, device)
    for name, module in recipe.teacher.modules.items() if recipe.teacher_training is not None else ():
        loss = teacher_loss(recipe, name)
        if taught is not None and loss is not None:
            with within("teacher_training"):
                prepared([loss], module, taught, device, name="teacher")
