"""A student is built again from its bundle alone, in another process, or the bundle says why it can't be."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from rebuilt_modules import Backbone, ForgetfulHead, Head, MisleadingHead, Teacher, make_backbone, make_unannotated
from safetensors.torch import save_file
from torch import nn

import tutelage as tt
from tutelage.delivery import export_student
from tutelage.errors import ModelError
from tutelage.export import load_student
from tutelage.export.module_spec import spec_of
from tutelage.losses import CrossEntropy, KLDivergence, SimKD
from tutelage.parts import build_student
from tutelage.students import ModuleStudent, Peers, PretrainedStudent, ReusedClassifier, Student

PICTURES = np.random.default_rng(0).random(size=(240, 1, 7, 7)).astype(np.float32)
FEW_LABELS = np.where(np.arange(240) < 100, np.array(["a", "b", "c"])[np.arange(240) % 3], None)
"""Too few to refuse a teacher that does not know them."""
LOAD = """
import pathlib, sys, numpy, torch
from tutelage.export import load_student
pictures = torch.from_numpy(numpy.load(sys.argv[2]))
with torch.no_grad():
    numpy.save(sys.argv[3], load_student(pathlib.Path(sys.argv[1]))(pictures))
"""


def recipe(student: Student, head: nn.Module | None = None, **changes: object) -> tt.Recipe:
    torch.manual_seed(0)
    settings = {
        "name": "rebuilt",
        "task": "classification",
        "data": tt.Data(source=tt.Arrays(PICTURES, FEW_LABELS, classes=["a", "b", "c"])),
        "teacher": tt.ModuleTeacher(Teacher(nn.Linear(6, 3) if head is None else head)),
        "student": student,
        "losses": [KLDivergence()],
        "training": tt.Training(steps=5, batch_size=16),
        "measure": tt.Measure(seconds=0.2, rounds=2),
        "export": tt.Export(onnx=False),
    }
    return tt.Recipe(**(settings | changes))


def in_another_process(bundle: Path, folder: Path) -> np.ndarray:
    """What `load_student` builds there says of the pictures; the test's modules can be imported, no more."""
    moved = shutil.copytree(bundle, folder / "elsewhere")
    np.save(folder / "pictures.npy", PICTURES)
    arguments = [str(moved), str(folder / "pictures.npy"), str(folder / "answers.npy")]
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(tt.__file__).parents[1])])
    subprocess.run([sys.executable, "-c", LOAD, *arguments], check=True, env=os.environ | {"PYTHONPATH": path})
    return np.load(folder / "answers.npy")


def exported(given: tt.Recipe, folder: Path) -> tuple[nn.Module, dict, list[str]]:
    """The student of a recipe with random weights and statistics, what `export.json` says of it, and the notes."""
    plan = tt.make_plan(given)
    student = given.student.deliver(build_student(plan.recipe, 0, torch.device("cpu")))
    with torch.no_grad():
        for weight in student.state_dict().values():
            if weight.is_floating_point():
                weight.add_(torch.rand_like(weight))
    folder.mkdir(exist_ok=True)
    export, _, notes = export_student(plan, student, folder, folder)
    return student, export["safetensors"], notes


def test_a_student_with_its_teachers_classifier_answers_in_another_process_as_it_was_judged(tmp_path: Path) -> None:
    """A classifier built at random, a projector that is left out, statistics of its norms that are lost."""
    student = ReusedClassifier(make_backbone, 4, "fc")
    head = nn.Sequential(nn.Dropout(0.5), Head(6, 3, scale=3.0))
    given = recipe(student, head, losses=[SimKD({"projector": "layer4"}), CrossEntropy()], export=tt.Export())
    bundle = tt.distill(given, tmp_path / "run", progress=False).bundle
    assert json.loads((bundle / "export.json").read_text())["safetensors"]["max_abs_difference"] == 0
    answers = in_another_process(bundle, tmp_path)
    table = pq.read_table(bundle / "evidence.parquet")
    judged = np.array(table["student"].to_pylist(), dtype=np.float32)
    assert np.ptp(judged) > 0.1
    np.testing.assert_allclose(answers[table["row"].to_pylist()], judged, atol=1e-5)


BUILT = {
    "a class that forgets, by its factory": ReusedClassifier(functools.partial(Backbone, channels=4), 4, "fc"),
    "a partial with arguments in their order": ReusedClassifier(functools.partial(Backbone, 4), 4, "fc"),
    "a partial whose arguments have no names": ReusedClassifier(
        functools.partial(nn.Sequential, nn.Conv2d(1, 4, 3), nn.ReLU()), 4, "fc"
    ),
    "a lambda that makes torch's own layers": ReusedClassifier(
        lambda: nn.Sequential(nn.Conv2d(1, 4, (3, 1), bias=False), nn.BatchNorm2d(4, eps=0.5)), 4, "fc"
    ),
    "a module": ReusedClassifier(nn.Conv2d(1, 4, 3, stride=2, padding=1, padding_mode="reflect"), 4, "fc"),
    "vectors": ReusedClassifier(
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(49, 5)), 5, "fc", features="vectors", activation="none"
    ),
    "one of several peers": Peers(ReusedClassifier(make_backbone, 4, "fc")),
    "a module as a student": ModuleStudent(nn.Sequential(nn.Flatten(), nn.LeakyReLU(0.3), nn.Linear(49, 3))),
    "a module among the arguments of a class": ModuleStudent(functools.partial(Teacher, head=Head(6, 3, 2.0))),
}


@pytest.mark.parametrize("name", BUILT)
def test_a_student_is_built_again_with_the_same_answers(name: str, tmp_path: Path) -> None:
    student, about, notes = exported(recipe(BUILT[name]), tmp_path)
    assert about["loads"] and notes == []
    with torch.no_grad():
        ours, again = (made.eval()(torch.from_numpy(PICTURES)) for made in (student, load_student(tmp_path)))
    assert ours.std(0).max() > 0.1
    torch.testing.assert_close(again, ours, atol=1e-6, rtol=0)


def test_a_student_that_starts_from_stored_weights_is_built_again_without_them(tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    inside = ReusedClassifier(make_backbone, 4, "fc")
    stored = {f"backbone.{name}": value for name, value in Backbone(4).state_dict().items()}
    save_file(stored, weights)
    student, about, notes = exported(recipe(PretrainedStudent(inside, str(weights), ["backbone"])), tmp_path / "bundle")
    weights.unlink()
    assert about["loads"] and notes == []
    pictures = torch.from_numpy(PICTURES)
    with torch.no_grad():
        torch.testing.assert_close(load_student(tmp_path / "bundle")(pictures), student.eval()(pictures))


LOST = {
    "a lambda with a class that forgets": (ReusedClassifier(lambda: Backbone(4), 4, "fc"), None, "argument `channels`"),
    "an unannotated function": (ReusedClassifier(make_unannotated, 4, "fc"), None, "`-> nn.Module`"),
    "a classifier that forgets": (
        ReusedClassifier(make_backbone, 4, "fc"),
        ForgetfulHead([6, 3]),
        "`classifier` of the student: `ForgetfulHead` does not keep its argument `sizes`",
    ),
    "a classifier that keeps something else": (
        ReusedClassifier(make_backbone, 4, "fc"),
        MisleadingHead(6, 3),
        "other outputs",
    ),
}


@pytest.mark.parametrize("name", LOST)
def test_a_bundle_whose_student_can_not_be_built_says_why_and_builds_nothing(name: str, tmp_path: Path) -> None:
    """The worst would be a model that loads and answers otherwise."""
    student, head, why = LOST[name]
    _, about, notes = exported(recipe(student, head), tmp_path)
    assert not about["loads"] and why in about["why_not"]
    assert len(notes) == 1 and "load_student can't build it" in notes[0] and why in notes[0]
    with pytest.raises(ModelError, match="the class path of the student's module"):
        load_student(tmp_path)


def test_a_class_of_the_script_that_was_run_is_no_promise(tmp_path: Path) -> None:
    """In the script itself `__main__.Net` can be imported, in any other program it can't."""

    class Net(Backbone):
        pass

    Net.__module__, Net.__qualname__ = "__main__", "Net"
    with pytest.raises(ModelError, match="no other program can import"):
        spec_of(Net(4), {"": Net})


def test_the_note_is_in_the_bundle(tmp_path: Path) -> None:
    bundle = tt.distill(recipe(ModuleStudent(lambda: Teacher(ForgetfulHead([6, 3])))), tmp_path, progress=False).bundle
    assert "load_student can't build it" in json.loads((bundle / "metrics.json").read_text())["notes"][-1]
    assert "load_student can't build it" in (bundle / "README.md").read_text()
