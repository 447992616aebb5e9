"""A wrong export is found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from tutelage.errors import ModelError
from tutelage.export import compare, export_onnx

ROWS = 50


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tensor, Tensor]:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    path = tmp_path_factory.mktemp("agreement") / "model.onnx"
    export_onnx(module, torch.randn(2, 8), path)
    x = torch.randn(ROWS, 8)
    with torch.no_grad():
        return path, x, module(x)


def changed(path: Path, folder: Path, amount: float) -> Path:
    """The file with something added to the bias of one class."""
    model = onnx.load(str(path))
    for tensor in model.graph.initializer:
        if list(tensor.dims) == [4]:
            bias = numpy_helper.to_array(tensor).copy()
            bias[2] += amount
            tensor.CopyFrom(numpy_helper.from_array(bias, tensor.name))
    onnx.save(model, str(folder / "changed.onnx"))
    return folder / "changed.onnx"


def test_a_right_export_agrees_at_batch_sizes_that_were_never_traced(exported) -> None:
    path, x, expected = exported
    found = compare(path, x.split(20), expected.split(20), class_axis=-1)
    assert found["agrees"]
    assert found["flips"] == 0
    assert found["rows"] == ROWS
    assert found["batch_sizes"] == [1, 3, 10, 20]
    assert 0 <= found["mean_abs_difference"] <= found["max_abs_difference"] < 1e-5
    assert found["tolerance"] == pytest.approx(1e-4 * max(1.0, float(expected.abs().max())))


@pytest.mark.parametrize("amount", [1e-3, 0.7])
def test_one_wrong_weight_is_found_and_its_flips_are_counted(exported, tmp_path: Path, amount: float) -> None:
    path, x, expected = exported
    found = compare(changed(path, tmp_path, amount), x.split(20), expected, class_axis=-1)
    wrong = expected.numpy() + np.array([0, 0, amount, 0], dtype=np.float32)
    assert not found["agrees"]
    assert found["max_abs_difference"] == pytest.approx(amount, rel=1e-2)
    assert found["mean_abs_difference"] == pytest.approx(amount / 4, rel=1e-2)
    assert found["flips"] == int((wrong.argmax(1) != expected.numpy().argmax(1)).sum())
    assert found["flips"] > 0


def near_ties(gap: float) -> tuple[Tensor, Tensor]:
    """Logits of 6 rows, and the same with the first two classes of row 2 swapped; they are `gap` apart."""
    logits = torch.tensor([[4.0, 0.0, -3.0]]).repeat(6, 1)
    logits[2, 1] = 4.0 - gap
    swapped = logits.clone()
    swapped[2, :2] = logits[2, :2].flip(0)
    return logits, swapped


class Same(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 1.0


@pytest.mark.parametrize(("gap", "agrees"), [(3e-4, True), (3e-2, False)])
def test_a_flip_passes_only_in_a_tie(tmp_path: Path, gap: float, agrees: bool) -> None:
    logits, swapped = near_ties(gap)
    export_onnx(Same(), logits, tmp_path / "net.onnx")
    found = compare(tmp_path / "net.onnx", [logits], swapped, class_axis=-1, tolerance=1e-3)
    assert (found["agrees"], found["flips"], found["flips_beyond_ties"]) == (agrees, 1, int(not agrees))


def test_a_flip_between_classes_further_apart_than_the_tolerance_fails_although_the_difference_is_within_it(
    tmp_path: Path,
) -> None:
    # 1.5 tolerances apart, and each output of row 4 moves by 0.8: the difference alone would pass.
    expected = torch.tensor([[1.0, 1.0 - 1.5e-3, 0.0]] * 6)
    moved = expected.clone()
    moved[4] += torch.tensor([-8e-4, 8e-4, 0.0])
    export_onnx(Same(), moved, tmp_path / "net.onnx")
    found = compare(tmp_path / "net.onnx", [moved], expected, class_axis=-1, tolerance=1e-3)
    assert found["max_abs_difference"] < found["tolerance"]
    assert (found["agrees"], found["flips"], found["flips_beyond_ties"]) == (False, 1, 1)
    without_classes = compare(tmp_path / "net.onnx", [moved], expected, tolerance=1e-3)
    assert (without_classes["agrees"], without_classes["flips_beyond_ties"]) == (True, None)


def test_only_the_last_row_of_the_last_batch_is_wrong(exported) -> None:
    path, x, expected = exported
    doctored = expected.clone()
    doctored[-1, 0] += 2e-4 * max(1.0, float(expected.abs().max()))
    assert not compare(path, x.split(20), doctored)["agrees"]


def test_a_row_of_many_classes_flips_once_if_any_of_them_does(tmp_path: Path) -> None:
    class TokenClassifier(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 2.0 * x

    logits = torch.randn(6, 5, 3, generator=torch.Generator().manual_seed(0))
    export_onnx(TokenClassifier(), logits, tmp_path / "net.onnx")
    doctored = 2.0 * logits
    doctored[1, 4] = doctored[1, 4].flip(0) + torch.tensor([9.0, 0.0, 0.0]) * (doctored[1, 4].argmax() != 0)
    doctored[3, :2, int(doctored[3, 0].argmin())] += 100.0
    flipped = (doctored.numpy().argmax(-1) != logits.numpy().argmax(-1)).any(1)
    found = compare(tmp_path / "net.onnx", [logits], doctored, class_axis=-1)
    assert found["flips"] == int(flipped.sum()) > 0


def test_outputs_that_are_no_classes_have_no_flips(exported) -> None:
    path, x, expected = exported
    assert compare(path, [x], [expected])["flips"] is None


def test_nan_never_agrees_and_stays_json(exported) -> None:
    path, x, expected = exported
    doctored = expected.clone()
    doctored[3, 1] = torch.nan
    found = compare(path, [x], [doctored])
    assert not found["agrees"]
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        (lambda x: x.split(20), lambda y: y.split(25)),
        (lambda x: x.split(20), lambda y: y.split(20)[:2]),
        (lambda x: x.split(20), lambda y: y[:-1]),
        (lambda x: x.split(20)[:2], lambda y: y),
        (lambda x: [], lambda y: []),
    ],
)
def test_outputs_that_are_not_those_of_the_inputs_are_refused(exported, inputs, outputs) -> None:
    path, x, expected = exported
    with pytest.raises(ModelError):
        compare(path, inputs(x), outputs(expected))


def test_a_graph_that_gives_another_shape_or_can_not_run_does_not_agree(exported) -> None:
    path, x, expected = exported
    for inputs, outputs in (([x], [expected[:, :3]]), ([x[:, :5]], [expected])):
        found = compare(path, inputs, outputs, class_axis=-1)
        assert not found["agrees"]
        assert "shape" in found["error"] or "input [50, 5]" in found["error"]
        json.dumps(found, allow_nan=False)


def test_a_batch_that_was_traced_as_a_number_is_found(tmp_path: Path) -> None:
    class TwoRows(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(2, -1)

    # x.reshape(2, -1) can be traced with a free batch axis and is right for two rows alone.
    export_onnx(TwoRows(), torch.randn(2, 6), tmp_path / "net.onnx")
    x = torch.randn(4, 6)
    assert not compare(tmp_path / "net.onnx", x.split(2), x)["agrees"]


@pytest.mark.parametrize("column", [0, 1])
def test_a_value_in_small_units_is_compared_as_closely_as_one_in_large_ones(tmp_path: Path, column: int) -> None:
    """Outputs of 250,000 and of 0.002: a graph whose second output is off by all of its spread is another model."""
    torch.manual_seed(0)
    net, x = nn.Linear(4, 2), torch.randn(60, 4)
    with torch.no_grad():
        net.weight.mul_(torch.tensor([[70_000.0], [0.002]]))
        net.bias.copy_(torch.tensor([250_000.0, 0.01]))
        eager = net(x)
    export_onnx(net.eval(), x[:2], tmp_path / "net.onnx")
    found = compare(tmp_path / "net.onnx", [x], [eager], values=True, tolerance=1e-3)
    assert found["agrees"]
    assert found["unit"] == "deviations"
    off = eager.clone()
    off[:, column] += 0.1 * off[:, column].std()
    assert not compare(tmp_path / "net.onnx", [x], [off], values=True, tolerance=1e-3)["agrees"]
    apart = ((off[:, column] - eager[:, column]).double().abs() / off[:, column].double().std(correction=0)).max()
    measured = compare(tmp_path / "net.onnx", [x], off, values=True, tolerance=1e-3)["max_abs_difference"]
    assert measured == pytest.approx(float(apart), rel=1e-3)
