"""The user's own code fails: a message that names the key and the error, exit status 2, no run folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from broken import RECIPES, Change, Recipe, put, refused

MODULE = "student.init_args.module"
NET = "import torch\n\nclass Net(torch.nn.Linear):\n"
INIT = "    def __init__(self):\n        super().__init__(64, 10)\n"


def code(name: str, text: str, path: str, value: object) -> Change:
    """A change that writes a module beside the recipe and names it there."""

    def change(recipe: Recipe, folder: Path) -> None:
        (folder / f"{name}.py").write_text(text)
        put(path, value)(recipe, folder)

    return change


def net(name: str, body: str) -> Change:
    return code(name, NET + body, MODULE, {"class_path": f"{name}.Net"})


def source(name: str, text: str) -> Change:
    return code(name, text, "data", {"source": {"class_path": "Function", "init_args": {"name": f"{name}:rows"}}})


def raising_teacher(recipe: Recipe, folder: Path) -> None:
    text = "def make():\n    raise ConnectionError('the store is shut')\n"
    code("shut_store", text, "teacher.init_args.module", "shut_store.make")(recipe, folder)


LOSS = """
import torch
from tutelage.losses import KLDivergence

class Fussy(KLDivergence):
    def __init__(self, *, weight: float = 1.0) -> None:
        super().__init__(weight=weight)
        raise LookupError("no table")
"""
BROKEN: dict[str, tuple[Change, str]] = {
    "unreadable module": (
        net("unreadable", "  def (\n"),
        r"student\.module\.class_path\n.*\n.*unreadable.*SyntaxError",
    ),
    "module that fails": (
        code("unlicensed", "raise RuntimeError('no licence')\n" + NET + INIT, MODULE, "unlicensed.Net"),
        r"student\.module\.class_path\n.*\n.*RuntimeError: no licence \(unlicensed\.py, line 1\)",
    ),
    "module that ends Python": (
        code("leaving", "import sys\nsys.exit(1)\n" + NET + INIT, MODULE, "leaving.Net"),
        r"student\.module\.class_path\n.*\n.*SystemExit",
    ),
    "relative path": (put(MODULE, ".models.Net"), r"student\.module\.class_path\n.*\n.*leading dot"),
    "function of C": (put(MODULE, "math.hypot"), r"student\.module\.class_path\n.*\n.*math\.hypot"),
    "constructor of the student": (
        net("full_disk", "    def __init__(self):\n        raise OSError('disk full')\n"),
        r"student\.module\n.*\n.*OSError: disk full \(full_disk\.py, line 5\)",
    ),
    "factory of the teacher": (raising_teacher, r"teacher\.module\n.*\n.*ConnectionError: the store is shut"),
    "forward": (
        net("attributeless", INIT + "    def forward(self, x):\n        return self.nothing(x)\n"),
        r"student: the student on the first two rows[^\0]*AttributeError.*nothing",
    ),
    "forward that asserts": (
        net("asserting", INIT + "    def forward(self, x):\n        assert x.dim() == 7\n"),
        r"student: the student on the first two rows[^\0]*AssertionError \(asserting\.py, line 7\)",
    ),
    "source": (
        source("dividing", "def rows():\n    return 1 / 0\n"),
        r"data: data\.source: `dividing:rows`\n.*\n.*ZeroDivisionError: division by zero \(dividing\.py, line 2\)",
    ),
    "unreadable source": (source("unreadable_rows", "def rows(:\n"), r"data: data\.source\.name\n.*\n.*SyntaxError"),
    "constructor of a loss": (
        code("fussy", LOSS, "losses.1", {"class_path": "fussy.Fussy"}),
        r"losses\[1\]\n.*\n.*LookupError: no table \(fussy\.py, line 8\)",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_error_of_the_users_own_code_names_the_key(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(RECIPES))
    monkeypatch.syspath_prepend(str(tmp_path))
    change, message = BROKEN[name]
    shown = refused(change, tmp_path, capsys)
    assert re.search(message, shown), shown
