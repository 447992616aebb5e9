"""A bundle of one's own modules stands alone: it carries their source, which is run where somebody says so."""

from __future__ import annotations

import hashlib
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tutelage.errors import ModelError
from tutelage.export import load_student, save_student
from tutelage.export.module_spec import build_from_spec

FILES = {
    "own_nets/__init__.py": "WIDTH = 5\n",
    "own_nets/net.py": "from torch import nn\nimport numpy\nfrom . import WIDTH\nfrom own_layers import Scaled\n\n\n"
    "class Net(nn.Module):\n    def __init__(self, inputs):\n        super().__init__()\n"
    "        self.a, self.b = nn.Linear(inputs, WIDTH), Scaled(2.0)\n\n"
    "    def forward(self, x):\n        return self.b(self.a(x))\n",
    "own_layers.py": "from torch import nn\n\n\nclass Scaled(nn.Module):\n    def __init__(self, by):\n"
    "        super().__init__()\n        self.by = by\n\n    def forward(self, x):\n        return x * self.by\n",
    "own_nets/unused.py": "raise RuntimeError\n",
}
SPEC = {"class_path": "own_nets.net.Net", "init_args": {"inputs": 3}}
X = torch.linspace(-1, 1, 6).reshape(2, 3)


def forget() -> None:
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, Tensor]]:
    """A bundle, made where the modules can be imported and used where they can't, and what its student says."""
    home = tmp_path / "home"
    for name, text in FILES.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    with monkeypatch.context() as at_home:
        at_home.syspath_prepend(str(home))
        student = build_from_spec(SPEC, key="spec").eval()
        assert save_student(student, tmp_path / "bundle", spec=SPEC, example=X)["loads"]
        assert torch.equal(load_student(str(tmp_path / "bundle"))(X), student(X))
    forget()
    importlib.invalidate_caches()
    yield tmp_path / "bundle", student(X).detach()
    forget()


def test_its_files_are_those_that_its_module_needs_and_no_others(bundle: tuple[Path, Tensor]) -> None:
    folder, _ = bundle
    config = json.loads((folder / "config.json").read_text())
    needed = {name for name in FILES if "unused" not in name}
    assert {about["file"] for about in config["sources"].values()} == {f"source/{name}" for name in needed}
    assert {path.relative_to(folder / "source").as_posix() for path in (folder / "source").rglob("*.py")} == needed
    for about in config["sources"].values():
        content = FILES[about["file"].removeprefix("source/")].encode()
        assert (folder / about["file"]).read_bytes() == content
        assert about["sha256"] == hashlib.sha256(content).hexdigest()


def test_elsewhere_nothing_of_it_runs_until_somebody_says_so(bundle: tuple[Path, Tensor], tmp_path: Path) -> None:
    folder, said = bundle
    with pytest.raises(ModelError, match=r"source/own_layers\.py(.|\n)*source=\"bundle\""):
        load_student(str(folder))
    assert not any(name.startswith("own_") for name in sys.modules)
    assert torch.equal(load_student(folder, source="bundle")(X), said)
    assert not any(name.startswith("own_") for name in sys.modules)
    code = (
        f"import torch; from tutelage.export import load_student; print(load_student({str(folder)!r}, source='bundle')"
    )
    code += "(torch.linspace(-1, 1, 6).reshape(2, 3)).tolist())"
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    torch.testing.assert_close(torch.tensor(json.loads(ran.stdout)), said)
    assert not list(folder.rglob("__pycache__"))  # the bundle is as it was


def test_another_module_of_the_same_name_stays_what_it_is(
    bundle: tuple[Path, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, said = bundle
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "own_layers.py").write_text("Scaled = None\n")
    monkeypatch.syspath_prepend(str(tmp_path / "other"))
    other = importlib.import_module("own_layers")
    assert torch.equal(load_student(folder, source="bundle")(X), said)
    assert sys.modules["own_layers"] is other


@pytest.mark.parametrize("how", ["changed", "missing", "elsewhere"])
def test_a_file_that_was_not_stored_with_the_student_is_not_run(how: str, bundle: tuple[Path, Tensor]) -> None:
    folder, _ = bundle
    file, config = folder / "source" / "own_layers.py", json.loads((folder / "config.json").read_text())
    marker = folder.parent / "ran"
    evil = f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n{FILES['own_layers.py']}"
    if how == "elsewhere":
        (folder.parent / "evil.py").write_text(evil)
        config["sources"]["own_layers"] = {
            "file": "source/../../evil.py",
            "sha256": hashlib.sha256(evil.encode()).hexdigest(),
        }
        (folder / "config.json").write_text(json.dumps(config))
    elif how == "changed":
        file.write_text(evil)
    else:
        file.unlink()
    with pytest.raises(ModelError, match="stored with the student"):
        load_student(folder, source="bundle")
    assert not marker.exists()


def test_a_class_of_an_installed_package_is_not_carried_but_named(tmp_path: Path) -> None:
    from importlib.metadata import version

    from transformers.activations import NewGELUActivation

    spec = {"class_path": "transformers.activations.NewGELUActivation", "init_args": {}}
    stored = torch.nn.Sequential(NewGELUActivation(), torch.nn.Linear(3, 2))
    whole = {"class_path": "tutelage.export.module_spec.sequence"}
    layers = {"0": spec, "1": {"class_path": "torch.nn.Linear", "init_args": {"in_features": 3, "out_features": 2}}}
    save_student(stored, tmp_path, spec={**whole, "init_args": {"layers": layers}}, example=X)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["requires"] == [f"transformers=={version('transformers')}"] and "sources" not in config
    text = (tmp_path / "config.json").read_text().replace("transformers.activations", "not_installed.activations")
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError, match=f"pip install transformers=={version('transformers')}"):
        load_student(tmp_path)


@pytest.mark.parametrize("changed", ["own_layers.py", "own_nets/net.py"])
def test_other_code_under_the_same_name_is_not_taken_for_that_of_the_student(
    changed: str, bundle: tuple[Path, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a helper or a class that was edited since: the stored weights would answer otherwise than reported."""
    folder, said = bundle
    home = tmp_path / "home"
    monkeypatch.syspath_prepend(str(home))
    (home / changed).write_text("# a comment changes nothing\n" + FILES[changed])
    assert torch.equal(load_student(folder)(X), said)
    forget()
    (home / changed).write_text(FILES[changed].replace("return x * self.by", "return x + self.by") + "EDITED = 1\n")
    importlib.invalidate_caches()
    with pytest.raises(ModelError, match=rf"other code [^\0]*{changed}[^\0]*source=\"bundle\""):
        load_student(folder)
    assert torch.equal(load_student(folder, source="bundle")(X), said)
