"""A recipe means the same from YAML, from the command line and from Python; reading what was written gives it again."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
import yaml

import tutelage as tt
from tutelage.errors import RecipeError
from tutelage.recipe_file import build_recipe, dump_recipe

RECIPES = Path(__file__).parent.parent / "recipes"


@pytest.fixture(autouse=True)
def _find_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(RECIPES))


def in_python() -> tt.Recipe:
    """`recipes/digits.yaml`, written in Python."""
    import functools

    from models import Perceptron

    return tt.Recipe(
        name="digits",
        task="classification",
        data=tt.Data(source=tt.transfer.Digits(), splits=tt.Splits(development=0.15, test=0.3), labelled=150),
        teacher=tt.ModuleTeacher(functools.partial(Perceptron, inputs=64, hidden=512, classes=10)),
        teacher_training=tt.Training(epochs=15, batch_size=64, learning_rate=2e-3),
        student=tt.ModuleStudent(functools.partial(Perceptron, inputs=64, hidden=12, classes=10)),
        losses=[tt.losses.KLDivergence(temperature=4.0, weight=0.9), tt.losses.CrossEntropy(weight=0.1)],
        training=tt.Training(steps=600, batch_size=64, learning_rate=1e-2),
        measure=tt.Measure(device="cpu:1", batch_sizes=[1, 32], rounds=8, seconds=2.0),
        budget=tt.Budget(size_mb=0.01, latency_p95_ms=5.0),
        policy=[tt.Gate(metric="accuracy", margin=0.05), tt.Gate(metric="agreement", at_least=0.85)],
    )


LINEAR = torch.nn.Linear(64, 10)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"task": "clasification"}, ["task\n", "one of classification", "'clasification'", "`classification`"]),
        ({"teacher": LINEAR}, ["teacher\n", "a Teacher", "a Linear", "tt.ModuleTeacher(module)"]),
        ({"student": LINEAR}, ["student\n", "a Student", "a Linear", "tt.ModuleStudent(lambda: module)"]),
        ({"training": {"steps": 3}}, ["training\n", "a Training", "a dict", "tt.Training("]),
        ({"teacher_training": {"steps": 3}}, ["teacher_training\n", "a Training", "a dict"]),
        ({"policy": tt.Gate("accuracy", margin=0.1)}, ["policy\n", "a list", "a Gate", "policy=[...]"]),
        ({"policy": [{"metric": "accuracy"}]}, ["policy[0]\n", "a Gate", "a dict", "tt.Gate("]),
        ({"losses": tt.losses.KLDivergence()}, ["losses\n", "a list", "a KLDivergence"]),
        ({"losses": [tt.losses.KLDivergence]}, ["losses[0]\n", "a Loss", "tt.losses.KLDivergence()"]),
        ({"budget": {"size_mb": 1}}, ["budget\n", "a Budget", "a dict"]),
        ({"data": [[1.0]]}, ["data\n", "a Data", "a list", "tt.Data("]),
        ({"data": tt.Data(source=([1.0], [0]))}, ["data.source\n", "a Source", "a tuple", "tt.Arrays(inputs, labels)"]),
        ({"data": tt.Data(source=tt.transfer.Digits(), splits=0.3)}, ["data.splits\n", "a Splits", "a float"]),
        ({"seeds": 3}, ["seeds\n", "a list", "a int"]),
    ],
)
def test_a_part_of_the_wrong_type_in_python_is_named_with_what_to_write(changes: dict, said: list[str]) -> None:
    recipe = dataclasses.replace(in_python(), **changes)
    for ask in (recipe.check, lambda: tt.make_plan(recipe)):
        with pytest.raises(RecipeError) as caught:
            ask()
        assert type(caught.value) is RecipeError
        for text in said:
            assert text in str(caught.value)
    assert str(caught.value).startswith(said[0])


def test_yaml_and_python_say_the_same() -> None:
    assert dump_recipe(tt.load_recipe(RECIPES / "digits.yaml")) == dump_recipe(in_python())


@pytest.mark.parametrize("name", sorted(path.name for path in RECIPES.glob("*.yaml")))
def test_a_recipe_written_as_resolved_is_read_as_the_same(name: str) -> None:
    written = dump_recipe(tt.load_recipe(RECIPES / name))
    assert "made in Python" not in written
    assert dump_recipe(build_recipe(yaml.safe_load(written))) == written


def test_overrides_on_the_command_line_are_those_of_python() -> None:
    changed = tt.load_recipe(
        RECIPES / "digits.yaml",
        [
            "--training.steps",
            "7",
            "--losses.0.temperature=2",
            "--student.module.hidden",
            "5",
            "--seeds",
            "[3, 4]",
            "--policy.0.margin",
            "1e-2",
            "--export.onnx",
            "false",
            "--data.labelled",
            "null",
        ],
    )
    assert changed.training.steps == 7
    assert changed.losses[0].temperature == 2.0
    assert changed.student.module().hidden[1].out_features == 5
    assert changed.seeds == [3, 4]
    assert changed.policy[0].margin == 0.01
    assert changed.export.onnx is False
    assert changed.data.labelled is None


def test_what_was_made_in_python_is_said_to_be() -> None:
    import numpy as np
    from torch import nn

    recipe = in_python()
    recipe.teacher = tt.ModuleTeacher(nn.Linear(64, 10))
    recipe.student = tt.ModuleStudent(lambda: nn.Linear(64, 10))
    recipe.data = tt.Data(source=tt.Arrays(np.zeros((20, 64), dtype=np.float32)))
    written = dump_recipe(recipe)
    assert "<Linear made in Python>" in written
    assert "<lambda> made in Python" in written
    assert "<ndarray (20, 64) made in Python>" in written
