"""Limits of the system and absurd inputs end in a message that says what to do, never in a traceback."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tutelage import pipeline
from tutelage.bundle import licence_line
from tutelage.cli import main
from tutelage.markdown import plain
from tutelage.training.checkpoint import load_weights, save_weights

RECIPE = Path(__file__).parent.parent / "recipes" / "digits.yaml"


def refused(capsys: pytest.CaptureFixture[str], *words: str, status: int = 2) -> str:
    found = main(list(words))
    shown = capsys.readouterr().err
    assert found == status and "Traceback" not in shown and len(shown) < 4000, shown[:4000]
    return shown


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[" * 600, "deeper than can be read"),
        ("name: " + "{a: " * 600, "deeper than can be read"),
        ("seeds: [" + "9" * 5000 + "]", "4,300 digits"),
        ("name: 2024-99-99", "month must be in 1..12"),
    ],
    ids=["deep list", "deep mapping", "digits", "no such day"],
)
@pytest.mark.parametrize("where", ["file", "override"])
def test_yaml_that_python_cannot_read_is_refused_by_name(
    where: str, text: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text)
    words = [str(recipe)] if where == "file" else [str(RECIPE), "--data.limit", text.partition(": ")[2] or text]
    shown = refused(capsys, "doctor", *words)
    assert told in shown and ("recipe.yaml" if where == "file" else "--data.limit") in shown


@pytest.mark.parametrize(
    "words",
    [
        ("distill", str(RECIPE), "--out", "o" * 5000),
        ("distill", str(RECIPE), "--name", "n" * 5000),
        ("doctor", "r" * 5000 + ".yaml"),
        (
            "doctor",
            str(RECIPE),
            "--data.source",
            "{class_path: Table, init_args: {inputs: [a], path: " + "p" * 5000 + "}}",
        ),
        ("doctor", str(RECIPE), "--" + "k" * 5000, "1"),
        ("evaluate", "b" * 5000),
        ("report", "b" * 5000),
        ("ledger", "l" * 5000),
    ],
    ids=["out", "name", "recipe", "source", "key", "evaluate", "report", "ledger"],
)
def test_names_of_5000_letters_are_refused(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(capsys, *words)


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EFBIG, "larger than is allowed"),
        (errno.EROFS, "read-only"),
        (errno.EMFILE, "too many files"),
    ],
)
def test_a_limit_of_the_machine_is_said_with_the_file_and_how_to_go_on(
    number: int, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def met(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), "run/work/best.safetensors")

    monkeypatch.setattr(pipeline, "distill", met)
    shown = refused(capsys, "distill", str(RECIPE), status=4)
    assert told in shown and "best.safetensors" in shown and "goes on from the last checkpoint" in shown


def test_weights_that_do_not_fit_leave_those_of_before_and_an_error_of_the_system(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    save_weights(path, {"a": torch.ones(2)}, 1)
    code = (
        "import resource, sys, torch; from pathlib import Path; from tutelage.training.checkpoint import save_weights\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "try: save_weights(Path(sys.argv[1]), {'a': torch.ones(100_000)}, 2)\n"
        "except OSError as error: print(error.errno, error.filename)"
    )
    paths = {"PYTHONPATH": os.pathsep.join(sys.path)}
    said = subprocess.run(
        [sys.executable, "-c", code, str(path)], env=os.environ | paths, capture_output=True, text=True, check=False
    )
    assert said.stdout.split() == [str(errno.EFBIG), str(path)], said
    assert load_weights(path).step == 1 and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cat", "cat"),
        ("a|b", r"a\|b"),
        ("<img src=x onerror=alert(1)>", r"\<img src=x onerror=alert(1)\>"),
        ("[click](http://x)", r"\[click\](http://x)"),
        ("two\n# lines\r\nand\x00more", "two # lines and more"),
        ("**bold** `_x_ log_loss", r"\*\*bold\*\* \`\_x\_ log_loss"),
        ("set `training.steps`", "set `training.steps`"),
        ("back\\slash &lt;", r"back\\slash \&lt;"),
    ],
)
def test_text_from_data_is_no_markup_in_the_card(text: str, shown: str) -> None:
    assert plain(text) == shown


def test_a_teachers_licence_is_no_markup_in_the_card() -> None:
    record = {"teacher": "<b>x", "use": "a|b", "basis": "[y](z)", "date": "", "accepted_although_unknown": False}
    assert "<b>" not in licence_line("teacher", record).replace("\\<", "") and r"a\|b" in licence_line(
        "teacher", record
    )
