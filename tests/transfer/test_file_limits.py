"""Files from strangers: what would make a reader crash, wait or fill the memory is refused before it is read."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from tutelage.errors import DataError, ModelError, RecipeError
from tutelage.recipe_file import read_recipe
from tutelage.teachers.hugging_face import read_config
from tutelage.transfer import Table


def load(path: Path, **settings: object) -> object:
    return Table(str(path), text="t", label="y", **settings).load()


@pytest.mark.parametrize("place", ["unused", "t", "array"])
def test_deep_json_is_refused_and_does_not_end_the_process(place: str, tmp_path: Path) -> None:
    deep = '{"a":' * 100_000 + "1" + "}" * 100_000
    row = {"unused": f'{{"t": "x", "y": 0, "z": {deep}}}', "t": f'{{"t": {deep}, "y": 0}}', "array": f"[{deep}]"}[place]
    path = tmp_path / "rows.jsonl"
    path.write_text(row + "\n")
    with pytest.raises(DataError, match="at most 100 deep"):
        load(path)


def test_brackets_within_texts_are_no_depth(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    text = '[{"' * 400 + "\\" + '"' * 3
    path.write_text("".join(json.dumps({"t": text * (1 + row), "y": row % 2}) + "\n" for row in range(4)))
    assert load(path).columns["t"][0] == text  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv"])
def test_a_line_of_several_megabytes_is_read(kind: str, tmp_path: Path) -> None:
    path, long = tmp_path / f"rows.{kind}", "word " * 700_000
    rows = [{"t": "short", "y": 0}, {"t": long, "y": 1}]
    if kind == "csv":
        path.write_text("t,y\n" + "".join(f'"{row["t"]}",{row["y"]}\n' for row in rows))
    else:
        path.write_text(json.dumps(rows) if kind == "json" else "\n".join(map(json.dumps, rows)))
    assert [len(text) for text in load(path).columns["t"]] == [5, len(long)]  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_packed_table_that_unpacks_to_more_than_allowed_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows.{kind}.gz"
    path.write_bytes(gzip.compress(b"t,y\n" + b"a,0\n" * 3_000_000))
    with pytest.raises(DataError, match=r"more than 0\.01 GB[\s\S]*max_gb"):
        load(path, max_gb=0.01)


def test_a_parquet_file_whose_dictionary_stands_for_more_than_allowed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000), pa.array(["x" * 10_000])).cast(pa.string())
    parquet.write_table(pa.table({"t": texts, "y": [0, 1] * 10_000}), path)
    assert path.stat().st_size < 200_000
    with pytest.raises(DataError, match=r"texts of more than 0\.1 GB[\s\S]*max_gb"):
        load(path, max_gb=0.1)
    assert len(load(path, max_gb=0.3).columns["t"]) == 20_000  # type: ignore[attr-defined]


def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    for name in ("rows.csv", "rows.jsonl", "rows.parquet"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(DataError, match="a named pipe"):
            load(tmp_path / name)
    os.mkfifo(tmp_path / "recipe.yaml")
    with pytest.raises(RecipeError):
        read_recipe(tmp_path / "recipe.yaml")


@pytest.mark.parametrize("name", ["num_hidden_layers", "n_layer"])
def test_a_config_of_ten_million_layers_is_refused_before_they_are_built(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", name: 10**7}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match=rf"{name}[\s\S]*at most 2,000 layers"):
        read_config(tmp_path, "teacher.path")


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "told"),
    {
        "laughs": (LAUGHS, "at most 1,000,000 values"),
        "itself": ("a: &a [1, *a]\n", "an alias of what it stands in"),
        "deep": ("a: " + "[" * 20_000 + "]" * 20_000, "deeper than can be read"),
    }.values(),
    ids=["laughs", "itself", "deep"],
)
def test_yaml_that_grows_without_end_is_refused(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(RecipeError, match=told):
        read_recipe(tmp_path / "r.yaml")


def test_an_alias_that_is_used_twice_is_read(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("a: &a {b: 1}\nc: *a\nd: {<<: *a}\n")
    assert read_recipe(tmp_path / "r.yaml") == {"a": {"b": 1}, "c": {"b": 1}, "d": {"b": 1}}


def test_categories_of_a_parquet_file_are_counted_unpacked_as_texts_are(tmp_path: Path) -> None:
    """A column that pandas stored as a category holds its values once, and is written out for each row."""
    category = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int32()), ["x" * 10_000])
    path = tmp_path / "rows.parquet"
    parquet.write_table(pa.table({"t": category, "y": ["a", "b"] * 10_000}), path)
    with pytest.raises(DataError, match=r"texts of more than 0\.1 GB[\s\S]*max_gb"):
        load(path, max_gb=0.1)


def test_a_column_that_is_not_among_very_many_is_told(tmp_path: Path) -> None:
    """Looked at with another delimiter the header is one name, longer than Python's csv reads by default."""
    path = tmp_path / "wide.csv"
    path.write_text(",".join(f"column_{number}" for number in range(20_000)) + "\n" + ("1," * 19_999 + "1\n") * 4)
    with pytest.raises(DataError, match="no_such"):
        Table(str(path), inputs=["no_such"]).load()
