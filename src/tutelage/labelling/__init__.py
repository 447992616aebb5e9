"""Filling the caches of a recipe: the teacher is asked, once, what the run will ask it."""

from tutelage.labelling.command import label_recipe
from tutelage.labelling.fill import Fill, describe_caches, fill_caches, open_caches
from tutelage.labelling.wanted import asked_at_most, caches_of, notes_on_caps

__all__ = [
    "Fill",
    "asked_at_most",
    "caches_of",
    "describe_caches",
    "fill_caches",
    "label_recipe",
    "notes_on_caps",
    "open_caches",
]
