from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_model
from torch import nn

from tutelage.devices.size import size_of, size_of_onnx


class Tied(nn.Module):
    """A language model's head that shares its table, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(100, 8)
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 100, bias=False)
        self.head.weight = self.table.weight


def test_a_tied_table_counts_once_in_parameters_and_bytes() -> None:
    size = size_of(Tied())
    assert size.parameters == 800 + 16
    assert size.embedding_parameters == 800
    # running mean and variance, and an int64 counter, are stored too
    assert size.size_bytes == 4 * (800 + 16 + 16) + 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_are_those_of_the_safetensors_file(tmp_path: Path, dtype: torch.dtype) -> None:
    module = Tied().to(dtype)
    file = tmp_path / "model.safetensors"
    save_model(module, str(file))
    header = 8 + int.from_bytes(file.read_bytes()[:8], "little")
    assert size_of(module).size_bytes == file.stat().st_size - header


def test_views_of_different_shape_on_one_storage_are_different_tensors() -> None:
    module = nn.Module()
    storage = torch.zeros(10)
    module.a = nn.Parameter(storage[:4])
    module.b = nn.Parameter(storage[:10])
    assert size_of(module).size_bytes == 4 * 14


def test_an_onnx_file_counts_its_initializers(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(torch.zeros(3, 5).numpy(), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["input", "w"], ["output"])],
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 5])],
        [weight],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph), str(path))
    size = size_of_onnx(path)
    assert (size.parameters, size.size_bytes) == (15, path.stat().st_size)
