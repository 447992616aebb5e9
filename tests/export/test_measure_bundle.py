from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from student_modules import TiedNet

from tutelage.errors import ModelError
from tutelage.export import export_onnx, measure_bundle, save_student
from tutelage.export.inputs import InputSpec, describe_inputs, sample_inputs

IDS = torch.randint(0, 11, (4, 5))


@pytest.mark.parametrize(("spec", "forms"), [(True, {"torch", "onnxruntime"}), (False, {"onnxruntime"})])
def test_a_bundle_is_measured_in_the_forms_that_run_here(tmp_path: Path, spec: bool, forms: set[str]) -> None:
    module = TiedNet().eval()
    recorded = {"class_path": "student_modules.TiedNet", "init_args": {}} if spec else None
    stored = save_student(module, tmp_path, spec=recorded, example=IDS)
    graph = export_onnx(module, IDS, tmp_path / "model.onnx", dynamic={"input": (0, 1)})
    (tmp_path / "export.json").write_text(json.dumps({"safetensors": stored, "onnx": graph}))
    cost = measure_bundle(tmp_path, batch_sizes=[1, 6], rounds=2, seconds=0.2)
    student = cost.models["student"]
    assert {(found.form, found.batch) for found in student.latencies} == {(f, b) for f in forms for b in (1, 6)}
    assert student.parameters == sum(p.numel() for p in module.parameters())
    assert student.embedding_parameters == 66
    assert cost.inputs == {"input": [None, 5]}
    assert cost.ratios == {}


def test_a_bundle_without_onnx_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "export.json").write_text(json.dumps({"onnx": None, "safetensors": {}}))
    with pytest.raises(ModelError, match="onnx: true"):
        measure_bundle(tmp_path)


def test_codes_of_categories_are_drawn_within_the_range_of_their_own_column() -> None:
    codes = torch.stack([torch.arange(7) % 3, torch.arange(7) * 5, torch.full((7,), 2)], dim=1)
    numbers = torch.randn(7, 2)
    specs = describe_inputs({"numbers": numbers, "categories": codes}, None)
    drawn = sample_inputs([InputSpec.from_dict(spec.to_dict()) for spec in specs], 400)
    assert isinstance(drawn, dict)
    assert [sorted(set(column.tolist())) for column in drawn["categories"].T] == [[0, 1, 2], list(range(31)), [2]]
    mask = describe_inputs({"mask": torch.tensor([[1, 0], [1, 1]])}, None)
    assert bool((sample_inputs(mask, 50)["mask"] == 1).all())  # every token counts, at a fixed length too
