"""OpenVINO models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tutelage.errors import MissingExtra, ModelError
from tutelage.teachers.constants import Constant
from tutelage.teachers.gives import Gives
from tutelage.teachers.graph import GraphTeacher
from tutelage.teachers.port import Port
from tutelage.teachers.served import Reads

__all__ = ["OpenVinoTeacher"]

Array = np.ndarray[Any, Any]


class OpenVinoTeacher(GraphTeacher):
    """An OpenVINO model (`.xml` with its `.bin` beside it), or an ONNX file that OpenVINO runs.

    It supplies an output, and further outputs of the graph as features.

    Args:
        path: The file.
        inputs: Column of the data -> input of the graph, where their names differ.
        constants: Input of the graph -> what it is for every row, where that is no column: `{sr: 16000}`, or `{h0: 0}`
            for a state of zeros (see `Constants`).
        output: The output that teaches; None where the graph has one.
        gives: What that output is: logits; probabilities of classes (the graph ends in softmax); independent
            probabilities (it ends in a sigmoid); or values (also embeddings).
        reads: `inputs`: the tensors that the student sees. `raw`: the columns as the source has them.
        device: OpenVINO's name of the device. Without a GPU of Intel's it is the CPU.
        threads: Threads of one call. None: OpenVINO's own choice.
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
        device: str = "CPU",
        threads: int | None = None,
    ) -> None:
        self.path = path
        self.inputs = inputs
        self.constants = constants
        self.output = output
        self.gives = gives
        self.reads = reads
        self.device = device
        self.threads = threads

    def open(self, path: Path, device: torch.device) -> Any:
        """See `GraphTeacher.open`."""
        try:
            import openvino
        except ImportError as error:
            raise MissingExtra("openvino", "openvino", "an OpenVINO teacher") from error
        core = openvino.Core()
        if self.device.partition(".")[0] not in core.available_devices:
            raise ModelError(
                "teacher.device",
                expected=f"a device that OpenVINO has here: {', '.join(core.available_devices)}",
                found=self.device,
            )
        # By itself OpenVINO computes in bfloat16 where the CPU can: the teacher is to answer as it was trained.
        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
        if self.threads is not None:
            options["INFERENCE_NUM_THREADS"] = self.threads
        try:
            return core.compile_model(core.read_model(str(path)), self.device, options)
        except RuntimeError as error:
            raise ModelError(
                "teacher.path",
                expected="a model that OpenVINO can run",
                found=f"{path.name}: {str(error).strip().splitlines()[-1]}",
            ) from error

    def ports(self, graph: Any) -> tuple[list[Port], list[Port]]:
        """See `GraphTeacher.ports`."""
        return [_port(port) for port in graph.inputs], [_port(port) for port in graph.outputs]

    def run(self, graph: Any, feed: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """See `GraphTeacher.run`."""
        found = graph({name: np.asarray(array, order="C") for name, array in feed.items()})
        return [np.array(found[name]) for name in outputs]

    def on_cpu(self) -> None:
        """See `GraphTeacher.on_cpu`."""
        self.device = "CPU"

    def files(self, path: Path) -> list[Path]:
        """See `GraphTeacher.files`."""
        weights = path.with_suffix(".bin")
        return [path, *([weights] if path.suffix == ".xml" and weights.exists() else [])]


def _port(port: Any) -> Port:
    kind = port.get_element_type()
    try:
        dtype = np.dtype(object) if kind.get_type_name() == "string" else np.dtype(kind.to_dtype())
    except RuntimeError:  # a type that numpy does not have
        dtype = None
    sizes = port.get_partial_shape()
    shape = None if sizes.rank.is_dynamic else tuple(d.get_length() if d.is_static else None for d in sizes)
    return Port(port.get_any_name(), dtype, shape)
