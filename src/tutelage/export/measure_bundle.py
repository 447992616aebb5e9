"""What the student of a bundle costs on this machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from tutelage.devices.cost import Cost
from tutelage.devices.latency import JUDGED_CALLS
from tutelage.devices.measure import ModelForms, measure_cost
from tutelage.devices.size import Size
from tutelage.errors import ModelError
from tutelage.export.inputs import InputSpec, sample_inputs
from tutelage.export.safetensors import load_student

__all__ = ["measure_bundle"]


def measure_bundle(
    folder: Path,
    *,
    device: str = "cpu:1",
    batch_sizes: Sequence[int] = (1, 32),
    rounds: int = 10,
    seconds: float = 14.0,
) -> Cost:
    """Measures a bundle's ONNX file, and the eager student where `load_student` can build it.

    Inputs are random, of the shapes and ranges that export.json tells of.

    Args:
        folder: The bundle.
        device: `cpu:N`, `cpu` or `cuda:N`.
        batch_sizes: Rows in a call.
        rounds: Alternating rounds.
        seconds: About how long all timing may take; up to ten times that, where so few calls fit into it that their
            95th percentile would have no upper limit.

    Raises:
        ModelError: It has no ONNX export to say what the inputs are, or its file is missing.
        UserError: The device is impossible.
        RunError: The measuring process failed.
    """
    export = _read_export(folder)
    specs = [InputSpec.from_dict(spec) for spec in export["onnx"]["inputs"]]
    stored, file = export["safetensors"], folder / export["onnx"]["file"]
    if not file.is_file():
        raise ModelError(
            str(folder),
            expected="the ONNX file that export.json names",
            found=f"{file.name} is missing",
            mend="restore the file, or make the bundle again",
        )
    student = ModelForms(
        module=_student(folder),
        onnx=file,
        size=Size(**{name: stored[name] for name in ("parameters", "embedding_parameters", "size_bytes")}),
    )
    return measure_cost(
        {"student": student},
        sample_inputs(specs, max(batch_sizes)),
        device=device,
        batch_sizes=batch_sizes,
        rounds=rounds,
        seconds=seconds,
        judged=dict.fromkeys(batch_sizes, JUDGED_CALLS),
    )


def _read_export(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / "export.json"
    export = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if not export.get("onnx") or not export.get("safetensors"):
        raise ModelError(
            str(path),
            expected="an ONNX export of the student, with its inputs",
            found="none" if path.is_file() else "no such file",
            mend="give the folder of a bundle that was made with `export.onnx: true`",
        )
    return dict(export)


def _student(folder: Path) -> nn.Module | None:
    """The eager student; None where only the ONNX file can be run here."""
    try:
        return load_student(folder)
    except ModelError:
        return None
