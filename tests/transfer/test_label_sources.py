"""Labels keep their meaning on the way from a source to the transfer set, whatever its splits and files call them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from tutelage.errors import DataError, RecipeError
from tutelage.transfer import Arrays, Data, HuggingFaceDataset, ImageFolder, Rows, Source, Splits, Table


def part(cells: list[Any], names: list[str] | None) -> datasets.Dataset:
    """Rows whose text is the name of their class; numbers are what `names` makes of it."""
    numbers = [-1 if cell is None else (names or []).index(cell) if names else cell for cell in cells]
    texts = [f"{cell} {row}" for row, cell in enumerate(cells)]
    made = datasets.Dataset.from_dict({"text": texts, "label": numbers})
    return made.cast_column("label", datasets.ClassLabel(names=names)) if names else made


def named(rows: Rows) -> list[str | None]:
    assert rows.labels is not None
    has = np.ones(len(rows), bool) if rows.labelled is None else rows.labelled
    return [rows.classes[label] if known else None for label, known in zip(rows.labels, has, strict=True)]


def meant(rows: Rows) -> list[str | None]:
    """The class that the text of each row names."""
    return [None if (word := text.split()[0]) == "None" else word for text in rows.columns["text"]]


def hugging_face(splits: dict[str, datasets.Dataset], **changes: Any) -> Rows:
    return HuggingFaceDataset(datasets.DatasetDict(splits), text="text", label="label", **changes).load()


FORWARD, TWO = ["cat", "dog", "eel"], ["cat", "eel"]


@pytest.mark.parametrize(
    ("train", "test", "classes"),
    [
        (TWO, FORWARD, ("cat", "dog", "eel")),
        (FORWARD, TWO, ("cat", "dog", "eel")),
        (["eel", "dog", "cat"], FORWARD, ("eel", "dog", "cat")),
        (FORWARD, FORWARD, ("cat", "dog", "eel")),
    ],
)
def test_rows_keep_the_name_of_their_class_where_splits_number_classes_differently(
    train: list[str], test: list[str], classes: tuple[str, ...]
) -> None:
    rows = hugging_face({"train": part([*train, None], train), "test": part([*test[::-1], None], test)})
    assert named(rows) == meant(rows)
    assert rows.classes == classes
    assert any("number their classes differently" in note for note in rows.notes) is (train != test)
    by_hand = hugging_face({"train": part(train, train), "test": part(test, test)}, classes=["eel", "cat", "dog"])
    assert named(by_hand) == meant(by_hand)
    assert by_hand.classes == ("eel", "cat", "dog")


def test_splits_of_which_none_has_all_classes_need_their_order() -> None:
    splits = {"train": part(["cat", "dog"], ["cat", "dog"]), "test": part(["dog", "eel"], ["dog", "eel"])}
    with pytest.raises(DataError, match=r"no split has all(.|\n)*classes: \[cat, dog, eel\]"):
        hugging_face(splits)
    assert named(hugging_face(splits, classes=FORWARD)) == ["cat", "dog", "dog", "eel"]
    with pytest.raises(DataError, match=r"data\.source\.classes"):
        hugging_face(splits, classes=["cat", "dog"])


def test_other_names_are_given_to_the_numbers_of_a_class_label_in_turn_or_refused() -> None:
    given = datasets.Dataset.from_dict({"text": ["no 0", "yes 1"], "label": [0, 1]})
    given = given.cast_column("label", datasets.ClassLabel(names=["0", "1"]))
    assert named(hugging_face({"train": given}, classes=["no", "yes"])) == ["no", "yes"]
    digits = given.cast_column("label", datasets.ClassLabel(names=["1", "0"]))  # the number 0 is called 1
    assert named(HuggingFaceDataset(digits, text="text", label="label").load()) == ["1", "0"]
    with pytest.raises(DataError, match="rows of one class would become another"):
        hugging_face({"train": given}, classes=["0", "yes"])


def test_a_split_without_names_is_read_by_name_or_refused_and_minus_one_there_is_no_label() -> None:
    hidden = part([-1, -1], None)
    rows = hugging_face({"train": part(TWO, TWO), "test": hidden})
    assert named(rows) == ["cat", "eel", None, None]
    with pytest.raises(DataError, match="a `ClassLabel` in every split"):
        hugging_face({"train": part(TWO, TWO), "test": part([0, 1], None)})
    texts = datasets.Dataset.from_dict({"text": ["eel 0"], "label": ["eel"]})
    assert named(hugging_face({"train": texts, "test": texts}, classes=TWO)) == ["eel", "eel"]
    plain = hugging_face({"train": part([0, 1], None), "test": hidden})  # as the test splits of GLUE are
    assert named(plain) == ["0", "1", None, None]


def table(folder: Path, name: str, cells: list[Any]) -> Table:
    """Three columns: a text that says the class, its label, a split."""
    if name.endswith(".csv"):
        lines = [f"{cell} {row},{'' if cell is None else cell}" for row, cell in enumerate(cells)]
        (folder / name).write_text("\n".join(["text,label", *lines]) + "\n")
    else:
        kind = pa.dictionary(pa.int32(), pa.string()) if name.startswith("dictionary") else None
        texts = [f"{cell} {row}" for row, cell in enumerate(cells)]
        parquet.write_table(pa.table({"text": texts, "label": pa.array(cells, kind)}), folder / name)
    return Table(str(folder / name), "text", label="label")


def test_codes_of_digits_keep_their_zeros(tmp_path: Path) -> None:
    rows = table(tmp_path, "a.csv", ["021", "007", "010", None, "007"]).load()
    assert rows.classes == ("007", "010", "021")
    assert named(rows) == meant(rows)
    source = table(tmp_path, "a.csv", ["021", "007"])
    source.classes = ["021", "010", "007"]
    assert source.load().labels.tolist() == [0, 2]  # type: ignore[union-attr]
    (tmp_path / "both").mkdir()
    table(tmp_path / "both", "a.csv", ["007", "010"])
    rows = table(tmp_path / "both", "b.csv", ["12", "13"]).load()
    assert rows.labels is not None
    rows = Table(str(tmp_path / "both"), "text", label="label").load()
    assert named(rows) == meant(rows) == ["007", "010", "12", "13"]


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_grades_are_names_where_classes_says_so(tmp_path: Path, name: str) -> None:
    source = table(tmp_path, name, [3, 8, 5])
    source.classes = ["3", "5", "8"]
    rows = source.load()
    assert named(rows) == meant(rows)


def test_dictionaries_of_several_files_are_read_by_name(tmp_path: Path) -> None:
    table(tmp_path, "dictionary-a.parquet", ["eel", "cat"])
    table(tmp_path, "dictionary-b.parquet", ["cat", "dog", None])
    rows = Table(str(tmp_path), "text", label="label").load()
    assert named(rows) == meant(rows) == ["eel", "cat", "cat", "dog", None]


def sources(folder: Path, labels: bool) -> dict[str, Source]:
    """Two rows with class names, without a label column or with one."""
    names, column = ["no", "yes"], "label" if labels else None
    csv = table(folder, "a.csv", [1, 0])
    csv.classes, csv.label = names, column
    texts = np.array(["a", "b"], dtype=object)
    return {
        "table": csv,
        "arrays": Arrays(texts, np.array([1, 0]) if labels else None, classes=names),
        "datasets": HuggingFaceDataset(part([1, 0], None), text="text", label=column, classes=names),
    }


@pytest.mark.parametrize("kind", ["table", "arrays", "datasets"])
@pytest.mark.parametrize("labels", [True, False])
def test_names_of_classes_are_kept_with_and_without_labels(tmp_path: Path, kind: str, labels: bool) -> None:
    rows = sources(tmp_path, labels)[kind].load()
    assert rows.classes == ("no", "yes")
    assert (rows.labels is not None) is labels


def of_numbers(folder: Path, values: bool | None) -> dict[str, Source]:
    """Rows with the labels 23, 45 and 23 in every kind of source that reads labels."""
    labels, x = [23, 45, 23], [0.5, 1.5, 2.5]
    (folder / "a.csv").write_text("x,y\n" + "".join(f"{a},{b}\n" for a, b in zip(x, labels, strict=True)))
    lines = [f'{{"x": {a}, "y": {b}}}' for a, b in zip(x, labels, strict=True)]
    (folder / "a.jsonl").write_text("\n".join(lines) + "\n")
    parquet.write_table(pa.table({"x": x, "y": labels}), folder / "a.parquet")
    for row, label in enumerate(labels):
        (folder / "ages" / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((3, 3), 20 * row, np.uint8)).save(folder / "ages" / str(label) / f"{row}.png")
    return {
        **{
            name: Table(str(folder / name), inputs=["x"], label="y", values=values)
            for name in ("a.csv", "a.jsonl", "a.parquet")
        },
        "arrays": Arrays(np.array(x, np.float32)[:, None], np.array(labels), values=values),
        "datasets": HuggingFaceDataset(
            datasets.Dataset.from_dict({"x": x, "y": labels}), inputs=["x"], label="y", values=values
        ),
        "folder": ImageFolder(str(folder / "ages"), values=values),
    }


def test_the_task_reads_whole_numbers_as_values_or_as_classes_in_every_source(tmp_path: Path) -> None:
    alone = Splits(development=0, test=0)
    for name, source in of_numbers(tmp_path, None).items():
        data = Data(source=source, splits=alone).load(values={"": True})
        assert data.labels is not None
        assert data.labels.dtype == np.float32, name
        assert sorted(data.labels.tolist()) == [23, 23, 45], name
        data = Data(source=source, splits=alone).load(values={"": False})
        assert data.labels is not None
        assert data.labels.dtype == np.int64, name
        assert sorted(data.classes[label] for label in data.labels) == ["23", "23", "45"], name
        assert source.values is None
    for said in (True, False):
        for name, source in of_numbers(tmp_path, said).items():
            with pytest.raises(RecipeError, match=r"data\.source\.values"):
                Data(source=source, splits=alone).load(values={"": not said})
            data = Data(source=source, splits=alone).load(values={"": said})
            assert data.labels is not None
            assert data.labels.dtype.kind == ("f" if said else "i"), name


def test_classes_without_a_training_row_are_named_with_the_rows_they_are_judged_on() -> None:
    labels = ["cat", "cat", "eel", "dog", "dog", "dog"]
    split = ["train", "train", "train", "test", "development", "test"]
    inputs = np.arange(6, dtype=np.float32)[:, None]
    notes = Data(source=Arrays(inputs, labels, split=split)).load().notes
    assert sum("dog (3 held-out rows)" in note for note in notes) == 1
    labels[0] = "dog"
    assert not any("held-out" in note for note in Data(source=Arrays(inputs, labels, split=split)).load().notes)
