"""Parameters and bytes of a module."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from tutelage.errors import MissingExtra
from tutelage.students.parameters import parameter_count

__all__ = ["Size", "size_of", "size_of_onnx"]


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large a model is.

    Attributes:
        parameters: All parameters; a shared one counts once. None where there is no such count (trees, a function).
        embedding_parameters: Those of embedding tables, included in `parameters`.
        size_bytes: The weights as stored: parameters and persistent buffers, a shared tensor once; or the model's
            files. None for a model that is in no file.
    """

    parameters: int | None
    embedding_parameters: int | None
    size_bytes: int | None


def size_of(module: nn.Module) -> Size:
    """Counts parameters and the bytes of the state dict."""
    count = parameter_count(module)
    stored: dict[tuple[object, ...], int] = {}
    for tensor in module.state_dict().values():
        if isinstance(tensor, Tensor):
            place = (tensor.device, tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
            # Empty tensors, and those on the meta device, have no address to tell them apart by.
            key = place if tensor.data_ptr() else (id(tensor),)
            stored[key] = tensor.numel() * tensor.element_size()
    return Size(
        parameters=count.total,
        embedding_parameters=count.embedding,
        size_bytes=sum(stored.values()),
    )


def size_of_onnx(path: Path) -> Size:
    """Counts an ONNX file, for a model that there is no module of.

    Its initializers hold buffers and constants too, and don't say which are embeddings (0).

    Raises:
        MissingExtra: onnx is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingExtra("onnx", "onnx", "counting the parameters of an ONNX model") from error
    graph = onnx.load(str(path), load_external_data=False).graph
    return Size(
        parameters=sum(math.prod(tensor.dims) for tensor in graph.initializer),
        embedding_parameters=0,
        size_bytes=path.stat().st_size,
    )
