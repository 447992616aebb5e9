"""The commands, as a user meets them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tutelage.cli import main

RECIPE = Path(__file__).parent.parent / "recipes" / "digits.yaml"


def test_import_and_help_load_no_other_package_so_that_they_are_as_quick_as_python() -> None:
    def loaded(code: str) -> set[str]:
        listed = "print(*{name.split('.')[0] for name in sys.modules} - sys.stdlib_module_names)"
        done = subprocess.run(
            [sys.executable, "-c", f"import sys; {code}; {listed}"], capture_output=True, text=True, check=True
        )
        return set(done.stdout.split())

    here = loaded("pass")  # what an installed package's .pth file loads into any Python
    assert loaded("import tutelage, tutelage.cli; tutelage.cli.build_parser()") - here == {"tutelage"}


@pytest.mark.parametrize(
    "command",
    ["distill", "doctor", "match", "measure", "evaluate", "report", "ledger", "explain", "completion", "generate"],
)
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


@pytest.mark.parametrize("place", ["before", "after"])
def test_overrides_may_stand_before_and_after_the_recipe(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ["--training.steps", "7", "--losses.0.temperature=2"]
    words = [*overrides, str(RECIPE)] if place == "before" else [str(RECIPE), *overrides]
    assert main(["doctor", "--no-forecast", *words]) == 0
    assert "7 of 64 rows" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["--outt", "--ou", "--frehs", "--outt=3"])
def test_a_misspelt_option_is_not_taken_for_a_field_of_the_recipe(
    word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["distill", str(RECIPE), word, "3"]) == 2
    shown = capsys.readouterr().err
    assert "did you mean `--fresh`" in shown if "fre" in word else "did you mean `--out`" in shown


@pytest.mark.parametrize(("given", "kept"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_wait_asleep_unless_told_otherwise(given: str | None, kept: str) -> None:
    code = (
        "import os, sys, tutelage.cli as cli\n"
        "cli._explain = lambda *_: (0, os.environ['OMP_WAIT_POLICY'] + str('torch' in sys.modules))\n"
        "cli.main(['explain'])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {} if given is None else {"OMP_WAIT_POLICY": given}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == kept + "False"  # set before torch reads it


def test_an_error_that_nobody_foresaw_is_not_a_fail(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(key: str) -> str:
        raise ZeroDivisionError("of our own making")

    monkeypatch.setattr("tutelage.explain.explain", stumble)
    assert main(["explain"]) == 4
    assert "ZeroDivisionError: of our own making" in capsys.readouterr().err


def test_a_fail_stays_a_fail_when_nobody_reads_it() -> None:
    code = (
        "import sys, tutelage.cli as cli\n"
        "cli._explain = lambda *_: (1, 'FAIL\\n' * 99)\n"
        "sys.exit(cli.main(['explain']))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 1
    assert said == ""


def test_measuring_on_a_device_that_is_not_here_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["measure", str(tmp_path), "--device", "cuda:99"]) == 2
    assert "--device" in capsys.readouterr().err


def test_measuring_no_rows_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["measure", str(tmp_path), "--batch-sizes", "1,0"]) == 2
    assert "--batch-sizes" in capsys.readouterr().err


def test_help_says_what_the_exit_status_of_evaluate_means(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    assert "1 when what is stored differs" in capsys.readouterr().out


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
