"""Whole measurements. Times are never compared closely: the machine is shared."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from tutelage.devices import Cost, ModelForms, measure_cost
from tutelage.devices import measure as measure_module
from tutelage.errors import RunError, UserError

WIDTH = 1280


def chain(path: Path, layers: int, *, width: int = WIDTH) -> Path:
    """An ONNX file of `layers` matrix products: 4 x width^2 bytes each."""
    weight = (np.random.default_rng(0).standard_normal((width, width)) / width**0.5).astype(np.float32)
    names = ["input", *(f"hidden{i}" for i in range(layers - 1)), "output"]
    graph = helper.make_graph(
        [helper.make_node("MatMul", [names[i], f"w{i}"], [names[i + 1]]) for i in range(layers)],
        "chain",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", width])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", width])],
        [numpy_helper.from_array(weight, f"w{i}") for i in range(layers)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), str(path))
    return path


def stack(layers: int, *, width: int = 256) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(width, width) for _ in range(layers)), nn.Dropout(0.5))


@pytest.fixture(scope="module")
def cost(tmp_path_factory: pytest.TempPathFactory) -> Cost:
    folder = tmp_path_factory.mktemp("onnx")
    return measure_cost(
        {
            "teacher": ModelForms(module=stack(18, width=WIDTH), onnx=chain(folder / "teacher.onnx", 18)),
            "student": ModelForms(module=stack(2, width=WIDTH), onnx=chain(folder / "student.onnx", 2)),
        },
        torch.randn(3, WIDTH),
        device="cpu:1",
        batch_sizes=(4, 1),
        rounds=6,
        seconds=1.0,
    )


def test_every_model_is_measured_in_every_form_at_every_batch_size(cost: Cost) -> None:
    for model in cost.models.values():
        assert {(found.form, found.batch) for found in model.latencies} == {
            ("torch", 1), ("torch", 4), ("onnxruntime", 1), ("onnxruntime", 4),
        }  # fmt: skip
        assert all(len(found.samples_ms) == 6 for found in model.latencies)
    assert cost.inputs == {"input": [None, WIDTH]}
    assert cost.device["threads"] == 1


def test_a_ninth_of_the_layers_is_faster_in_every_form(cost: Cost) -> None:
    assert set(cost.ratios) == {"torch/1", "torch/4", "onnxruntime/1", "onnxruntime/4"}
    for ratio in cost.ratios.values():
        assert ratio.low is not None and ratio.high is not None
        assert ratio.low <= ratio.value <= ratio.high
        assert ratio.value < 0.5
    for form, batch in (("torch", 1), ("onnxruntime", 4)):  # whatever else runs here
        assert 1 / 36 < cost.cpu_ratios[f"{form}/{batch}"].value < 0.5
        assert cost.disturbed[f"{form}/{batch}"] <= 6


def test_a_batch_size_that_is_judged_takes_the_rounds_and_calls_that_it_needs(tmp_path: Path) -> None:
    forms = ModelForms(module=stack(1, width=8), onnx=chain(tmp_path / "small.onnx", 1, width=8))
    cost = measure_cost(
        {"student": forms}, torch.randn(2, 8), batch_sizes=[1, 2], rounds=2, seconds=0.2, judged={2: 200}
    )
    for timed in cost.models["student"].latencies:
        calls = sum(map(len, timed.samples_ms))
        assert len(timed.samples_ms) == (2 if timed.batch == 1 else 40) and (timed.batch == 1 or calls >= 200)
        assert (timed.p95_high_ms is None) == (timed.batch == 1)  # two rounds tell nothing of how rounds differ


def test_peak_memory_grows_by_the_weights_that_one_model_has_more(cost: Cost) -> None:
    more = 16 * 4 * WIDTH**2  # 105 MB
    peaks = {name: model.peak_memory_bytes["onnxruntime"] for name, model in cost.models.items()}
    assert peaks["teacher"] - peaks["student"] == pytest.approx(more, rel=0.2)


def test_the_record_survives_json(cost: Cost) -> None:
    assert Cost.from_dict(json.loads(json.dumps(cost.to_dict(), allow_nan=False))) == cost


def test_the_record_names_no_host_and_no_path(cost: Cost) -> None:
    import platform

    text = json.dumps(cost.device)
    assert platform.node() not in text
    assert "/" not in text.replace(cost.device["model"], "")


@pytest.fixture
def three_threads() -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield 3
    torch.set_num_threads(before)


def test_modules_and_threads_are_put_back_as_they_were(three_threads: int) -> None:
    module = stack(1)
    module[0].eval()  # a frozen part of a model in training
    measure_cost({"student": ModelForms(module=module)}, torch.randn(2, 256), batch_sizes=[1], seconds=0.1)
    assert torch.get_num_threads() == three_threads
    assert module.training
    assert not module[0].training
    assert module[1].training


@pytest.mark.usefixtures("three_threads")
def test_models_answer_in_eval_mode_with_the_threads_and_rows_asked_for() -> None:
    seen = set()

    class Witness(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.add((self.training, torch.get_num_threads(), x.shape[0], torch.is_grad_enabled()))
            return x

    measure_cost({"student": ModelForms(module=Witness())}, torch.randn(3, 2), batch_sizes=[2, 7], seconds=0.1)
    assert seen == {(False, 1, 2, False), (False, 1, 7, False)}


def test_the_process_that_measures_loads_no_torch() -> None:
    code = "import sys, tutelage.devices.worker; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_file_that_is_no_onnx_model_is_named(tmp_path: Path) -> None:
    file = tmp_path / "broken.onnx"
    file.write_bytes(b"not a model")
    with pytest.raises(RunError, match=r"broken\.onnx"):
        measure_cost(
            {"student": ModelForms(onnx=file, module=stack(1))}, torch.randn(2, 256), batch_sizes=[1], seconds=0.1
        )


def test_inputs_that_the_graph_lacks_are_named(tmp_path: Path) -> None:
    forms = ModelForms(onnx=chain(tmp_path / "small.onnx", 1, width=8))
    with pytest.raises(RunError, match=r"\['input'\]"):
        measure_cost({"student": forms}, {"pixels": torch.randn(2, 8)}, batch_sizes=[1], seconds=0.1)


def test_onnx_is_left_out_where_its_runtime_lacks_the_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(measure_module, "onnx_providers", lambda target: [])
    forms = ModelForms(onnx=chain(tmp_path / "small.onnx", 1, width=8), module=stack(1, width=8))
    cost = measure_cost({"student": forms}, torch.randn(2, 8), batch_sizes=[1], seconds=0.1)
    assert {found.form for found in cost.models["student"].latencies} == {"torch"}


@pytest.mark.parametrize("more", [{"batch_sizes": []}, {"batch_sizes": [0]}, {"rounds": 0}, {"device": "tpu"}])
def test_impossible_requests_are_refused_before_anything_runs(more) -> None:
    with pytest.raises(UserError):
        measure_cost({"student": ModelForms(module=stack(1))}, torch.randn(2, 256), **more)


def test_a_teacher_without_any_form_is_left_out() -> None:
    models = {"teacher": ModelForms(), "student": ModelForms(module=stack(1))}
    cost = measure_cost(models, torch.randn(2, 256), batch_sizes=[1], rounds=2, seconds=0.1)
    assert list(cost.models) == ["student"]
    assert cost.ratios == {}
    with pytest.raises(UserError, match="none"):
        measure_cost({"teacher": ModelForms()}, torch.randn(2, 256))
