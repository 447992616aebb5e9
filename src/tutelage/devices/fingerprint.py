"""What a stranger needs to judge the numbers: the device and the versions. No host names, no paths."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any

from tutelage.devices.target import Target, usable_cores

__all__ = ["describe_device"]

FLAGS = (
    "sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16",
    "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve",
)  # fmt: skip
"""The instruction sets that decide how fast a matrix product is."""

PACKAGES = ("torch", "onnxruntime", "onnxruntime-gpu", "numpy")

LIBRARIES = {
    "lightgbm": "lightgbm", "xgboost": "xgboost", "catboost": "catboost", "sklearn": "scikit-learn",
    "openvino": "openvino",
}  # fmt: skip
"""Modules that teachers run in, and their packages: named where they are loaded."""


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _processor() -> tuple[str, list[str]]:
    """The CPU's model and those of its flags that matter."""
    fields: dict[str, str] = {}
    for line in _read("/proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip().lower(), value.strip())
    model = fields.get("model name") or fields.get("hardware") or platform.processor() or platform.machine()
    flags = set((fields.get("flags") or fields.get("features") or "").split())
    return model, [flag for flag in FLAGS if flag in flags]


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in (*PACKAGES, *(package for module, package in LIBRARIES.items() if module in sys.modules)):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _accelerator(target: Target) -> dict[str, Any]:
    import torch

    properties = torch.cuda.get_device_properties(target.index)
    return {
        "accelerator": properties.name,
        "accelerator_memory_bytes": properties.total_memory,
        "cuda": torch.version.cuda or getattr(torch.version, "hip", None),
    }


def describe_device(target: Target) -> dict[str, Any]:
    """The device as it is now.

    Returns:
        `name`, `kind`, `model`, `cores` (usable, logical), `threads`, `flags`, `governor` (None if unknown), `load`
        (of the last minute, before measuring), `system`, `versions`; on CUDA also `accelerator` and its memory.
    """
    model, flags = _processor()
    device: dict[str, Any] = {
        "name": target.name,
        "kind": target.kind,
        "model": model,
        "cores": usable_cores(),
        "threads": target.threads,
        "flags": flags,
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip() or None,
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "versions": _versions(),
    }
    return {**device, **_accelerator(target)} if target.kind == "cuda" else device
