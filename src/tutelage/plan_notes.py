"""What the user of a plan should know: nothing is wrong, but it may not be what was meant."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from torch import nn

from tutelage import checks
from tutelage.balance import label_notes
from tutelage.checks.class_names import same_names
from tutelage.governance.licence import licence_records
from tutelage.lessons import Lesson
from tutelage.recipe import Recipe
from tutelage.teachers import FunctionTeacher, Teacher
from tutelage.training.setup import make_accelerator
from tutelage.transfer import TransferSet

__all__ = ["notes_on"]

_BATCH_NORM = nn.modules.batchnorm._BatchNorm


def notes_on(
    recipe: Recipe, data: TransferSet, lessons: Sequence[Lesson], student: nn.Module, has_baseline: bool
) -> list[str]:
    """What a run with these parts does that its user might not expect."""
    notes = []
    processes = make_accelerator(recipe.training.precision).num_processes
    for lesson in lessons:
        split = lesson.training.micro_batches * processes
        notes += [
            f"{name} compares the rows of a piece with each other: "
            f"a batch in {split} pieces is another loss than the whole batch"
            for name, loss in lesson.named_losses().items()
            if not loss.per_sample and split > 1
        ]
    rows = data.sizes["train"]
    notes += [
        f"{key}.batch_size {training.batch_size:,} is more than the {rows:,} training rows: batches are smaller"
        for key, training in recipe.trainings().items()
        if training.batch_size > rows
    ]
    split = recipe.training.micro_batches * processes
    normalised = [path for path, module in student.named_modules() if isinstance(module, _BATCH_NORM)]
    if normalised and split > 1:
        notes.append(
            f"the student normalises over a batch ({normalised[0]}): in {split} pieces each piece by its own "
            "statistics, which is not the same as the whole batch"
        )
    notes += [f"{key}: {note}" for key, teacher in recipe.teachers().items() for note in teacher.notes]
    if recipe.teacher.as_module() is None and recipe.teacher.served() is not None and _is_function(recipe.teacher):
        notes.append(
            "the teacher's function is called again and again to be timed, once the student is trained; if a call "
            "costs something, put it in Cached with lazy: true"
        )
    notes += checks.note_on_columns(recipe)
    notes += checks.note_on_starts(recipe, student)
    notes += checks.note_on_timing(recipe, data, recipe.student.deliver(student))
    if recipe.asking is not None and data.views is not None:
        notes.append("asking counts rows, but with data.views the teacher answers a new view of each in every epoch")
    records = licence_records(recipe.teachers(), recipe.licences)
    notes += [record.sentence() for record in records if record.licence.use == "unknown"]
    known = recipe.teacher.classes
    if known and data.classes and not same_names(known, data.classes):
        notes.append(
            f"the teacher calls its classes {', '.join(known)}, the data {', '.join(data.classes)}: "
            "see that they stand in the same order"
        )
    notes += label_notes(recipe, data)
    notes += checks.notes_on_evidence(recipe, data)
    if recipe.task != "embedding" and recipe.baseline and not has_baseline:
        notes.append("no baseline: there are no labels to train the student on without its teacher")
    if not recipe.policy and not recipe.budget.limits():
        notes.append("no budget and no policy: nothing will be judged, and the verdict will be INCONCLUSIVE")
    if importlib.util.find_spec("tensorboard") is None:
        notes.append('no TensorBoard logs: pip install "tutelage[tracking]" to have them')
    return notes


def _is_function(teacher: Teacher) -> bool:
    """Whether a function of the user's is, or is a part of, a teacher."""
    return isinstance(teacher, FunctionTeacher) or any(map(_is_function, teacher.inner.values()))
