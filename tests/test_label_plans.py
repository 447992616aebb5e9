"""What labels mean is settled before a teacher is fitted, and their names reach everything that is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

import tutelage as tt
from tutelage import losses
from tutelage.errors import DataError, ModelError, RecipeError, SignalError, UserError
from tutelage.evaluation.evidence import read_evidence
from tutelage.recipe_file import build_recipe, dump_recipe
from tutelage.signals import Request
from tutelage.teachers import (
    CatBoostTeacher,
    FunctionTeacher,
    LightGBMTeacher,
    SklearnTeacher,
    XGBoostTeacher,
)
from tutelage.transfer import Rows, Source, Tabular

ROWS = 300
IDENTITY = {"class_path": "torch.nn.Identity"}
X = np.random.default_rng(0).normal(size=(ROWS, 4)).astype(np.float32)
PRICES = (1000 * X[:, 0] + 250_000).astype(np.int64)


def recipe(labels: Any, teacher: Any, **changes: Any) -> tt.Recipe:
    outputs = changes.pop("outputs", 1)
    source = {"inputs": {"a": X[:, 0], "b": X[:, 1]}, "labels": labels} | changes.pop("source", {})
    settings = {
        "name": "labels",
        "task": "regression",
        "data": tt.Data(source=tt.Arrays(**source), tabular=Tabular()),
        "teacher": teacher,
        "student": tt.ModuleStudent(nn.Linear(2, outputs)),
        "losses": [losses.Regression()],
        "training": tt.Training(steps=2, batch_size=8),
        "baseline": False,
        "export": tt.Export(onnx=False),
        "measure": tt.Measure(rounds=1, seconds=0.1, batch_sizes=[1]),
    }
    return tt.Recipe(**(settings | changes))


def forest(name: str) -> dict[str, Any]:
    return {"class_path": f"sklearn.ensemble.RandomForest{name}", "init_args": {"n_estimators": 2}}


def fitted(kind: str, folder: Path, estimator: str = "Regressor") -> Any:
    if kind == "sklearn":
        path, trusted = str(folder / "m.skops"), ["sklearn.tree._tree.Tree"]
        return SklearnTeacher(path, estimator=forest(estimator), trusted=trusted)
    made: Any = {"lightgbm": LightGBMTeacher, "xgboost": XGBoostTeacher, "catboost": CatBoostTeacher}[kind]
    few: dict[str, Any] = {"lightgbm": {"num_iterations": 3}, "xgboost": {"num_boost_round": 3}}.get(
        kind, {"iterations": 3}
    )
    return made(str(folder / f"m.{ {'lightgbm': 'txt', 'xgboost': 'json', 'catboost': 'cbm'}[kind] }"), fit=few)


@pytest.mark.parametrize("kind", ["lightgbm", "xgboost", "catboost", "sklearn"])
def test_a_teacher_that_is_fitted_on_whole_prices_is_a_regressor(kind: str, tmp_path: Path) -> None:
    plan = tt.make_plan(recipe(PRICES, fitted(kind, tmp_path)))
    said = plan.guide.ask(plan.data.example(50), Request(output=True)).dense()
    assert said.reshape(50, -1).shape == (50, 1)
    assert ((said - 250_000).abs() < 5_000).all()


def refused(made: tt.Recipe, message: str, kind: type[UserError] = DataError) -> None:
    with pytest.raises(kind, match=message):
        tt.make_plan(made)


def test_a_classifier_of_prices_is_refused_before_it_is_fitted(tmp_path: Path) -> None:
    prices = recipe(PRICES, fitted("lightgbm", tmp_path), task="classification", losses=[losses.KLDivergence()])
    refused(prices, r"task is regression")
    rows = recipe(np.arange(ROWS), fitted("lightgbm", tmp_path), task="classification", losses=[losses.KLDivergence()])
    refused(rows, r"300 different labels|different labels in(.|\n)*task: regression")
    gaps = recipe((X[:, 0] > 0) * 4999, fitted("lightgbm", tmp_path), task="classification")
    refused(gaps, r"5,000 classes would be fitted", ModelError)
    assert not list(tmp_path.iterdir())


def test_an_estimator_of_the_other_kind_is_refused(tmp_path: Path) -> None:
    refused(recipe(PRICES, fitted("sklearn", tmp_path, "Classifier")), "a regressor", ModelError)
    classes = recipe(X[:, 0] > 0, fitted("sklearn", tmp_path), task="classification", outputs=2)
    refused(classes, "a classifier", ModelError)


def test_names_are_no_values_and_a_source_may_not_contradict_the_task(tmp_path: Path) -> None:
    names = ["cat", "eel"] * (ROWS // 2)
    refused(recipe(names, fitted("lightgbm", tmp_path)), r"`cat`(.|\n)*task: classification")
    made = recipe(PRICES, fitted("lightgbm", tmp_path), source={"values": False})
    refused(made, r"data\.source\.values", RecipeError)


class Packaged(Source):
    """A source of the user's own, which knows nothing of tasks."""

    def load(self) -> Rows:
        return Rows(columns={"a": X}, labels=np.arange(ROWS) % 3, classes=("x", "y", "z"))


def test_a_source_that_gives_classes_to_a_regression_is_refused() -> None:
    made = recipe(None, tt.ModuleTeacher(nn.Linear(4, 1)), data=tt.Data(source=Packaged()))
    refused(made, "Packaged gives classes: x, y, z")


def unlabelled(names: list[str] | None, teacher: Any) -> tt.Recipe:
    return recipe(
        None,
        teacher,
        task="classification",
        data=tt.Data(source=tt.Arrays(X, classes=names)),
        student=tt.ModuleStudent(nn.Linear(4, 3)),
        losses=[losses.KLDivergence()],
    )


def test_names_that_are_given_for_rows_without_labels_reach_page_card_and_evidence(tmp_path: Path) -> None:
    names = ["cat", "dog", "eel"]
    result = tt.distill(unlabelled(names, tt.ModuleTeacher(nn.Linear(4, 3))), tmp_path, progress=False)
    assert read_evidence(result.bundle / "evidence.parquet").classes == names
    assert "0 cat, 1 dog, 2 eel" in (result.bundle / "README.md").read_text()
    shown = json.loads((result.bundle / "disagreements.json").read_text())["items"]
    assert {item["teacher"].split()[0] for item in shown} <= set(names)
    page = result.report.read_text()
    assert all(name in page for name in names)
    assert "class 0" not in page
    refused(unlabelled(["cat", "dog"], tt.ModuleTeacher(nn.Linear(4, 3))), "2 classes that data.source", SignalError)


def logits(x: Any) -> Any:
    return x[:, :3]


def test_names_that_the_teacher_alone_knows_are_those_of_the_run() -> None:
    teacher = FunctionTeacher(f"{__name__}:logits", gives="logits", classes=["cat", "dog", "eel"])
    plan = tt.make_plan(unlabelled(None, teacher))
    assert plan.classes == ("cat", "dog", "eel")
    assert tt.make_plan(unlabelled(["a", "b", "c"], tt.ModuleTeacher(nn.Linear(4, 3)))).classes == ("a", "b", "c")


def test_a_recipe_with_these_words_is_written_and_read_back() -> None:
    made = {
        "name": "r",
        "task": "classification",
        "data": {"source": {"class_path": "Table", "init_args": {"path": "x.csv", "inputs": ["a"], "label": "y",
                                                                 "unlabelled": -1, "values": None}}},
        "teacher": {"class_path": "ModuleTeacher", "init_args": {"module": IDENTITY}},
        "student": {
            "class_path": "StandardizedStudent",
            "init_args": {
                "student": {"class_path": "ModuleStudent", "init_args": {"module": IDENTITY}},
                "mean": [250_000],
                "std": [1.5],
            },
        },
        "losses": [{"class_path": "KLDivergence"}],
        "training": {"steps": 1},
    }  # fmt: skip
    read = build_recipe(made)
    assert read.data.source.unlabelled == -1  # type: ignore[attr-defined]
    assert read.student.mean == [250_000]  # type: ignore[attr-defined]
    import yaml

    assert dump_recipe(build_recipe(yaml.safe_load(dump_recipe(read)))) == dump_recipe(read)
