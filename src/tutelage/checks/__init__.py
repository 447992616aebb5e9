"""What has to fit together before anything is trained; each check names the key of the recipe that does not.

`tutelage.plan` says in which order they are made, and what is loaded between them.
"""

from tutelage.checks.answers_in_columns import check_answered, check_columns, note_on_columns
from tutelage.checks.answers_of_task import check_kinds
from tutelage.checks.delivery import check_export, check_storage, check_weights
from tutelage.checks.evidence import notes_on_evidence
from tutelage.checks.labels import check_kind, check_labels
from tutelage.checks.memory import Question, question_memory
from tutelage.checks.outputs import check_answers
from tutelage.checks.parts import (
    check_batches,
    check_extras,
    check_fewest_rows,
    check_head,
    check_loss,
    check_meaning,
    check_pairs,
    check_precision,
    check_supervised,
    check_teacher_training,
    check_tokenizers,
    check_trained,
)
from tutelage.checks.recipe import check_recipe
from tutelage.checks.rows import check_extreme_rows, check_longest_text, check_padding
from tutelage.checks.starts import note_on_starts
from tutelage.checks.teacher_against_labels import look_at_teachers
from tutelage.checks.timing import check_timing, note_on_timing
from tutelage.checks.training_mode import check_training_mode

__all__ = [
    "Question",
    "check_answered",
    "check_answers",
    "check_batches",
    "check_columns",
    "check_export",
    "check_extras",
    "check_extreme_rows",
    "check_fewest_rows",
    "check_head",
    "check_kind",
    "check_kinds",
    "check_labels",
    "check_longest_text",
    "check_loss",
    "check_meaning",
    "check_padding",
    "check_pairs",
    "check_precision",
    "check_recipe",
    "check_storage",
    "check_supervised",
    "check_teacher_training",
    "check_timing",
    "check_tokenizers",
    "check_trained",
    "check_training_mode",
    "check_weights",
    "look_at_teachers",
    "note_on_columns",
    "note_on_starts",
    "note_on_timing",
    "notes_on_evidence",
    "question_memory",
]
