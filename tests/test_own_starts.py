"""Where students, baselines, assistants and trained teachers start from, whatever `module` was given as."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

import tutelage as tt
from tutelage import stages
from tutelage.recipe_file import build_recipe, dump_recipe
from tutelage.students import ReusedClassifier

OWN = """
from torch import nn


class Net(nn.Module):
    def __init__(self, hidden: int = 3):
        super().__init__()
        self.body, self.head = nn.Linear(4, hidden), nn.Linear(hidden, 3)

    def forward(self, x):
        return self.head(self.body(x).relu())

    @classmethod
    def small(cls) -> "Net":
        return cls(3)


class Around(nn.Module):
    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


def annotated(hidden: int = 3) -> nn.Module:
    return Net(hidden)


def plain(hidden=3):
    return Net(hidden)
"""
PATHS: dict[str, Any] = {
    "class": {"class_path": "starting_nets.Net"},
    "function": {"class_path": "starting_nets.annotated", "init_args": {"hidden": 3}},
    "function by its path alone": "starting_nets.annotated",
    "function without an annotation": {"class_path": "starting_nets.plain"},
    "class method": {"class_path": "starting_nets.Net.small"},
    "module in a module": {"class_path": "starting_nets.Around", "init_args": {"inner": "starting_nets.annotated"}},
}
SEEDS = [0, 1, 2]


@pytest.fixture(autouse=True)
def _own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "starting_nets.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "starting_nets", raising=False)


def written(module: Any) -> tt.Recipe:
    """A recipe whose student, assistant, teacher and backbone are all given as that."""
    student = {"class_path": "ModuleStudent", "init_args": {"module": module}}
    return build_recipe(
        {
            "name": "starts",
            "task": "classification",
            "data": {"source": {"class_path": "Digits"}},
            "teacher": {"class_path": "ModuleTeacher", "init_args": {"module": module}},
            "student": student,
            "assistants": [{"student": student}],
            "losses": [{"class_path": "KLDivergence"}],
            "training": {"steps": 2},
            "seeds": SEEDS,
        }
    )


def weights_of(module: nn.Module) -> Tensor:
    return torch.cat([weight.detach().flatten() for weight in module.parameters()]).clone()


def started(student: tt.Student, teacher: tt.Teacher, seed: int) -> Tensor:
    torch.manual_seed(seed)
    return weights_of(student.build(teacher))


@pytest.mark.parametrize("kind", PATHS)
def test_what_a_recipe_names_is_made_anew_for_each_seed_and_the_same_for_a_seed(kind: str) -> None:
    """Catches a module that is made once, when the recipe is read: one start for all seeds, another in a resume."""
    recipe, again = written(PATHS[kind]), written(PATHS[kind])
    for one, other in ((recipe.student, again.student), (recipe.assistants[0].student, again.assistants[0].student)):
        starts = [started(one, recipe.teacher, seed) for seed in SEEDS]
        # Every part has another start: a shared one would hide behind the parts that differ.
        assert all((starts[0] != each).float().mean() > 0.9 for each in starts[1:])
        assert all(
            torch.equal(start, started(other, again.teacher, seed)) for seed, start in zip(SEEDS, starts, strict=True)
        )
    teachers = []
    for made in (recipe, again):
        torch.manual_seed(7)
        made.teacher.load(torch.device("cpu"))
        assert made.teacher.module is not None
        teachers.append(weights_of(made.teacher.module))
    assert torch.equal(*teachers)


def test_a_backbone_that_a_recipe_names_is_made_anew_for_each_seed() -> None:
    recipe = written("starting_nets.annotated")
    recipe.teacher.load(torch.device("cpu"))
    data = yaml.safe_load(dump_recipe(recipe))
    arguments = {"backbone": PATHS["function"], "width": 3, "classifier": "head", "features": "vectors"}
    data["student"] = {"class_path": "ReusedClassifier", "init_args": arguments}
    student = build_recipe(data).student
    assert isinstance(student, ReusedClassifier)
    assert (started(student, recipe.teacher, 0) != started(student, recipe.teacher, 1)).float().mean() > 0.5


@pytest.mark.parametrize("kind", PATHS)
def test_a_module_that_a_recipe_names_is_written_as_it_was_named(kind: str) -> None:
    """Catches a recipe that is stored as `<Net made in Python>`: nobody could run it again."""
    recipe = written(PATHS[kind])
    text = dump_recipe(recipe)
    assert "made in Python" not in text
    again = build_recipe(yaml.safe_load(text))
    assert torch.equal(started(again.student, recipe.teacher, 3), started(recipe.student, recipe.teacher, 3))


class Linear(nn.Module):
    def __init__(self, outputs: int = 3) -> None:
        super().__init__()
        self.layer = nn.Linear(4, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)  # type: ignore[no-any-return]


READY, TEACHER = Linear(), Linear()
GIVEN: dict[str, tuple[Any, bool]] = {  # and whether each seed has a start of its own
    "lambda": (lambda: Linear(3), True),
    "partial": (functools.partial(Linear, outputs=3), True),
    "ready module": (READY, False),
    "function that gives a ready one": (lambda: READY, False),
}


def small(student: Any, teacher: Any, **changes: Any) -> tt.Recipe:
    draw = np.random.default_rng(0)
    inputs = draw.normal(size=(120, 4)).astype(np.float32)
    given: dict[str, Any] = {
        "name": "starts",
        "task": "classification",
        "data": tt.Data(source=tt.Arrays(inputs, TEACHER(torch.tensor(inputs)).argmax(1).numpy())),
        "teacher": tt.ModuleTeacher(teacher),
        "student": tt.ModuleStudent(student),
        "losses": [tt.losses.KLDivergence()],
        "training": tt.Training(steps=4, batch_size=16, learning_rate=0.1),
        "export": tt.Export(onnx=False),
        "measure": tt.Measure(seconds=0.1, rounds=2, batch_sizes=[1]),
    }
    return tt.Recipe(**given | changes)


def watched(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """The weights that each training of a run begins with, by the name of its folder."""
    found: dict[str, Tensor] = {}
    inner: Callable[..., Any] = stages.fit

    def fit(job: Any) -> Any:
        found[job.folder.name] = weights_of(job.student)
        return inner(job)

    monkeypatch.setattr(stages, "fit", fit)
    return found


@pytest.mark.parametrize("kind", GIVEN)
def test_no_training_goes_on_from_what_another_one_learnt(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a baseline that starts from the distilled weights, and a ready module that the run trains itself."""
    given, own = GIVEN[kind]
    before, start = weights_of(READY), watched(monkeypatch)
    taught = weights_of(TEACHER)
    tt.distill(small(given, TEACHER, seeds=SEEDS), tmp_path, progress=False)
    students = [start[f"student-{seed}"] for seed in SEEDS]
    assert all(torch.equal(start[f"baseline-{seed}"], students[seed]) for seed in SEEDS)
    assert all(torch.equal(students[0], each) is not own for each in students[1:])
    assert torch.equal(weights_of(READY), before) and torch.equal(weights_of(TEACHER), taught)
    notes = tt.make_plan(small(given, TEACHER, seeds=SEEDS)).notes
    assert any("same weights for seed 0 and seed 1" in note for note in notes) is not own


def test_a_teacher_that_the_run_trains_starts_the_next_run_as_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a second run whose teacher was trained twice, and the user's own module trained under their hands."""
    given = Linear()
    before = weights_of(given)
    recipe = small(Linear, given, teacher_training=tt.Training(steps=4, batch_size=16, learning_rate=0.1))
    starts = []
    for run in ("one", "two"):
        start = watched(monkeypatch)
        tt.distill(recipe, tmp_path / run, progress=False)
        starts.append(next(start[name] for name in start if name.startswith("teacher")))
        monkeypatch.undo()
    assert torch.equal(*starts)
    assert torch.equal(weights_of(given), before) and torch.equal(starts[0], before)
