"""Teachers that do not mean what the labels mean: named before anything is trained, whatever kind they are."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tutelage as tt
from tutelage.checks import look_at_teachers
from tutelage.doctor import describe_plan
from tutelage.errors import DataError, RecipeError, SignalError
from tutelage.signals import Batch, Request, Signals
from tutelage.teachers import Cached, Ensemble, FunctionTeacher, ModuleTeacher, SeveralTeachers, Teacher

rng = np.random.default_rng(0)
X = rng.normal(size=(300, 4)).astype(np.float32)
W = rng.normal(size=(4, 3)).astype(np.float32)
Y = (X @ W).argmax(1)
NAMES = ["a", "b", "c"]
HALVES = np.array(["train", "development", "development", "test"])[np.arange(300) % 4]
MOVED = [1, 2, 0]
"""Output j of the teachers in the wrong order is class MOVED[j]."""


class Knows(nn.Module):
    """Knows the labels; its outputs stand in an order, and end in a function."""

    def __init__(self, order: list[int], end: str = "", sign: float = 1.0) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3, bias=False)
        with torch.no_grad():
            self.linear.weight.copy_(sign * torch.from_numpy(W.T[order] * 3))
        self.end = end

    def forward(self, x: Tensor) -> Tensor:
        z = self.linear(x)
        return {"": z, "softmax": z.softmax(-1), "sigmoid": z.sigmoid()}[self.end]


class Blank(nn.Module):
    """A student, or a teacher that is trained in the run."""

    def __init__(self, end: str = "") -> None:
        super().__init__()
        self.linear, self.end = nn.Linear(4, 3), end

    def forward(self, x: Tensor) -> Tensor:
        z = self.linear(x)
        return {"": z, "softmax": z.softmax(-1), "sigmoid": z.sigmoid(), "backwards": z.flip(-1)}[self.end]


def function(x: Tensor, *, order: list[int], labels: bool) -> Any:
    z = Knows(order)(x)
    return z.argmax(1).tolist() if labels else z


def made(teacher: Teacher, labels: np.ndarray = Y, **changes: Any) -> tt.Recipe:
    words = labels if labels.ndim > 1 or labels.dtype.kind == "f" else np.array(NAMES)[labels]
    fields: dict[str, Any] = {
        "name": "order",
        "task": "classification",
        "data": tt.Data(source=tt.Arrays(X, words)),
        "teacher": teacher,
        "student": tt.ModuleStudent(Blank),
        "losses": [tt.losses.KLDivergence(1.0)],
        "training": tt.Training(steps=3, batch_size=32, learning_rate=1e-2),
        "export": tt.Export(onnx=False),
        "measure": tt.Measure(seconds=0.1, rounds=2, batch_sizes=(1,)),
        "policy": [tt.Gate("accuracy", margin=0.05)],
    }
    return tt.Recipe(**{**fields, **changes})


TEACHERS: dict[str, Any] = {
    "module": lambda order, folder: ModuleTeacher(Knows(order)),
    "softmax": lambda order, folder: ModuleTeacher(Knows(order, "softmax"), gives="probabilities"),
    "function": lambda order, folder: FunctionTeacher(
        f"{__name__}:function", "logits", arguments={"order": order, "labels": False}
    ),
    "labels alone": lambda order, folder: FunctionTeacher(
        f"{__name__}:function", "labels", arguments={"order": order, "labels": True}
    ),
    "cached": lambda order, folder: Cached(ModuleTeacher(Knows(order)), str(folder / "cache")),
    "a member": lambda order, folder: Ensemble(
        [ModuleTeacher(Knows([0, 1, 2])), ModuleTeacher(Knows(order)), ModuleTeacher(Knows([0, 1, 2]))]
    ),
    "one of several": lambda order, folder: SeveralTeachers(
        {"good": ModuleTeacher(Knows([0, 1, 2])), "other": ModuleTeacher(Knows(order))}, main="good"
    ),
}


@pytest.mark.parametrize("kind", TEACHERS)
def test_a_teacher_in_another_order_is_refused_in_the_plan_and_what_it_says_to_write_is_right(
    kind: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"classes: \[b, c, a\]") as caught:
        tt.make_plan(made(TEACHERS[kind](MOVED, tmp_path)))
    assert {"a member": "members[1]", "one of several": "teachers.other"}.get(kind, "teacher") in str(caught.value)
    plan = tt.make_plan(made(TEACHERS[kind]([0, 1, 2], tmp_path)))
    assert re.search(r"about (99|100)\.\d% right on 20\d labelled rows", describe_plan(plan, with_forecast=False))
    if kind in ("module", "cached"):
        source = tt.Arrays(X, np.array(NAMES)[Y], classes=["b", "c", "a"])
        tt.make_plan(made(TEACHERS[kind](MOVED, tmp_path), data=tt.Data(source=source)))


@pytest.mark.parametrize("kind", TEACHERS)
def test_a_teacher_that_knows_nothing_of_the_labels_is_refused_and_of_few_labels_noted(
    kind: str, tmp_path: Path
) -> None:
    others = np.random.default_rng(1).permutation(Y)  # labels that belong to other rows
    recipe = made(TEACHERS[kind]([0, 1, 2], tmp_path), others)
    with pytest.raises(DataError, match="no better than guessing"):
        tt.make_plan(recipe)
    few = np.arange(300) % 5 == 0
    words = np.where(few, np.array(NAMES)[others], None)
    notes = tt.make_plan(replace(recipe, data=tt.Data(source=tt.Arrays(X, words, classes=NAMES)))).notes
    assert any("can't tell a weak teacher" in note for note in notes)


def test_a_teacher_that_may_be_weak_is_refused_only_where_no_verdict_will_judge_it() -> None:
    """With a hundred labelled test rows a teacher that is not shown to know anything can't end in a PASS."""
    rng = np.random.default_rng(5)
    labels = rng.permutation(Y)
    split = np.where(np.arange(300) % 5 < 2, "test", np.where(np.arange(300) % 5 == 2, "development", "train"))

    def plan(words: np.ndarray) -> tt.Plan:
        source = tt.Arrays(X, words, classes=NAMES, split=split)
        return tt.make_plan(made(ModuleTeacher(Knows([0, 1, 2])), data=tt.Data(source=source)))

    words = np.array(NAMES)[labels]
    assert any("no gate that compares with it passes plainly" in note for note in plan(words).notes)
    with pytest.raises(DataError, match="no better than guessing"):
        plan(np.where((split == "test") & (np.arange(300) % 5 == 0), None, words))  # 60 of them are too few
    with pytest.raises(DataError, match="no better than guessing"):
        tt.make_plan(
            made(ModuleTeacher(Knows([0, 1, 2], sign=0.0)), data=tt.Data(source=tt.Arrays(X, words, split=split)))
        )


@pytest.mark.parametrize("is_paid", [False, True])
def test_two_classes_of_fifty_that_changed_places_are_asked_about_again_and_refused(
    is_paid: bool, tmp_path: Path
) -> None:
    labels = np.arange(2500) % 50
    x = (np.eye(50)[labels] + 0.01 * rng.normal(size=(2500, 50))).astype(np.float32)
    order = [*range(48), 49, 48]

    class Fifty(nn.Module):
        def __init__(self, columns: list[int]) -> None:
            super().__init__()
            self.linear = nn.Linear(50, 50, bias=False)
            with torch.no_grad():
                self.linear.weight.copy_(9 * torch.eye(50)[columns])

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x)

    names = [f"class {k:02}" for k in range(50)]
    split = np.where(np.arange(2500) < 300, "development", np.where(np.arange(2500) < 2400, "train", "test"))
    data = tt.Data(source=tt.Arrays(x, np.array(names)[labels], split=split))
    for columns in (list(range(50)), order):
        teacher: Teacher = ModuleTeacher(Fifty(columns))
        teacher = Cached(teacher, str(tmp_path / f"{columns[48]}"), lazy=True) if is_paid else teacher
        recipe = made(teacher, data=data, student=tt.ModuleStudent(lambda: nn.Linear(50, 50)))
        if columns[48] == 48:
            assert not any("another order" in note for note in tt.make_plan(recipe).notes)
        elif is_paid:
            plan = tt.make_plan(recipe)
            looks = look_at_teachers(plan.recipe, plan.data, plan.device, before=False, only=plan.later)
            assert any("class 49 for 4 of 4 rows of class 48" in note for note in looks.notes)
        else:
            with pytest.raises(DataError, match="class 47, class 49, class 48"):
                tt.make_plan(recipe)


def test_a_weak_teacher_is_asked_about_more_rows_before_it_is_said_to_know_nothing() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(3000, 4)).astype(np.float32)
    labels = rng.permutation((x @ W).argmax(1))
    knows = rng.random(3000) < 0.12
    labels[knows] = (x @ W).argmax(1)[knows]
    source = tt.Arrays(x, np.array(NAMES)[labels])
    plan = tt.make_plan(made(ModuleTeacher(Knows([0, 1, 2])), data=tt.Data(source=source)))
    assert not [note for note in plan.notes if "guess" in note]


def test_a_paid_teacher_that_may_be_weak_is_not_refused_after_its_answers_were_paid_for(tmp_path: Path) -> None:
    """A third of teachers with an area under the curve of 0.58 look like guesses on 200 rows."""
    others = np.random.default_rng(1).permutation(Y)
    teacher = Cached(ModuleTeacher(Knows([0, 1, 2])), str(tmp_path / "cache"), lazy=True)
    plan = tt.make_plan(made(teacher, others, data=tt.Data(source=tt.Arrays(X, np.array(NAMES)[others], split=HALVES))))
    looks = look_at_teachers(plan.recipe, plan.data, plan.device, before=False, only=plan.later)
    assert plan.later == ["teacher"] and any("can't tell a weak teacher" in note for note in looks.notes)


def test_test_rows_are_asked_about_where_no_others_have_labels() -> None:
    """An unlabelled transfer set beside a labelled test split: else the order would be looked at by nobody."""
    split = np.where(np.arange(300) % 2 == 0, "train", np.where(np.arange(300) % 4 == 1, "development", "test"))
    words = np.where(split == "test", np.array(NAMES)[Y], None)
    data = tt.Data(source=tt.Arrays(X, words, classes=NAMES, split=split))
    with pytest.raises(DataError, match=r"classes: \[b, c, a\]"):
        tt.make_plan(made(ModuleTeacher(Knows(MOVED)), data=data))
    tt.make_plan(made(ModuleTeacher(Knows([0, 1, 2])), data=data))


def test_only_labelled_rows_that_are_not_for_testing_are_asked_about_and_no_more_than_needed() -> None:
    seen: list[Tensor] = []

    class Counting(Knows):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.detach())
            return super().forward(x)

    plan = tt.make_plan(made(ModuleTeacher(Counting([0, 1, 2]))))
    asked = {tuple(row) for batch in seen for row in batch.numpy().round(5).tolist()}
    test = {tuple(row) for row in X[plan.data.rows("test")].round(5).tolist()}
    assert len(asked) <= 201 + 10 and not asked & test


def test_probabilities_are_refused_with_the_way_which_is_then_accepted(tmp_path: Path) -> None:
    for end, gives in (("softmax", "probabilities"), ("sigmoid", "sigmoid")):
        teacher = ModuleTeacher(Knows([0, 1, 2], end))
        with pytest.raises(SignalError, match=f"gives: {gives}"):
            tt.make_plan(made(teacher))
        with pytest.raises(SignalError, match=rf"members\[1\][\s\S]*gives: {gives}"):
            tt.make_plan(made(Ensemble([ModuleTeacher(Knows([0, 1, 2])), teacher])))
        tt.make_plan(made(ModuleTeacher(Knows([0, 1, 2], end), gives=gives)))  # type: ignore[arg-type]


def test_probabilities_of_a_teacher_are_found_where_no_row_has_a_label() -> None:
    data = tt.Data(source=tt.Arrays(X))
    with pytest.raises(SignalError, match="gives: probabilities"):
        tt.make_plan(made(ModuleTeacher(Knows([0, 1, 2], "softmax")), data=data, policy=[]))


@pytest.mark.parametrize("end", ["softmax", "sigmoid"])
def test_a_student_or_a_teacher_of_the_run_that_ends_in_probabilities_is_to_lose_that(end: str) -> None:
    with pytest.raises(SignalError, match=r"student: output[\s\S]*take it out of the student's forward"):
        tt.make_plan(made(ModuleTeacher(Knows([0, 1, 2])), student=tt.ModuleStudent(lambda: Blank(end))))
    training = tt.Training(steps=3, batch_size=32, learning_rate=1e-2)
    with pytest.raises(SignalError, match="take it out of the module's forward"):
        tt.make_plan(made(ModuleTeacher(Blank(end)), teacher_training=training))
    gives: Any = {"softmax": "probabilities"}.get(end, end)
    with pytest.raises(RecipeError, match=r"teacher\.gives"):
        tt.make_plan(made(ModuleTeacher(Blank(end), gives=gives), teacher_training=training))


def test_labels_of_a_row_and_values_are_held_against_each_other_too() -> None:
    on = (X @ W > 0.5).astype(np.float32)
    labels = tt.Data(source=tt.Arrays(X, on))
    losses = [tt.losses.KLDivergence(outputs="sigmoid")]
    several = {"task": "multilabel", "data": labels, "losses": losses, "policy": []}
    tt.make_plan(made(ModuleTeacher(Knows([0, 1, 2])), **several))
    with pytest.raises(DataError, match="the labels 1, 2, 0"):
        tt.make_plan(made(ModuleTeacher(Knows(MOVED)), **several))
    with pytest.raises(SignalError, match="gives: sigmoid"):
        tt.make_plan(made(ModuleTeacher(Knows([0, 1, 2], "sigmoid")), **several))
    data = tt.Data(source=tt.Arrays(X, 3000 * X @ W))
    values = {"task": "regression", "data": data, "losses": [tt.losses.MeanSquaredError()], "policy": []}
    with pytest.raises(DataError, match="1000 x value"):
        tt.make_plan(made(ModuleTeacher(Knows([0, 1, 2])), **values))
    tt.make_plan(made(ModuleTeacher(Knows([0, 1, 2], sign=1000.0)), **values))


def test_a_teacher_that_the_run_trains_is_held_against_labels_before_any_student_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = tt.Training(steps=60, batch_size=64, learning_rate=5e-2)
    recipe = made(ModuleTeacher(Blank()), teacher_training=training)
    assert "is held against labels before students" in describe_plan(tt.make_plan(recipe), with_forecast=False)
    tt.distill(recipe, tmp_path, progress=True)
    said = capsys.readouterr().err
    assert re.search(
        r"teacher \(seed 0\)[\s\S]*tutelage: teacher: about \d\d\.\d% right[\s\S]*student \(seed 0\)", said
    )


class Paid(FunctionTeacher):
    """A function whose questions cost something: it counts the rows that it was asked about."""

    _asked = 0

    @property
    def calls_sent(self) -> int:
        return self._asked

    def price_of(self, rows: int, pairs: int) -> str:
        return f"{pairs} calls"

    def ask(self, batch: Batch, request: Request) -> Signals:
        self._asked += len(batch) if request.output else 0
        return super().ask(batch, request)


def paid(order: list[int]) -> Paid:
    return Paid(f"{__name__}:function", "logits", arguments={"order": order, "labels": False})


@pytest.mark.parametrize("cached", [False, True])
def test_a_teacher_that_costs_money_is_held_against_labels_by_answers_that_are_there_and_before_training(
    cached: bool, tmp_path: Path
) -> None:
    def teacher(order: list[int]) -> tuple[Paid, Teacher]:
        own = paid(order)
        return own, Cached(own, str(tmp_path / f"cache{order[0]}")) if cached else own

    own, asked = teacher(MOVED)
    plan = tt.make_plan(made(asked))
    assert plan.later == ["teacher"] and own._asked <= 12  # the two first rows, over and over
    with pytest.raises(DataError, match=r"classes: \[b, c, a\]"):
        tt.distill(made(asked), tmp_path / "run", progress=False)
    assert not list((tmp_path / "run").rglob("history.jsonl"))
    if cached:
        again, asked = teacher(MOVED)
        with pytest.raises(DataError, match=r"classes: \[b, c, a\]"):  # now the plan knows, and asks nothing for it
            tt.make_plan(made(asked))
        assert again._asked <= 12
    _, good = teacher([0, 1, 2])
    assert tt.distill(made(good), tmp_path / "good", progress=False).bundle.is_dir()
