"""Bundles made without a training run: files as a run writes them, numbers drawn from a seeded generator."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from synthetic_evidence import CLASSES, EVIDENCE, METRICS, human_pairs

from tutelage.devices.cost import Cost
from tutelage.evaluation.results import MetricResult
from tutelage.governance.policy import Budget, Gate
from tutelage.governance.verdict import judge

TEXTS = [
    "The committee tabled the motion, which in London means the opposite of what it means in Washington.",
    "bank (river)",
    "The old man the boat.",
    "I can't recommend this candidate too highly.",
    "Buffalo buffalo Buffalo buffalo buffalo buffalo Buffalo buffalo.",
    "<script>alert('from a test row')</script> & <img src=x onerror=alert(1)>",
    "Der Hund, der die Katze, die die Maus fraß, jagte, schläft.",
    "מזג האוויר היום יפה מאוד",
    "A very long sentence with a"
    "veryveryveryveryveryveryveryveryveryveryveryveryverylongwordinit that must not widen the page",
]


def write_bundle(
    folder: Path, *, kind: str = "classification", outcome: str = "PASS", seeds: int = 1, rows: int = 2000
) -> Path:
    """Writes every file of a bundle but the models themselves."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(7)
    evidence = EVIDENCE[kind](draw, rows, outcome)
    evidence.write(folder / "evidence.parquet")
    if kind == "embedding":
        human_pairs(draw).write(folder / "evidence-wordsim353.parquet")
    metrics = METRICS[kind](evidence)
    names = {"classification": "accuracy", "embedding": "spearman_human:wordsim353", "regression": "r2"}
    files: dict[str, Any] = {
        "metrics.json": {"task": kind, "seeds": _seeds(draw, metrics, seeds), "metrics": metrics, "notes": NOTES[kind]},
        "cost.json": _cost(draw, kind, outcome),
        "export.json": _export(kind, rows),
        "disagreements.json": _disagreements(draw, kind),
        "provenance.json": _provenance(kind),
    }
    files["verdict.json"] = _verdict(metrics, outcome, files["cost.json"], files["export.json"])
    (folder / "recipe.yaml").write_text(_recipe(kind, outcome), encoding="utf-8")
    (folder / "history.jsonl").write_text("".join(json.dumps(r) + "\n" for r in _history(draw, names[kind], kind)))
    digests = {
        n: hashlib.sha256(n.encode()).hexdigest() for n in [*files, "recipe.yaml", "model.onnx", "model.safetensors"]
    }
    files["provenance.json"]["files"] = digests
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1), encoding="utf-8")
    return folder


NOTES = {
    "classification": [],
    "regression": [],
    "embedding": [
        "No baseline was trained: the transfer set has no labels, so there is nothing to learn without the teacher."
    ],
}


def _seeds(draw: np.random.Generator, metrics: list[dict[str, Any]], seeds: int) -> list[dict[str, Any]]:
    found = []
    for seed in range(seeds):
        values = {}
        for metric in metrics:
            spread = 0.15 * abs(metric["differences"].get("student - baseline", {"value": 0.01})["value"])
            values[metric["name"]] = {
                m: e["value"] + (float(draw.normal(0, spread)) if seed else 0.0)
                for m, e in metric["models"].items()
                if m in {"student", "baseline"}
            }
        found.append({"seed": seed, "shipped": seed == 0, "metrics": values})
    return found


def _verdict(
    metrics: list[dict[str, Any]], outcome: str, cost: dict[str, Any], export: dict[str, Any]
) -> dict[str, Any]:
    """What the judge says when the margin is laid where the wanted outcome follows."""
    results = [MetricResult.from_dict(m) for m in metrics]
    quality = next(m for m in results if m.kind == "quality")
    gap = quality.differences["student - teacher"]
    signed = -1 if quality.higher_is_better else 1
    half = gap.high - gap.value
    margin = signed * gap.value + {"PASS": 2.5, "INCONCLUSIVE": 0.3, "FAIL": -2.5}[outcome] * half
    fidelity = next(m for m in results if m.kind == "fidelity")
    student = fidelity.models["student"]
    slack = 4 * (student.high - student.low)
    bound = (
        {"at_least": round(student.value - slack, 3)}
        if fidelity.higher_is_better
        else {"at_most": round(student.value + slack, 3)}
    )
    policy = [Gate(metric=quality.name, margin=abs(round(margin, 4))), Gate(metric=fidelity.name, **bound)]
    size = Cost.from_dict(cost).models["student"].size_bytes / 1e6
    budget = Budget(
        latency_p95_ms=9.0, size_mb=round(size * (0.8 if outcome == "FAIL" else 1.4), 1), latency_vs_teacher=0.5
    )
    verdict = judge(results, Cost.from_dict(cost), policy, budget, export)
    assert verdict.verdict == outcome, (outcome, verdict)
    return verdict.to_dict()


def _cost(draw: np.random.Generator, kind: str, outcome: str) -> dict[str, Any]:
    def latency(form: str, batch: int, base: float) -> dict[str, Any]:
        samples = base * (
            1 + draw.gamma(1.3, 0.045, (10, 40)) + (draw.random((10, 40)) < 0.02) * draw.gamma(2, 0.4, (10, 40))
        )
        p50, p95, p99 = np.quantile(samples, [0.5, 0.95, 0.99])
        return {
            "form": form,
            "batch": batch,
            "p50_ms": float(p50),
            "p95_ms": float(p95),
            "p95_low_ms": float(p95 * 0.97),
            "p95_high_ms": float(p95 * 1.04),
            "p99_ms": float(p99),
            "samples_ms": samples.round(4).tolist(),
        }

    slow, quick = (24.0, 5.8) if kind == "embedding" else (9.6, 2.2)
    sizes = (
        {"teacher": (22_713_216, 11_720_448), "student": (5_601_024, 2_930_112)}
        if kind == "embedding"
        else {"teacher": (11_173_962, 0), "student": (1_103_562, 0)}
    )
    models = {
        name: {
            "name": name,
            "parameters": sizes[name][0],
            "embedding_parameters": sizes[name][1],
            "size_bytes": 4 * sizes[name][0] + 4096,
            "peak_memory_bytes": {
                "torch": 4 * sizes[name][0] + 90_000_000,
                "onnxruntime": 4 * sizes[name][0] + 31_000_000,
            },
            "latencies": [
                latency(form, batch, base * factor * (1 if batch == 1 else 0.7 * batch))
                for form, factor in (("torch", 1.35), ("onnxruntime", 1.0))
                for batch in (1, 32)
            ],
        }
        for name, base in (("teacher", slow), ("student", quick))
    }
    share = quick / slow
    ratios = {
        f"{f}/{b}": {"value": share, "low": share * 0.96, "high": share * 1.05}
        for f in ("torch", "onnxruntime")
        for b in (1, 32)
    }
    device = {"cpu": "Example CPU @ 2.60 GHz", "cores": 2, "threads": 1, "torch": "2.13.0", "onnxruntime": "1.32.0"}
    return {"device": device, "rounds": 10, "models": models, "ratios": ratios}


def _export(kind: str, rows: int) -> dict[str, Any]:
    return {
        "onnx": {
            "file": "model.onnx",
            "opset": 20,
            "rows": rows,
            "batch_sizes": [1, 7, 32],
            "max_abs_difference": 3.1e-6,
            "mean_abs_difference": 2.2e-7,
            "flips": 0 if kind == "classification" else None,
            "tolerance": 1e-4,
            "agrees": True,
        },
        "safetensors": {"file": "model.safetensors", "layout": "module", "max_abs_difference": 0.0},
    }


def _history(draw: np.random.Generator, metric: str, kind: str) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    steps = 3000
    roles = {"teacher": 0.9, "student": 1.0, "baseline": 1.25} if kind == "classification" else {"student": 1.0}
    for role, level in roles.items():
        for step in range(10, steps + 1, 10):
            decay = np.exp(-step / 500)
            noise = float(draw.normal(0, 0.03))
            kl = level * (0.28 + 1.6 * decay) + noise
            hint = level * (0.12 + 0.7 * np.exp(-step / 1100)) + noise / 3
            terms = {"KLDivergence": kl, "HiddenState": hint} if role == "student" else {"CrossEntropy": kl}
            records.append(
                {
                    "role": role,
                    "seed": 0,
                    "step": step,
                    "steps": steps,
                    "loss": sum(terms.values()),
                    "terms": terms,
                    "learning_rate": 1e-3 * (1 - step / steps),
                }
            )
            if step % 250 == 0:
                top = {"teacher": 0.93, "student": 0.915, "baseline": 0.89}[role]
                value = top - 0.4 * np.exp(-step / 420) - (0.004 if step > 2600 else 0) + float(draw.normal(0, 0.003))
                extra = (
                    {"agreement" if kind == "classification" else "cosine": value + 0.02} if role != "teacher" else {}
                )
                records.append(
                    {
                        "role": role,
                        "seed": 0,
                        "step": step,
                        "steps": steps,
                        "development": {metric: value, **extra},
                        "best": step in (250, 1000, 2500),
                    }
                )
    return records


def _disagreements(draw: np.random.Generator, kind: str) -> dict[str, Any]:
    items: list[dict[str, Any]] = []
    for k in range({"classification": 12, "embedding": len(TEXTS), "regression": 9}[kind]):
        item: dict[str, Any] = {"row": int(draw.integers(0, 9999)), "score": 4.2 / (k + 1)}
        if kind == "classification":
            a, b = draw.choice(10, 2, replace=False)
            item |= {
                "label": CLASSES[a],
                "teacher": f"{CLASSES[a]} 97%",
                "student": f"{CLASSES[b]} 61%",
                "input": _image(draw, k),
            }
        elif kind == "embedding":
            item |= {
                "label": None,
                "teacher": "nearest: row 812, row 77, row 1450",
                "student": "nearest: row 3, row 812, row 990",
                "input": TEXTS[k],
            }
        else:
            wave = np.sin(np.linspace(0, 3 + 2 * k, 96)) + draw.normal(0, 0.15, 96)
            item |= {"label": "31.2", "teacher": "30.8", "student": "24.1", "input": wave.round(4).tolist()}
        items.append(item)
    return {"kind": {"classification": "image", "embedding": "text", "regression": "array"}[kind], "items": items}


def _image(draw: np.random.Generator, k: int) -> str:
    """A grey 28 x 28 PNG, written by hand: a blot that could be a garment."""
    y, x = np.mgrid[-1:1:28j, -1:1:28j]
    body = (np.abs(x) < 0.35 + 0.25 * np.sin(2 * y + k)) & (np.abs(y) < 0.85)
    sleeves = (np.abs(y + 0.45) < 0.2) & (np.abs(x) < 0.9) & (k % 3 != 0)
    grey = np.where(body | sleeves, 150 + 70 * np.cos(5 * x * (1 + k % 3)) + draw.normal(0, 14, x.shape), 0)
    pixels = np.clip(grey, 0, 255).astype(np.uint8)
    lines = b"".join(b"\0" + row.tobytes() for row in pixels)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 28, 28, 8, 0, 0, 0, 0))
    png += chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _provenance(kind: str) -> dict[str, Any]:
    teacher, student = {
        "classification": ("resnet18-fashion", "resnet8-fashion"),
        "embedding": ("all-MiniLM-L6-v2", "MiniLM-L3, 192 wide"),
        "regression": ("boosted-trees", "mlp-64"),
    }[kind]
    return {
        "tutelage": "0.1.0",
        "created": "2026-11-24T04:03:11+00:00",
        "teacher": {
            "name": teacher,
            "class_path": "tutelage.teachers.module.ModuleTeacher",
            "sha256": hashlib.sha256(b"t").hexdigest(),
        },
        "student": {"name": student, "parameters": {"before": 1_103_562, "after": 1_103_562}},
        "data": {"train": {"rows": 54000, "sha256": hashlib.sha256(b"d").hexdigest()}, "test": {"rows": 2000}},
        "environment": {"python": "3.11.7", "torch": "2.13.0", "platform": "Linux x86_64", "commit": "0123abc"},
    }


def _recipe(kind: str, outcome: str) -> str:
    recipe = {
        "name": f"{kind}-{outcome.lower()}",
        "task": kind,
        "teacher": {"class_path": "tutelage.teachers.module.ModuleTeacher", "init_args": {"path": "teacher"}},
        "student": {"class_path": "tutelage.students.from_config.FromConfig", "init_args": {"depth": 3, "width": 64}},
        "losses": [{"class_path": "tutelage.losses.KLDivergence", "init_args": {"temperature": 4.0, "weight": 1.0}}],
        "policy": [{"metric": "accuracy", "margin": 0.01}],
        "budget": {"latency_p95_ms": 5.0, "size_mb": 6.0},
    }
    return "# As resolved by tutelage 0.1.0\n" + yaml.safe_dump(recipe, sort_keys=False)
