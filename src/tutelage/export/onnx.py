"""The student as an ONNX file, and the ONNX file as a model."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.devices.batch import named, placed, repeat_rows
from tutelage.devices.runtime import onnx_session
from tutelage.devices.target import Target
from tutelage.errors import MissingExtra, ModelError
from tutelage.export.inputs import InputSpec, describe_inputs
from tutelage.export.staging import staged
from tutelage.signals import Inputs, call, output_of

__all__ = ["OnnxModel", "export_onnx"]

PROTOBUF_LIMIT = 2**31 - 2**24
"""Bytes of weights that fit into one file: protobuf ends at 2 GiB, and the graph needs some of it."""


class _Graph(nn.Module):
    """A model whose inputs are positional and whose output is one tensor: what becomes the graph."""

    def __init__(self, module: nn.Module, names: Sequence[str], lone: bool) -> None:
        super().__init__()
        self.module, self.names, self.lone = module, names, lone

    def forward(self, *tensors: Tensor) -> Tensor:
        inputs = tensors[0] if self.lone else dict(zip(self.names, tensors, strict=True))
        return output_of(call(self.module, inputs))


def export_onnx(
    module: nn.Module,
    example: Inputs,
    path: Path,
    *,
    dynamic: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, Any]:
    """Writes a module as ONNX, with `torch.onnx.export(dynamo=True)`.

    The graph is that of eval mode; the module is put back as it was. Inputs have the names that the module is called
    with (`input` for a lone tensor), the output is `output`. Up to 2 GB the weights are inside the file.

    Args:
        module: A model in float32, float64 or float16.
        example: Some rows; two of them are traced (a size of 1 would become a constant).
        path: The file; it appears when it is complete.
        dynamic: Axes whose size may change, by input; None: the first of each. `compare` then tries other sizes.

    Returns:
        For `export.json`: `file`, `opset`, `size_bytes`, `inputs`.

    Raises:
        ModelError: The module can't be exported, or an axis that should be dynamic became a constant.
        MissingExtra: onnx or onnxscript is not installed.
    """
    _require_packages()
    _require_exportable_type(module)
    specs = describe_inputs(example, dynamic)
    names = [spec.name for spec in specs]
    shapes = tuple({axis: word for axis, word in enumerate(spec.shape) if isinstance(word, str)} for spec in specs)
    tensors = tuple(tensor.cpu() for tensor in named(repeat_rows(example, 2)).values())
    with placed([module], "cpu"):
        graph = _Graph(module, names, lone=not isinstance(example, dict)).eval()
        program = _trace(graph, tensors, names, shapes)
        _require_dynamic(program, specs)
        _strip_origins(program.model)
        large = sum(p.numel() * p.element_size() for p in module.parameters()) > PROTOBUF_LIMIT
        with staged(path.parent) as partial:
            program.save(str(partial / path.name), external_data=large)
    return {
        "file": path.name,
        "opset": int(program.model.opset_imports[""]),
        "size_bytes": sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*")),
        "inputs": [spec.to_dict() for spec in specs],
    }


class OnnxModel:
    """An ONNX file that is called like the module it was exported from.

    Args:
        path: The file.
        device: As `Target.parse` takes it.

    Raises:
        ModelError: ONNX Runtime can't run it.
        MissingExtra: onnxruntime is not installed.
    """

    def __init__(self, path: Path, device: str = "cpu:1") -> None:
        self.path, self.device = path, device
        self._session = onnx_session(path, Target.parse(device))
        self.inputs: list[str] = [wanted.name for wanted in self._session.get_inputs()]

    def __call__(self, inputs: Inputs) -> Tensor:
        """The output, on the CPU.

        Raises:
            ModelError: An input is missing or does not fit the graph.
        """
        tensors = named(inputs)
        missing = [name for name in self.inputs if name not in tensors]
        if missing:
            raise ModelError(
                f"inputs of {self.path.name}",
                expected=str(self.inputs),
                found=str(list(tensors)),
                mend=f"add {missing}",
            )
        feed = {name: tensors[name].detach().cpu().numpy() for name in self.inputs}
        try:
            (output,) = self._session.run(["output"], feed)
        except Exception as error:  # onnxruntime has no common base class for its errors
            shapes = ", ".join(f"{name} {list(array.shape)} {array.dtype}" for name, array in feed.items())
            raise ModelError(
                f"running {self.path.name}", expected="inputs that fit the graph", found=f"{shapes}\n{error}"
            ) from error
        return torch.from_numpy(output)


def _require_packages() -> None:
    for package in ("onnx", "onnxscript"):
        try:
            __import__(package)
        except ImportError as error:
            raise MissingExtra(package, "onnx", "exporting to ONNX") from error


def _require_exportable_type(module: nn.Module) -> None:
    if any(p.dtype == torch.bfloat16 for p in module.parameters()):
        raise ModelError(
            f"exporting {type(module).__name__} to ONNX",
            expected="weights in float32",
            found="bfloat16",
            harm="ONNX Runtime has few kernels for it on a CPU, and NumPy can't hold its inputs",
            mend="export `copy.deepcopy(module).float()`: the values of the weights stay the same",
        )


def _trace(graph: nn.Module, tensors: tuple[Tensor, ...], names: list[str], shapes: tuple[dict[int, str], ...]) -> Any:
    try:
        with _quiet(), torch.no_grad():
            return torch.onnx.export(
                graph,
                tensors,
                dynamo=True,
                verbose=False,
                input_names=names,
                output_names=["output"],
                dynamic_shapes={"tensors": shapes},
            )
    except Exception as error:  # the exporter wraps whatever the module's own code raised
        cause = error.__cause__ or error
        raise ModelError(
            f"exporting {type(graph.module).__name__} to ONNX",
            expected="a forward pass that torch.export can trace",
            found=f"{type(cause).__name__}: {str(cause).strip()[:600]}",
            mend="take sizes from `x.shape` where the module has a number, don't branch on values;"
            " or set `export.onnx: false`",
        ) from error


def _strip_origins(model: Any) -> None:
    """Removes what the exporter notes of the code: paths, source lines and names of the machine it ran on."""
    for graph in (model.graph, *model.functions.values()):
        for node in graph.all_nodes():
            node.metadata_props.clear()
            node.doc_string = None
            for value in node.outputs:
                value.metadata_props.clear()
                value.doc_string = None
        for value in (*graph.inputs, *graph.outputs, *getattr(graph, "initializers", {}).values()):
            value.metadata_props.clear()
            value.doc_string = None
        graph.metadata_props.clear()
        graph.doc_string = None
    model.metadata_props.clear()
    model.doc_string = None


def _require_dynamic(program: Any, specs: Sequence[InputSpec]) -> None:
    """Some versions of torch export an axis that the module's own code fixes as a constant, without an error."""
    for value, spec in zip(program.model.graph.inputs, specs, strict=True):
        for axis, wanted in enumerate(spec.shape):
            if isinstance(wanted, str) and isinstance(value.shape[axis], int):
                raise ModelError(
                    f"exporting to ONNX: axis {axis} of `{spec.name}`",
                    expected=f"any size ({wanted})",
                    found=f"the module's code fixes it at {value.shape[axis]}",
                    mend="use `x.shape[...]` in the module where it has a number, or leave the axis out of `dynamic`",
                )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's warnings and log lines, which tell of packages that are absent and axes it renamed."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "torch.fx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
