"""What a recipe may have called: nothing but what says that it makes the part in question, and code of one's own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from broken import RECIPES, refused
from torch import nn

from tutelage.callables import TRUST, Refused, resolve
from tutelage.cli import main
from tutelage.recipe_file import build_recipe

MODULE = "student.init_args.module"
VISION = """
import functools
from torch import nn

def kept(function):
    @functools.wraps(function)
    def call(*args, **kwargs):
        return function(*args, **kwargs)
    return call

@kept
def resnet18(*, width: int = 10, **more) -> nn.Linear:
    return nn.Linear(64, width)

class Base(nn.Linear):
    def __init__(self) -> None:
        super().__init__(64, 10)

    @classmethod
    def from_pretrained(cls, width: int = 10) -> "Base":
        return cls()

def create_model(name: str, num_classes: int = 10):
    return nn.Linear(64, num_classes)
"""
HARMFUL = """
from pathlib import Path
from torch import nn
Path(__file__).with_name("IMPORTED").touch()
def anything(*args, **kwargs):
    Path(__file__).with_name("CALLED").touch()
class Plain:
    pass
class Command:
    def __init__(self, *args, **kwargs):
        anything()
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages: a library of models, and one that leaves a file when it is imported or called."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "fakevision.py").write_text(VISION)
    (folder / "harmful.py").write_text(HARMFUL)
    (tmp_path / "beside.py").write_text(HARMFUL + "def make():\n    return nn.Linear(64, 10)\n")
    for path in (tmp_path, folder):
        monkeypatch.syspath_prepend(str(path))
    monkeypatch.syspath_prepend(str(RECIPES))
    monkeypatch.delenv(TRUST, raising=False)
    yield folder
    for name in ("fakevision", "harmful", "beside"):
        sys.modules.pop(name, None)


def changed(path: str, value: object) -> dict:
    recipe = yaml.safe_load((RECIPES / "digits.yaml").read_text())
    *places, last = path.split(".")
    place = recipe
    for name in places:
        place = place.setdefault(name, {})
    place[last] = value
    return recipe


SHELL = {"command": "touch RAN"}
STDLIB = {
    "os.system": SHELL,
    "os.remove": {"path": "kept"},
    "runpy.run_path": {"path_name": "kept"},
    "subprocess.Popen": {"args": ["touch", "RAN"]},
    "urllib.request.urlretrieve": {"url": "file:///dev/null", "filename": "RAN"},
    "builtins.eval": {},
    "antigravity.geohash": {},
}


@pytest.mark.parametrize("path", STDLIB)
@pytest.mark.parametrize("place", [MODULE, "teacher.init_args.module", "student"])
def test_no_part_may_be_a_function_of_the_standard_library(
    place: str, path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("kept").write_text("open('RAN', 'w')")
    spec = {"class_path": path, "init_args": STDLIB[path]}
    shown = refused(lambda recipe, _: recipe.update(changed(place, spec)), tmp_path, capsys)
    assert f"`{path}` of Python's standard library" in shown
    assert Path("kept").exists() and not Path("RAN").exists() and "antigravity" not in sys.modules


NESTED = {
    "verbatim": ("teacher", {"class_path": "SklearnTeacher", "init_args": {"path": "t.skops"}}, "estimator"),
    "any": (
        "teacher",
        {"class_path": "FunctionTeacher", "init_args": {"function": "a:b", "gives": "logits"}},
        "arguments",
    ),
}


@pytest.mark.parametrize("kind", NESTED)
@pytest.mark.parametrize("path", ["subprocess.Popen", "harmful.Command", "harmful.anything"])
def test_what_is_named_deep_in_free_arguments_is_held_to_the_same(kind: str, path: str, installed: Path) -> None:
    key, spec, argument = NESTED[kind]
    inner = {"class_path": path, "init_args": {"args": ["touch", "RAN"]}}
    spec = {**spec, "init_args": spec["init_args"] | {argument: {"a": [{"b": inner}]}}}
    with pytest.raises(Exception, match=rf"{argument}\.a\[0\]\.b\.class_path"):
        build_recipe(changed(key, spec))
    assert not (installed / "CALLED").exists()


LOOSE = """
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, TypeVar
from torch import nn
T = TypeVar("T")
class Loose(nn.Linear):
    def __init__(
        self, iterable: Iterable[Any] = (), a_set: set[Any] = frozenset(), variable: T = None, bare: list = (),
        ordered: OrderedDict[str, Any] = None, functions: Iterable[Callable] | None = None, a_type: type = nn.Linear,
    ) -> None:
        super().__init__(64, 10)
        self.said = {name: value for name, value in locals().items() if name != "self"}
"""


@pytest.mark.parametrize(
    ("argument", "shape"),
    [
        *((argument, shape) for argument in ("iterable", "a_set", "bare", "variable") for shape in ("list", "lists")),
        ("variable", "alone"),
        ("ordered", "dict"),
        ("functions", "list"),
        ("a_type", "name"),
    ],
)
def test_what_is_named_below_a_type_of_any_kind_is_held_to_the_same(
    argument: str, shape: str, installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An argument whose annotation is none of the usual ones is a way round the rules."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "beside.py").write_text(LOOSE)
    inner = {"class_path": "os.system", "init_args": SHELL}
    value = {"alone": inner, "list": [inner], "lists": [["a", inner]], "dict": {"k": inner}, "name": "os.system"}[shape]
    with pytest.raises(Exception, match=rf"student\.module\.{argument}(?s:.*)os\.system"):
        made = build_recipe(changed(MODULE, {"class_path": "beside.Loose", "init_args": {argument: value}}))
        made.student.module()
    assert not Path("RAN").exists()


def test_lists_and_types_of_any_kind_are_given_as_they_are_written(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text(LOOSE)
    arguments = {"iterable": [1, 2], "bare": [3, "x"], "variable": {"a": [4]}, "a_type": "torch.nn.GELU"}
    made = build_recipe(changed(MODULE, {"class_path": "beside.Loose", "init_args": arguments})).student.module()
    assert {name: made.said[name] for name in arguments} == {**arguments, "a_type": nn.GELU}


REMOTE = """
import os
from pathlib import Path
from torch import nn
class Hub(nn.Linear):
    def __init__(self, path: str, trust_remote_code: bool = False, model_kwargs: dict | None = None, **more) -> None:
        if trust_remote_code or (model_kwargs or {}).get("trust_remote_code") or not more.get("weights_only", True):
            Path(__file__).with_name("CALLED").touch()
        super().__init__(64, 10)
"""


@pytest.mark.parametrize(
    "more",
    [
        {"trust_remote_code": True},
        {"trust_remote_code": 1},
        {"model_kwargs": {"trust_remote_code": True}},
        {"weights_only": False},
        {"weights_only": None},
    ],
    ids=str,
)
def test_code_that_comes_with_a_model_is_not_run_by_an_argument_of_a_library(
    more: dict, installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (installed / "fakevision.py").write_text(REMOTE)
    spec = {"class_path": "fakevision.Hub", "init_args": {"path": "hub/model", **more}}
    with pytest.raises(Exception, match=rf"{next(iter(more))}(?s:.*)--trust"):
        build_recipe(changed(MODULE, spec)).student.module()
    assert not (installed / "CALLED").exists()
    spec["init_args"] = {"path": "hub/model", "trust_remote_code": False, "weights_only": True}
    assert isinstance(build_recipe(changed(MODULE, spec)).student.module(), nn.Linear)


@pytest.mark.parametrize("name", ["harmful:anything", "os:system", "urllib.request:urlretrieve"])
def test_a_function_that_is_called_with_data_is_of_ones_own_code(name: str, installed: Path) -> None:
    for key, spec in {
        "teacher": {"class_path": "FunctionTeacher", "init_args": {"function": name, "gives": "logits"}},
        "data.source": {"class_path": "Function", "init_args": {"name": name, "arguments": {"url": "file:///x"}}},
    }.items():
        with pytest.raises(Exception, match=r"a function of your own code(?s:.*)--trust"):
            build_recipe(changed(key, spec))
    assert not (installed / "IMPORTED").exists()
    build_recipe(changed("data.source", {"class_path": "Function", "init_args": {"name": "beside:make"}}))


@pytest.mark.parametrize(
    "path", ["harmful.anything", "harmful.Plain", "harmful.missing", "beside.Plain", "beside.missing"]
)
def test_what_the_source_shows_to_be_refused_is_not_imported(path: str, installed: Path) -> None:
    with pytest.raises(Refused):
        resolve(path, nn.Module)
    assert not (installed / "IMPORTED").exists() and not (installed.parent / "IMPORTED").exists()


@pytest.mark.parametrize(
    "path",
    ["fakevision.resnet18", "fakevision.Base", "fakevision.Base.from_pretrained", "beside.make", "torch.nn.Flatten"],
)
def test_what_users_want_to_name_is_made_by_the_recipe(path: str, installed: Path) -> None:
    module = build_recipe(changed(MODULE, {"class_path": path})).student.module
    assert isinstance(module if isinstance(module, nn.Module) else module(), nn.Module)


def test_a_function_of_others_without_an_annotation_needs_trust_and_the_message_says_so(
    installed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = {"class_path": "fakevision.create_model", "init_args": {"name": "resnet18"}}
    shown = refused(lambda recipe, _: recipe.update(changed(MODULE, spec)), tmp_path, capsys)
    assert "does not say that it makes a Module" in shown and "--trust" in shown
    monkeypatch.setenv(TRUST, "0")  # put back at the end, whatever the command sets
    assert main(["doctor", str(tmp_path / "no_such.yaml"), "--trust"]) == 2
    recipe = build_recipe(yaml.safe_load((tmp_path / "recipe.yaml").read_text()))
    made = recipe.student.module
    assert isinstance(made if isinstance(made, nn.Module) else made(), nn.Linear)


def test_a_name_that_is_taken_over_from_elsewhere_is_judged_by_where_it_is_from(installed: Path) -> None:
    (installed.parent / "beside.py").write_text("from os import system\nfrom fakevision import create_model\n")
    for name in ("system", "create_model"):
        with pytest.raises(Refused, match="does not say"):
            resolve(f"beside.{name}", nn.Module)
