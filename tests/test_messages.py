"""Messages of a newcomer's first mistakes: each holds the words that mend it, in terms of the recipe's keys."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from tutelage.errors import RecipeError, UserError
from tutelage.explain import explain
from tutelage.paths import look_beside
from tutelage.plan import make_plan
from tutelage.recipe_file import load_recipe
from tutelage.teachers import ModuleTeacher

ROWS = [
    f"{x}.5,{-x},{('ash', 'oak', 'elm')[x % 3]},{('train', 'train', 'development', 'test')[x % 4]}" for x in range(24)
]
NETS = """
from torch import nn


class Net(nn.Sequential):
    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(inputs, classes))
"""


def recipe() -> dict[str, Any]:
    net = {"class_path": "newcomer_nets.Net", "init_args": {"inputs": 2, "classes": 3}}
    columns = {"path": "trees.csv", "inputs": ["height", "width"], "label": "kind", "split": "split"}
    return {
        "name": "trees",
        "task": "classification",
        "data": {"source": {"class_path": "Table", "init_args": columns}},
        "teacher": {"class_path": "ModuleTeacher", "init_args": {"module": net, "weights": "teacher.safetensors"}},
        "student": {"class_path": "ModuleStudent", "init_args": {"module": yaml.safe_load(yaml.safe_dump(net))}},
        "losses": [{"class_path": "KLDivergence"}],
        "training": {"steps": 2, "batch_size": 4},
        "policy": [{"metric": "accuracy", "margin": 0.1}],
    }


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A recipe's folder, which is the working folder too."""
    (tmp_path / "newcomer_nets.py").write_text(NETS)
    save_file({"1.weight": torch.randn(3, 2), "1.bias": torch.zeros(3)}, tmp_path / "teacher.safetensors")
    table(tmp_path, ROWS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    look_beside(None)


def table(folder: Path, rows: list[str]) -> None:
    (folder / "trees.csv").write_bytes("\n".join(["height,width,kind,split", *rows, ""]).encode("latin-1"))


def named(rows: list[str], names: list[str]) -> list[str]:
    words = dict(zip(("ash", "oak", "elm"), names, strict=True))
    return [",".join(words.get(cell, cell) for cell in row.split(",")) for row in rows]


def as_regression(r: dict[str, Any]) -> None:
    r |= {"task": "regression", "losses": [{"class_path": "Regression"}], "policy": [{"metric": "r2", "margin": 0.1}]}


def with_images(r: dict[str, Any], folder: Path) -> None:
    from PIL import Image

    for kind in ("ash", "oak", "elm"):
        (folder / "pictures" / kind).mkdir(parents=True)
        for k in range(8):
            pixels = np.random.default_rng(k).integers(0, 255, (6, 4, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "pictures" / kind / f"{k}.png")
    r["data"]["source"] = {
        "class_path": "ImageFolder",
        "init_args": {"path": "pictures", "classes": ["ash", "oak", "elm"]},
    }


Change = Callable[[dict[str, Any], Path], object]
CASES: dict[str, tuple[Change, list[str]]] = {
    "labels that begin at 1": (
        lambda r, f: table(f, named(ROWS, ["1", "2", "3"])),
        ["do the labels begin at 1?", 'data.source.classes: ["1", "2", "3"]'],
    ),
    "class numbers with gaps": (
        lambda r, f: table(f, named(ROWS, ["10", "20", "30"])),
        ["if the numbers are names", 'data.source.classes: ["10", "20", "30"]'],
    ),
    "labels that are values": (
        lambda r, f: table(f, named(ROWS, ["0.1", "0.2", "0.7"])),
        ["the task is regression"],
    ),
    "regression on texts": (lambda r, f: as_regression(r), ["write task: classification"]),
    "a metric of another task": (
        lambda r, f: r.update(task="regression", losses=[{"class_path": "Regression"}]),
        ["policy[0].metric", "`accuracy` is one of task classification", "r2"],
    ),
    "Latin-1": (lambda r, f: table(f, named(ROWS, ["süß", "oak", "elm"])), ["data.source", "encoding: cp1252"]),
    "semicolons": (
        lambda r, f: (f / "trees.csv").write_text((f / "trees.csv").read_text().replace(",", ";")),
        ['delimiter: ";" in data.source'],
    ),
    "no rows": (lambda r, f: table(f, []), ["no rows", "data.source"]),
    "an empty file": (lambda r, f: (f / "trees.csv").write_text(""), ["fill it", "data.source.path"]),
    "a missing number": (lambda r, f: table(f, [*ROWS[:-1], ",1,ash,train"]), ["data.tabular: {}"]),
    "a word among numbers": (lambda r, f: table(f, [*ROWS[:-1], "tall,1,ash,train"]), ["row", "tall"]),
    "every training row in the test split too": (
        lambda r, f: table(f, [row.rpartition(",")[0] + f",{s}" for row in ROWS for s in ("train", "test")]),
        ["they also stand in test", "out of one of them"],
    ),
    "another number of columns": (
        lambda r, f: r["student"]["init_args"]["module"]["init_args"].update(inputs=3),
        ["student", "(input [2, 2])", "data.source.inputs"],
    ),
    "the size of images": (with_images, ["[2, 3, 6, 4]", "data.images.size"]),
    "the size of images, where layers are to be paired": (
        lambda r, f: (with_images(r, f), r["losses"].append({"class_path": "Hint", "init_args": {"pairs": "auto"}})),
        ["[2, 3, 6, 4]", "data.images.size"],
    ),
    "a field in another section": (lambda r, f: r.update(steps=100), ["`training.steps`"]),
    "a device for the training": (
        lambda r, f: r["training"].update(device="cuda"),
        ["training.device", "it is `device` outside all sections or `measure.device`"],
    ),
    "one section's field in another": (lambda r, f: r["data"].update(batch_size=8), ["it is `training.batch_size`"]),
    "a module's file misspelt": (
        lambda r, f: r["student"]["init_args"]["module"].update(class_path="newcomer_net.Net"),
        ["no module named newcomer_net", "did you mean `newcomer_nets`?"],
    ),
    "a section's field outside": (lambda r, f: r.update(images={"size": 8}), ["`data.images`"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_newcomers_mistake_is_answered_with_what_mends_it(folder: Path, case: str) -> None:
    change, words = CASES[case]
    written = recipe()
    change(written, folder)
    (folder / "r.yaml").write_text(yaml.safe_dump(written))
    with pytest.raises(UserError) as raised:
        make_plan(load_recipe("r.yaml"))
    assert [word for word in words if word not in str(raised.value)] == [], str(raised.value)


def test_files_are_found_beside_the_recipe_and_first_in_the_working_folder(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "r.yaml").write_text(yaml.safe_dump(recipe()))
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    path = os.path.relpath(folder / "r.yaml", elsewhere)
    assert make_plan(load_recipe(path)).data.sizes == {"train": 12, "development": 6, "test": 6}
    table(elsewhere, ROWS[:20])  # as on the command line, what is here comes first
    planned = load_recipe(path)
    assert make_plan(planned).data.sizes["train"] == 10
    (folder / "teacher.safetensors").unlink()
    with pytest.raises(UserError, match="neither in the working folder nor beside the recipe"):
        make_plan(load_recipe(path))
    made_in_python = load_recipe(path)
    made_in_python.folder = None
    (elsewhere / "trees.csv").unlink()
    with pytest.raises(UserError, match=r"trees\.csv`, which does not"):  # not beside a recipe that was read before
        make_plan(made_in_python)


def test_a_missing_licence_hides_no_other_mistake_and_own_work_is_offered(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ModuleTeacher, "comes_from_elsewhere", True)
    written = recipe()
    written["data"]["source"]["init_args"]["path"] = "tres.csv"
    (folder / "r.yaml").write_text(yaml.safe_dump(written))
    with pytest.raises(UserError) as raised:
        make_plan(load_recipe("r.yaml"))
    told = str(raised.value)
    assert "licences.teacher" in told and "did you mean `trees.csv`?" in told
    line = next(line for line in told.splitlines() if "{use: allowed, basis: own work" in line)
    written["data"]["source"]["init_args"]["path"] = "trees.csv"
    (folder / "r.yaml").write_text(yaml.safe_dump({**written, "licences": yaml.safe_load(line)}))
    assert make_plan(load_recipe("r.yaml")).data.sizes["train"] == 12


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("views", ["data.views", "ShiftFlip"]), ("images", ["size:"]), ("splits", ["development:"]),
        ("sources", ["data.source", "ImageFolder", "Table"]), ("data.source", ["ImageFolder", "Table"]),
        ("training.loss", ["losses", "KLDivergence"]), ("losses", ["KLDivergence", "Hint"]),
    ],
)  # fmt: skip
def test_a_field_is_explained_by_the_word_that_one_has_for_it(key: str, words: list[str]) -> None:
    assert [word for word in words if word not in explain(key)] == []


@pytest.mark.parametrize(
    ("key", "mend"),
    [
        ("data.source.path", "explain ImageFolder"),
        ("steps", "training.steps"),
        ("training.lerning_rate", "training.learning_rate"),
    ],
)
def test_a_word_that_means_several_fields_lists_them(key: str, mend: str) -> None:
    with pytest.raises(RecipeError, match=mend):
        explain(key)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("chunk", ["int | null = null", "Rows that a model is asked about at once"]),
        ("training.checkpoint_seconds", ["float = 30.0", "Least time between checkpoints"]),
        ("Cached.lazy", ["bool = False", "Don't load the teacher"]),
    ],
)
def test_a_single_field_is_explained_and_not_only_named(key: str, words: list[str]) -> None:
    assert [word for word in words if word not in explain(key)] == []


def test_an_argument_of_some_classes_is_found_by_its_name() -> None:
    with pytest.raises(RecipeError, match=r"choose one of: .*Table\.teacher_columns"):
        explain("teacher_columns")
