"""Teachers whose code changed while everything that names it stayed: old answers are not taken for theirs."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch

from tutelage.own_code import code_digest, without_comments
from tutelage.teachers import FunctionTeacher, ModuleTeacher, Teacher
from tutelage.teachers.source import source_digest

FILES = {
    "changing/__init__.py": "",
    "changing/asked.py": "from torch import nn\nfrom changing.inner import SCALE, closed\nSHIFT = 1\n"
    "by = closed(2)\n\ndef ask(x):\n    return by(x) * SCALE + SHIFT\n\n"
    "class Net(nn.Linear):\n    def forward(self, x):\n        return super().forward(x) * SCALE\n\n"
    "def make() -> nn.Module:\n    net = Net(2, 2)\n    nn.init.ones_(net.weight), nn.init.ones_(net.bias)\n"
    "    return net\n",
    "changing/inner.py": "from changing import deep\nSCALE = deep.SCALE\n\ndef closed(n):\n"
    "    return lambda x: x + n\n",
    "changing/deep.py": "SCALE = 3\n",
    "changing/unused.py": "SCALE = 4\n",
}
EDITS = {
    "its body": ("changing/asked.py", "return by(x)", "return -by(x)"),
    "a constant of its module": ("changing/asked.py", "SHIFT = 1", "SHIFT = 2"),
    "a value in a closure": ("changing/asked.py", "closed(2)", "closed(5)"),
    "a helper": ("changing/inner.py", "x + n", "x - n"),
    "what a helper imports": ("changing/deep.py", "3", "9"),
}


def forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "changing"]:
        del sys.modules[name]
    importlib.invalidate_caches()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    forget()
    return tmp_path


def known(kind: str) -> tuple[str, str]:
    """What a teacher is known by before and after it is loaded, in a process that has imported nothing of it."""
    forget()
    teacher: Teacher = FunctionTeacher("changing.asked:ask", "logits")
    if kind == "module":
        teacher = ModuleTeacher(importlib.import_module("changing.asked").make)
    source = source_digest(teacher)
    assert kind == "module" or "changing.asked" not in sys.modules  # a lazy one is known without running its code
    teacher.load(torch.device("cpu"))
    return source, teacher.fingerprint()


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("kind", ["function", "module"])
def test_a_teacher_whose_code_changed_is_another_one(kind: str, edit: str, home: Path) -> None:
    """Catches answers of the code before, believed for a teacher of the same name, settings and weights."""
    name, old, new = EDITS[edit]
    first = known(kind)
    assert known(kind) == first
    (home / "changing/unused.py").write_text("SCALE = 5\n")  # what it does not import is not its code
    assert known(kind) == first
    assert old in FILES[name]
    (home / name).write_text(FILES[name].replace(old, new))
    changed = known(kind)
    assert changed[0] != first[0] and changed[1] != first[1]


@pytest.mark.parametrize("kind", ["function", "module"])
def test_a_file_that_is_edited_during_a_run_does_not_make_its_teacher_another_one(kind: str, home: Path) -> None:
    """Catches a run that is thrown away at its end because a file was edited whose code it has long imported."""
    forget()
    teacher: Teacher = FunctionTeacher("changing.asked:ask", "logits")
    if kind == "module":
        teacher = ModuleTeacher(importlib.import_module("changing.asked").make)
    teacher.load(torch.device("cpu"))
    before = teacher.fingerprint()
    (home / "changing/asked.py").write_text(FILES["changing/asked.py"] + "LATER = 1\n")
    assert teacher.fingerprint() == before


def test_installed_code_is_no_code_of_ones_own() -> None:
    assert code_digest(["torch.nn", "json", "tutelage.teachers", "numpy", "no_such_module", "__main__"]) == ""


@pytest.mark.parametrize("kind", ["function", "module"])
def test_a_comment_or_an_empty_line_makes_no_other_teacher(kind: str, home: Path) -> None:
    """All answers would be asked, and paid, again."""
    before = known(kind)
    for name in ("asked", "inner"):
        path = home / "changing" / f"{name}.py"
        path.write_text("# why\n\n" + path.read_text().replace("\n", "  # so\n\n"))
    assert known(kind) == before


@pytest.mark.parametrize("text", ['"# {}"', '"""a\n\n# {}\n"""', 'f"""{{1}}\n# {}\n\n"""', '"""\n{}  \n\n"""'])
def test_what_stands_in_a_text_is_no_comment(text: str) -> None:
    one, other = (without_comments(f"x = {text.format(n)}\n".encode()) for n in (1, 2))
    assert one != other and eval(one.removeprefix(b"x = ")) == eval(text.format(1))


@pytest.mark.parametrize("content", [b"def f(:\n", b"\xff\n", b"# coding: none\n", b"x = (\n", b"\0"])
def test_a_file_that_is_no_python_is_known_by_its_bytes(content: bytes) -> None:
    assert without_comments(content).strip(b"\n") == content.strip(b"\n")


def test_lines_are_those_that_python_counts() -> None:
    """A form feed or a line separator within a line ends none: cut elsewhere, a change of code would not be seen."""
    one, other = (without_comments(f"\x0ca = '\u2028'  # why\nb = {n}  # so".encode()) for n in (1, 2))
    assert (one, other) == tuple(f"\x0ca = '\u2028'\nb = {n}".encode() for n in (1, 2))
