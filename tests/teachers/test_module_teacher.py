from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from jsonargparse import ArgumentParser
from safetensors.torch import load_file, save_file, save_model
from teacher_case import Net
from torch import Tensor, nn

from tutelage.errors import ModelError
from tutelage.teachers import ModuleTeacher, Teacher

CPU = torch.device("cpu")


class Tied(nn.Module):
    """A table that is also the output layer: safetensors stores such a tensor once."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 4)
        self.out = nn.Linear(4, 7, bias=False)
        self.out.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(self.table(ids).mean(1))


def saved(tmp_path: Path, weights: dict[str, Tensor]) -> str:
    save_file(weights, tmp_path / "net.safetensors")
    return str(tmp_path / "net.safetensors")


def load(module: object, weights: str | None = None) -> nn.Module:
    teacher = ModuleTeacher(module, weights)  # type: ignore[arg-type]
    teacher.load(CPU)
    assert teacher.module is not None
    return teacher.module


def test_weights_of_the_file_replace_those_the_module_was_made_with(tmp_path: Path) -> None:
    other = Net(seed=5)
    module = load(Net, saved(tmp_path, dict(other.state_dict())))
    for name, tensor in other.state_dict().items():
        assert torch.equal(module.state_dict()[name], tensor), name


def test_missing_and_unexpected_weights_are_named_and_not_skipped(tmp_path: Path) -> None:
    weights = dict(Net().state_dict())
    weights["haed.weight"] = weights.pop("head.weight")
    with pytest.raises(ModelError, match=r"missing: head.weight; unexpected: haed.weight"):
        load(Net, saved(tmp_path, weights))


def test_weights_of_another_shape_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"head\.weight"):
        load(Net, saved(tmp_path, dict(Net(classes=5).state_dict())))


def test_a_tied_weight_that_is_stored_once_is_not_missing(tmp_path: Path) -> None:
    tied = Tied()
    save_model(tied, str(tmp_path / "tied.safetensors"))
    assert len(load_file(tmp_path / "tied.safetensors")) == 1
    module = load(Tied, str(tmp_path / "tied.safetensors"))
    assert torch.equal(module.get_parameter("table.weight"), tied.table.weight)
    assert module.get_parameter("out.weight") is module.get_parameter("table.weight")


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path(self.path),))  # type: ignore[attr-defined, return-value]

    def __init__(self, path: Path) -> None:
        self.path = str(path)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".pkl", ".ckpt"])
def test_a_pickle_is_refused_unopened_with_a_conversion_that_works(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap = tmp_path / f"trap{suffix}"
    trap.write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    with pytest.raises(ModelError, match="unpickling runs whatever code"):
        load(Net, str(trap))
    assert not (tmp_path / "exploded").exists()

    net = Net(seed=3)
    torch.save(net.state_dict(), tmp_path / f"net{suffix}")
    with pytest.raises(ModelError) as caught:
        load(Net, str(tmp_path / f"net{suffix}"))
    lines = [line.strip() for line in str(caught.value).splitlines()]
    monkeypatch.chdir(tmp_path)
    exec("\n".join(lines[lines.index("import torch, safetensors.torch") :]), {})
    assert torch.equal(load(Net, "net.safetensors").get_parameter("head.weight"), net.head.weight)


def test_a_damaged_file_and_a_missing_one_give_a_model_error(tmp_path: Path) -> None:
    path = saved(tmp_path, dict(Net().state_dict()))
    with pytest.raises(ModelError, match=r"did you mean `net.safetensors`"):
        load(Net, str(tmp_path / "nett.safetensors"))
    Path(path).write_bytes(Path(path).read_bytes()[:-10])
    with pytest.raises(ModelError, match="safetensors"):
        load(Net, path)


def test_nan_weights_are_refused_by_name() -> None:
    net = Net()
    with torch.no_grad():
        net.conv.bias[2] = float("nan")
    with pytest.raises(ModelError, match=r"conv\.bias"):
        load(net)


def test_a_live_module_is_used_and_not_copied() -> None:
    net = Net()
    assert load(net) is net


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(ModelError, match="makes a dict"):
        load(dict)
    with pytest.raises(ModelError, match="call `load"):
        ModuleTeacher(Net).fingerprint()


def test_a_recipe_gives_a_factory_that_makes_the_module_with_its_arguments() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--teacher", type=Teacher)
    module = {"class_path": "torch.nn.Linear", "init_args": {"in_features": 3, "out_features": 2}}
    teacher = {"class_path": "tutelage.teachers.ModuleTeacher", "init_args": {"module": module}}
    teacher = parser.instantiate(parser.parse_object({"teacher": teacher})).teacher
    assert teacher.module is None
    teacher.load(CPU)
    assert isinstance(teacher.module, nn.Linear) and teacher.module.weight.shape == (2, 3)
    assert teacher.describe() == "Linear"
