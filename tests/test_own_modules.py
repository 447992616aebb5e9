"""Modules of the user's own, whatever the signatures of their constructors, and nested scikit-learn models."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tutelage.errors import RecipeError
from tutelage.recipe_file import build_recipe, dump_recipe

OWN = """
from torch import nn


class Untyped(nn.Linear):
    def __init__(self, inputs, hidden, classes, rate=0.1, shape=(3, 3)):
        super().__init__(inputs, classes)
        self.got = (inputs, hidden, classes, rate, shape)


class Half(nn.Linear):
    def __init__(self, inputs: int, mode, options, off):
        super().__init__(inputs, 3)
        self.got = (inputs, mode, options, off)


class Unresolved(nn.Linear):
    def __init__(self, inputs: "NowhereDefined", classes):
        super().__init__(inputs, classes)
        self.got = (inputs, classes)


class Open(nn.Linear):
    def __init__(self, inputs, **options):
        super().__init__(inputs, 3)
        self.got = (inputs, options)


class HandedOn(Untyped):
    def __init__(self, extra, **rest):
        super().__init__(**rest)


class Around(nn.Module):
    def __init__(self, body, head=None):
        super().__init__()
        self.got = (type(body).__name__, type(head).__name__)


def make(hidden, classes):
    return Untyped(13, hidden, classes)
"""
LINEAR = {"class_path": "torch.nn.Linear", "init_args": {"in_features": 13, "out_features": 3}}


@pytest.fixture(autouse=True)
def _own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "untyped_models.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "untyped_models", raising=False)


def recipe_of(name: str, arguments: dict[str, Any]) -> Any:
    return build_recipe(
        {
            "name": "own",
            "task": "classification",
            "data": {"source": {"class_path": "Digits"}},
            "teacher": {"class_path": "ModuleTeacher", "init_args": {"module": LINEAR}},
            "student": {
                "class_path": "ModuleStudent",
                "init_args": {"module": {"class_path": f"untyped_models.{name}", "init_args": arguments}},
            },
            "losses": [{"class_path": "KLDivergence"}],
            "training": {"steps": 2},
        }
    )


def built(name: str, arguments: dict[str, Any]) -> Any:
    recipe = recipe_of(name, arguments)
    return recipe.student.build(recipe.teacher)


CASES = {
    "untyped": ("Untyped", {"inputs": 13, "hidden": 8, "classes": 3}, (13, 8, 3, 0.1, (3, 3))),
    "a number that YAML 1.1 reads as a text": (
        "Untyped",
        yaml.safe_load("{inputs: 13, hidden: 8, classes: 3, rate: 1e-2, shape: [5, 5]}"),
        (13, 8, 3, 0.01, (5, 5)),
    ),
    "a text stays one": (
        "Half",
        {"inputs": 13, "mode": "no", "options": {"a": [1, "yes: 2"]}, "off": None},
        (13, "no", {"a": [1, "yes: 2"]}, None),
    ),
    "a text like a list stays one": (
        "Half",
        {"inputs": 13, "mode": "[1, 2]", "options": [], "off": False},
        (13, "[1, 2]", [], False),
    ),
    "an annotation that names nothing": ("Unresolved", {"inputs": 13, "classes": 3}, (13, 3)),
    "any further arguments": ("Open", {"inputs": 13, "depth": 2, "kind": "a"}, (13, {"depth": 2, "kind": "a"})),
    "further arguments of the base class": (
        "HandedOn",
        {"extra": 1, "inputs": 13, "hidden": 8, "classes": 3},
        (13, 8, 3, 0.1, (3, 3)),
    ),
    "modules in untyped arguments": ("Around", {"body": LINEAR}, ("Linear", "NoneType")),
    "own modules in untyped arguments": (
        "Around",
        {"body": {"class_path": "untyped_models.make", "init_args": {"hidden": 8, "classes": 3}}, "head": LINEAR},
        ("Untyped", "Linear"),
    ),
    "a function": ("make", {"hidden": 8, "classes": 3}, (13, 8, 3, 0.1, (3, 3))),
}


@pytest.mark.parametrize("case", CASES)
def test_arguments_without_types_reach_the_constructor_as_they_are(case: str) -> None:
    name, arguments, expected = CASES[case]
    assert built(name, arguments).got == expected


def test_a_recipe_with_untyped_arguments_is_written_and_read_again() -> None:
    recipe = recipe_of("Open", {"inputs": 13, "depth": 2})
    again = build_recipe(yaml.safe_load(dump_recipe(recipe)))
    assert again.student.build(again.teacher).got == (13, {"depth": 2})  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "arguments", "key", "found"),
    [
        ("Untyped", {"inputs": 13, "hidden": 8}, "student.module.classes", "it is missing"),
        ("Untyped", {"inputs": 13, "hidden": 8, "clases": 3}, "student.module.clases", "did you mean `classes`"),
        ("Half", {"inputs": "13", "mode": 1, "options": 1, "off": 1}, "student.module.inputs", "a whole number"),
        ("Around", {"body": {"class_path": "untyped_models.Nope"}}, "student.module.body", "no `Nope`"),
        ("Around", {"body": {"class_path": "fractions.Fraction"}}, "student.module.body", "expected: a Module"),
    ],
)
def test_a_mistake_in_untyped_arguments_is_named_by_its_key(
    name: str, arguments: dict[str, Any], key: str, found: str
) -> None:
    with pytest.raises(RecipeError) as error:
        built(name, arguments)
    assert key in str(error.value) and found in str(error.value)


def part(path: str, **arguments: Any) -> dict[str, Any]:
    return {"class_path": path, "init_args": arguments}


def test_a_nested_pipeline_of_a_recipe_is_fitted_as_one_made_in_python(tmp_path: Path) -> None:
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler

    from tutelage.teachers.sklearn_teacher import _built

    draw = np.random.default_rng(0)
    rows, labels = draw.normal(size=(60, 3)), draw.integers(0, 2, 60)
    rows[:, 2] = draw.integers(0, 3, 60)
    steps = [["scale", part("sklearn.preprocessing.StandardScaler")]]
    steps.append(["narrow", part("sklearn.preprocessing.MinMaxScaler", feature_range=[-1, 2])])
    text = yaml.safe_dump(
        part(
            "sklearn.pipeline.Pipeline",
            steps=[
                [
                    "columns",
                    part(
                        "sklearn.compose.ColumnTransformer",
                        transformers=[
                            ["numbers", part("sklearn.pipeline.Pipeline", steps=steps), [0, 1]],
                            ["kinds", part("sklearn.preprocessing.OneHotEncoder", handle_unknown="ignore"), [2]],
                        ],
                    ),
                ],
                ["model", part("sklearn.linear_model.LogisticRegression", C=0.5)],
            ],
        )
    )
    inner = Pipeline([("scale", StandardScaler()), ("narrow", MinMaxScaler(feature_range=(-1, 2)))])
    columns = ColumnTransformer([("numbers", inner, [0, 1]), ("kinds", OneHotEncoder(handle_unknown="ignore"), [2])])
    expected = Pipeline([("columns", columns), ("model", LogisticRegression(C=0.5))]).fit(rows, labels)
    found = _built(yaml.safe_load(text), "teacher.estimator").fit(rows, labels)
    np.testing.assert_allclose(found.predict_proba(rows), expected.predict_proba(rows), rtol=1e-12)
