"""Types of the fields of a recipe that was made in Python; one in YAML is checked before it is built."""

from __future__ import annotations

import inspect
import types
import typing
from dataclasses import fields, is_dataclass
from typing import Any, Literal, get_args, get_origin

from tutelage.errors import RecipeError, did_you_mean
from tutelage.governance.policy import Budget, Gate
from tutelage.losses import Loss
from tutelage.students import Student
from tutelage.teachers import Teacher
from tutelage.training import Training
from tutelage.transfer import Data, Source

__all__ = ["check_types"]

MENDS: dict[type, str] = {
    Teacher: "wrap a torch module in it: tt.ModuleTeacher(module)",
    Student: "give a function that makes the module: tt.ModuleStudent(lambda: module)",
    Source: "wrap arrays in it: tt.Arrays(inputs, labels)",
    Data: "put the rows in it: tt.Data(source=tt.Arrays(inputs, labels))",
    Training: "write tt.Training(steps=1000)",
    Loss: "take one of tt.losses, such as tt.losses.KLDivergence()",
    Gate: 'write tt.Gate("accuracy", margin=0.01)',
    Budget: "write tt.Budget(size_mb=1)",
}
"""What a recipe made in Python needs instead of what is at hand, by the type it needs."""


def check_types(part: Any, key: str = "") -> None:
    """Refuses a field of a part of a recipe that is of another type than it says; numbers and texts are not looked at.

    Raises:
        RecipeError: Naming the field.
    """
    hints = typing.get_type_hints(type(part))
    for each in fields(part):
        _check_type(getattr(part, each.name), hints[each.name], f"{key}.{each.name}".lstrip("."))


def _check_type(value: Any, hint: Any, key: str) -> None:
    origin, choices = get_origin(hint), get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in choices:
            return
        inner = [choice for choice in choices if choice is not type(None)]
        if len(inner) == 1:
            _check_type(value, inner[0], key)
    elif origin is Literal:
        if value not in choices:
            names = [str(choice) for choice in choices]
            mend = did_you_mean(str(value), names)
            raise RecipeError(key, expected=f"one of {', '.join(names)}", found=repr(value), mend=mend)
    elif origin is list:
        if not isinstance(value, (list, tuple)):
            mend = f"put it in a list: {key.rpartition('.')[2]}=[...]"
            raise RecipeError(key, expected="a list", found=_type_of(value), mend=mend)
        for index, item in enumerate(value):
            _check_type(item, choices[0], f"{key}[{index}]")
    elif origin is dict:
        if not isinstance(value, dict):
            raise RecipeError(key, expected="a dict by name", found=_type_of(value))
        for name, item in value.items():
            _check_type(item, choices[1], f"{key}.{name}")
    elif inspect.isclass(hint) and hint.__module__.startswith("tutelage."):
        if not isinstance(value, hint):
            mend = MENDS.get(hint, f"write {hint.__name__}(...)")
            raise RecipeError(key, expected=f"a {hint.__name__}", found=_type_of(value), mend=mend)
        if is_dataclass(value):
            check_types(value, key)


def _type_of(value: Any) -> str:
    return f"a {type(value).__name__}: {value!r}".replace("\n", " ")[:100]
