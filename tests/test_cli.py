"""The commands, as a user meets them."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tutelage.cli import main

RECIPE = Path(__file__).parent.parent / "recipes" / "digits.yaml"


def test_help_and_import_do_not_load_torch() -> None:
    heavy = ["torch", "numpy", "pyarrow", "transformers", "jsonargparse", "yaml"]
    loaded = f"print([m for m in {heavy} if m in sys.modules])"
    code = f"import sys, tutelage, tutelage.cli; tutelage.cli.build_parser(); {loaded}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_takes_no_longer_than_python_itself_and_a_little() -> None:
    def seconds(*arguments: str) -> float:
        times = []
        for _ in range(5):
            began = time.perf_counter()
            subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
            times.append(time.perf_counter() - began)
        return statistics.median(times)

    assert seconds("-m", "tutelage", "--help") < 0.3 + seconds("-c", "pass")


@pytest.mark.parametrize("command", ["distill", "doctor", "measure", "evaluate", "report", "explain", "completion"])
def test_each_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert "exit status" in capsys.readouterr().out


def test_doctor_shows_the_plan_and_trains_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["doctor", str(RECIPE), "--layers"]) == 0
    shown = capsys.readouterr().out
    for text in (
        "38,410 parameters",
        "910 parameters",
        "150 training rows",
        "hidden.1",
        "(2, 512)",
        "forecast",
        "KLDivergence",
    ):
        assert text in shown, shown


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("", "losses: [Loss, ...]"),
        ("training", "clip_norm: float | null = 1.0"),
        ("losses", "AttentionTransfer"),
        ("KLDivergence", "temperature: float = 4.0"),
        ("data.source", "ImageFolder"),
        ("Splits", "development: float = 0.1"),
        ("budget", "latency_vs_teacher"),
    ],
)
def test_explain_says_what_a_recipe_may_say(key: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", key]) == 0
    assert text in capsys.readouterr().out


def test_explain_of_nothing_known_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "trainning"]) == 2
    assert "`training`" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_commands_and_fields(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    shown = capsys.readouterr().out
    assert "distill" in shown and "--training.learning_rate" in shown


def test_completion_script_is_one_that_bash_reads(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    main(["completion", "bash"])
    script = tmp_path / "completion.sh"
    script.write_text(capsys.readouterr().out)
    subprocess.run(["bash", "-n", str(script)], check=True)
