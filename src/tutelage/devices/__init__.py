"""What a model costs on a device: latency, memory, size.

    measure.py      teacher and student, eager and in ONNX Runtime, on one device -> `Cost`
    served.py       a teacher that is no torch module, beside the student: the forms that fit
    cost.py         the record
    target.py       a device by name: `cpu:1`, `cuda:0`
    latency.py      candidates timed in alternating rounds
    contention.py   was something else running?
    quantiles.py    confidence limits of a percentile, for samples that come in rounds
    statistics.py   percentiles of latencies, ratios
    memory.py       resident memory of this process
    size.py         parameters and bytes of a module
    threads.py      the threads of other libraries
    runtime.py      ONNX Runtime sessions
    fingerprint.py  what a stranger needs to judge the numbers
    batch.py        small things done to batches and modules
    worker.py       the process in which ONNX files are measured; onnx_process.py starts it

Names are imported when they are first used: the worker must not load torch beside what it measures.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tutelage.devices.cost import Cost, Latency, ModelCost
    from tutelage.devices.measure import ModelForms, measure_cost
    from tutelage.devices.size import Size, size_of
    from tutelage.devices.target import Target

__all__ = ["Cost", "Latency", "ModelCost", "ModelForms", "Size", "Target", "measure_cost", "size_of"]

_HOME = {
    "Cost": "cost",
    "Latency": "cost",
    "ModelCost": "cost",
    "ModelForms": "measure",
    "Size": "size",
    "Target": "target",
    "measure_cost": "measure",
    "size_of": "size",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
