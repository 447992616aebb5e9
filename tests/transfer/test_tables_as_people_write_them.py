"""Files as people have them: each is read as pandas reads it, or refused by the place and the setting that mends it."""

from __future__ import annotations

import datetime
import decimal
import gzip
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from tutelage.errors import DataError, RecipeError
from tutelage.transfer import Arrays, Data, Features, Rows, Splits, Table, Tabular

ROLES: dict[str, Any] = {"inputs": ["a", "b"], "label": "y"}


def load(path: Path, content: str | bytes, **arguments: Any) -> Rows:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Table(str(path), **(ROLES | arguments)).load()


def refusal(path: Path, content: str | bytes, **arguments: Any) -> str:
    with pytest.raises(DataError) as caught:
        load(path, content, **arguments)
    return str(caught.value)


def numbers(rows: Rows) -> np.ndarray:
    features = rows.columns["inputs"]
    assert isinstance(features, Features)
    return np.stack([features.columns[name] for name in ("a", "b")], axis=1)


def frame(columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame([[1.5, 2, "x", "z"], [2.5, 3, "z", "x"]], columns=columns)


@pytest.mark.parametrize("role", ["inputs", "categories", "label", "group", "split", "text"])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "json", "parquet", "frame"])
def test_two_columns_of_one_name_are_refused_by_their_places(kind: str, role: str, tmp_path: Path) -> None:
    """Catches the first of the two taken without a word."""
    table, path = frame(["a", "b", "y", "y"]), tmp_path / f"t.{kind}"
    if kind == "frame":
        with pytest.raises(DataError, match=r"2 columns named `y`: number 3 and 4"):
            Arrays(table).load()
        return
    if kind == "parquet":
        arrays = [pa.array(table.iloc[:, place]) for place in range(4)]
        parquet.write_table(pa.Table.from_arrays(arrays, names=list(table)), path)
        content: str | bytes = path.read_bytes()
    elif kind == "csv":
        content = table.to_csv(index=False)
    else:
        rows = ['{"a": 1.5, "b": 2, "y": "x", "y": "z"}', '{"a": 2.5, "b": 3, "y": "z", "y": "x"}']
        content = "\n".join(rows) if kind == "jsonl" else f"[{', '.join(rows)}]"
    roles: dict[str, Any] = {"label": None, "inputs": ["a"]}
    roles |= {role: ["a", "y"] if role == "inputs" else ["y"] if role == "categories" else "y"}
    assert "named `y`" in (said := refusal(path, content, **roles))
    assert "number 3 and 4" in said or ("row 0 (line 1)" in said and "2 values" in said)
    if kind in ("csv", "parquet"):  # of no concern where nobody reads it
        np.testing.assert_array_equal(numbers(load(path, content, label=None)), table[["a", "b"]])


def test_semicolons_and_decimal_commas_are_named_with_the_settings_that_read_them(tmp_path: Path) -> None:
    content = "a;b;y\n0,5;-1,25;x\n1,75;2;z\n;1e3;x\n"
    said = refusal(tmp_path / "t.csv", content)
    assert "separated by ';' and its numbers have a decimal comma" in said
    assert 'delimiter: ";" and decimal: "," in data.source' in said
    expected = pd.read_csv(io.StringIO(content), sep=";", decimal=",")
    found = load(tmp_path / "t.csv", content, delimiter=";", decimal=",")
    np.testing.assert_array_equal(numbers(found), expected[["a", "b"]])
    assert found.labels is not None and found.labels.tolist() == [0, 1, 0]
    half = refusal(tmp_path / "t.csv", content, delimiter=";")
    assert "column `a`, row 0 (line 2)" in half and "'0,5'" in half and 'decimal: "," in data.source' in half
    wrong = refusal(tmp_path / "t.csv", content.replace("1,75", "1.75"), delimiter=";", decimal=",")
    assert "column `a`, row 1 (line 3)" in wrong and "'1.75'" in wrong


@pytest.mark.parametrize(("mark", "name"), [("\t", "t.csv"), ("|", "t.csv"), (";", "t.tsv"), (",", "t.tsv")])
def test_other_separators_are_named_and_read(mark: str, name: str, tmp_path: Path) -> None:
    content = "a,b,y\n1,2,x\n3,4,z\n".replace(",", mark)
    assert f"separated by {mark!r}" in refusal(tmp_path / name, content)
    np.testing.assert_array_equal(numbers(load(tmp_path / name, content, delimiter=mark)), [[1, 2], [3, 4]])


@pytest.mark.parametrize("role", ["label", "categories", "text"])
@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "jsonl", "json"])
@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-16-le"])
def test_other_encodings_are_named_by_the_byte_and_read_with_the_setting(
    encoding: str, suffix: str, role: str, tmp_path: Path
) -> None:
    """Catches names read as bytes, as other names, or a blame on the column."""
    words = ["thé", "café", "Æble"]
    if suffix.startswith("csv"):
        text = "a,b,y\n" + "".join(f"{row},1,{word}\n" for row, word in enumerate(words))
    else:
        lines = [json.dumps({"a": row, "b": 1, "y": word}, ensure_ascii=False) for row, word in enumerate(words)]
        text = "\n".join(lines) if suffix == "jsonl" else "[" + ",\n".join(lines) + "]"
    content = text.encode(encoding)
    content = gzip.compress(content) if suffix.endswith("gz") else content
    roles: dict[str, Any] = {"label": None, role: ["y"] if role == "categories" else "y"}
    said = refusal(tmp_path / f"t.{suffix}", content, **roles)
    assert "encoding: " in said and "UTF-8" in said
    assert ("0xe9" in said and "line" in said) if encoding in ("latin-1", "cp1252") else encoding in said
    rows = load(tmp_path / f"t.{suffix}", content, encoding=encoding, **roles)
    if role == "label":
        assert rows.labels is not None and [rows.classes[label] for label in rows.labels] == words
    else:
        column: Any = rows.columns["y" if role == "text" else "inputs"]
        assert list(column if role == "text" else column.columns["y"]) == words


@pytest.mark.parametrize("role", ["label", "categories", "text"])
def test_a_byte_far_down_a_long_file_is_named_by_its_line(role: str, tmp_path: Path) -> None:
    """Catches a file of which only the beginning is looked at."""
    content = ("a,b,y\n" + "1,2,tea\n" * 30_000).encode() + "1,2,thé\n".encode("latin-1") + b"1,2,tea\n" * 9
    roles: dict[str, Any] = {"label": None, role: ["y"] if role == "categories" else "y"}
    assert "0xe9 in line 30,002" in refusal(tmp_path / "t.csv", content, **roles)


def test_byte_order_marks_and_names_of_columns_in_other_encodings(tmp_path: Path) -> None:
    table = "größe,y\n1,x\n2,z\n"
    roles: dict[str, Any] = {"inputs": ["größe"]}
    for content, encoding in ((table.encode("utf-8-sig"), "utf-8"), (table.encode("cp1252"), "cp1252")):
        features: Any = load(tmp_path / "t.csv", content, encoding=encoding, **roles).columns["inputs"]
        assert features.columns["größe"].tolist() == [1, 2]
    assert "0xf6 in line 1" in refusal(tmp_path / "t.csv", table.encode("cp1252"), **roles)
    lines = '{"größe": 1, "y": "x"}\n'.encode("utf-8-sig")
    assert load(tmp_path / "t.jsonl", lines, **roles).classes == ("x",)
    with pytest.raises(RecipeError, match=r"data\.source\.encoding(.|\n)*cp1252"):
        Table("t.csv", "text", encoding="windows-hebrew")
    for wrong in ({"delimiter": ";;"}, {"decimal": ";"}, {"delimiter": ",", "decimal": ","}):
        with pytest.raises(RecipeError, match=r"data\.source\.(delimiter|decimal)"):
            Table("t.csv", "text", **wrong)  # type: ignore[arg-type]


def test_an_array_of_objects_gives_the_rows_of_json_lines(tmp_path: Path) -> None:
    records = [{"a": 1.5, "b": 2, "y": "x"}, {"a": None, "b": 3, "y": "z"}, {"b": -1, "y": "x", "note": {"k": [1]}}]
    lines = load(tmp_path / "t.jsonl", "\n".join(map(json.dumps, records)))
    for indent in (None, 2):
        array = load(tmp_path / "t.json", json.dumps(records, indent=indent))
        np.testing.assert_array_equal(numbers(array), numbers(lines))
        np.testing.assert_array_equal(numbers(array), [[1.5, 2], [np.nan, 3], [np.nan, -1]])
        assert array.classes == lines.classes == ("x", "z")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"a": {"0": 1, "1": 2}, "b": {"0": 3, "1": 4}, "y": {"0": "x", "1": "z"}}', ["line 1", "lines=True"]),
        ('{"a": [1, 2], "b": [3, 4], "y": ["x", "z"]}', ["line 1", "lines=True"]),
        ('{"a": 1, "b": 2, "y": "x"}\n{"a": 1, "b": }\n', ["line 2", "expecting value"]),
        ('[{"a": 1, "b": 2, "y": "x"},\n {"a": 1, "b": 2, "y": "x"}', ["an array that does not end"]),
        ("[1, 2]", ["line 1", "array of such objects"]),
        ("", ["empty file"]),
        ("[]", ["no rows"]),
        (
            '{"a": 1, "b": 2, "y": "x"}\n\n{"a": "?", "b": 2, "y": "x"}',
            ["`a`, row 1 (line 3)", '"?"', "missing: ['?']"],
        ),
        ('{"a": true, "b": 2, "y": "x"}\n{"a": 1, "b": 2, "y": "x"}', ["`a`, row 1 (line 2)", "truth value"]),
    ],
)
def test_json_that_holds_no_rows_is_named_by_its_line(content: str, said: list[str], tmp_path: Path) -> None:
    message = refusal(tmp_path / "t.json", content)
    for words in said:
        assert words in message


def test_texts_that_look_like_dates_stay_the_texts_that_they_are(tmp_path: Path) -> None:
    """Catches "2024-01-01T10:00:00" as another text, or as no category at all."""
    days = ["2024-01-01", "2024-01-01T10:00:00", "2024-02-01"]
    lines = "\n".join(json.dumps({"a": row, "b": 1, "y": day, "c": day}) for row, day in enumerate(days))
    rows = load(tmp_path / "t.jsonl", lines, categories=["c"], text="y")
    features: Any = rows.columns["inputs"]
    assert features.columns["c"].tolist() == rows.columns["y"] == list(rows.classes) == days
    table = "a,b,y\n1,1,2024-01-01\n2,2,2024-01-02\n"
    assert load(tmp_path / "t.csv", table).classes == ("2024-01-01", "2024-01-02")
    said = refusal(tmp_path / "t.csv", table, inputs=["a", "y"], label=None)
    assert "column `y`, row 0 (line 2)" in said and "dates as numbers" in said


def test_a_mark_for_nothing_is_blamed_and_not_the_cell_that_is_fine(tmp_path: Path) -> None:
    content = 'a,b,y\n1,1,x\nNA,2,z\n\n"3",3,"x\ny"\n?,4,z\n-,5,?\n'
    said = refusal(tmp_path / "t.csv", content)
    assert "column `a`, row 3 (line 7)" in said and "'?'" in said and "missing: ['?']" in said
    assert "column `a`, row 4 (line 8)" in refusal(tmp_path / "t.csv", content, missing=["?"])
    rows = load(tmp_path / "t.csv", content, missing=["?", "-"])
    expected = pd.read_csv(io.StringIO(content), na_values=["?", "-"])
    np.testing.assert_array_equal(numbers(rows), expected[["a", "b"]])
    assert rows.labelled is not None and rows.labelled.tolist() == expected["y"].notna().tolist()
    assert rows.notes == ["column `a`: 'NA' (1 rows) read as missing numbers"]
    table = pa.table({"a": ["1", "NA", "x"], "b": [1, 2, 3], "y": ["x", "y", "x"]})
    parquet.write_table(table, tmp_path / "t.parquet")
    assert "row 2" in refusal(tmp_path / "t.parquet", (tmp_path / "t.parquet").read_bytes())


@pytest.mark.parametrize("kind", ["csv", "jsonl", "json", "parquet"])
def test_marks_for_nothing_are_missing_categories_numbers_and_labels_in_every_format(kind: str, tmp_path: Path) -> None:
    table = pd.DataFrame({"a": [1.0, 2.0, 3.0], "c": ["?", "ant", "NA"], "y": ["x", "?", "z"], "t": ["?", "-", "."]})
    path = tmp_path / f"t.{kind}"
    if kind == "parquet":
        table.to_parquet(path)
        content: bytes = path.read_bytes()
    elif kind == "csv":
        content = table.to_csv(index=False).encode()
    else:
        content = table.to_json(orient="records", lines=kind == "jsonl").encode()
    roles: dict[str, Any] = {"inputs": ["a"], "categories": ["c"], "text": "t", "group": "t"}
    rows = load(path, content, **roles)
    assert [note for note in rows.notes if "`c`" in note] == [
        "column `c`: '?', 'NA' (2 rows) taken as categories; where they stand for nothing, missing: ['?', 'NA'] in "
        "data.source"
    ]
    rows = load(path, content, missing=["?", "NA"], **roles)
    features: Any = rows.columns["inputs"]
    assert features.columns["c"].tolist() == [None, "ant", None]
    assert rows.labelled is not None and rows.labelled.tolist() == [True, False, True]
    assert rows.columns["t"] == rows.group == ["?", "-", "."]  # texts are texts
    assert not rows.notes
    data = Data(source=Table(str(path), label="y", **roles), tabular=Tabular(), splits=Splits(development=0, test=0))
    assert any("'?', 'NA'" in note for note in data.source.load().notes)


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("1,5", ['decimal: "," in data.source']),
        ("1,234", ['decimal: "," in data.source', "thousands"]),
        ("1,234,567", ["plain number"]),
        ("1 234", ["plain number"]),
        ("12%", ["plain number"]),
        ("1_000", ["'1_000'"]),
        ("$5", ["encode it as numbers"]),
        ("--", ["missing: ['--']"]),
        ("03.04.2024", ["dates as numbers"]),
        ("2024-03-04", ["dates as numbers"]),
        ("six", ["name the column under `text` or `categories`", "missing: ['six']"]),
    ],
)
def test_a_cell_that_is_no_number_is_told_how_to_be_one(cell: str, said: list[str], tmp_path: Path) -> None:
    message = refusal(tmp_path / "t.csv", f'a,b,y\n1,1,x\n2,nan,z\n"{cell}",3,x\n')
    for words in ["column `a`, row 2 (line 4)", repr(cell), *said]:
        assert words in message


def test_numbers_are_those_that_pandas_reads(tmp_path: Path) -> None:
    cells = [
        "1",
        " 2.5 ",
        "-3e-2",
        "+4",
        "12345678901234567890",
        "0.1",
        "NaN",
        "",
        "None",
        "<NA>",
        "true"[:0],
        "1E5",
        ".5",
    ]
    content = "a,b,y\n" + "".join(f"{cell},{row},x\n" for row, cell in enumerate(cells))
    expected = pd.read_csv(io.StringIO(content))
    np.testing.assert_array_equal(numbers(load(tmp_path / "t.csv", content)), expected[["a", "b"]])


def test_a_quote_that_is_never_closed_does_not_swallow_the_rows_after_it(tmp_path: Path) -> None:
    said = refusal(tmp_path / "t.csv", 'a,b,y\n1,1,x\n2,2,"x\n3,3,z\n4,4,z\n')
    assert "t.csv, line 3" in said and "does not end" in said
    rows = load(tmp_path / "t.csv", 'a,b,y\n1,1,5" pipe\n2,2,"say ""hi"""\n3,3,"two\nlines"\n')
    assert rows.classes == ('5" pipe', 'say "hi"', "two\nlines")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a,b,y\n1,2,x\n3,4\n", ["line 3", "3 cells", "2: 3,4"]),
        ('a,b,y\n1,"2\n",x\n\n3,4,x,z\n', ["line 5", "4: 3,4,x,z"]),
        ("", ["an empty file"]),
        ("\n\n", ["an empty file"]),
        ("a,b,y\n", ["no rows"]),
        ("a,b,y", ["no rows"]),
        ("1.5,2.5,x\n1,2,z\n", ["a column of `t.csv`", "`a`"]),
    ],
)
def test_files_without_rows_or_with_ragged_ones_are_named_by_their_line(
    content: str, said: list[str], tmp_path: Path
) -> None:
    message = refusal(tmp_path / "t.csv", content)
    for words in said:
        assert words in message


def test_decimals_and_dictionaries_and_dates_of_parquet_are_numbers_and_categories(tmp_path: Path) -> None:
    table = pa.table(
        {
            "a": pa.array([decimal.Decimal("1.50"), None, decimal.Decimal("-2.25")]),
            "b": pa.array([3, 5, 3]).dictionary_encode(),
            "c": pa.array([datetime.date(2024, 1, 1), None, datetime.date(2024, 2, 1)]),
            "d": pa.array([decimal.Decimal("1.50"), decimal.Decimal("2.00"), None]),
            "y": pa.array(["x", "z", "x"]).dictionary_encode(),
        }
    )
    parquet.write_table(table, tmp_path / "t.parquet")
    rows = Table(str(tmp_path / "t.parquet"), categories=["c", "d"], **ROLES).load()
    np.testing.assert_array_equal(numbers(rows), [[1.5, 3], [np.nan, 5], [-2.25, 3]])
    features: Any = rows.columns["inputs"]
    assert features.columns["c"].tolist() == ["2024-01-01", None, "2024-02-01"]
    assert features.columns["d"].tolist() == [1.5, 2, None]
    with pytest.raises(DataError, match=r"column `c`(.|\n)*date32(.|\n)*dates as numbers"):
        Table(str(tmp_path / "t.parquet"), inputs=["c"]).load()


def test_a_data_frame_gives_the_rows_of_its_file(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "a": pd.array([1, None, 3], dtype="Int64"),
            "b": np.array([0.5, np.nan, 2], dtype=np.float32),
            "c": pd.Categorical(["ant", None, "bee"]),
            "d": pd.array([True, False, None], dtype="boolean"),
            "e": pd.to_datetime(["2024-01-01", None, "2024-01-02 10:00"], format="mixed"),
            "y": pd.array(["x", pd.NA, "z"], dtype="string"),
        }
    )
    table.to_parquet(tmp_path / "t.parquet")
    file = Table(str(tmp_path / "t.parquet"), categories=["c", "d", "e"], **ROLES).load()
    memory = Arrays(table[["a", "b", "c", "d", "e"]], table["y"], categories=["c", "d", "e"]).load()
    left, right = file.columns["inputs"], memory.columns["inputs"]
    assert isinstance(left, Features) and isinstance(right, Features)
    for name in ("a", "b"):
        np.testing.assert_array_equal(left.columns[name], right.columns[name])
    for name in ("c", "d", "e"):
        assert left.columns[name].tolist() == right.columns[name].tolist()
    assert left.columns["e"].tolist() == ["2024-01-01", None, "2024-01-02 10:00:00"]
    np.testing.assert_array_equal(file.labels, memory.labels)
    np.testing.assert_array_equal(file.labelled, memory.labelled)
