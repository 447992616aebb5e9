from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tutelage.errors import DataError, SignalError
from tutelage.evaluation.evidence import Evidence, PairEvidence, cosine, read_evidence


def make(n: int = 7, shape: tuple[int, ...] = (3,), **changes: object) -> Evidence:
    rng = np.random.default_rng(0)
    outputs = {
        model: rng.normal(size=(n, *shape)).astype(np.float32)
        for model in ("teacher", "student", "baseline", "untrained", "student@1", "baseline@1")
    }
    fields: dict[str, object] = {
        "set": "test",
        "task": "classification",
        "rows": rng.permutation(100)[:n].astype(np.int64),
        "digests": [f"digest-{i}" for i in range(n)],
        "outputs": outputs,
        "labels": rng.integers(0, 3, n),
        "labelled": np.arange(n) % 3 > 0,
        "classes": ["cat", "dog", "naïve café"],
        "seed": 4,
    }
    return Evidence(**{**fields, **changes})  # type: ignore[arg-type]


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def assert_equal(a: Evidence, b: Evidence) -> None:
    assert (a.set, a.task, a.digests, a.classes, a.seed) == (b.set, b.task, b.digests, b.classes, b.seed)
    assert list(a.outputs) == list(b.outputs)
    for model in a.outputs:
        assert same_bits(a.outputs[model], b.outputs[model]), model
    for name in ("rows", "labels", "labelled"):
        x, y = getattr(a, name), getattr(b, name)
        assert (x is None and y is None) or same_bits(x, y), name


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 5)])
def test_round_trip_keeps_every_bit_of_any_output_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    evidence = make(shape=shape)
    tricky = np.array([np.nan, -0.0, np.inf, 1e-45, 3.4e38, -np.inf, 0.1], np.float32)
    evidence.outputs["student"][(slice(None), *(0 for _ in shape))] = tricky
    evidence.write(tmp_path / "evidence.parquet")
    assert_equal(evidence, Evidence.read(tmp_path / "evidence.parquet"))


@pytest.mark.parametrize(
    "labels", [np.ones((7, 4), np.int64), np.linspace(0, 1, 7), np.linspace(0, 1, 14).reshape(7, 2).astype(np.float32)]
)
def test_round_trip_keeps_shape_and_type_of_labels(tmp_path: Path, labels: np.ndarray) -> None:
    evidence = make(labels=labels)
    evidence.write(tmp_path / "e.parquet")
    assert_equal(evidence, Evidence.read(tmp_path / "e.parquet"))


def test_round_trip_without_labels_and_classes(tmp_path: Path) -> None:
    evidence = make(labels=None, labelled=None, classes=None)
    evidence.write(tmp_path / "e.parquet")
    back = Evidence.read(tmp_path / "e.parquet")
    assert_equal(evidence, back)
    assert not back.has_labels


def test_others_can_read_the_columns_without_tutelage(tmp_path: Path) -> None:
    evidence = make()
    evidence.write(tmp_path / "e.parquet")
    table = pq.read_table(tmp_path / "e.parquet")
    assert table.column_names[:4] == ["row", "digest", "label", "labelled"]
    assert str(table.schema.field("student@1").type).startswith("fixed_size_list<")
    assert table["teacher"][2].as_py() == evidence.outputs["teacher"][2].tolist()
    assert pq.ParquetFile(tmp_path / "e.parquet").metadata.row_group(0).column(0).compression == "ZSTD"


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make().write(tmp_path / "e.parquet")
    before = (tmp_path / "e.parquet").read_bytes()

    def broken(table: object, path: Path, **_: object) -> None:
        Path(path).write_bytes(b"half a fi")
        raise OSError("disk full")

    monkeypatch.setattr(pq, "write_table", broken)
    with pytest.raises(OSError, match="disk full"):
        make(n=3, labelled=np.ones(3, bool)).write(tmp_path / "e.parquet")
    assert (tmp_path / "e.parquet").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["e.parquet"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"digests": ["a"]}, "same number of rows"),
        ({"labelled": None}, "together or neither"),
        ({"task": "clasification"}, "clasification"),
        ({"labels": np.zeros(7, np.int32)}, "labels in the evidence"),
        ({"rows": np.arange(7, dtype=np.int32)}, "rows in the evidence"),
        ({"outputs": {"teacher": np.zeros((7, 2), np.float32)}}, "student"),
        ({"outputs": {m: np.zeros((7, 2)) for m in ("teacher", "student")}}, "float64"),
        ({"outputs": {m: np.zeros((7, 0), np.float32) for m in ("teacher", "student")}}, r"\(7, 0\)"),
        ({"outputs": {m: np.zeros((7, 2), np.float32) for m in ("teacher", "student", "pupil")}}, "pupil"),
        ({"outputs": {m: np.zeros((7, 2), np.float32) for m in ("teacher", "student", "teacher@1")}}, "teacher@1"),
    ],
)
def test_evidence_that_does_not_fit_is_refused_and_named(changes: dict[str, object], told: str) -> None:
    with pytest.raises(SignalError, match=told):
        make(**changes)


def test_no_rows_are_no_evidence() -> None:
    empty = {m: np.zeros((0, 2), np.float32) for m in ("teacher", "student")}
    with pytest.raises(SignalError, match="at least one"):
        make(rows=np.zeros(0, np.int64), digests=[], outputs=empty, labels=None, labelled=None)


def test_pairs_round_trip_and_the_file_says_what_it_is(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    left, right = ({m: rng.normal(size=(9, 4)) for m in ("teacher", "student")} for _ in range(2))
    pairs = PairEvidence.from_embeddings("words", np.arange(9), left=left, right=right, seed=2)
    a, b = left["student"][3], right["student"][3]
    assert pairs.similarities["student"][3] == pytest.approx(a @ b / np.sqrt((a @ a) * (b @ b)), abs=1e-14)
    pairs.write(tmp_path / "p.parquet")
    make().write(tmp_path / "e.parquet")
    back = read_evidence(tmp_path / "p.parquet")
    assert isinstance(back, PairEvidence)
    assert (back.set, back.seed) == ("words", 2)
    assert same_bits(back.score, pairs.score)
    assert all(same_bits(back.similarities[m], pairs.similarities[m]) for m in pairs.similarities)
    assert isinstance(read_evidence(tmp_path / "e.parquet"), Evidence)
    with pytest.raises(DataError, match="pairs"):
        Evidence.read(tmp_path / "p.parquet")


def test_a_file_that_is_no_evidence_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"not parquet")
    for name in ("x.parquet", "missing.parquet"):
        with pytest.raises(DataError, match=name):
            read_evidence(tmp_path / name)


def test_cosine_of_a_zero_vector_is_zero_not_nan() -> None:
    assert cosine(np.zeros((1, 3)), np.ones((1, 3))).tolist() == [0.0]
