"""Broken recipes: each is refused with its own message, exit status 2, and before anything is trained or written."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from broken import RECIPES, Change, Recipe, drop, put, refused
from torch import nn

from tutelage.cli import main


class Poisoned(nn.Module):
    """A teacher whose output is NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.flatten(1)) * float("nan")


def pickle_weights(recipe: Recipe, folder: Path) -> None:
    (folder / "teacher.pt").write_bytes(b"not looked into")
    recipe["teacher"]["init_args"]["weights"] = str(folder / "teacher.pt")


def pickle_folder(recipe: Recipe, folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "bert", "architectures": ["BertModel"]}')
    (folder / "pytorch_model.bin").write_bytes(b"not looked into")
    recipe["teacher"] = {"class_path": "HuggingFaceTeacher", "init_args": {"path": str(folder)}}
    recipe["licences"] = {"teacher": {"use": "allowed", "basis": "made by this test", "date": "2026-01-31"}}
    recipe.pop("teacher_training")


def csv_without_column(recipe: Recipe, folder: Path) -> None:
    (folder / "rows.csv").write_text("width,height,kind\n1,2,a\n3,4,b\n")
    recipe["data"] = {
        "source": {
            "class_path": "Table",
            "init_args": {"path": str(folder / "rows.csv"), "inputs": ["width", "heigth"], "label": "kind"},
        }
    }


def bad_numbers(recipe: Recipe, folder: Path) -> None:
    inputs = np.ones((50, 64), dtype=np.float32)
    inputs[17, 3] = np.nan
    np.save(folder / "x.npy", inputs)
    recipe["data"] = {"source": {"class_path": "Arrays", "init_args": {"inputs": str(folder / "x.npy")}}}


def ensemble_with_hint(recipe: Recipe, _: Path) -> None:
    member = recipe["teacher"]
    recipe["teacher"] = {"class_path": "Ensemble", "init_args": {"members": [member, copy.deepcopy(member)]}}
    recipe["losses"] = [{"class_path": "Hint", "init_args": {"pairs": {"hidden": "hidden"}}}]
    recipe.pop("teacher_training")


def hint(student: str, teacher: str) -> Change:
    return put("losses.0", {"class_path": "Hint", "init_args": {"pairs": {student: teacher}}})


LOSS = "losses.0.init_args"
MODULE = "student.init_args.module"
BROKEN: dict[str, tuple[Change, str]] = {
    "unknown key": (put("trainig", {}), "trainig\n.*\n.*\n.*did you mean `training`"),
    "unknown key in a section": (put("training.stepz", 3), r"training\.stepz\n.*\n.*\n.*did you mean `steps`"),
    "text for a number": (put("training.steps", "many"), r"training\.steps\n.*a whole number\n.*'many'"),
    "true for a number": (put("training.batch_size", True), r"training\.batch_size\n.*a whole number\n.*True"),
    "missing key": (drop("teacher"), "teacher\n.*no default\n.*missing"),
    "negative rate": (put("training.learning_rate", -1.0), r"training\.learning_rate\n.*positive number\n.*-1"),
    "steps and epochs": (put("training.epochs", 3), "training\n.*`steps` or `epochs`"),
    "no length": (put("training.steps", None), "training\n.*`steps` or `epochs`.*\n.*neither"),
    "more pieces than rows": (put("training.micro_batches", 65), r"training\.micro_batches\n.*at most.*64"),
    "fp16 on a cpu": (put("training.precision", "float16"), r"training\.precision\n.*bfloat16 on a CPU"),
    "unknown precision": (put("training.precision", "bf16"), r"training\.precision\n.*one of float32.*\n.*bf16"),
    "unknown loss": (put("losses.0.class_path", "KLDivergense"), r"losses\[0\]\.class_path\n.*\n.*\n.*`KLDivergence`"),
    "unknown argument": (
        put(f"{LOSS}.temprature", 2),
        r"losses\[0\]\.temprature\n.*\n.*\n.*did you mean `temperature`",
    ),
    "text for a temperature": (put(f"{LOSS}.temperature", "hot"), r"losses\[0\]\.temperature\n.*a number\n.*'hot'"),
    "temperature of zero": (
        put(f"{LOSS}.temperature", 0.0),
        r"losses\[0\]\.temperature\n.*\n.*  temperature must be positive, found 0\S*\n",
    ),
    "negative weight": (put("losses.1.init_args.weight", -0.2), r"losses\[1\]\.weight\n.*\n.*  weight must .*-0\.2\n"),
    "no losses": (put("losses", []), "losses\n.*at least one"),
    "losses not a list": (put("losses", {"class_path": "KLDivergence"}), "losses\n.*a list"),
    "arguments outside init_args": (
        put("losses.0", {"class_path": "KLDivergence", "temperature": 2}),
        "below `init_args:`",
    ),
    "a teacher for a loss": (
        put("losses.0.class_path", "tutelage.teachers.Ensemble"),
        r"losses\[0\].*\n.*a Loss\n.*Ensemble",
    ),
    "misspelt task": (put("task", "clasification"), "task\n.*\n.*\n.*did you mean `classification`"),
    "student layer": (hint("hiden", "hidden"), r"losses\[0\].*`hiden` of the student\n.*\n.*\n.*did you mean `hidden`"),
    "teacher layer": (
        hint("hidden", "hidden.7"),
        r"losses\[0\].*`hidden.7` of the teacher\n.*\n.*\n.*did you mean `hidden",
    ),
    "features of an ensemble": (ensemble_with_hint, r"losses\[0\] \(Hint\)[^\0]*Ensemble[^\0]*(only|no)[^\0]*output"),
    "labels of nobody": (put("data.labelled", 0), r"losses\[1\] \(CrossEntropy\): labels\n.*\n.*data\.labelled: 0"),
    "more labels than rows": (put("data.labelled", 99999), r"data\.labelled\n.*at most.*\n.*99,999"),
    "splits of more than all": (put("data.splits", {"development": 0.6, "test": 0.5}), r"splits"),
    "missing weights": (put("teacher.init_args.weights", "teachr.safetensors"), r"weights[^\0]*teachr\.safetensors"),
    "pickled weights": (pickle_weights, r"teacher\.pt[^\0]*pickl[^\0]*save_file"),
    "pickled folder": (pickle_folder, r"safetensors[^\0]*pytorch_model\.bin[^\0]*save_file"),
    "missing data file": (
        put("data", {"source": {"class_path": "Table", "init_args": {"path": "no/rows.csv", "text": "t"}}}),
        r"no/rows\.csv",
    ),
    "missing column": (csv_without_column, "heigth[^\0]*did you mean `height`"),
    "NaN in the inputs": (bad_numbers, r"NaN[^\0]*17|17[^\0]*NaN"),
    "NaN from the teacher": (
        put("teacher", {"class_path": "ModuleTeacher", "init_args": {"module": "test_broken_recipes.Poisoned"}}),
        "teacher: output\n.*finite[^\0]*NaN",
    ),
    "missing module": (
        put(f"{MODULE}.class_path", "modells.Net"),
        r"student\.module\.class_path\n.*\n.*no module named modells",
    ),
    "missing class": (
        put(f"{MODULE}.class_path", "models.Perceptrn"),
        r"student\.module[^\0]*did you mean `Perceptron`",
    ),
    "unknown module argument": (put(f"{MODULE}.init_args.hiddn", 3), r"student\.module\.hiddn\n.*\n.*\n.*`hidden`"),
    "student of other inputs": (put(f"{MODULE}.init_args.inputs", 63), "student: the student on the first two rows"),
    "student of other classes": (put(f"{MODULE}.init_args.classes", 9), r"student: output\n.*10 classes.*\n.*\(2, 9\)"),
    "misspelt metric": (put("policy.0.metric", "acuracy"), r"policy\[0\]\.metric\n[^\0]*did you mean `accuracy`"),
    "gate without a limit": (put("policy.0", {"metric": "accuracy"}), r"policy\[0\]\n.*margin"),
    "negative margin": (put("policy.0.margin", -0.1), r"policy\[0\]\.margin\n"),
    "negative budget": (put("budget.size_mb", -1.0), r"budget\.size_mb\n"),
    "memory without ONNX": (
        lambda r, p: (put("export", {"onnx": False})(r, p), put("budget.peak_memory_mb", 100)(r, p)),
        r"budget\.peak_memory_mb\n.*export\.onnx: true",
    ),
    "misspelt selection": (put("select", "accurracy"), "select\n.*\n.*\n.*did you mean `accuracy`"),
    "a seed twice": (put("seeds", [1, 1]), r"seeds\n.*different"),
    "pairs for a classifier": (put("similarity_sets", [{"name": "lee"}]), "similarity_sets\n.*task: embedding"),
    "unknown device": (put("measure.device", "gpu:0"), r"measure\.device\n"),
    "device that is not here": (put("measure.device", "cuda:99"), r"measure\.device\n.*cuda:99|CUDA[^\0]*'cuda:99'"),
    "no rounds": (put("measure.rounds", 0), r"measure\.rounds\n.*at least 1"),
    "no time to measure": (put("measure.seconds", 0.0), r"measure\.seconds\n.*above 0"),
    "no tolerance": (put("export.tolerance", 0.0), r"export\.tolerance\n.*above 0"),
    "budget of a batch that is not timed": (put("budget.batch", 8), r"budget\.batch\n.*1, 32\n.*8"),
    "budget of a form that is not delivered": (
        lambda r, p: (put("export", {"onnx": False})(r, p), put("budget.form", "onnxruntime")(r, p)),
        r"budget\.form\n[^\0]*export\.onnx: false",
    ),
    "frozen layer of nobody": (
        put("training.freeze", ["hiden"]),
        r"training\.freeze: layer `hiden` of the student[^\0]*`hidden`",
    ),
    "frozen teacher layer of nobody": (
        put("teacher_training.freeze", ["ouput"]),
        r"teacher_training\.freeze: layer `ouput` of the teacher[^\0]*`output`",
    ),
    "all frozen": (put("training.freeze", ["hidden", "output"]), r"training\.freeze\n.*at least one parameter"),
    "teacher all frozen": (put("teacher_training.freeze", ["hidden", "output"]), r"teacher_training\.freeze\n"),
    "float16 teacher on a cpu": (put("teacher_training.precision", "float16"), r"teacher_training\.precision\n"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_recipe_is_refused_with_its_message(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(RECIPES))
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    change, message = BROKEN[name]
    shown = refused(change, tmp_path, capsys)
    assert re.search(message, shown), shown


def test_every_mistake_is_named_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = yaml.safe_load((RECIPES / "digits.yaml").read_text())
    recipe["trainig"] = {}
    recipe["losses"][0]["init_args"]["temperature"] = "hot"
    recipe["task"] = "guess"
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["doctor", str(tmp_path / "recipe.yaml")]) == 2
    shown = capsys.readouterr().err
    assert "3 mistakes" in shown
    for key in ("trainig", "losses[0].temperature", "task"):
        assert key in shown


def test_mistakes_that_only_the_plan_sees_are_named_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def change(recipe: Recipe, folder: Path) -> None:
        put("policy.0.metric", "acuracy")(recipe, folder)
        put("budget.size_mb", -1.0)(recipe, folder)
        put("measure.device", "gpu:0")(recipe, folder)

    shown = refused(change, tmp_path, capsys)
    for key in ("policy[0].metric", "budget.size_mb", "measure.device"):
        assert key in shown


def test_mistakes_of_several_fields_of_the_recipe_are_named_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(recipe: Recipe, folder: Path) -> None:
        put("seeds", [1, 1])(recipe, folder)
        put("measure.rounds", 0)(recipe, folder)
        put("training.learning_rate", -1.0)(recipe, folder)

    shown = refused(change, tmp_path, capsys)
    for key in ("seeds", "measure.rounds", "training.learning_rate"):
        assert key in shown


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [", "YAML"),
        ("- a\n- b\n", "keys and values"),
        (
            "name: a\ntraining:\n  steps: 3\n  epochs: 1\n  steps: 4\n",
            "steps\n  expected: each key once\n  found:    it is there again in line 5",
        ),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    assert main(["doctor", str(tmp_path / "recipe.yaml")]) == 2
    assert message in capsys.readouterr().err


def test_a_missing_recipe_names_those_that_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(RECIPES / "digit.yaml")]) == 2
    assert "digits.yaml" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--training.steps"], "a value after it"),
        (["--losses.7.weight", "1"], "a number below 2"),
        (["--training.steps.more", "1"], "a section at"),
        (["steps"], "--key value"),
    ],
)
def test_a_wrong_override_is_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(RECIPES / "digits.yaml"), *arguments]) == 2
    assert message in capsys.readouterr().err
