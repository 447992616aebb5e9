"""What README, tutorial and examples say is done as they say it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def run(*command: str, folder: Path, statuses: tuple[int, ...] = (0,)) -> str:
    done = subprocess.run(
        command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode in statuses, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_teachers_of_tutorial_and_example_see_training_rows_alone() -> None:
    fits = r"(?s)cross_entropy\((?:net|teacher)\((\w+)\), (\w+)\)"
    tutorial, example = (ROOT / "docs" / "tutorial.md").read_text(), (ROOT / "examples/your_own_model.py").read_text()
    assert re.findall(fits, tutorial) == [("x", "y")]
    assert "torch.tensor(inputs[train]" in tutorial and ".fit(table.data[train])" in tutorial
    assert re.findall(fits, example) == [("seen_images", "seen_labels")] and "split=split" in example
    assert "split: split" in tutorial


def test_tutorial_from_nothing_to_a_verdict(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "tutorial.md").read_text()
    for kind, name, body in re.findall(r"```(python|yaml)\n# (\w+\.(?:py|yaml))[^\n]*\n(.*?)```", text, re.DOTALL):
        del kind
        (tmp_path / name).write_text(body)
    python, tutelage = sys.executable, [sys.executable, "-m", "tutelage"]
    run(python, "make_example.py", folder=tmp_path)
    assert "layers of the student" in run(*tutelage, "doctor", "wine.yaml", "--layers", folder=tmp_path)
    shown = run(*tutelage, "distill", "wine.yaml", "--out", "runs/wine", folder=tmp_path, statuses=(0, 1, 3))
    assert re.search(r"^(PASS|FAIL|INCONCLUSIVE)$", shown, re.MULTILINE)
    promised = re.search(r"```\n((?:PASS|FAIL|INCONCLUSIVE)\n.*?)```", text, re.DOTALL)
    assert promised
    for line in promised[1].splitlines()[1:]:  # not the numbers: another processor trains a little otherwise
        told = re.split(r" is | [0-9+-]|: ", line.removeprefix("  PASS         "))[0]
        assert told in shown, line
    assert (tmp_path / "runs/wine/bundle/report.html").stat().st_size > 20_000
    use = re.search(r"```python\n(import numpy, onnxruntime\n.*?)```", text, re.DOTALL)
    assert use
    (tmp_path / "use.py").write_text(use[1] + "\nprint(logits.shape)\n")
    assert "(1, 3)" in run(python, "use.py", folder=tmp_path)
    assert "all agree" in run(*tutelage, "evaluate", "runs/wine", folder=tmp_path, statuses=(0, 1, 3))


def test_example_with_own_module_and_arrays_ends_with_a_verdict(tmp_path: Path) -> None:
    shutil.copy(ROOT / "examples" / "your_own_model.py", tmp_path)
    shown = run(sys.executable, "your_own_model.py", folder=tmp_path)
    assert re.search(r"^(PASS|FAIL|INCONCLUSIVE)$", shown, re.MULTILINE)
    assert (tmp_path / "runs/your-own-model/bundle/report.html").exists()


def test_the_page_of_the_losses_is_what_their_docstrings_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it fails: `python tools/losses_page.py`."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from losses_page import PAGE, page

    assert PAGE.read_text(encoding="utf-8") == page()


def test_every_file_that_the_readme_names_exists() -> None:
    text = (ROOT / "README.md").read_text()
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (ROOT / path).exists(), path


def test_every_file_is_short_enough_to_hold_in_the_head_or_says_why_not() -> None:
    for path in [*ROOT.glob("src/**/*.py"), *ROOT.glob("tests/**/*.py")]:
        text = path.read_text()
        reason = "Longer than 400 lines because" in text.split('"""')[1] if text.startswith('"""') else False
        assert len(text.splitlines()) <= 400 or reason, path


def test_the_loop_of_ones_own_learns(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "your_own_loop.md").read_text()
    loop = re.search(r"```python\n# loop\.py\n(.*?)```", page, re.DOTALL)
    assert loop and len([line for line in loop[1].splitlines() if line]) <= 30
    (tmp_path / "loop.py").write_text(loop[1])
    first, last = map(float, run(sys.executable, "loop.py", folder=tmp_path).split(" -> "))
    assert last < 0.6 * first


def test_a_teacher_in_a_loop_of_ones_own_is_asked_once_and_not_again_in_a_second_process(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "your_own_loop.md").read_text()
    loop = re.search(r"```python\n# stored\.py\n(.*?)```", page, re.DOTALL)
    assert loop
    (tmp_path / "stored.py").write_text(loop[1])
    for asked in (256, 0):
        assert run(sys.executable, "stored.py", folder=tmp_path).strip() == f"rows asked: {asked}"
