"""ONNX Runtime sessions with pinned threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tutelage.devices.target import Target
from tutelage.errors import MissingExtra, ModelError

__all__ = ["load_onnxruntime", "onnx_providers", "onnx_session"]


def load_onnxruntime() -> Any:
    """The package.

    Raises:
        MissingExtra: It is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtra("onnxruntime", "onnx", "running an ONNX model") from error
    return onnxruntime


def onnx_providers(target: Target) -> list[Any]:
    """What ONNX Runtime is to run on for a target; empty when it can't: it never falls back to another device."""
    if target.kind == "cpu":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in load_onnxruntime().get_available_providers():
        return []
    return [("CUDAExecutionProvider", {"device_id": target.index}), "CPUExecutionProvider"]


def onnx_session(path: Path, target: Target) -> Any:
    """An `onnxruntime.InferenceSession` on the target, with its number of threads.

    Threads stop spinning when a call ends, so that a model does not slow down the one that is timed after it.

    Raises:
        MissingExtra: onnxruntime is not installed.
        ModelError: The file can't be read or run, or ONNX Runtime lacks the device.
    """
    onnxruntime = load_onnxruntime()
    providers = onnx_providers(target)
    if not providers:
        raise ModelError(
            f"device {target.name}",
            expected="ONNX Runtime with CUDA",
            found=f"providers {onnxruntime.get_available_providers()}",
            mend="install onnxruntime-gpu, or measure on `cpu:1`",
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = target.threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime has no common base class for its errors
        raise ModelError(
            str(path.name), expected="an ONNX model that ONNX Runtime can run", found=str(error).strip()
        ) from error
    if target.kind == "cuda" and session.get_providers()[0] != "CUDAExecutionProvider":
        raise ModelError(
            f"device {target.name}",
            expected="ONNX Runtime on CUDA",
            found=f"it fell back to {session.get_providers()}",
            harm="the CPU would be measured under the name of the GPU",
            mend="check that the CUDA and cuDNN versions fit the installed onnxruntime-gpu",
        )
    return session
