"""Small ONNX graphs, written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WEIGHT = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
BIAS = np.array([0.5, -0.25, 1.0], dtype=np.float32)
TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "float64": TensorProto.DOUBLE}


def write_linear(
    path: Path, *, batch: int | str = "rows", dtype: str = "float32", softmax: bool = False, external: bool = False
) -> Path:
    """`hidden = x W`, `logits = hidden + b`: `x [batch, 5]`; both are outputs."""
    kind, last = TYPES[dtype], "probabilities" if softmax else "logits"
    nodes = [helper.make_node("MatMul", ["x", "W"], ["hidden"]), helper.make_node("Add", ["hidden", "b"], ["logits"])]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1))
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", kind, [batch, 5])],
        [helper.make_tensor_value_info(name, kind, [batch, 3]) for name in (last, "hidden")],
        [numpy_helper.from_array(WEIGHT.astype(dtype), "W"), numpy_helper.from_array(BIAS.astype(dtype), "b")],
    )
    return _saved(graph, path, external)


def write_embedding(path: Path, *, index: int = TensorProto.INT32) -> Path:
    """`output = table[ids] + 2 * scale`: `ids [rows]` int32, `scale [rows, 2]` float; one output."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["found"]),
        helper.make_node("Add", ["scale", "scale"], ["twice"]),
        helper.make_node("Add", ["found", "twice"], ["output"]),
    ]
    table = np.arange(8, dtype=np.float32).reshape(4, 2)
    graph = helper.make_graph(
        nodes,
        "embedding",
        [
            helper.make_tensor_value_info("ids", index, ["rows"]),
            helper.make_tensor_value_info("scale", TensorProto.FLOAT, ["rows", 2]),
        ],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["rows", 2])],
        [numpy_helper.from_array(table, "table")],
    )
    return _saved(graph, path, external=False)


def write_texts(path: Path) -> Path:
    """`output`: 1 where the text `kind [rows, 1]` is "bee", plus `size [rows, 1]`."""
    nodes = [
        helper.make_node(
            "LabelEncoder",
            ["kind"],
            ["number"],
            domain="ai.onnx.ml",
            keys_strings=["bee"],
            values_floats=[1.0],
            default_float=0.0,
        ),
        helper.make_node("Add", ["number", "size"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "texts",
        [
            helper.make_tensor_value_info("kind", TensorProto.STRING, ["rows", 1]),
            helper.make_tensor_value_info("size", TensorProto.FLOAT, ["rows", 1]),
        ],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["rows", 1])],
    )
    return _saved(graph, path, external=False)


def write_recurrent(path: Path, *, batch: int | str = "rows") -> Path:
    """`output = x W + sum_l h0[l] + rate / 8000`: `x [batch, 5]`, `h0 [2, batch, 3]`, `rate []` int64."""
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["hidden"]),
        helper.make_node("ReduceSum", ["h0", "zero"], ["state"], keepdims=0),
        helper.make_node("Cast", ["rate"], ["hertz"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["hertz", "scale"], ["factor"]),
        helper.make_node("Add", ["hidden", "state"], ["sum"]),
        helper.make_node("Add", ["sum", "factor"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "recurrent",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 5]),
            helper.make_tensor_value_info("h0", TensorProto.FLOAT, [2, batch, 3]),
            helper.make_tensor_value_info("rate", TensorProto.INT64, []),
        ],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [batch, 3])],
        [
            numpy_helper.from_array(WEIGHT, "W"),
            numpy_helper.from_array(np.array([0]), "zero"),
            numpy_helper.from_array(np.float32(8000), "scale"),
        ],
    )
    return _saved(graph, path, external=False)


def write_zipmap(path: Path, keys: list[int] | list[str]) -> Path:
    """Probabilities of `x W + b` as scikit-learn's converter gives them: a map for each row; and a label."""
    named = {"classlabels_strings" if isinstance(keys[0], str) else "classlabels_int64s": keys}
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["hidden"]),
        helper.make_node("Add", ["hidden", "b"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["shares"], axis=-1),
        helper.make_node("ArgMax", ["logits"], ["output_label"], axis=1, keepdims=0),
        helper.make_node("ZipMap", ["shares"], ["output_probability"], domain="ai.onnx.ml", **named),
    ]
    kind = TensorProto.STRING if isinstance(keys[0], str) else TensorProto.INT64
    maps = helper.make_sequence_type_proto(
        helper.make_map_type_proto(kind, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    )
    graph = helper.make_graph(
        nodes,
        "zipped",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 5])],
        [
            helper.make_tensor_value_info("output_label", TensorProto.INT64, ["rows"]),
            helper.make_value_info("output_probability", maps),
        ],
        [numpy_helper.from_array(WEIGHT, "W"), numpy_helper.from_array(BIAS, "b")],
    )
    return _saved(graph, path, external=False)


def _saved(graph: Any, path: Path, external: bool) -> Path:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 2)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    beside = {"save_as_external_data": True, "location": "weights.data", "size_threshold": 0} if external else {}
    onnx.save(model, str(path), **beside)
    return path


def to_openvino(onnx_file: Path, path: Path) -> Path:
    """The same graph as OpenVINO's own files."""
    import openvino

    openvino.save_model(openvino.Core().read_model(str(onnx_file)), str(path), compress_to_fp16=False)
    return path
