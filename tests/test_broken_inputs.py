"""Inputs as people bring them, each with what is wrong or odd about it: `doctor` never ends in a traceback."""

from __future__ import annotations

import copy
import csv
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from broken import put

from tutelage.cli import main

Recipe = dict[str, Any]
Case = Callable[[Path, Recipe], object]
NETS = """
import torch
from torch import nn
class Softmax(nn.Linear):
    def forward(self, x): return super().forward(x).softmax(-1)
class Untyped(nn.Module):
    def __init__(self, width=3):
        super().__init__(); self.layer = nn.Linear(2, width)
    def forward(self, x): return self.layer(x)
class Lazy(nn.Module):
    def __init__(self):
        super().__init__(); self.layer = nn.LazyLinear(3)
    def forward(self, x): return self.layer(x)
class OldNorm(nn.Module):
    def __init__(self):
        super().__init__(); self.layer = nn.utils.weight_norm(nn.Linear(2, 3))
    def forward(self, x): return self.layer(x)
class Maps(nn.Module):
    def __init__(self):
        super().__init__(); self.conv = nn.Conv2d(3, 3, 1)
    def forward(self, x): return self.conv(x)
class Picture(nn.Module):
    def __init__(self):
        super().__init__(); self.head = nn.Linear(3, 3)
    def forward(self, x): return self.head(x.mean((2, 3)))
class Coded(nn.Module):
    def __init__(self):
        super().__init__(); self.of = nn.Embedding(4, 3)
    def forward(self, x): return self.of(x).mean(1)
"""
LINEAR = {"class_path": "torch.nn.Linear", "init_args": {"in_features": 2, "out_features": 3}}
ROWS = 60


def linear(name: str) -> Recipe:
    return {"class_path": f"broken_nets.{name}", "init_args": LINEAR["init_args"]}


def rows(labels: Sequence[object] = ("x", "y", "z")) -> list[list[object]]:
    generator = np.random.default_rng(0)
    numbers = generator.normal(size=(ROWS, 2))
    return [[f"{a:.3f}", f"{b:.3f}", labels[i % len(labels)]] for i, (a, b) in enumerate(numbers)]


def write(
    path: Path,
    cells: Sequence[Sequence[object]],
    head: Sequence[str] = ("a", "b", "y"),
    *,
    delimiter: str = ",",
    encoding: str = "utf-8",
) -> None:
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=delimiter).writerows([head, *cells])


def labels(*names: object, **source: object) -> Case:
    def case(folder: Path, recipe: Recipe) -> None:
        write(folder / "x.csv", rows(names))
        recipe["data"]["source"]["init_args"] |= source

    return case


def cell(row: int, column: int, value: object) -> Case:
    def case(folder: Path, _: Recipe) -> None:
        cells = rows()
        cells[row][column] = value
        write(folder / "x.csv", cells)

    return case


def of(key: str, value: Any) -> Case:
    return lambda folder, recipe: put(key, copy.deepcopy(value))(recipe, folder)


def semicolons(folder: Path, _: Recipe) -> None:
    cells = [[str(a).replace(".", ","), str(b).replace(".", ","), y] for a, b, y in rows()]
    write(folder / "x.csv", cells, delimiter=";")


def array_in_json(folder: Path, recipe: Recipe) -> None:
    (folder / "x.json").write_text(json.dumps([{"a": float(str(a)), "b": float(str(b)), "y": y} for a, b, y in rows()]))
    recipe["data"]["source"]["init_args"]["path"] = "x.json"


def arrays(key: str, values: np.ndarray[Any, Any]) -> Case:
    """Rows of one array, in the place of the table, for two models of that name."""

    def case(folder: Path, recipe: Recipe) -> None:
        np.savez(folder / "x.npz", x=values)
        recipe["data"]["source"] = {"class_path": "Arrays", "init_args": {"inputs": "x.npz"}}
        for model in ("teacher", "student"):
            recipe[model]["init_args"]["module"] = f"broken_nets.{key}"

    return case


def maps(folder: Path, recipe: Recipe) -> None:
    recipe |= {"task": "regression", "losses": [{"class_path": "LogitMSE"}], "policy": []}
    arrays("Maps", np.random.default_rng(0).normal(size=(ROWS, 3, 4, 4)).astype(np.float32))(folder, recipe)


def high_code(folder: Path, recipe: Recipe) -> None:
    codes = np.random.default_rng(0).integers(0, 4, (ROWS, 5))
    codes[41, 2] = 4
    arrays("Coded", codes)(folder, recipe)


def images(truncated: bool) -> Case:
    def case(folder: Path, recipe: Recipe) -> None:
        from PIL import Image

        generator = np.random.default_rng(0)
        for split in ("train", "development", "test"):
            for name in "xyz":
                (folder / "images" / split / name).mkdir(parents=True)
                for number in range(4):
                    pixels = generator.integers(0, 255, (24, 24, 3)).astype(np.uint8)
                    Image.fromarray(pixels).save(folder / "images" / split / name / f"{number}.jpg")
        if truncated:
            file = folder / "images" / "test" / "y" / "3.jpg"
            file.write_bytes(file.read_bytes()[:-200])
        recipe["data"] = {"source": {"class_path": "ImageFolder", "init_args": {"path": "images"}}}
        for model in ("teacher", "student"):
            recipe[model]["init_args"]["module"] = "broken_nets.Picture"

    return case


INPUTS: dict[str, tuple[Case, int, str]] = {
    "nothing wrong": (lambda *_: None, 0, "judged by"),
    "labels of -1 and 1": (labels(-1, 1), 2, "."),
    "labels that begin at 1": (labels(1, 2, 3), 2, "logits of 4 classes"),
    "names made of digits": (labels("007", "010", "021"), 0, "3 classes"),
    "grades as names": (labels(3, 5, 8, classes=["3", "5", "8"]), 0, "3 classes"),
    "labels with a fraction": (labels(0.5, 1.5, 2.5), 2, "."),
    "one label alone": (labels("x"), 2, "."),
    "no labels": (lambda folder, recipe: recipe["data"]["source"]["init_args"].pop("label"), 0, "no baseline"),
    "texts among numbers": (cell(33, 1, "n/a?"), 2, r"n/a\?"),
    "NaN in a late row": (cell(33, 1, "nan"), 2, "33|34|NaN|missing"),
    "infinity in a late row": (cell(33, 1, "inf"), 2, "inf"),
    "an empty cell": (cell(33, 0, ""), 2, "."),
    "an unknown split": (of("data.source.init_args.split", "y"), 2, "train, development"),
    "a missing column": (of("data.source.init_args.inputs", ["a", "c"]), 2, "`?c`?"),
    "semicolons and decimal commas": (semicolons, 2, r"delimiter: .;"),
    "Latin-1": (lambda folder, _: write(folder / "x.csv", rows(["schön", "häßlich", "z"]), encoding="latin-1"), 2, "."),
    "two columns of one name": (lambda folder, _: write(folder / "x.csv", rows(), ("a", "a", "y")), 2, "a"),
    "no rows": (lambda folder, _: write(folder / "x.csv", []), 2, "row"),
    "an empty file": (lambda folder, _: (folder / "x.csv").write_text(""), 2, "."),
    "a file of zeros": (lambda folder, _: (folder / "x.csv").write_bytes(bytes(99)), 2, "."),
    "no file": (lambda folder, _: (folder / "x.csv").unlink(), 2, r"x\.csv"),
    "JSON with one array": (array_in_json, 0, "."),
    "every row the same": (lambda folder, _: write(folder / "x.csv", [["1", "2", "x"]] * ROWS), 2, "."),
    "a teacher that ends in softmax": (of("teacher.init_args.module", linear("Softmax")), 2, "softmax|probabilit"),
    "a student that ends in softmax": (of("student.init_args.module", linear("Softmax")), 2, "softmax|probabilit"),
    "arguments without a type": (of("student.init_args.module", "broken_nets.Untyped"), 0, "."),
    "a lazy student": (of("student.init_args.module", "broken_nets.Lazy"), 2, "LazyLinear"),
    "a lazy teacher": (of("teacher.init_args.module", "broken_nets.Lazy"), 2, "LazyLinear"),
    "the old weight norm": (of("student.init_args.module", "broken_nets.OldNorm"), 2, r"parametrizations\.weight_norm"),
    "values of maps": (maps, 2, r"teacher: output\n.*values of a row"),
    "a code without an embedding": (high_code, 2, r"row 41 of the data, the largest of `x`: 4"),
    "images": (images(truncated=False), 0, "judged by"),
    "an image without its end": (images(truncated=True), 2, r"3\.jpg"),
}
"""What is done to a recipe and its data; the exit status of `doctor`; what its text says."""


def test_no_input_ends_in_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One walk over all of them, with all that is wrong told at its end. Texts and exports: `checks/`."""
    (tmp_path / "broken_nets.py").write_text(NETS)
    monkeypatch.syspath_prepend(str(tmp_path))
    wrong = []
    for number, (name, (case, status, message)) in enumerate(INPUTS.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        write(folder / "x.csv", rows())
        table = {"path": "x.csv", "inputs": ["a", "b"], "label": "y"}
        recipe: Recipe = {
            "name": "odd",
            "task": "classification",
            "data": {
                "source": {"class_path": "Table", "init_args": table},
                "splits": {"development": 0.2, "test": 0.3},
            },
            "teacher": {"class_path": "ModuleTeacher", "init_args": {"module": copy.deepcopy(LINEAR)}},
            "student": {"class_path": "ModuleStudent", "init_args": {"module": copy.deepcopy(LINEAR)}},
            "losses": [{"class_path": "KLDivergence"}],
            "training": {"steps": 2, "batch_size": 8},
            "export": {"onnx": False},
            "policy": [{"metric": "agreement", "at_least": 0.1}],
        }
        case(folder, recipe)
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        monkeypatch.chdir(folder)
        found = main(["doctor", "recipe.yaml", "--no-forecast"])
        shown = "".join(capsys.readouterr())
        if found != status or "Traceback" in shown or not re.search(message, shown):
            wrong.append(f"{name}: exit status {found}, not {status}, with /{message}/\n{shown[-700:]}")
    assert not wrong, "\n\n".join(wrong)
