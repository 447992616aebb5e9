"""A recipe names the device that it trains on; the next one in the same process is not held to it."""

from __future__ import annotations

import os

import pytest
import torch

import tutelage as tt
from tutelage.errors import RecipeError
from tutelage.plan import make_plan
from tutelage.recipe_file import parse_overrides
from tutelage.training.device import use_device
from tutelage.training.setup import make_accelerator


def recipe(device: str | None) -> tt.Recipe:
    return tt.Recipe(
        name="device",
        task="classification",
        data=tt.Data(source=tt.Arrays(torch.randn(60, 4), [0, 1] * 30)),
        teacher=tt.ModuleTeacher(torch.nn.Linear(4, 2)),
        student=tt.ModuleStudent(torch.nn.Linear(4, 2)),
        losses=[tt.losses.KLDivergence()],
        training=tt.Training(steps=1, batch_size=8),
        device=device,
    )


def test_a_named_device_is_used_and_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """`meta` stands for a second accelerator: what counts is that the accelerator is told."""
    free = make_accelerator().device
    monkeypatch.setattr("tutelage.training.device._require", lambda name: None)
    use_device("meta")
    assert make_accelerator("float32").device == torch.device("meta")
    use_device(None)
    assert make_accelerator().device == free and "ACCELERATE_TORCH_DEVICE" not in os.environ
    monkeypatch.undo()
    assert make_plan(recipe("cpu")).device == torch.device("cpu")
    use_device(None)


@pytest.mark.parametrize(
    ("device", "said"),
    [("cuda:99", "cpu"), ("gpu", "the name of none"), ("cpu:4", "OMP_NUM_THREADS"), ("mps:1", "the name of none")],
)
def test_a_device_that_is_not_here_is_refused_with_those_that_are(device: str, said: str) -> None:
    with pytest.raises(
        RecipeError,
        match=rf"a device of this machine: cpu(.|\n)*{said}" if said != "cpu" else "a device of this machine: cpu",
    ):
        make_plan(recipe(device))


def test_several_processes_are_not_sent_to_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match="2 processes"):
        use_device("cpu")


def test_it_is_an_option_of_the_command_line() -> None:
    assert parse_overrides(["--device", "cuda:1"]) == [("device", "cuda:1")]


@pytest.mark.parametrize("name", ["gpu", "GPU", "cuda:99", "tpu"])
def test_a_device_that_is_not_here_is_refused_with_one_that_is(name: str) -> None:
    """Catches a refusal without a way out, as `gpu` had, which other libraries take for a name."""
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    with pytest.raises(RecipeError, match=rf"device\n[^\0]*mend: [^\0]*device: {best}"):
        use_device(name)
