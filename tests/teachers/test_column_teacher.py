"""Answers that are in columns of the data: read from every source, checked, and never an input of the student."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import tutelage as tt
from tutelage.answers import teacher_answers
from tutelage.cache import parts_of
from tutelage.errors import ModelError, RecipeError
from tutelage.losses.counted import Counted
from tutelage.plan import make_plan
from tutelage.signals import Request, Signals
from tutelage.teachers import ColumnTeacher, Ensemble, FunctionTeacher, ModuleTeacher, Teacher, TransferFacts
from tutelage.transfer import Arrays, Data, HuggingFaceDataset, Table, TransferSet

CPU = torch.device("cpu")
OUTPUT = Request(output=True)
COUNT, CLASSES = 40, ["cat", "dog", "eel"]
DRAW = np.random.default_rng(0)
LOGITS = DRAW.normal(size=(COUNT, 3))
P = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
MISSING = np.arange(COUNT) % 8 == 3
LABELS = [CLASSES[i] for i in (LOGITS + DRAW.normal(size=LOGITS.shape)).argmax(1)]
WORDS = [CLASSES[i] for i in LOGITS.argmax(1)]


def frame() -> pd.DataFrame:
    def told(values: Any) -> list[Any]:
        return [None if gone else value for gone, value in zip(MISSING, list(values), strict=True)]

    return pd.DataFrame(
        {
            **{f"x{i}": column for i, column in enumerate(DRAW.normal(size=(4, COUNT)))},
            "label": LABELS,
            **{f"p{i}": told(P[:, i].tolist()) for i in range(3)},
            **{f"r{i}": told(P[:, i].round(1).tolist()) for i in range(3)},
            **{f"s{i}": told((P[:, i] > 0.4).astype(int).tolist()) for i in range(3)},
            "logits": told(LOGITS.tolist()),
            "logs": told(np.log(P).tolist()),
            "second": told((P[:, 1] / (P[:, 0] + P[:, 1])).tolist()),
            "words": told(WORDS),
            "score": told(LOGITS[:, 0].tolist()),
        }
    )


FRAME = frame()
INPUTS = ["x0", "x1", "x2", "x3"]
KEPT = [name for name in FRAME if name not in (*INPUTS, "label")]


def source(kind: str, folder: Path, table: pd.DataFrame = FRAME, kept: list[str] = KEPT, **more: Any) -> Any:
    common: dict[str, Any] = {"label": "label", "classes": CLASSES, "teacher_columns": kept, **more}
    if kind == "csv":
        texts = table.map(lambda cell: json.dumps(cell) if isinstance(cell, list) else cell)
        texts.to_csv(folder / "t.csv", index=False)
    elif kind == "jsonl":
        table.to_json(folder / "t.jsonl", orient="records", lines=True, double_precision=15)
    elif kind == "parquet":
        table.to_parquet(folder / "t.parquet")
    elif kind == "datasets":
        from datasets import Dataset

        return HuggingFaceDataset(Dataset.from_pandas(table), inputs=INPUTS, **common)
    else:
        del common["label"]
        return Arrays(table.drop(columns="label"), list(table["label"]), **common)
    return Table(str(folder / f"t.{kind}"), inputs=INPUTS, **common)


def met(teacher: Teacher, data: TransferSet) -> Any:
    teacher.load(CPU)
    facts: dict[str, Any] = {
        "inputs": "",
        "rows": len(data),
        "classes": data.classes,
        "labelled": data.example,
    }
    teacher.meet(TransferFacts(columns=data.columns.teacher_columns, **facts))
    return teacher


def asked(teacher: Teacher, data: TransferSet) -> Signals:
    return met(teacher, data).ask(data.batch(np.arange(COUNT)), OUTPUT)


@pytest.fixture(scope="module")
def loaded() -> TransferSet:
    return Data(source=source("frame", Path())).load()


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "datasets", "frame"])
def test_every_source_keeps_the_columns_for_the_teacher_and_not_for_the_student(kind: str, tmp_path: Path) -> None:
    data = Data(source=source(kind, tmp_path)).load()
    batch = data.batch(np.arange(COUNT))
    inputs = batch.inputs if isinstance(batch.inputs, torch.Tensor) else torch.stack(list(batch.inputs.values()), 1)
    np.testing.assert_allclose(inputs.numpy(), FRAME[INPUTS].to_numpy(), rtol=1e-6)
    expected = {
        ColumnTeacher(["p0", "p1", "p2"], "probabilities"): np.log(P),
        ColumnTeacher("logits", "logits"): LOGITS,
        ColumnTeacher("logs", "log_probabilities"): np.log(P),
        ColumnTeacher("score", "values"): LOGITS[:, 0],
    }
    for teacher, output in expected.items():
        said = asked(teacher, data)
        assert said.output is not None and said.answered is not None
        np.testing.assert_array_equal(~said.answered.numpy(), MISSING)
        np.testing.assert_allclose(said.output[~MISSING].numpy(), output[~MISSING], atol=1e-5)
    said = asked(ColumnTeacher("words", "labels"), data)
    assert said.top is not None and said.top.silent.numpy().tolist() == MISSING.tolist()
    assert [CLASSES[i] for i in said.top.indices[~MISSING, 0]] == np.array(WORDS)[~MISSING].tolist()


def test_what_numbers_mean_is_what_the_recipe_says(loaded: TransferSet) -> None:
    known = ~MISSING
    two = Data(source=Arrays({"x": P, "second": FRAME["second"].to_numpy()}, teacher_columns=["second"])).load()
    second = P[:, 1] / (P[:, 0] + P[:, 1])
    binary = asked(ColumnTeacher("second", "probabilities", classes=["a", "b"]), two).dense()
    np.testing.assert_allclose(binary.softmax(-1)[known, 1].numpy(), second[known], atol=1e-6)
    sigmoid = asked(ColumnTeacher(["s0", "s1", "s2"], "sigmoid"), loaded).dense()[known].sigmoid()
    np.testing.assert_allclose(sigmoid.numpy(), P[known] > 0.4, atol=1e-6)
    rounded = asked(ColumnTeacher(["r0", "r1", "r2"], "probabilities", decimals=1), loaded)
    assert rounded.top is not None and rounded.top.silent.numpy().tolist() == MISSING.tolist()
    told = P[known].round(1)
    whole = (told > 0).all(1)
    expected = told[whole] / told[whole].sum(1, keepdims=True)
    np.testing.assert_allclose(rounded.dense().exp()[known][whole].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("cells", [["3", "5", "5", "8"], [3, 5, 5, 8], [3.0, 5.0, 5.0, 8.0], [0, 1, 1, 2]])
def test_whole_numbers_are_names_of_classes_where_all_are_as_labels_are_read(cells: list[Any]) -> None:
    labels = ["3", "5", "5", "8"] * 10
    data = Data(
        source=Arrays(
            {"x": np.arange(40.0), "said": cells * 10}, labels, classes=["3", "5", "8"], teacher_columns=["said"]
        )
    ).load()
    said = asked(ColumnTeacher("said", "labels"), data)
    assert said.top is not None and said.top.indices[:4, 0].tolist() == [0, 1, 1, 2]


LISTS = [[0.5, 0.5]] * 39


@pytest.mark.parametrize(
    ("column", "gives", "said"),
    [
        ([*[0.5] * 39, 1.5], "sigmoid", "from 0 to 1"),
        ([*LISTS, [0.9, 0.9]], "probabilities", "come to 1"),
        ([*LISTS, [2.0, -0.5]], "log_probabilities", "come to 1"),
        ([*LISTS, [0.5]], "logits", "one length"),
        ([*LISTS, [0.5, None]], "logits", "row 39"),
        ([*[0.5] * 39, float("inf")], "values", "infinity"),
        ([*["a"] * 39, "c"], "labels", "'c'"),
        ([*["a"] * 39, "b"], "values", "row 0"),
        ([None] * 40, "labels", "nothing in said"),
    ],
)
def test_a_wrong_cell_is_refused_before_anything_is_trained(column: list[Any], gives: Any, said: str) -> None:
    cells = np.empty(40, dtype=object)
    cells[:] = column
    data = Data(source=Arrays({"x": np.arange(40.0), "said": cells}, teacher_columns=["said"])).load()
    with pytest.raises(ModelError, match=said):
        met(ColumnTeacher("said", gives, classes=["a", "b"]), data)


def test_columns_that_are_not_kept_for_the_teacher_are_named(loaded: TransferSet) -> None:
    with pytest.raises(ModelError, match="`x0`"):  # the student would be given the answers
        met(ColumnTeacher("x0", "values"), loaded)
    with pytest.raises(ModelError, match="teacher_columns: "):
        met(ColumnTeacher("x0", "values"), Data(source=Arrays(np.zeros((9, 2)) + np.arange(9)[:, None])).load())
    with pytest.raises(ModelError, match="rows of the data"):
        batch = loaded.batch(np.arange(2))
        negative = batch.map(lambda tensor: -1 - tensor if tensor.dtype == torch.int64 else tensor)
        met(ColumnTeacher("logits", "logits"), loaded).ask(negative, OUTPUT)


def test_a_row_without_an_answer_teaches_nothing_and_is_not_judged(loaded: TransferSet) -> None:
    teacher = met(ColumnTeacher("logits", "logits"), loaded)
    batch, loss = loaded.batch(np.arange(COUNT)), tt.losses.LogitMSE()
    student = torch.from_numpy(DRAW.normal(size=(COUNT, 3))).float().requires_grad_()
    said = teacher.ask(batch, OUTPUT)
    counted = Counted.of(loss, batch, said)
    total = counted.sum(loss, Signals(output=student), said, batch)
    expected = ((student.detach().double().numpy() - LOGITS) ** 2).mean(1)[~MISSING].sum()
    assert float(total) == pytest.approx(expected, rel=1e-5)
    total.backward()
    assert student.grad is not None and not student.grad[MISSING].any()
    assert teacher_answers(teacher, loaded, np.arange(COUNT), CPU).heard.tolist() == (~MISSING).tolist()


def test_a_mean_of_teachers_has_no_answer_where_one_has_none(loaded: TransferSet) -> None:
    other = ModuleTeacher(Student)
    ensemble = Ensemble([ColumnTeacher("logits", "logits"), other], mean_of="logits")
    said = asked(ensemble, loaded)
    assert said.answered is not None and said.answered.tolist() == (~MISSING).tolist()
    with pytest.raises(ModelError, match="rows without one"):
        parts_of(asked(ColumnTeacher("logits", "logits"), loaded))  # as a cache would store them


def test_other_answers_have_another_fingerprint(loaded: TransferSet) -> None:
    changed = FRAME.copy()
    changed.loc[0, "score"] = 99.0
    other = Data(source=source("frame", Path(), changed)).load()
    prints = [met(ColumnTeacher("score", "values"), data).fingerprint() for data in (loaded, loaded, other)]
    assert prints[0] == prints[1] != prints[2]
    assert loaded.fingerprint != other.fingerprint and loaded.inputs_fingerprint != other.inputs_fingerprint


def test_a_function_reads_them_raw_and_made_rows_have_none(loaded: TransferSet) -> None:
    made = Data(source=source("frame", Path()), tabular=tt.transfer.Tabular(), made=[tt.transfer.Munge(5)]).load()
    rows = np.flatnonzero(made.made.rows) if made.made is not None else np.array([])
    assert len(rows) and asked(ColumnTeacher("score", "values"), made).answered is not None
    met_made = met(ColumnTeacher("score", "values"), made)
    assert not met_made.ask(made.batch(rows), OUTPUT).answered.any()
    function = FunctionTeacher(f"{__name__}:stored", "values", reads="raw")
    function.load(CPU)
    said = function.ask(loaded.batch(np.array([0, 1])), OUTPUT).dense()
    np.testing.assert_allclose(said.numpy(), LOGITS[:2, 0], rtol=1e-6)


def stored(columns: dict[str, Any]) -> Any:
    return columns["score"]


def recipe(teacher: Teacher, table: pd.DataFrame, **changes: Any) -> tt.Recipe:
    settings: dict[str, Any] = {
        "name": "columns",
        "task": "classification",
        "data": Data(source=source("frame", Path(), table)),
        "teacher": teacher,
        "student": tt.ModuleStudent(Student),
        "losses": [tt.losses.KLDivergence()],
        "training": tt.Training(steps=2, batch_size=8),
        "licences": {"teacher": tt.Licence(use="allowed", basis="own", date="2026-01-01")},
    }
    return tt.Recipe(**{**settings, **changes})


class Student(torch.nn.Module):
    """A linear layer on all the inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)

    def forward(self, x0: Any, x1: Any, x2: Any, x3: Any) -> torch.Tensor:
        return self.linear(torch.stack([x0, x1, x2, x3], dim=1))


def test_the_plan_makes_its_checks_and_says_that_no_other_rows_can_be_asked_about() -> None:
    plan = make_plan(recipe(ColumnTeacher(["p0", "p1", "p2"], "probabilities"), FRAME))
    notes = "\n".join(plan.notes)
    assert "as those of production" in notes and "5 of 40 rows have no answer" in notes
    assert "p0: cat, p1: dog, p2: eel" in notes
    with pytest.raises(tt.errors.UserError, match="gives: probabilities"):  # they would be taken for logits
        make_plan(recipe(ColumnTeacher(["p0", "p1", "p2"], "logits"), FRAME))
    with pytest.raises(tt.errors.UserError, match="teacher's order: dog, cat, eel"):
        swapped = ColumnTeacher(["p1", "p0", "p2"], "probabilities", classes=["dog", "cat", "eel"])
        make_plan(recipe(swapped, FRAME))
    pairs = [tt.transfer.SimilarityPairs("lee")]
    with pytest.raises(RecipeError, match="similarity_sets"):
        make_plan(recipe(ColumnTeacher("logits", "logits"), FRAME, task="embedding", similarity_sets=pairs))


def test_a_split_without_one_answer_is_refused_before_training_and_not_after_it() -> None:
    table = FRAME.assign(split=np.repeat(["train", "development", "test"], [20, 10, 10]))
    answers = [f"p{i}" for i in range(3)]
    for name in ("train", "development", "test"):
        lacking = table.assign(**{column: table[column].mask(table["split"] == name) for column in answers})
        teacher: Teacher = ColumnTeacher(answers, "probabilities")
        data = Data(
            source=Arrays(lacking[[*INPUTS, *answers]], labels=LABELS, split=table["split"], teacher_columns=answers)
        )
        for each in (teacher, Ensemble([teacher, ModuleTeacher(Student())])):
            with pytest.raises(ModelError, match=f"answers to .*0 of [12]0 rows of {name}"):
                make_plan(recipe(each, FRAME, data=data))


def test_one_value_a_row_teaches_a_student_whose_last_layer_has_one_output() -> None:
    """Catches `[B]` taken for another width than `[B, 1]`: in the loss and in what a gate may name."""
    gates = [tt.Gate(metric="rmse_to_teacher", at_most=1.0)]
    source_ = Arrays({"x": FRAME[INPUTS].to_numpy(np.float32), "score": LOGITS[:, 0]}, teacher_columns=["score"])
    made = recipe(ColumnTeacher("score", "values"), FRAME, task="regression", data=Data(source=source_), policy=gates)
    made.losses = [tt.losses.LogitMSE()]
    made.student = tt.ModuleStudent(torch.nn.Linear(4, 1))
    assert "rmse_to_teacher" in make_plan(made).metrics
    student, teacher = torch.randn(5, 1), torch.randn(5)
    said = tt.losses.LogitMSE()(student, teacher)
    torch.testing.assert_close(said, torch.nn.functional.mse_loss(student[:, 0], teacher))
