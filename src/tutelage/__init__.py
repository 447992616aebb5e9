"""tutelage: model distillation. A teacher's signals teach a student until it meets a budget and a policy.

The public names below are loaded when first used, so that `import tutelage` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tutelage.generation import ChatModel, Generation, Prompts, generate
    from tutelage.governance.licence import Licence
    from tutelage.governance.policy import Budget, Gate
    from tutelage.pipeline import Result, distill, evaluate, measure, report
    from tutelage.plan import make_plan
    from tutelage.recipe import Export, Measure, Recipe
    from tutelage.recipe_file import load_generation, load_recipe
    from tutelage.students import CutStudent, ModuleStudent
    from tutelage.teachers import Cached, Ensemble, HuggingFaceTeacher, ModuleTeacher
    from tutelage.training import Training
    from tutelage.transfer import Arrays, Data, Images, Splits, Text

__version__ = "0.1.0"

_HOMES = {
    "Arrays": "transfer",
    "Budget": "governance.policy",
    "Cached": "teachers",
    "ChatModel": "generation",
    "CutStudent": "students",
    "Data": "transfer",
    "Ensemble": "teachers",
    "Export": "recipe",
    "Gate": "governance.policy",
    "Generation": "generation",
    "HuggingFaceTeacher": "teachers",
    "Images": "transfer",
    "Licence": "governance.licence",
    "Measure": "recipe",
    "ModuleStudent": "students",
    "ModuleTeacher": "teachers",
    "Prompts": "generation",
    "Recipe": "recipe",
    "Result": "pipeline",
    "Splits": "transfer",
    "Text": "transfer",
    "Training": "training",
    "distill": "pipeline",
    "evaluate": "pipeline",
    "generate": "generation",
    "load_generation": "recipe_file",
    "load_recipe": "recipe_file",
    "make_plan": "plan",
    "measure": "pipeline",
    "report": "pipeline",
}
_FOLDERS = ("losses", "students", "teachers", "transfer")

__all__ = [
    "Arrays",
    "Budget",
    "Cached",
    "ChatModel",
    "CutStudent",
    "Data",
    "Ensemble",
    "Export",
    "Gate",
    "Generation",
    "HuggingFaceTeacher",
    "Images",
    "Licence",
    "Measure",
    "ModuleStudent",
    "ModuleTeacher",
    "Prompts",
    "Recipe",
    "Result",
    "Splits",
    "Text",
    "Training",
    "distill",
    "evaluate",
    "generate",
    "load_generation",
    "load_recipe",
    "make_plan",
    "measure",
    "report",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"tutelage.{_HOMES[name]}"), name)
    if name in _FOLDERS:
        return importlib.import_module(f"tutelage.{name}")
    raise AttributeError(f"module 'tutelage' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_FOLDERS])
