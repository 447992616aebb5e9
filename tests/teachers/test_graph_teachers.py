from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from graphs import BIAS, WEIGHT, to_openvino, write_embedding, write_linear, write_texts
from onnx import TensorProto

from tutelage.errors import MissingExtra, ModelError
from tutelage.signals import Batch, Inputs, Request
from tutelage.teachers import GraphTeacher, OnnxTeacher, OpenVinoTeacher

CPU = torch.device("cpu")
OUTPUT = Request(output=True)
X = torch.from_numpy(np.random.default_rng(1).normal(size=(7, 5)))
LOGITS = X.numpy() @ WEIGHT.astype(np.float64) + BIAS
KINDS: dict[str, Any] = {"onnx": OnnxTeacher, "openvino": OpenVinoTeacher, "openvino xml": OpenVinoTeacher}


def batch(inputs: Inputs = X, raw: dict[str, np.ndarray] | None = None) -> Batch:
    first = next(iter(inputs.values())) if isinstance(inputs, dict) else inputs
    rows = torch.arange(len(first))
    return Batch(inputs=inputs, rows=rows, views=torch.zeros_like(rows), raw=None if raw is None else lambda: raw)


def opened(kind: str, file: Path, **more: Any) -> GraphTeacher:
    path = to_openvino(file, file.with_suffix(".xml")) if kind == "openvino xml" else file
    teacher: GraphTeacher = KINDS[kind](str(path), threads=1, **more)
    teacher.load(CPU)
    return teacher


def every_kind() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("kind", KINDS)


@every_kind()
@pytest.mark.parametrize("size", ["rows", 1, 3, 7, 10])
def test_a_fixed_batch_axis_changes_no_answer(kind: str, size: int | str, tmp_path: Path) -> None:
    """Catches answers of the rows that fill up the last piece, and rows that are left out."""
    teacher = opened(kind, write_linear(tmp_path / "m.onnx", batch=size), output="logits")
    said = teacher.ask(batch(), Request(output=True, features=frozenset({"hidden"})))
    assert said.output is not None and said.output.shape == (7, 3) and said.output.dtype == torch.float32
    np.testing.assert_allclose(said.output, LOGITS, atol=1e-5)
    np.testing.assert_allclose(said.features["hidden"], LOGITS - BIAS, atol=1e-5)


@every_kind()
@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_inputs_are_converted_to_the_type_of_the_graph_and_answers_to_float32(
    kind: str, dtype: str, tmp_path: Path
) -> None:
    teacher = opened(kind, write_linear(tmp_path / "m.onnx", dtype=dtype), output="logits")
    said = teacher.ask(batch(X.float()), OUTPUT).output
    assert said is not None and said.dtype == torch.float32
    expected = X.numpy().astype(dtype) @ WEIGHT.astype(dtype) + BIAS.astype(dtype)
    np.testing.assert_allclose(said, expected.astype(np.float32), atol=2e-2 if dtype == "float16" else 1e-6)
    if dtype == "float16":
        with pytest.raises(ModelError, match=r"float16 can hold(.|\n)*100000"):
            teacher.ask(batch(torch.full((2, 5), 1e5)), OUTPUT)


@every_kind()
def test_several_inputs_are_found_by_name_and_renamed_and_refused_when_they_do_not_fit(
    kind: str, tmp_path: Path
) -> None:
    file = write_embedding(tmp_path / "m.onnx")
    ids, scale = torch.tensor([3, 0, 1]), torch.tensor([[1.0, 2], [3, 4], [5, 6]])
    expected = [[8, 11], [6, 9], [12, 15]]
    said = opened(kind, file).ask(batch({"scale": scale, "ids": ids}), OUTPUT).output
    np.testing.assert_array_equal(said, expected)
    teacher = opened(kind, file, inputs={"token": "ids"})
    np.testing.assert_array_equal(teacher.ask(batch({"token": ids, "scale": scale}), OUTPUT).output, expected)
    with pytest.raises(ModelError, match=r"`ids` int32(.|\n)*token(.|\n)*inputs: \{COLUMN: ids\}"):
        opened(kind, file).ask(batch({"token": ids, "scale": scale}), OUTPUT)
    with pytest.raises(ModelError, match="int32 can hold"):
        teacher.ask(batch({"token": ids + 2**40, "scale": scale}), OUTPUT)
    with pytest.raises(ModelError, match="int32 can hold"):
        teacher.ask(batch({"token": ids + 0.5, "scale": scale}), OUTPUT)
    with pytest.raises(ModelError, match=r"`scale` float32 \[\?, 2\](.|\n)*\[3, 3\]"):
        teacher.ask(batch({"token": ids, "scale": torch.ones(3, 3)}), OUTPUT)
    with pytest.raises(ModelError, match=r"teacher\.inputs(.|\n)*did you mean `ids`"):
        opened(kind, file, inputs={"token": "idss"})


@every_kind()
def test_the_output_is_named_where_there_are_several(kind: str, tmp_path: Path) -> None:
    file = write_linear(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"teacher\.output(.|\n)*2: logits, hidden"):
        opened(kind, file)
    with pytest.raises(ModelError, match=r"teacher\.output(.|\n)*did you mean `logits`"):
        opened(kind, file, output="logit")
    swapped = opened(kind, file, output="hidden")
    np.testing.assert_allclose(swapped.ask(batch(), OUTPUT).output, LOGITS - BIAS, atol=1e-5)


@every_kind()
def test_probabilities_become_logits_that_softmax_turns_back(kind: str, tmp_path: Path) -> None:
    file = write_linear(tmp_path / "m.onnx", softmax=True)
    said = opened(kind, file, output="probabilities", gives="probabilities").ask(batch(), OUTPUT).output
    expected = torch.from_numpy(LOGITS).log_softmax(-1)
    np.testing.assert_allclose(said, expected, atol=1e-5)
    with pytest.raises(ModelError, match=r"come to 1(.|\n)*gives: logits"):
        opened(kind, file, output="hidden", gives="probabilities").ask(batch(), OUTPUT)


def test_raw_columns_are_read_as_graphs_of_pipelines_take_them(tmp_path: Path) -> None:
    raw = {"kind": np.array(["bee", None, "ant"], dtype=object), "size": np.array([0.5, 1.0, 2.0])}
    teacher = opened("onnx", write_texts(tmp_path / "m.onnx"), reads="raw", gives="values")
    np.testing.assert_array_equal(teacher.ask(batch(torch.zeros(3, 1), raw), OUTPUT).output, [[1.5], [1], [2]])
    with pytest.raises(ModelError, match="raw columns"):
        teacher.ask(batch(torch.zeros(3, 1)), OUTPUT)
    with pytest.raises(ModelError, match=r"`size`(.|\n)*expected: numbers"):
        teacher.ask(batch(torch.zeros(3, 1), raw | {"size": raw["kind"]}), OUTPUT)
    with pytest.raises(ModelError, match=r"`kind`(.|\n)*expected: texts"):
        teacher.ask(batch(torch.zeros(3, 1), raw | {"kind": raw["size"]}), OUTPUT)


@every_kind()
def test_the_fingerprint_covers_weights_beside_the_file_and_settings(kind: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    prints = {}
    for name, change in (("a", 0.0), ("b", 1.0)):
        file = write_linear(tmp_path / name / "m.onnx", external=kind == "onnx")
        if kind == "onnx":
            weights = tmp_path / name / "weights.data"
            weights.write_bytes((np.frombuffer(weights.read_bytes(), np.float32) + np.float32(change)).tobytes())
        teacher = opened(kind, file, output="logits")
        prints[name] = teacher.fingerprint()
        assert opened(kind, file, output="hidden").fingerprint() != prints[name]
    assert (prints["a"] != prints["b"]) == (kind == "onnx")
    if kind == "openvino xml":
        weights = tmp_path / "b" / "m.bin"
        data = bytearray(weights.read_bytes())
        data[3] ^= 1
        weights.write_bytes(bytes(data))
        changed = OpenVinoTeacher(str(tmp_path / "b" / "m.xml"), output="logits")
        changed.load(CPU)
        assert changed.fingerprint() != prints["b"]


@every_kind()
def test_files_that_are_no_graphs_are_named(kind: str, tmp_path: Path) -> None:
    suffix = ".xml" if kind == "openvino xml" else ".onnx"
    (tmp_path / f"m{suffix}").write_bytes(b"not a graph")
    with pytest.raises(ModelError, match=rf"teacher\.path(.|\n)*m{suffix}"):
        KINDS[kind](str(tmp_path / f"m{suffix}")).load(CPU)
    with pytest.raises(ModelError, match=rf"did you mean `m{suffix}`"):
        KINDS[kind](str(tmp_path / f"mm{suffix}")).load(CPU)


def test_providers_and_devices_that_are_not_there_are_refused_and_not_replaced(tmp_path: Path) -> None:
    file = write_linear(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"teacher\.providers(.|\n)*CPUExecutionProvider(.|\n)*NoSuchProvider"):
        opened("onnx", file, output="logits", providers=["NoSuchProvider"])
    opened("onnx", file, output="logits", providers=["CPUExecutionProvider"])
    with pytest.raises(ModelError, match=r"teacher\.device(.|\n)*CPU(.|\n)*NPU9"):
        opened("openvino", file, output="logits", device="NPU9")


def test_providers_that_are_missing_are_not_blamed_on_the_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        opened("onnx", write_linear(tmp_path / "m.onnx"), output="logits", providers=["NoSuchProvider"])
    assert caught.value.key == "teacher.providers"


@pytest.mark.parametrize("reads", ["inputs", "raw"])
@every_kind()
def test_a_misspelt_column_is_named_with_the_nearest_one(kind: str, reads: Any, tmp_path: Path) -> None:
    """Catches the advice to do what was done."""
    file = write_embedding(tmp_path / "m.onnx")
    rows = {"token": np.array([3, 0, 1]), "scale": np.ones((3, 2), np.float32)}
    tensors: Any = {name: torch.from_numpy(array) for name, array in rows.items()}
    teacher = opened(kind, file, inputs={"tokn": "ids"}, reads=reads)
    with pytest.raises(ModelError, match=r"teacher\.inputs(.|\n)*token, scale(.|\n)*`tokn`(.|\n)*mean `token`"):
        teacher.ask(batch(tensors, rows), OUTPUT)


@every_kind()
def test_settings_that_say_nothing_are_refused_also_where_no_recipe_has_typed_them(kind: str, tmp_path: Path) -> None:
    """Catches probabilities that are taken for logits because of a misspelt word."""
    file = write_linear(tmp_path / "m.onnx")
    for more, said in (
        ({"gives": "probability"}, r"teacher\.gives(.|\n)*did you mean `probabilities`"),
        ({"reads": "rows"}, r"teacher\.reads(.|\n)*raw(.|\n)*'rows'"),
    ):
        with pytest.raises(ModelError, match=said):
            opened(kind, file, output="logits", **more)
    for threads in (-5, 0):
        with pytest.raises(ModelError, match=r"teacher\.threads(.|\n)*at least 1"):
            KINDS[kind](str(file), output="logits", threads=threads).load(CPU)


def test_an_output_of_labels_is_no_teacher(tmp_path: Path) -> None:
    from onnx import helper, save

    graph = helper.make_graph(
        [helper.make_node("ArgMax", ["x"], ["label"], axis=1, keepdims=0)],
        "labels",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 5])],
        [helper.make_tensor_value_info("label", TensorProto.INT64, ["rows"])],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(tmp_path / "m.onnx"))
    with pytest.raises(ModelError, match="labels"):
        opened("onnx", tmp_path / "m.onnx").ask(batch(X.float()), OUTPUT)


@pytest.mark.parametrize(("name", "extra"), [("onnxruntime", "onnx"), ("onnx", "onnx"), ("openvino", "openvino")])
def test_a_package_that_is_missing_is_named_with_its_extra(
    name: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_linear(tmp_path / "m.onnx")
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=rf"tutelage\[{extra}\]"):
        opened("openvino" if name == "openvino" else "onnx", file, output="logits")
