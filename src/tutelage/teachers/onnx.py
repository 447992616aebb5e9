"""ONNX files, run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tutelage.errors import MissingExtra, ModelError
from tutelage.teachers.constants import Constant
from tutelage.teachers.gives import Gives
from tutelage.teachers.graph import GraphTeacher
from tutelage.teachers.port import Port
from tutelage.teachers.served import GraphFile, Reads, Served

__all__ = ["OnnxTeacher"]

Array = np.ndarray[Any, Any]

_TYPES: dict[str, str] = {
    "float": "f4",
    "float16": "f2",
    "double": "f8",
    "bool": "?",
    "string": "O",
    **{f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


class OnnxTeacher(GraphTeacher):
    """An ONNX file, run by ONNX Runtime. It supplies an output, and further outputs of the graph as features.

    Args:
        path: The `.onnx` file; weights that it keeps in other files lie beside it.
        inputs: Column of the data -> input of the graph, where their names differ.
        constants: Input of the graph -> what it is for every row, where that is no column: `{sr: 16000}`, or `{h0: 0}`
            for a state of zeros (see `Constants`).
        output: The output that teaches; None where the graph has one.
        gives: What that output is: logits; probabilities of classes (the graph ends in softmax); independent
            probabilities (it ends in a sigmoid); or values (also embeddings).
        reads: `inputs`: the tensors that the student sees. `raw`: the columns as the source has them, texts among them,
            as graphs of scikit-learn pipelines take them.
        providers: ONNX Runtime's execution providers, in order. None: CUDA where the run is on it and ONNX Runtime has
            it, else the CPU.
        threads: Threads of one call. None: ONNX Runtime's own choice.
    """

    def __init__(
        self,
        path: str,
        *,
        inputs: dict[str, str] | None = None,
        constants: dict[str, Constant] | None = None,
        output: str | None = None,
        gives: Gives = "logits",
        reads: Reads = "inputs",
        providers: list[str] | None = None,
        threads: int | None = None,
    ) -> None:
        self.path = path
        self.inputs = inputs
        self.constants = constants
        self.output = output
        self.gives = gives
        self.reads = reads
        self.providers = providers
        self.threads = threads

    def open(self, path: Path, device: torch.device) -> Any:
        """See `GraphTeacher.open`."""
        runtime = _onnxruntime()
        self.files(path)
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        if self.threads is not None:
            options.intra_op_num_threads = self.threads
        providers = self._providers(runtime, device)
        try:
            session = runtime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # onnxruntime has no common base class for its errors
            raise ModelError(
                "teacher.path", expected="an ONNX model that ONNX Runtime can run", found=f"{path.name}: {error}"
            ) from error
        self._keys = _keys_of_maps(_read(path))
        return session

    def _providers(self, runtime: Any, device: torch.device) -> list[str]:
        available = runtime.get_available_providers()
        if self.providers is None:
            cuda = device.type == "cuda" and "CUDAExecutionProvider" in available
            return ["CUDAExecutionProvider", "CPUExecutionProvider"] if cuda else ["CPUExecutionProvider"]
        absent = [name for name in self.providers if name not in available]
        if absent:
            raise ModelError(
                "teacher.providers",
                expected=f"providers of the installed ONNX Runtime: {', '.join(available)}",
                found=absent[0],
                mend="install the build of onnxruntime that has it, or leave `providers` out",
            )
        return self.providers

    def ports(self, graph: Any) -> tuple[list[Port], list[Port]]:
        """See `GraphTeacher.ports`."""
        outputs = [_port(value) for value in graph.get_outputs()]
        if any("map(" in str(value.type) for value in graph.get_outputs()):
            outputs = [replace(port, keys=self._keys.get(port.name, ())) for port in outputs]
        return [_port(value) for value in graph.get_inputs()], outputs

    def run(self, graph: Any, feed: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """See `GraphTeacher.run`. Maps become scores in the order of the graph's classes."""
        found = graph.run(list(outputs), dict(feed))
        ports = {port.name: port for port in self._ports[1]}
        return [_scores(each, ports[name]) for name, each in zip(outputs, found, strict=True)]

    def on_cpu(self) -> None:
        """See `GraphTeacher.on_cpu`."""
        self.providers = ["CPUExecutionProvider"]

    def served(self) -> Served:
        """As every graph; its file too, where it reads the student's inputs."""
        served = super().served()
        if self.reads == "raw" or served.files is None:
            return served
        return replace(served, graph=GraphFile(path=served.files[0], output=self._main(), feeds=self.feeds))

    def files(self, path: Path) -> list[Path]:
        """See `GraphTeacher.files`."""
        graph = _read(path)
        tensors = [*graph.initializer, *(a.t for node in graph.node for a in node.attribute if a.HasField("t"))]
        beside = {entry.value for t in tensors for entry in t.external_data if entry.key == "location"}
        return [path, *(_beside(path, name) for name in sorted(beside))]


def _beside(path: Path, name: str) -> Path:
    """A file that a graph keeps weights in.

    Raises:
        ModelError: It does not lie beside the graph, or is no file.
    """
    found = path.parent / name
    if not found.resolve().is_relative_to(path.parent.resolve()) or not found.is_file():
        raise ModelError(
            "teacher.path",
            expected="weights within the folder of the graph",
            found=f"{path.name}, which names `{name[:200]}`",
            harm="" if not found.exists() else "a graph from somebody else would read any file of this machine",
            mend="copy all files of the model into one folder",
        )
    return found


def _read(path: Path) -> Any:
    """The graph of an ONNX file, without its weights where they lie beside it."""
    try:
        import onnx
    except ImportError as error:
        raise MissingExtra("onnx", "onnx", "an ONNX teacher") from error
    try:
        return onnx.load(str(path), load_external_data=False).graph
    except Exception as error:  # protobuf has an error of its own, which no package here names
        raise ModelError(
            "teacher.path",
            expected="an ONNX model",
            found=f"{path.name}: {' '.join(str(error).split())[:300]}",
            mend="export it again, or copy it again",
        ) from error


def _keys_of_maps(graph: Any) -> dict[str, tuple[int | str, ...]]:
    """The keys of each output that is a map for each row (ZipMap, as scikit-learn's converter makes them), in order."""
    keys: dict[str, tuple[int | str, ...]] = {}
    for node in graph.node:
        if node.op_type == "ZipMap":
            told = {each.name: each for each in node.attribute}
            texts = (
                [each.decode() for each in told["classlabels_strings"].strings] if "classlabels_strings" in told else []
            )
            keys[node.output[0]] = tuple(texts or told["classlabels_int64s"].ints)
    return keys


def _scores(found: Any, port: Port) -> Array:
    """An output as an array: of maps, the values of each row in the order of the keys."""
    if not port.keys:
        return np.asarray(found)
    return np.array([[row[key] for key in port.keys] for row in found], dtype=np.float32)


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtra("onnxruntime", "onnx", "an ONNX teacher") from error
    return onnxruntime


def _port(value: Any) -> Port:
    kind = _TYPES.get(str(value.type).removeprefix("tensor(").removesuffix(")"))
    shape = tuple(size if isinstance(size, int) else None for size in value.shape) if value.shape is not None else None
    return Port(value.name, None if kind is None else np.dtype(kind), shape)
