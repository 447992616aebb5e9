"""Data that are changed while a run is under way or done: it goes on where nothing was learnt from what differs."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import tutelage as tt
from tutelage import stages
from tutelage.errors import RecipeError
from tutelage.export import load_student
from tutelage.transfer import TransferSet
from tutelage.transfer.table import Table
from tutelage.transfer.text import Tokens
from tutelage.workspace import Workspace

Rows = list[list[object]]


def knows() -> nn.Module:
    torch.manual_seed(1)
    return nn.Linear(4, 3)


def learns() -> nn.Module:
    torch.manual_seed(2)
    return nn.Linear(4, 3)


def rows() -> Rows:
    """Four numbers, a class and a split: 60 rows to train on, 20 to choose, 20 to judge."""
    numbers = np.random.default_rng(3).normal(size=(100, 4)).round(3)
    splits = ["train"] * 60 + ["development"] * 20 + ["test"] * 20
    return [[*numbers[i].tolist(), "abc"[i % 3], splits[i]] for i in range(100)]


def recipe(file: Path, table: Rows) -> tt.Recipe:
    with file.open("w", newline="") as handle:
        csv.writer(handle).writerows([["a", "b", "c", "d", "class", "split"], *table])
    source = Table(str(file), inputs=["a", "b", "c", "d"], label="class", split="split")
    return tt.Recipe(
        name="mended",
        task="classification",
        data=tt.Data(source=source),
        teacher=tt.ModuleTeacher(knows),
        student=tt.ModuleStudent(learns),
        losses=[tt.losses.KLDivergence()],
        training=tt.Training(steps=12, batch_size=16, checkpoint_seconds=0.0, log_every=3),
        baseline=False,
        measure=tt.Measure(seconds=0.1, rounds=2, batch_sizes=[1]),
        export=tt.Export(onnx=False),
    )


def other_number(table: Rows, row: int) -> None:
    table[row][0] = 9.5


def other_label(table: Rows, row: int) -> None:
    table[row][4] = "a" if table[row][4] != "a" else "b"


def no_row(table: Rows, row: int) -> None:
    del table[row]


def test_a_run_goes_on_and_is_judged_anew_when_its_test_rows_alone_were_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a verdict on rows that are no longer there, a second training for them, and a record that hides it."""
    table, inner, trained = rows(), stages.fit, []

    def counted(job):  # type: ignore[no-untyped-def]
        for record in inner(job):
            trained.append(record.step)
            yield record
            if record.step >= 6 and not half[0]:
                half[0] = True
                raise KeyboardInterrupt

    half = [False]
    monkeypatch.setattr(stages, "fit", counted)
    with pytest.raises(KeyboardInterrupt):
        tt.distill(recipe(tmp_path / "rows.csv", table), tmp_path / "run")
    other_label(table, 99)  # half done
    first = tt.distill(recipe(tmp_path / "rows.csv", table), tmp_path / "run").bundle
    told = "the test rows have changed since: what was trained is kept"
    assert told in capsys.readouterr().err and min(trained[trained.index(6) + 1 :]) > 3
    weights = (first / "model.safetensors").read_bytes()
    before = json.loads((first / "provenance.json").read_text())["data"]
    assert len(before["earlier_fingerprints"]) == 1

    done = len(trained)
    other_number(table, 90)  # complete
    no_row(table, 95)
    second = tt.distill(recipe(tmp_path / "rows.csv", table), tmp_path / "run").bundle
    assert told in capsys.readouterr().err and len(trained) == done
    assert (second / "model.safetensors").read_bytes() == weights
    after = json.loads((second / "provenance.json").read_text())["data"]
    assert after["rows"]["test"] == 19 and after["learnt_from"] == before["learnt_from"]
    assert after["earlier_fingerprints"] == [*before["earlier_fingerprints"], before["fingerprint"]]
    assert after["fingerprint"] not in after["earlier_fingerprints"]
    stored = json.loads((second / "metrics.json").read_text())
    assert {metric["n"] for metric in stored["metrics"] if metric["name"] == "accuracy"} == {19}
    assert [note for note in stored["notes"] if "test rows were changed after the training had begun" in note]
    x = torch.tensor([row[:4] for row in table if row[5] == "test"], dtype=torch.float32)
    labels = torch.tensor(["abc".index(str(row[4])) for row in table if row[5] == "test"])
    right = (load_student(second)(x).argmax(1) == labels).double().mean().item()
    found = next(metric for metric in stored["metrics"] if metric["name"] == "accuracy")
    assert found["models"]["student"]["value"] == pytest.approx(right)
    tt.distill(recipe(tmp_path / "rows.csv", table), tmp_path / "run")
    said = capsys.readouterr().err
    assert "this run is complete" in said and told not in said

    for change, row, name in (
        (other_number, 3, "training rows"),
        (other_label, 3, "training rows"),
        (no_row, 3, "training rows"),
        (other_number, 70, "development rows"),
        (other_label, 70, "development rows"),
    ):
        changed = [list(each) for each in table]
        change(changed, row)
        with pytest.raises(RecipeError, match=f"the {name} that this run began with"):
            tt.distill(recipe(tmp_path / "rows.csv", changed), tmp_path / "run")
    assert len(trained) == done


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda t: other_number(t, 85), set()),
        (lambda t: other_label(t, 85), set()),
        (lambda t: no_row(t, 85), set()),
        (lambda t: t.append([1.0, 2.0, 3.0, 4.0, "a", "test"]), set()),
        (lambda t: t.insert(0, [1.0, 2.0, 3.0, 4.0, "a", "test"]), {"training rows", "development rows"}),  # numbers
        (lambda t: t[85].__setitem__(4, "d"), {"class names"}),
        (lambda t: t[85].__setitem__(slice(0, 4), t[3][:4]), {"training rows", "rows in no split"}),  # row 3 is dropped
        (lambda t: t[85].__setitem__(5, "train"), {"training rows"}),
    ],
)
def test_what_was_learnt_from_differs_exactly_where_training_or_selection_would(
    tmp_path: Path, change: Callable[[Rows], None], parts: set[str]
) -> None:
    def load(table: Rows) -> TransferSet:
        made = recipe(tmp_path / "rows.csv", table)
        return made.data.load(values={"": False})

    before, table = load(rows()), rows()
    change(table)
    after = load(table)
    assert after.fingerprint != before.fingerprint
    assert {name for name, sha in before.learnt_from.items() if after.learnt_from[name] != sha} == parts


def test_a_token_of_a_row_that_is_learnt_from_is_seen_and_one_of_another_row_is_not() -> None:
    def tokens(texts: list[list[int]]) -> Tokens:
        flat = np.array([token for text in texts for token in text])
        return Tokens(flat={"input_ids": flat}, offsets=np.cumsum([0, *map(len, texts)]), cut=0)

    texts, learnt = [[5, 6], [7], [8, 9, 10], [11]], np.array([0, 2])
    digest = tokens(texts).digest(learnt)
    assert digest == tokens([[5, 6], [1, 2, 3], [8, 9, 10], []]).digest(learnt)
    for other in ([[5, 6], [7], [8, 9, 12], [11]], [[5], [6, 7], [8, 9, 10], [11]], [[5, 6, 8], [7], [9, 10], [11]]):
        assert digest != tokens(other).digest(learnt), other
    assert tokens(texts).digest(np.zeros(0, dtype=np.int64)) == tokens([]).digest()


def test_a_run_of_a_version_that_told_no_parts_apart_goes_on_with_the_same_data_alone(tmp_path: Path) -> None:
    folder = Workspace(tmp_path)
    whole, parts = {"data": "a", "inputs": "b", "teacher": "c"}, {"training rows": "d"}
    assert folder.claim("recipe", whole) is False
    (folder.stage("student", 0) / "history.jsonl").write_text("begun")
    assert folder.claim("recipe", whole, parts) is False
    with pytest.raises(RecipeError, match="the data that this run began with"):
        folder.claim("recipe", whole | {"data": "other"}, parts)
