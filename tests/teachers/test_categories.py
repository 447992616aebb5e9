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
from tutelage.teachers import CatBoostTeacher, LightGBMTeacher, SklearnTeacher, TabularTeacher, XGBoostTeacher
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


def mixed(missing: Any, code: type = int) -> pd.DataFrame:
    """`size` (numbers), `kind` (texts, `missing` where there is none), `code` (whole numbers, in the type `code`)."""
    rng = np.random.default_rng(1)
    kind = rng.choice(["ant", "bee", "cow"], N).astype(object)
    kind[rng.random(N) < 0.3] = missing
    codes = rng.choice([1, 2, 10], N)
    gone = np.array([value is missing for value in kind])
    y = (rng.normal(size=N) + 2 * gone - 1.5 * (kind == "bee") + (codes == 10) > 0.5).astype(int)
    table = pd.DataFrame({"size": rng.normal(size=N)})
    table["kind"], table["code"] = pd.Series(kind, dtype=object), pd.Series([code(c) for c in codes], dtype=object)
    return table.assign(y=y)


def encoders() -> dict[str, Any]:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

    def after(columns: Any, *steps: Any) -> Any:
        columns = make_column_transformer((make_pipeline(*steps), columns), ("passthrough", ["size"]))
        return make_pipeline(columns, LogisticRegression())

    one_hot = OneHotEncoder(handle_unknown="ignore")
    both = ["kind", "code"]
    return {
        "one-hot": after(both, one_hot),
        "by number": after([1, 2], one_hot),
        "by slice": after(slice(1, 3), one_hot),
        "by mask": after([False, True, True], one_hot),
        "by type": after(make_column_selector(dtype_include=object), one_hot),
        "infrequent": after(both, OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=60)),
        "ordinal": after(
            both, OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)
        ),
        "imputed": after(both, SimpleImputer(strategy="constant", fill_value="none"), one_hot),
        "imputed None": after(["kind"], SimpleImputer(missing_values=None, strategy="most_frequent"), one_hot),
        "calibrated": CalibratedClassifierCV(after(both, one_hot), cv=2),
        "searched": GridSearchCV(after(both, one_hot), {"logisticregression__C": [0.5, 2.0]}, cv=2),
        "alone": make_pipeline(make_column_transformer((one_hot, both)), LogisticRegression()),
    }


def sklearn_teacher(model: Any, path: Path, **more: Any) -> SklearnTeacher:
    from skops import io as skops_io

    skops_io.dump(model, path)
    return SklearnTeacher(str(path), trusted=skops_io.get_untrusted_types(file=path), **more)


ROLES: dict[str, Any] = {"inputs": ["size"], "categories": ["kind", "code"]}


@pytest.mark.parametrize("code", [int, str])
@pytest.mark.parametrize(
    ("name", "missing"),
    # scikit-learn refuses to fit an imputer of None on NaN
    [
        (name, missing)
        for name in encoders()
        for missing in (None, np.nan)
        if (name, missing) != ("imputed None", np.nan)
    ],
)
def test_encoders_get_the_missing_cells_and_the_types_that_they_were_fitted_on(
    name: str, missing: Any, code: type, tmp_path: Path
) -> None:
    """Catches None in the place of NaN and 7 in that of "7": for an encoder both are unknown categories."""
    table = mixed(missing, code)
    x, y = table[["size", "kind", "code"]], table["y"]
    model = encoders()[name].fit(x, y)
    expected = model.predict_proba(x)
    assert expected[:, 1].std() > 0.1
    for stored in (int, str):  # the data has its own types
        data = data_of(mixed(None).assign(code=table["code"].map(stored)), tmp_path, **ROLES)
        np.testing.assert_allclose(asked(sklearn_teacher(model, tmp_path / "m.skops"), data), expected, atol=1e-6)


def test_whole_numbers_among_the_inputs_are_texts_for_an_encoder_of_texts(tmp_path: Path) -> None:
    table = mixed(None, str)
    model = encoders()["one-hot"].fit(table[["size", "kind", "code"]], table["y"])
    data = data_of(mixed(None), tmp_path, inputs=["size", "code"], categories=["kind"])
    expected = model.predict_proba(table[["size", "kind", "code"]])
    np.testing.assert_allclose(asked(sklearn_teacher(model, tmp_path / "m.skops"), data), expected, atol=1e-6)


def test_a_text_may_stand_for_missing_categories_and_belongs_to_the_fingerprint(tmp_path: Path) -> None:
    table, data = mixed("gone"), data_of(mixed(None), tmp_path, **ROLES)
    x, y = table[["size", "kind", "code"]], table["y"]
    model = encoders()["one-hot"].fit(x, y)
    plain = sklearn_teacher(model, tmp_path / "m.skops")
    named = sklearn_teacher(model, tmp_path / "m.skops", missing_category="gone")
    np.testing.assert_allclose(asked(named, data), model.predict_proba(x), atol=1e-6)
    assert np.abs(asked(plain, data) - model.predict_proba(x)).max() > 0.05
    assert plain.fingerprint() != named.fingerprint()
    both = x.copy()
    both["kind"] = pd.Series([None if v == "gone" else np.nan if v == "ant" else v for v in x["kind"]], dtype=object)
    with pytest.raises(ModelError, match=r"both None and NaN(.|\n)*missing_category"):
        sklearn_teacher(encoders()["one-hot"].fit(both, y), tmp_path / "m.skops").load(CPU)


def test_an_encoder_that_knows_no_category_of_a_column_is_no_teacher_of_it(tmp_path: Path) -> None:
    table = mixed(None)
    model = encoders()["one-hot"].fit(table[["size", "kind", "code"]], table["y"])
    data = data_of(table.assign(kind=table["kind"].str.upper()), tmp_path, **ROLES)
    with pytest.raises(ModelError, match=r"column `kind`(.|\n)*'ant', 'bee', 'cow'(.|\n)*'(ANT|BEE|COW)'"):
        asked(sklearn_teacher(model, tmp_path / "m.skops"), data)
