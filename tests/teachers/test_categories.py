"""Names of categories and missing ones: what a model was fitted on is what it is asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tables import facts

from tutelage.errors import ModelError
from tutelage.signals import Request
from tutelage.teachers import CatBoostTeacher, LightGBMTeacher, TabularTeacher, XGBoostTeacher
from tutelage.transfer import Data, Table, Tabular, TransferSet

CPU = torch.device("cpu")
N = 240
CITIES = {
    "cut": ["Basel", "Bern", "Zürich"],
    "undecodable": ["a", "b", "é"],
    "shifted": ["Genève", "N/A"],
    "escaped": ["C:\\x", "a\\xe9", "aé", "東京"],
}


def rows(cities: list[str]) -> pd.DataFrame:
    """`größe` (numbers), `stadt` (categories with holes), `y`: whether it is the last city."""
    rng = np.random.default_rng(0)
    city = rng.choice(cities, N).astype(object)
    city[rng.random(N) < 0.2] = None
    y = np.array([value == cities[-1] for value in city]) ^ (rng.random(N) < 0.05)
    return pd.DataFrame({"größe": rng.normal(size=N), "stadt": city, "y": y.astype(int)})


def data_of(table: pd.DataFrame, folder: Path, **roles: Any) -> TransferSet:
    table.to_parquet(folder / "rows.parquet")
    roles = {"inputs": ["größe"], "categories": ["stadt"], "label": "y"} | roles
    return Data(source=Table(str(folder / "rows.parquet"), **roles), tabular=Tabular()).load()


def asked(teacher: TabularTeacher, data: TransferSet, count: int = N) -> np.ndarray:
    teacher.load(CPU)
    teacher.meet(facts(data))
    output = teacher.ask(data.batch(np.arange(count)), Request(output=True)).output
    assert output is not None
    return output.double().softmax(1).numpy()


def library_says(kind: str, table: pd.DataFrame, cities: list[str], train: np.ndarray) -> np.ndarray:
    """The library's own answers, with names that it can't get wrong."""
    x, y = table[["größe", "stadt"]].rename(columns={"größe": "a", "stadt": "b"}), table["y"].to_numpy()
    if kind == "catboost":
        import catboost

        x["b"] = x["b"].where(x["b"].notna(), "missing")
        cat = catboost.CatBoostClassifier(iterations=10, verbose=False, allow_writing_files=False, random_seed=0)
        return cat.fit(x.iloc[train], y[train], cat_features=["b"]).predict_proba(x)
    # Codes in the order in which the teacher's categories are: that of the texts.
    codes = [sorted(cities).index(city) if city in cities else -1 for city in table["stadt"]]
    x["b"] = pd.Categorical.from_codes(codes, categories=np.arange(len(cities)))
    if kind == "xgboost":
        import xgboost

        booster = xgboost.train(
            {"objective": "binary:logistic", "seed": 0},
            xgboost.DMatrix(x.iloc[train], y[train], enable_categorical=True),
            10,
        )
        p = booster.predict(xgboost.DMatrix(x, enable_categorical=True))
    else:
        import lightgbm

        about = {"objective": "binary", "seed": 0, "deterministic": True, "force_row_wise": True, "verbosity": -1}
        p = lightgbm.train(about, lightgbm.Dataset(x.iloc[train], y[train]), 10).predict(x)
    return np.stack([1 - p, p], axis=1)


FITTED: dict[str, Any] = {
    "xgboost": lambda path: XGBoostTeacher(f"{path}.ubj", fit={"num_boost_round": 10}),
    "lightgbm": lambda path: LightGBMTeacher(f"{path}.txt", fit={"num_iterations": 10}),
    "catboost": lambda path: CatBoostTeacher(f"{path}.cbm", fit={"iterations": 10}),
}


@pytest.mark.parametrize("names", CITIES)
@pytest.mark.parametrize("kind", FITTED)
def test_a_fit_in_the_run_knows_categories_of_any_script(kind: str, names: str, tmp_path: Path) -> None:
    """Catches names that the library's file breaks: their rows would count as rows without a category."""
    table = rows(CITIES[names])
    data = data_of(table, tmp_path)
    expected = library_says(kind, table, CITIES[names], data.labelled_rows)
    assert expected[:, 1].std() > 0.03  # the categories matter
    teacher = FITTED[kind](tmp_path / "t")
    np.testing.assert_allclose(asked(teacher, data), expected, atol=1e-5)
    alone = type(teacher)(teacher.path)  # the file by itself, as another recipe names it
    np.testing.assert_allclose(asked(alone, data), expected, atol=1e-5)


@pytest.mark.parametrize("suffix", ["json", "ubj"])
@pytest.mark.parametrize("names", ["cut", "undecodable", "shifted"])
def test_a_file_whose_categories_xgboost_broke_is_refused_with_a_mend(names: str, suffix: str, tmp_path: Path) -> None:
    import xgboost

    table, cities = rows(CITIES[names]), CITIES[names]
    x = table[["größe", "stadt"]].assign(stadt=pd.Categorical(table["stadt"], categories=cities))
    model = xgboost.XGBClassifier(n_estimators=3, enable_categorical=True).fit(x, table["y"])
    model.save_model(tmp_path / f"m.{suffix}")
    with pytest.raises(ModelError, match=r"teacher\.path(.|\n)*plain ASCII(.|\n)*\\x(.|\n)*fit it anew"):
        XGBoostTeacher(str(tmp_path / f"m.{suffix}")).load(CPU)


@pytest.mark.parametrize("kind", ["xgboost", "lightgbm"])
def test_a_column_without_one_known_category_is_refused_before_it_teaches(kind: str, tmp_path: Path) -> None:
    """Catches a batch that silently becomes one of rows without categories."""
    data = data_of(rows(["ant", "bee", "cow"]), tmp_path)
    path = FITTED[kind](tmp_path / "t").path
    asked(FITTED[kind](tmp_path / "t"), data)
    other = rows(["Ant", "Bee", "Cow"])
    for roles in ({}, {"label": None}):  # at the meeting, and at the first batches where no row has a label
        with pytest.raises(ModelError, match=r"column `stadt`(.|\n)*'ant', 'bee', 'cow'(.|\n)*'(Ant|Bee|Cow)', '"):
            asked(type(FITTED[kind](""))(path), data_of(other, tmp_path, **roles))
    teacher = type(FITTED[kind](""))(path)  # a lone new category, as of a new branch, is no mistake
    asked(teacher, data_of(other.assign(stadt="eel"), tmp_path, label=None))
    teacher = type(FITTED[kind](""))(path)  # nor are rows of new ones after rows of known ones
    asked(teacher, data)
    batch = data.batch(np.arange(N))
    assert batch.raw is not None
    raw = batch.raw() | {"stadt": other["stadt"].to_numpy(object)}
    teacher.ask(replace(batch, raw=lambda: raw), Request(output=True))
