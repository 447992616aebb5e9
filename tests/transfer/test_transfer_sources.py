"""Every source, from good files and from wrong ones.

Longer than 400 lines because the sources share what they are tested with.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from tutelage.errors import DataError, MissingExtra, RecipeError
from tutelage.transfer import Arrays, Data, Function, HuggingFaceDataset, Rows, Source, Splits, Table, TransferSet

N = 60


def records() -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    names = ["train", "validation", "test", ""]
    return [
        {
            "text": f'{i:03d}, "quoted" and\nnew line é',
            "height": float(rng.normal()),
            "age": int(rng.integers(0, 9)),
            "vector": [float(v) for v in rng.normal(size=3)],
            "kind": ["ant", "bee", None][i % 3],
            "number": None if i % 4 == 0 else i % 3,
            "article": f"{i // 4:02d}",
            "part": names[(i // 4) % 4],
        }
        for i in range(N)
    ]


def write(kind: str, folder: Path) -> str:
    frame = pd.DataFrame(records())
    frame["number"] = frame["number"].astype("Int64")
    path = folder / f"table.{kind}"
    if kind == "parquet":
        frame.to_parquet(path)
    elif kind in ("csv", "tsv"):
        frame.drop(columns="vector").to_csv(path, index=False, sep="\t" if kind == "tsv" else ",")
    else:
        path.write_text("\n".join(json.dumps(record) for record in records()), encoding="utf-8")
    return str(path)


def same(a: Rows, b: Rows) -> None:
    assert list(a.columns) == list(b.columns)
    for name, column in a.columns.items():
        np.testing.assert_array_equal(np.asarray(column), np.asarray(b.columns[name]))
    for name in ("labels", "labelled"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert a.classes == b.classes
    assert a.group == b.group
    assert a.split == b.split


@pytest.mark.parametrize("label", ["kind", "number"])
def test_every_format_gives_identical_rows(tmp_path: Path, label: str) -> None:
    roles: dict[str, Any] = {"text": "text", "inputs": ["height", "age"], "label": label, "group": "article"}
    expected = Table(write("parquet", tmp_path), split="part", **roles).load()
    assert expected.columns["text"] == [record["text"] for record in records()]
    np.testing.assert_array_equal(np.asarray(expected.columns["inputs"]), [[r["height"], r["age"]] for r in records()])
    assert expected.labelled is not None
    assert expected.labelled.tolist() == [r[label] is not None for r in records()]
    assert expected.group is not None
    assert expected.group[5] == "01"
    assert expected.split == [{"validation": "development"}.get(r["part"], r["part"]) for r in records()]
    for kind in ("csv", "tsv", "jsonl"):
        same(Table(write(kind, tmp_path), split="part", **roles).load(), expected)
    without_split = Table(write("parquet", tmp_path), **roles).load()
    dataset = datasets.Dataset.from_list(records())
    same(HuggingFaceDataset(dataset, **roles).load(), without_split)
    dataset.save_to_disk(str(tmp_path / "saved"))
    same(HuggingFaceDataset(str(tmp_path / "saved"), **roles).load(), without_split)


def test_a_shuffled_or_selected_dataset_gives_the_rows_it_shows() -> None:
    dataset = datasets.Dataset.from_list(records()).shuffle(seed=1).select(range(7))
    assert HuggingFaceDataset(dataset, "text").load().columns["text"] == dataset["text"][:]


def test_a_dataset_dict_keeps_its_splits_and_class_names() -> None:
    features = datasets.Features(
        {"x": datasets.Array2D((2, 2), "float32"), "y": datasets.ClassLabel(names=["no", "yes"])}
    )

    def part(n: int) -> datasets.Dataset:
        rows = {"x": np.arange(n * 4, dtype=np.float32).reshape(n, 2, 2), "y": [-1, *[1] * (n - 1)]}
        return datasets.Dataset.from_dict(rows, features=features)

    dataset = datasets.DatasetDict(train=part(5), validation=part(3), test=part(2))
    rows = HuggingFaceDataset(dataset, inputs=["x"], label="y").load()
    assert rows.split == ["train"] * 5 + ["development"] * 3 + ["test"] * 2
    assert rows.classes == ("no", "yes")
    assert rows.labelled is not None
    assert np.flatnonzero(~rows.labelled).tolist() == [0, 5, 8]
    assert np.asarray(rows.columns["x"]).shape == (10, 2, 2)
    np.testing.assert_array_equal(rows.columns["x"][1], [[4, 5], [6, 7]])
    with pytest.raises(DataError, match=r"did you mean `(valid|validation)`"):
        HuggingFaceDataset(datasets.DatasetDict(validatoin=part(3)), inputs=["x"]).load()


def test_a_list_column_is_a_matrix_of_its_own_and_shards_of_a_folder_are_joined(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(records())
    for i in range(3):
        parquet.write_table(table.slice(i * 20, 20), tmp_path / f"part-{i}.parquet")
    rows = Table(str(tmp_path), inputs=["age", "vector"], label=["height", "age"]).load()
    np.testing.assert_array_equal(np.asarray(rows.columns["vector"]), [r["vector"] for r in records()])
    assert np.asarray(rows.columns["inputs"]).shape == (N, 1)
    assert rows.labels is not None
    np.testing.assert_allclose(rows.labels, [[r["height"], r["age"]] for r in records()], rtol=1e-6)


def test_a_text_that_looks_like_a_number_or_like_missing_stays_a_text(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,label\n007,a\nNA,b\nnull,a\n")
    assert Table(str(tmp_path / "t.csv"), "text", label="label").load().columns["text"] == ["007", "NA", "null"]


def test_compressed_tables_are_read(tmp_path: Path) -> None:
    pd.DataFrame({"text": ["a", "b"]}).to_csv(tmp_path / "t.csv.gz", index=False)
    assert Table(str(tmp_path / "t.csv.gz"), "text").load().columns["text"] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n", ["no rows"]),
        ("a,b\n1,2\n3,4\n5,six\n", ["column `b`, row 2", "numbers", "'six'"]),
        ("a;b\n1;2\n", ["`a;b`", "separated by ';'", 'delimiter: ";" in data.source']),
        ("a\tb\n1\t2\n", ["separated by '\\t'", 'delimiter: "\\t" in data.source']),
    ],
)
def test_a_csv_file_that_was_written_otherwise_is_told_how(text: str, said: list[str], tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError) as caught:
        Table(str(tmp_path / "t.csv"), inputs=["a", "b"]).load()
    for words in said:
        assert words in str(caught.value)


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize("role", ["text", "inputs", "label", "group", "split"])
def test_an_unknown_column_names_the_nearest(tmp_path: Path, kind: str, role: str) -> None:
    roles: dict[str, Any] = {"text": "text", role: ["hieght"] if role == "inputs" else "hieght"}
    with pytest.raises(DataError, match=rf"source\.{role}(.|\n)*did you mean `height`"):
        Table(write(kind, tmp_path), **roles).load()


def test_an_unknown_column_of_a_dataset_names_the_nearest() -> None:
    with pytest.raises(DataError, match="did you mean `text`"):
        HuggingFaceDataset(datasets.Dataset.from_list(records()), "txet").load()


@pytest.mark.parametrize(
    ("cells", "arguments", "message"),
    [
        ({"x": [1.0, None]}, {"inputs": ["x"]}, "row 1(.|\n)*nothing(.|\n)*data.tabular"),
        ({"x": ["a", "b"]}, {"categories": ["x"]}, "categories(.|\n)*data.tabular"),
        ({"x": [[1.0], [1.0, 2.0]]}, {"inputs": ["x"]}, "row 1(.|\n)*lists of 1(.|\n)*one of 2"),
        ({"x": [[[1.0], [2.0]], [[3.0], [4.0, 5.0]]]}, {"inputs": ["x"]}, "row 1"),
        ({"x": ["a", "b"]}, {"inputs": ["x"]}, "name it under `text`"),
        ({"x": ["a", None]}, {"text": "x"}, "row 1(.|\n)*nothing"),
        ({"x": [1, 2], "y": ["a", "b"], "z": [1, 2]}, {"inputs": ["x"], "label": ["y", "z"]}, "several labels"),
        ({"x": [1, 2], "s": ["train", "tset"]}, {"inputs": ["x"], "split": "s"}, "row 1(.|\n)*did you mean `test`"),
        ({"x": [1, 2]}, {"image": "x"}, "encoded images"),
    ],
)
def test_cells_that_cannot_be_used_are_named(
    tmp_path: Path, cells: dict[str, list[Any]], arguments: dict[str, Any], message: str
) -> None:
    parquet.write_table(pa.table(cells), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=message):
        Data(source=Table(str(tmp_path / "t.parquet"), **arguments)).load()


def test_files_that_are_no_tables_are_named(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"not parquet")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "ragged.csv").write_text("a,b\n1,2\n1,2,3\n")
    with pytest.raises(DataError, match=r"t\.parquet(.|\n)*a parquet file"):
        Table(str(tmp_path / "t.parquet"), "text").load()
    with pytest.raises(DataError, match=r"ragged\.csv, line 3(.|\n)*2 cells(.|\n)*3: 1,2,3"):
        Table(str(tmp_path / "ragged.csv"), inputs=["a"]).load()
    with pytest.raises(DataError, match=r"ending in \.parquet"):
        Table(str(tmp_path / "notes.txt"), "text").load()
    with pytest.raises(DataError, match=r"files of one kind(.|\n)*csv, parquet"):
        Table(str(tmp_path), "text").load()
    with pytest.raises(DataError, match=r"did you mean `notes\.txt`"):
        Table(str(tmp_path / "note.txt"), "text").load()
    with pytest.raises(RecipeError, match="at least one"):
        Table("t.csv", label="y")
    with pytest.raises(DataError, match="save_to_disk"):
        HuggingFaceDataset(str(tmp_path), "text").load()


def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(MissingExtra, match=r"tutelage\[datasets\]"):
        HuggingFaceDataset(str(tmp_path), "text").load()


# Arrays


def open_set(source: Source) -> TransferSet:
    return Data(source=source, splits=Splits(development=0, test=0)).load()


def test_arrays_tensors_lists_and_files_give_the_same_inputs(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((12, 3))
    y = np.arange(12) % 3
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    np.savez(tmp_path / "xy.npz", features=x, target=y)
    sources = [
        Arrays(x, y),
        Arrays(torch.from_numpy(x), torch.from_numpy(y)),
        Arrays(x.tolist(), y.tolist()),
        Arrays(str(tmp_path / "x.npy"), str(tmp_path / "y.npy")),
        Arrays({"inputs": str(tmp_path / "x.npy")}, str(tmp_path / "y.npy")),
        Arrays(str(tmp_path / "xy.npz"), "target"),
    ]
    for source in sources:
        batch = open_set(source).batch(np.arange(12))
        assert isinstance(batch.inputs, torch.Tensor)
        torch.testing.assert_close(batch.inputs, torch.from_numpy(x).float(), rtol=0, atol=0)
        assert batch.labels is not None
        assert batch.labels.tolist() == y.tolist()


def test_several_columns_are_named_and_keep_their_types() -> None:
    data = open_set(Arrays({"ids": np.arange(8, dtype=np.int32).reshape(4, 2), "x": np.ones(4), "b": np.ones(4, bool)}))
    inputs = data.batch(np.arange(4)).inputs
    assert isinstance(inputs, dict)
    assert {name: tensor.dtype for name, tensor in inputs.items()} == {
        "ids": torch.int64,
        "x": torch.float32,
        "b": torch.float32,
    }
    half = open_set(Arrays(torch.ones(3, 2, dtype=torch.bfloat16)))
    assert half.batch(np.arange(3)).inputs.dtype == torch.float32  # type: ignore[union-attr]


def test_groups_and_splits_of_an_npz_are_found_by_name(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "d.npz", x=np.arange(6.0), y=np.arange(6), who=np.array(list("aabbcc")), part=np.array(["train"] * 6)
    )
    rows = Arrays(str(tmp_path / "d.npz"), "y", group="who", split="part").load()
    assert list(rows.columns) == ["x"]
    assert list(rows.group or ()) == list("aabbcc")
    with pytest.raises(DataError, match=r"source\.group(.|\n)*did you mean `who`"):
        Arrays(str(tmp_path / "d.npz"), "y", group="whom").load()


@pytest.mark.parametrize("name", ["d.npz", "d.npy"])
def test_a_file_that_would_have_to_be_unpickled_is_refused(tmp_path: Path, name: str) -> None:
    objects = np.array([{"a": 1}, None], dtype=object)
    (np.savez if name.endswith("npz") else np.save)(tmp_path / name, objects, allow_pickle=True)
    with pytest.raises(DataError, match="unpickling a file runs whatever code it holds"):
        Arrays(str(tmp_path / name)).load()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Arrays([[1.0], [1.0, 2.0]]), "ragged"),
        (Arrays(np.array([np.ones(1), np.ones(2)], dtype=object)), "same shape in every row"),
        (Arrays(np.array([1 + 2j, 3])), "complex"),
        (Arrays(np.array([[0.0, 1.0], [np.nan, 0.0]])), r"column `inputs`, row 1(.|\n)*nan \(in 1 rows\)"),
        (Arrays({"a": np.ones(2), "b": np.array([1.0, -np.inf])}), r"column `b`, row 1(.|\n)*-inf"),
        (Arrays(np.array([1e300, 1.0])), "row 0(.|\n)*inf"),
        (Arrays(np.ones((4, 2)), np.arange(3)), "labels(.|\n)*expected: 4 rows(.|\n)*found:    3"),
        (Arrays({"a": np.ones(4), "b": np.ones(5)}), "column `b`(.|\n)*4 rows"),
        (Arrays(np.ones((4, 2)), group=["a"] * 3), "group(.|\n)*4 rows"),
        (Arrays(np.ones((0, 2))), "at least one row"),
        (Arrays(np.float32(3)), "expected"),
        (Arrays("nowhere.npz"), "which does not"),
        (Arrays({}), "at least one row"),
    ],
)
def test_arrays_that_cannot_be_used_are_named(source: Arrays, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Data(source=source).load()


def test_damaged_and_foreign_array_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "d.npz").write_bytes(b"PK\x03\x04 broken")
    (tmp_path / "d.npy").write_bytes(b"")
    (tmp_path / "d.pt").write_bytes(b"")
    for name, message in (("d.npz", "plain arrays"), ("d.npy", "plain arrays"), ("d.pt", r"\.npy or \.npz")):
        with pytest.raises(DataError, match=message):
            Arrays(str(tmp_path / name)).load()


# Function


def made(n: int = 4) -> dict[str, Any]:
    return {"x": np.arange(n, dtype=np.float32), "labels": ["a", "b", None, "a"], "classes": ["b", "a"]}


def made_rows() -> Rows:
    return Rows(columns={"x": np.arange(3.0)})


def made_wrongly() -> Any:
    return np.arange(3)


def made_empty() -> dict[str, Any]:
    return {"labels": [1]}


def made_with_wide_labels() -> Rows:
    return Rows(columns={"x": np.arange(3.0)}, labels=np.arange(3, dtype=np.int32))


NOT_A_FUNCTION = 3


def test_a_function_gives_rows_or_a_dict() -> None:
    rows = Function(f"{__name__}:made", {"n": 4}).load()
    assert list(rows.columns) == ["x"]
    assert rows.classes == ("b", "a")
    assert rows.labels is not None
    assert rows.labels.tolist() == [1, 0, 0, 1]
    assert len(Function(f"{__name__}:made_rows").load()) == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("made", "module:function"),
        ("no_such_module_here:made", "can be imported"),
        (f"{__name__}:made_row", "did you mean `made_rows`"),
        (f"{__name__}:NOT_A_FUNCTION", "a function of"),
        (f"{__name__}:made_wrongly", "Rows, or a dict of arrays"),
        (f"{__name__}:made_empty", "at least one array"),
        (f"{__name__}:made_with_wide_labels", "int64 class numbers"),
    ],
)
def test_functions_that_cannot_be_used_are_named(name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Data(source=Function(name)).load()


ROLES: dict[str, Any] = {
    "inputs": ["a"],
    "categories": ["a"],
    "label": "b",
    "classes": ["x"],
    "values": True,
    "unlabelled": -1,
    "image": "i",
}


@pytest.mark.parametrize(
    "source",
    [
        Table("p", "t", **ROLES, group="g", split="s", delimiter=";", missing=["?"], teacher_columns=["c"]),
        Arrays(
            "x",
            "y",
            categories=["x"],
            group="g",
            split="s",
            classes=["x"],
            values=True,
            unlabelled=-1,
            teacher_columns=["c"],
        ),
        HuggingFaceDataset("p", "t", **ROLES, group="g", teacher_columns=["c"]),
        Function("a:b", {"n": 1}),
    ],
)
def test_constructors_store_their_arguments_under_their_names(source: Source) -> None:
    import inspect

    names = inspect.signature(type(source)).parameters
    assert all(getattr(source, name) not in (None, False) for name in names)


def unlabelled_sources(folder: Path) -> dict[str, Source]:
    """The same ten rows in every format, without any label."""
    from pyarrow import csv

    texts = [f"sentence number {row}" for row in range(10)]
    table = pa.table({"text": texts})
    parquet.write_table(table, folder / "rows.parquet")
    csv.write_csv(table, folder / "rows.csv")
    (folder / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return {
        **{kind: Table(str(folder / f"rows.{kind}"), "text") for kind in ("parquet", "csv", "jsonl")},
        "datasets": HuggingFaceDataset(datasets.Dataset.from_dict({"text": texts}), "text"),
        "arrays": Arrays({"text": texts}),
    }


def test_rows_without_labels_are_rows_in_every_format(tmp_path: Path) -> None:
    for kind, source in unlabelled_sources(tmp_path).items():
        rows = source.load()
        assert rows.labels is None and rows.labelled is None and rows.classes == (), kind
        assert list(rows.columns["text"])[3] == "sentence number 3", kind


def test_an_unlabelled_split_of_a_dataset_dict_is_for_training_with_its_labels_empty_absent_or_minus_one() -> None:
    features = datasets.Features({"text": datasets.Value("string"), "kind": datasets.ClassLabel(names=["no", "yes"])})

    def part(kinds: list[int]) -> Any:
        texts = [f"{len(kinds)} {row}" for row in range(len(kinds))]
        return datasets.Dataset.from_dict({"text": texts, "kind": kinds}, features=features)

    for further in (part([-1] * 5), part([0] * 5).remove_columns("kind")):
        source = datasets.DatasetDict({"unsupervised": further, "train": part([0, 1, 1]), "test": part([1, 0])})
        rows = HuggingFaceDataset(source, "text", label="kind").load()
        assert rows.split == ["train"] * 8 + ["test"] * 2
        assert rows.labelled is not None and rows.labelled.tolist() == [False] * 5 + [True] * 5
        assert rows.labels is not None and rows.labels[5:].tolist() == [0, 1, 1, 1, 0]
        assert rows.classes == ("no", "yes")
