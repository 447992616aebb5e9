from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from tutelage.errors import DataError, RecipeError
from tutelage.transfer import Arrays, Data, Encoding, Features, Function, HuggingFaceDataset, Splits, Table, Tabular
from tutelage.transfer.tabular import CategoryColumn

N = 120
CITIES = ["Oslo", "Rome", "NA"]


def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "age": rng.normal(40, 12, N).round(3),
            "income": rng.lognormal(3, 1, N).round(3),
            "city": rng.choice(CITIES, N),
            "zip": rng.choice(["007", "123", "999"], N),
            "split": ["train"] * 80 + ["development"] * 20 + ["test"] * 20,
            "label": rng.choice(["no", "yes"], N),
        }
    )
    table.loc[::7, "age"] = np.nan
    table.loc[::9, "city"] = None
    table.loc[N - 3 :, "city"] = "Lima"  # no training row has it
    return table


def written(folder: Path, kind: str = "csv", table: pd.DataFrame | None = None) -> str:
    path, table = folder / f"t.{kind}", frame() if table is None else table
    table.to_csv(path, index=False) if kind == "csv" else table.to_parquet(path)
    return str(path)


def source(path: str, **more: Any) -> Table:
    roles = {"inputs": ["age", "income"], "categories": ["city", "zip"], "label": "label", "split": "split"}
    return Table(path, **(roles | more))


def data(path: str, **settings: Any) -> Data:
    return Data(source=source(path), tabular=Tabular(**settings))


def inputs(loaded: Any, rows: np.ndarray) -> Any:
    return loaded.batch(rows).inputs


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_inputs_are_those_of_a_scikit_learn_pipeline_fitted_on_the_training_rows_alone(
    tmp_path: Path, kind: str
) -> None:
    """Catches statistics of all rows, a scale of filled values, another order of columns."""
    loaded = data(written(tmp_path, kind)).load()
    table = frame().assign(city=frame()["city"].fillna("~missing"))  # sorts last, as None does here
    train = table[:80]
    by_hand = make_column_transformer(
        (make_pipeline(StandardScaler(), SimpleImputer(strategy="median", add_indicator=True)), ["age", "income"]),
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["city", "zip"]),
    ).fit(train)
    np.testing.assert_allclose(inputs(loaded, np.arange(N)), by_hand.transform(table), atol=2e-6)
    assert any("4 columns of the table are 10 inputs" in note for note in loaded.notes)


def test_teachers_read_the_cells_as_the_file_has_them(tmp_path: Path) -> None:
    for kind in ("csv", "parquet"):
        raw = data(written(tmp_path, kind)).load().batch(np.arange(N)).raw
        assert raw is not None
        columns = raw()
        assert list(columns) == ["age", "income", "city", "zip"]
        np.testing.assert_array_equal(columns["age"], frame()["age"].to_numpy())
        assert columns["age"].dtype == np.float64
        assert columns["city"].tolist() == [None if pd.isna(cell) else cell for cell in frame()["city"]]
        assert set(columns["zip"]) == {"007", "123", "999"}  # not the numbers 7, 123, 999


def test_codes_of_unknown_and_rare_categories_are_zero(tmp_path: Path) -> None:
    loaded = data(written(tmp_path), categories="codes", rare=2).load()
    found = inputs(loaded, np.arange(N))
    assert found["categories"].dtype == torch.int64 and found["numbers"].shape == (N, 3)
    place = {"NA": 1, "Oslo": 2, "Rome": 3, None: 4, "Lima": 0}
    expected = [place[None if pd.isna(cell) else cell] for cell in frame()["city"]]
    assert found["categories"][:, 0].tolist() == expected
    counts = frame()["city"][:80].value_counts()
    rare = data(written(tmp_path), categories="codes", rare=int(counts.max())).load()
    kept = counts.idxmax()
    assert set(inputs(rare, np.arange(80))["categories"][:, 0].tolist()) == {0, 1}
    assert (inputs(rare, np.arange(N))["categories"][:, 0] == 1).tolist() == (frame()["city"] == kept).tolist()


def test_other_splits_change_no_statistic(tmp_path: Path) -> None:
    """Catches a leak: numbers of test rows that move what training rows look like."""
    before = data(written(tmp_path)).load()
    table = frame()
    table.loc[80:, "age"] = 1e6 + np.arange(40)
    table.loc[80:, "income"] = -1e6
    table.loc[80:, "zip"] = "other"
    after = data(written(tmp_path, table=table)).load()
    torch.testing.assert_close(inputs(after, np.arange(80)), inputs(before, np.arange(80)), rtol=0, atol=0)
    assert not bool(inputs(after, np.arange(80, N))[:, -3:].any())  # an unknown category is none of the known ones


def test_a_teacher_trained_on_all_rows_sees_the_numbers_that_it_is_asked_about(tmp_path: Path) -> None:
    """Catches statistics of the rows within `limit`: the same row would look different to teacher and student."""
    path = written(tmp_path)
    limited = Data(source=source(path), tabular=Tabular(), limit=10).load()
    torch.testing.assert_close(inputs(limited, np.arange(80)), inputs(data(path).load(), np.arange(80)), rtol=0, atol=0)


def test_settings_leave_out_what_they_say(tmp_path: Path) -> None:
    plain = inputs(data(written(tmp_path), scale=False, indicators=False).load(), np.arange(N)).numpy()
    assert plain.shape == (N, 9)
    train = frame()["age"][:80]
    np.testing.assert_allclose(plain[:, 0], frame()["age"].fillna(train.median()), rtol=1e-6)
    np.testing.assert_allclose(plain[:, 1], frame()["income"], rtol=1e-6)


@pytest.mark.parametrize("categories", ["one_hot", "codes"])
def test_the_record_in_the_bundle_makes_the_same_inputs_of_new_rows(tmp_path: Path, categories: str) -> None:
    loaded = data(written(tmp_path), categories=categories).load()
    record = json.loads(json.dumps(loaded.preprocessing))
    table = frame()
    made = Encoding.from_dict(record)({name: table[name].to_numpy(object) for name in table})
    found = inputs(loaded, np.arange(N))
    for name, array in made.items():
        expected = found[name] if isinstance(found, dict) else found
        np.testing.assert_array_equal(array, expected.numpy())
    assert record["inputs"][:3] == ["age", "income", "age is missing"]
    assert len(record["inputs"]) == (10 if categories == "one_hot" else 3)


def test_whole_numbers_as_texts_are_the_categories_that_they_were_and_columns_have_one_length() -> None:
    kinds = [CategoryColumn(name="n", values=(3, 10)), CategoryColumn(name="t", values=("010", "7", "a"))]
    encode = Encoding(numbers=(), categories=tuple(kinds), codes=True)
    coded = encode({"n": ["10", 3, "x", "010"], "t": [7, "7", 10, None]})["categories"]
    assert coded.tolist() == [[2, 2], [1, 2], [0, 0], [2, 0]]  # whole numbers are read as numbers: 010 is 10
    with pytest.raises(DataError, match="n 2, t 1"):
        encode({"n": [3, 3], "t": ["a"]})


def test_the_fingerprint_of_inputs_tells_one_encoding_from_another(tmp_path: Path) -> None:
    path = written(tmp_path)
    prints = {data(path, **s).load().inputs_fingerprint for s in ({}, {"scale": False}, {"rare": 25})}
    assert len(prints) == 3
    assert data(path).load().inputs_fingerprint in prints


def test_a_table_of_plain_numbers_is_as_before_without_settings(tmp_path: Path) -> None:
    """Catches changed digests: other splits for every table that was used before."""
    path = written(tmp_path)
    table = Data(source=Table(path, inputs=["income"], label="label", split="split")).load()
    matrix = Arrays(frame()[["income"]].to_numpy(), frame()["label"].tolist(), split=frame()["split"].tolist())
    arrays = Data(source=matrix).load()
    assert table.fingerprint == arrays.fingerprint and table.inputs_fingerprint == arrays.inputs_fingerprint
    torch.testing.assert_close(inputs(table, np.arange(N)), inputs(arrays, np.arange(N)))
    raw = table.batch(np.array([3])).raw
    assert raw is not None and raw() == {"income": frame()["income"][3]}


def mixed() -> dict[str, Any]:
    table = frame()
    return {
        "age": table["age"].to_numpy(),
        "city": [None if pd.isna(city) else city for city in table["city"]],
        "categories": ["city"],
        "labels": [0, 1] * 60,
    }


def test_arrays_and_functions_and_datasets_give_tables_too(tmp_path: Path) -> None:
    import datasets

    splits = Splits(development=0.2, test=0.2)
    columns = {name: value for name, value in mixed().items() if name in ("age", "city")}
    sources = {
        "arrays": Arrays(columns, [0, 1] * 60, categories=["city"]),
        "function": Function(f"{__name__}:mixed"),
        "dataset": HuggingFaceDataset(
            datasets.Dataset.from_dict({**columns, "y": [0, 1] * 60}), inputs=["age"], categories=["city"], label="y"
        ),
    }
    found = {name: Data(source=each, tabular=Tabular(), splits=splits).load() for name, each in sources.items()}
    assert len({loaded.fingerprint for loaded in found.values()}) == 1
    matrix = np.stack([columns["age"], np.arange(N)], axis=1)
    numbers = Data(source=Arrays(matrix), tabular=Tabular(), splits=splits).load()
    assert inputs(numbers, np.arange(5)).shape == (5, 3)
    raw = numbers.batch(np.arange(5)).raw
    assert raw is not None and list(raw()) == ["inputs_0", "inputs_1"]


def test_whole_numbers_that_a_file_keeps_as_floats_are_the_same_categories() -> None:
    features = Features({"x": np.array([3.0, np.nan, 4.0]), "y": np.array([1, 2, 3])}, ["x", "y"])
    assert features.columns["x"].tolist() == [3, None, 4]
    assert [type(cell) for cell in features.columns["x"]] == [int, type(None), int]
    assert [type(cell) for cell in features.columns["y"]] == [int, int, int]


def test_rows_that_differ_in_one_cell_have_different_digests() -> None:
    base = {"n": np.array([1.0, np.nan]), "c": ["a", None]}
    changed = [{"n": np.array([1.0, 0.0])}, {"n": np.array([2.0, np.nan])}, {"c": ["a", "b"]}, {"c": ["", "a"]}]
    digests = [Features(base | change, ["c"]).digests() for change in ({}, *changed)]
    assert len({row.tobytes() for row in np.stack(digests).reshape(-1, 2)}) == 7
    payload = np.array([np.nan]).view(np.uint64) + np.uint64(1)  # another of the many NaN
    np.testing.assert_array_equal(
        Features({"n": payload.view(np.float64)}).digests(), Features({"n": np.array([np.nan])}).digests()
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"age": [np.nan] * N}, "column `age`(.|\n)*at least one training row"),
        ({"age": ["old"] * N}, "column `age`(.|\n)*categories"),
        ({"income": [np.inf] * N}, "column `income`, row 0(.|\n)*float32"),
        ({"zip": [np.inf] * N}, "column `zip`, row 0(.|\n)*a category"),
        ({"zip": [2.0**60] * N}, "column `zip`, row 0(.|\n)*a category(.|\n)*told from its neighbours"),
    ],
)
def test_columns_that_cannot_be_used_are_named(change: dict[str, Any], said: str) -> None:
    table = frame().assign(**change)
    columns = {name: table[name].tolist() for name in ("age", "income", "zip")}
    columns = {
        name: np.asarray(c, dtype=None if name == "zip" or isinstance(c[0], str) else float)
        for name, c in columns.items()
    }
    with pytest.raises(DataError, match=said):
        Data(source=_Rows(columns), tabular=Tabular()).load()


class _Rows(Arrays):
    """Columns that a source of the user's own puts in a table."""

    def load(self) -> Any:
        from tutelage.transfer import Rows

        return Rows(columns={"table": Features(self.inputs, ["zip"])})


def test_settings_without_a_table_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"data\.tabular(.|\n)*a table"):
        Data(source=Arrays(np.zeros((9, 4, 4), dtype=np.uint8)), tabular=Tabular()).load()
    with pytest.raises(RecipeError, match="rare"):
        Tabular(rare=0)
    with pytest.raises(DataError, match="rarer"):
        Tabular(rare=9).fit(Features({"c": ["a", "b"]}, ["c"]), np.array([0, 1]))


def test_a_row_is_shown_with_the_names_of_its_columns(tmp_path: Path) -> None:
    shown = data(written(tmp_path)).load().display(0)
    assert shown["kind"] == "text"
    assert shown["input"].startswith("age: missing, income: ") and "city: missing" in shown["input"]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["7", "-12", "", "0"], [7, -12, None, 0]),
        (["7", "007", "", "0"], ["7", "007", None, "0"]),
        (["7", "1.0", "NA", "1e3"], ["7", "1.0", "NA", "1e3"]),
        (["12345678901234567890", "1", "2", "3"], ["12345678901234567890", "1", "2", "3"]),
    ],
)
def test_codes_with_leading_zeros_in_a_csv_file_stay_what_they_are(
    cells: list[str], expected: list[Any], tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text("c,n\n" + "".join(f"{cell},1\n" for cell in cells))
    features = Table(str(tmp_path / "t.csv"), inputs=["n"], categories=["c"]).load().columns["inputs"]
    assert isinstance(features, Features)
    found = features.columns["c"].tolist()
    assert found == expected and [type(cell) for cell in found] == [type(cell) for cell in expected]
