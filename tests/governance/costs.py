"""Costs of a small student and its teacher, made of calls, and what an export says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tutelage.devices.cost import Cost, Latency, ModelCost
from tutelage.devices.statistics import latency_of


def parity(agrees: bool, flips: int | None = 0) -> dict[str, Any]:
    return {
        "file": "model.onnx", "opset": 18, "rows": 2000, "batch_sizes": [1], "max_abs_difference": 2e-4,
        "mean_abs_difference": 1e-6, "flips": flips, "tolerance": 1e-3 if agrees else 1e-4, "agrees": agrees,
    }  # fmt: skip


def latency(form: str, batch: int, p95: float, *, rounds: int = 20, spread: float = 5.0, calls: int = 400) -> Latency:
    """Calls spread evenly over `spread` ms, in rounds that are alike: 95% of them take up to `p95` ms.

    Of 400 calls an interval reaches some 2 points to both sides: p95 ± 0.12 ms.
    """
    order = np.random.default_rng(0).permutation(calls)
    samples = p95 + spread * ((order + 0.5) / calls - 0.95)
    return latency_of(form, batch, samples.reshape(rounds, -1).tolist())


def beside(student: Latency, *, slower: float) -> Latency:
    """The teacher's calls: in every round so many times as slow as the student's, give or take a tenth."""
    scales = slower * np.linspace(0.9, 1.1, len(student.samples_ms))
    samples = [[scale * call for call in calls] for scale, calls in zip(scales, student.samples_ms, strict=True)]
    return latency_of(student.form, student.batch, samples)


TORCH = latency("torch", 1, 8.0)
COST = Cost(
    device={},
    rounds=20,
    models={
        "teacher": ModelCost(
            name="teacher",
            parameters=9,
            embedding_parameters=0,
            size_bytes=90_000_000,
            latencies=[beside(TORCH, slower=2)],
        ),
        "student": ModelCost(
            name="student",
            parameters=3,
            embedding_parameters=0,
            size_bytes=20_000_000,
            peak_memory_bytes={"torch": 200_000_000, "onnxruntime": 100_000_000},
            latencies=[TORCH, latency("onnxruntime", 1, 4.0), latency("onnxruntime", 32, 60.0)],
        ),
    },
)


def changed(**models: dict[str, Any]) -> Cost:
    """The cost above with other fields of its models."""
    return replace(COST, models={name: replace(COST.models[name], **models.get(name, {})) for name in COST.models})
