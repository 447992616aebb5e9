"""Forms of a category x readers x models: the answers are those of the library for the frame that pandas reads."""

from __future__ import annotations

import datetime
import functools
import io
import json
from collections.abc import Callable
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
from tutelage.transfer import Arrays, Data, Encoding, Splits, Table, Tabular, TransferSet

CPU = torch.device("cpu")
N = 160
FORMS: dict[str, list[Any]] = {
    "text": ["ant", "bee", "cow"],
    "int": [1, 2, 10],
    "float": [0.5, 1.0, 2.25],
    "bool": [False, True],
    "date": [datetime.datetime(2024, 1, 1), datetime.datetime(2024, 2, 1), datetime.datetime(2025, 3, 5)],
}
READERS = ("csv", "jsonl", "parquet", "pandas")


@functools.cache
def rows(form: str, gaps: bool) -> tuple[pd.DataFrame, list[Any]]:
    """`n` (numbers), `y`, and the categories `c` as Python has them: one of them decides `y`, and so do the gaps."""
    rng = np.random.default_rng(3)
    cells = [FORMS[form][index] for index in rng.integers(0, len(FORMS[form]), N)]
    if gaps:
        cells = [None if rng.random() < 0.25 else cell for cell in cells]
    y = np.array([cell == FORMS[form][1] or (cell is None and row % 8 > 1) for row, cell in enumerate(cells)])
    return pd.DataFrame({"n": rng.normal(size=N), "y": (y ^ (rng.random(N) < 0.04)).astype(int)}), cells


@functools.cache
def written(form: str, gaps: bool, reader: str) -> bytes | pd.DataFrame:
    """The rows in a file of a kind, or as a frame in memory."""
    table, cells = rows(form, gaps)
    frame = table.assign(c=pd.Series(cells))
    if reader == "csv":
        return frame.to_csv(index=False).encode()
    if reader == "jsonl":
        lines = frame.assign(c=pd.Series(cells, dtype=object)).to_dict("records")
        return "".join(json.dumps(line, default=lambda cell: cell.isoformat()) + "\n" for line in lines).encode()
    if reader == "parquet":
        file = io.BytesIO()
        frame.to_parquet(file)
        return file.getvalue()
    return frame


@functools.cache
def as_pandas_reads(form: str, gaps: bool, reader: str) -> pd.DataFrame:
    held = written(form, gaps, reader)
    if isinstance(held, pd.DataFrame):
        return held
    file = io.BytesIO(held)
    if reader == "jsonl":
        return pd.read_json(file, lines=True)
    return pd.read_csv(file) if reader == "csv" else pd.read_parquet(file)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, bool, str], TransferSet]:
    """The rows as tutelage reads them, in their order."""
    folder = tmp_path_factory.mktemp("rows")

    @functools.cache
    def load(form: str, gaps: bool, reader: str) -> TransferSet:
        held = written(form, gaps, reader)
        if isinstance(held, pd.DataFrame):
            source: Any = Arrays(held[["n", "c"]], held["y"], categories=["c"])
        else:
            path = folder / f"{form}{gaps}.{reader}"
            path.write_bytes(held)
            source = Table(str(path), inputs=["n"], categories=["c"], label="y")
        return Data(source=source, tabular=Tabular(), splits=Splits(development=0, test=0)).load()

    return load


def lightgbm_model(frame: pd.DataFrame, path: Path) -> tuple[TabularTeacher, np.ndarray]:
    import lightgbm

    x = frame[["n", "c"]].assign(c=frame["c"].astype("category"))
    model = lightgbm.LGBMClassifier(n_estimators=4, verbosity=-1, n_jobs=1, min_child_samples=3, min_data_per_group=3)
    model.fit(x, frame["y"]).booster_.save_model(path / "m.txt")
    return LightGBMTeacher(str(path / "m.txt"), threads=1), model.predict_proba(x)


def xgboost_model(frame: pd.DataFrame, path: Path) -> tuple[TabularTeacher, np.ndarray]:
    import xgboost

    x = frame[["n", "c"]].assign(c=frame["c"].astype("category"))
    model = xgboost.XGBClassifier(n_estimators=4, enable_categorical=True, n_jobs=1).fit(x, frame["y"])
    model.save_model(path / "m.ubj")
    return XGBoostTeacher(str(path / "m.ubj"), threads=1), model.predict_proba(x)


def catboost_model(frame: pd.DataFrame, path: Path) -> tuple[TabularTeacher, np.ndarray]:
    import catboost

    x = frame[["n", "c"]]
    model = catboost.CatBoostClassifier(iterations=4, verbose=False, allow_writing_files=False, thread_count=1)
    model.fit(x, frame["y"], cat_features=["c"]).save_model(str(path / "m.cbm"))
    return CatBoostTeacher(str(path / "m.cbm"), threads=1), model.predict_proba(x)


def encoded(encoder: Any, estimator: Any, frame: pd.DataFrame, path: Path) -> tuple[TabularTeacher, np.ndarray]:
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import make_pipeline
    from skops import io as skops_io

    columns = ColumnTransformer([("c", encoder, ["c"])], remainder="passthrough")
    model = make_pipeline(columns, estimator).fit(frame[["n", "c"]], frame["y"])
    skops_io.dump(model, path / "m.skops")
    trusted = skops_io.get_untrusted_types(file=path / "m.skops")
    return SklearnTeacher(str(path / "m.skops"), trusted=trusted), model.predict_proba(frame[["n", "c"]])


def one_hot_model(frame: pd.DataFrame, path: Path) -> tuple[TabularTeacher, np.ndarray]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import OneHotEncoder

    return encoded(OneHotEncoder(handle_unknown="ignore"), LogisticRegression(), frame, path)


def ordinal_model(frame: pd.DataFrame, path: Path) -> tuple[TabularTeacher, np.ndarray]:
    from sklearn.preprocessing import OrdinalEncoder
    from sklearn.tree import DecisionTreeClassifier

    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)
    return encoded(encoder, DecisionTreeClassifier(max_depth=3), frame, path)


MODELS: dict[str, Callable[[pd.DataFrame, Path], tuple[TabularTeacher, np.ndarray]]] = {
    "lightgbm": lightgbm_model,
    "xgboost": xgboost_model,
    "catboost": catboost_model,
    "one-hot": one_hot_model,
    "ordinal": ordinal_model,
}


def library_refuses(library: str, column: pd.Series) -> bool:
    """What a library can't do by itself: then its user turns the column into texts."""
    kind, gaps = column.dtype.kind, bool(column.isna().any())
    if library == "catboost":
        return kind in {"f", "M"} or gaps
    if library == "xgboost":
        return kind in "fbM" or (kind == "O" and not isinstance(column.dropna().iloc[0], str))
    return library == "lightgbm" and kind == "M"


def as_texts(library: str, frame: pd.DataFrame) -> pd.DataFrame:
    texts = frame["c"].astype(object).map(str, na_action="ignore")
    return frame.assign(c=texts.where(texts.notna(), "missing") if library == "catboost" else texts)


def asked(teacher: TabularTeacher, data: TransferSet) -> np.ndarray:
    teacher.load(CPU)
    teacher.meet(facts(data))
    output = teacher.ask(data.batch(np.arange(N)), Request(output=True)).output
    assert output is not None
    return output.double().softmax(1).numpy()


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("cells", [(form, gaps) for form in FORMS for gaps in (False, True)], ids=str)
@pytest.mark.parametrize("library", MODELS)
def test_answers_are_the_librarys_own_whatever_the_type_of_a_category(
    library: str, cells: tuple[str, bool], reader: str, tmp_path: Path, data: Callable[[str, bool, str], TransferSet]
) -> None:
    """Catches a category that is another one, or none, because a reader, a frame or a model file changed its type."""
    form, gaps = cells
    frame = as_pandas_reads(form, gaps, reader)
    if library_refuses(library, frame["c"]):
        with pytest.raises(Exception, match=r".+"):
            MODELS[library](frame, tmp_path)
        frame = as_texts(library, frame)
    teacher, expected = MODELS[library](frame, tmp_path)
    assert np.mean(expected.argmax(1) == frame["y"]) > (0.8 if gaps else 0.9)  # the categories matter
    for other in {reader, "csv" if reader != "csv" else "parquet"}:  # and from another file than those of the fit
        fresh = type(teacher)(**{name: value for name, value in vars(teacher).items() if not name.startswith("_")})
        if (library, form, gaps, reader, other) == ("xgboost", "bool", True, "jsonl", "csv"):
            # pandas reads true, false and null as 1.0, 0.0 and NaN there: the texts "1.0" and "True" have no more in
            # common than any two texts.
            with pytest.raises(
                ModelError, match=r"column `c`(.|\n)*'0\.0', '1\.0'(.|\n)*'(True|False)', '(True|False)'"
            ):
                asked(fresh, data(form, gaps, other))
            continue
        np.testing.assert_allclose(asked(fresh, data(form, gaps, other)), expected, atol=2e-6, err_msg=other)


@pytest.mark.parametrize("unit", ["s", "ns"])
@pytest.mark.parametrize("library", ["one-hot", "ordinal"])
def test_dates_of_any_unit_are_the_dates_that_an_encoder_knows(
    library: str, unit: str, tmp_path: Path, data: Callable[[str, bool, str], TransferSet]
) -> None:
    """Catches nanoseconds since 1970 in the place of a date, and a missing date that is None or a category."""
    frame = as_pandas_reads("date", True, "pandas")
    teacher, expected = MODELS[library](frame.assign(c=frame["c"].astype(f"datetime64[{unit}]")), tmp_path)
    np.testing.assert_allclose(asked(teacher, data("date", True, "csv")), expected, atol=2e-6)


FITTED: dict[str, Callable[[str], TabularTeacher]] = {
    "lightgbm": lambda path: LightGBMTeacher(
        f"{path}.txt", fit={"num_iterations": 8, "min_data_in_leaf": 3, "min_data_per_group": 3}, threads=1
    ),
    "xgboost": lambda path: XGBoostTeacher(f"{path}.ubj", fit={"num_boost_round": 4, "nthread": 1}, threads=1),
    "catboost": lambda path: CatBoostTeacher(f"{path}.cbm", fit={"iterations": 4, "thread_count": 1}, threads=1),
}


@pytest.mark.parametrize("gaps", [False, True], ids=["full", "gaps"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("library", FITTED)
def test_a_fit_in_the_run_learns_from_categories_of_any_type_and_knows_them_from_other_files(
    library: str, form: str, gaps: bool, tmp_path: Path, data: Callable[[str, bool, str], TransferSet]
) -> None:
    teacher = FITTED[library](str(tmp_path / "m"))
    first = asked(teacher, data(form, gaps, "parquet"))
    assert np.mean(first.argmax(1) == rows(form, gaps)[0]["y"]) > (0.8 if gaps else 0.9)
    alone = type(teacher)(teacher.path, threads=1)
    np.testing.assert_allclose(asked(alone, data(form, gaps, "csv")), first, atol=1e-6)


@pytest.mark.parametrize("tabular", ["one_hot", "codes"])
@pytest.mark.parametrize("form", FORMS)
def test_a_students_record_makes_the_same_inputs_of_rows_from_another_reader(
    form: str, tabular: str, data: Callable[[str, bool, str], TransferSet]
) -> None:
    """Catches preprocessing that takes 1.0 or True for unknown, as the student was trained on a CSV file."""
    for reader in READERS:
        features = data(form, True, reader).columns.features
        assert features is not None
        record = Tabular(categories=tabular).fit(features, np.arange(N)).to_dict()  # type: ignore[arg-type]
        encode = Encoding.from_dict(json.loads(json.dumps(record)))
        expected = encode(features.columns)
        assert len(record["categories"][0]["values"]) == len(FORMS[form]) + 1
        frame = as_pandas_reads(form, True, "csv")
        for other in ("csv", "parquet", "jsonl"):
            frame = as_pandas_reads(form, True, other)
            found = encode({name: frame[name].to_numpy() for name in ("n", "c")})
            for name, array in expected.items():
                np.testing.assert_allclose(found[name], array, atol=1e-6, err_msg=f"{reader} -> {other}")


def test_lightgbm_categories_belong_to_the_columns_that_the_model_had_as_categories(tmp_path: Path) -> None:
    """Catches the categories of one column taken for those of another, of which the data says that it is one."""
    import lightgbm

    rng = np.random.default_rng(0)
    town, code = rng.choice([1, 2, 10], N), rng.choice([1, 2, 10], N)
    y = ((town == 2) ^ (rng.random(N) < 0.05)).astype(int)
    frame = pd.DataFrame({"code": code, "town": pd.Categorical(town), "y": y})
    model = lightgbm.LGBMClassifier(n_estimators=4, verbosity=-1, n_jobs=1, min_child_samples=3, min_data_per_group=3)
    x = frame[["code", "town"]]
    model.fit(x, y).booster_.save_model(tmp_path / "m.txt")
    source = Arrays({"code": code, "town": town}, y, categories=["code"])
    data = Data(source=source, tabular=Tabular(), splits=Splits(development=0, test=0)).load()
    found = asked(LightGBMTeacher(str(tmp_path / "m.txt"), threads=1), data)
    np.testing.assert_allclose(found, model.predict_proba(x), atol=1e-6)


def catboost_of(column: Any, folder: Path) -> tuple[Any, np.ndarray]:
    import catboost

    x = pd.DataFrame({"n": rows("int", True)[0]["n"], "c": pd.Series(column, dtype=object)})
    model = catboost.CatBoostClassifier(iterations=4, verbose=False, allow_writing_files=False, thread_count=1)
    model.fit(x, rows("int", True)[0]["y"], cat_features=["c"]).save_model(str(folder / "m.cbm"))
    return model, model.predict_proba(x)


def test_catboost_is_asked_about_missing_categories_in_the_word_that_it_knows(tmp_path: Path) -> None:
    """Catches each row without a category as one of a category that the model has never seen."""
    cells = rows("int", True)[1]
    _, expected = catboost_of([str(float("nan") if cell is None else float(cell)) for cell in cells], tmp_path)
    source = Arrays(
        {"n": rows("int", True)[0]["n"].to_numpy(), "c": cells}, rows("int", True)[0]["y"].to_numpy(), categories=["c"]
    )
    data = Data(source=source, tabular=Tabular(), splits=Splits(development=0, test=0)).load()
    with pytest.raises(
        ModelError, match=r"missing_category(.|\n)*`missing`(.|\n)*knows `nan`(.|\n)*missing_category: \"nan\""
    ):
        asked(CatBoostTeacher(str(tmp_path / "m.cbm"), threads=1), data)
    told = CatBoostTeacher(str(tmp_path / "m.cbm"), missing_category="nan", threads=1)
    np.testing.assert_allclose(asked(told, data), expected, atol=1e-6)


def test_a_column_of_which_catboost_knows_no_category_is_refused_before_it_teaches(tmp_path: Path) -> None:
    cells = ["missing" if cell is None else f"number {cell}" for cell in rows("int", True)[1]]
    _, expected = catboost_of(cells, tmp_path)
    y = rows("int", True)[0]["y"].to_numpy()

    def data(column: list[Any]) -> TransferSet:
        columns = {"n": rows("int", True)[0]["n"].to_numpy(), "c": column}
        source = Arrays(columns, y, categories=["c"])
        return Data(source=source, tabular=Tabular(), splits=Splits(development=0, test=0)).load()

    def teacher() -> CatBoostTeacher:
        return CatBoostTeacher(str(tmp_path / "m.cbm"), threads=1)

    np.testing.assert_allclose(asked(teacher(), data(cells)), expected, atol=1e-6)
    with pytest.raises(ModelError, match=r"column `c`(.|\n)*in any spelling, but '(Number|MISSING|Missing|NUMBER)"):
        asked(teacher(), data([cell.upper() for cell in cells]))
    asked(teacher(), data(["number 99"] * N))  # a lone new category is no mistake
