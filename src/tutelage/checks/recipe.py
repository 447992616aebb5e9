"""What a recipe alone shows, before anything is loaded."""

from __future__ import annotations

import functools
from collections.abc import Callable

from tutelage.checks.answers_in_columns import check_columns
from tutelage.checks.parts import check_extras, check_meaning, check_pairs
from tutelage.devices import Target
from tutelage.errors import UserError, check_all
from tutelage.evaluation.metrics import available_metrics
from tutelage.governance.licence import check_licences
from tutelage.governance.policy import check_budget, check_gates
from tutelage.recipe import Recipe

__all__ = ["check_recipe"]


def check_recipe(recipe: Recipe) -> None:
    """Refuses what the recipe alone shows to be wrong.

    A licence is told with other mistakes; if it alone is missing, with what loading the data finds.

    Raises:
        RecipeError: Naming the keys.
    """
    try:
        check_all(_checks(recipe))
    except UserError:
        licensed = functools.partial(check_licences, recipe.teachers(), recipe.licences)
        check_all([licensed, *_checks(recipe)])
        raise


def _checks(recipe: Recipe) -> list[Callable[[], object]]:
    sets = [pairs.name for pairs in recipe.similarity_sets]
    known = available_metrics(recipe.task, labels=True, sets=sets, same_width=True)
    for name, head in recipe.heads.items():
        known |= available_metrics(head.task, labels=head.labels is not None, on=name)
    return [
        recipe.check,
        lambda: check_budget(recipe.budget),
        lambda: check_gates(recipe.policy, known, recipe.task),
        lambda: Target.parse(recipe.measure.device, key="measure.device").require(key="measure.device"),
        lambda: check_extras(recipe),
        lambda: check_meaning(recipe),
        lambda: check_pairs(recipe),
        lambda: check_columns(recipe),
    ]
