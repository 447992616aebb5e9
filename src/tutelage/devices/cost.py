"""The record of what models cost: the words that budgets and reports are written in (`cost.json`)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Self

from tutelage.devices.quantiles import Interval
from tutelage.devices.samples import packed, unpacked

__all__ = ["FROM_RAW", "FROM_TENSORS", "Cost", "Latency", "ModelCost", "significant"]

FROM_RAW = "from raw columns"
FROM_TENSORS = "from tensors"
"""Forms of both models in one process: the teacher in its own library, the student in eager torch."""


def significant(value: float) -> str:
    """A measured number in three significant digits: 0.00364, 4.1, 69.6, 12,345."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Latency of one model in one form at one batch size.

    Attributes:
        form: The runtime: `torch` (eager) or `onnxruntime`. Beside a teacher that runs in a library of its own, where
            a call begins: `from tensors` or `from raw columns` (`Cost.forms` says what is in it).
        batch: Rows in a call.
        p50_ms: Median over all timed calls, milliseconds a call.
        p95_ms: 95th percentile; `p95_low_ms`, `p95_high_ms` are its 95% interval, from order statistics. An end is None
            where the calls are too few to set a limit there.
        p99_ms: 99th percentile.
        samples_ms: Every timed call, round by round: `samples_ms[round][call]`, in a round the shortest first. In
            `cost.json` they are packed (`samples.packed`).
        cpu_ms: CPU time of a call, the mean of each round; empty where it was not taken (CUDA).
    """

    form: str
    batch: int
    p50_ms: float
    p95_ms: float
    p95_low_ms: float | None
    p95_high_ms: float | None
    p99_ms: float
    samples_ms: list[list[float]]
    cpu_ms: list[float] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class ModelCost:
    """What one model costs.

    Attributes:
        name: `teacher` or `student`.
        parameters: All parameters; None where there is no such count (trees, a function).
        embedding_parameters: Those of embedding tables, included in `parameters`.
        size_bytes: The weights as stored (safetensors), or the model's own files; None for one that is in no file.
        peak_memory_bytes: By form: the highest resident memory of a fresh process that loads the model and answers
            at the largest batch measured, less that of the same process before loading.
        latencies: Every form and batch size measured.
    """

    name: str
    parameters: int | None
    embedding_parameters: int | None
    size_bytes: int | None
    peak_memory_bytes: dict[str, int] = field(default_factory=dict)
    latencies: list[Latency] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """`cost.json`: the device, and what each model costs on it. Teacher and student ran in alternating rounds.

    Attributes:
        device: CPU model, cores, threads used, versions: what a stranger needs to judge the numbers.
        rounds: Alternating rounds asked for; a slow form takes fewer, at least 6, and one that a budget judges takes
            more (`samples_ms` has them).
        models: By name.
        ratios: Student's latency as a share of the teacher's, by `form/batch` (`torch/1`): the median over rounds
            of the ratio of the rounds' medians with its 95% interval.
        cpu_ratios: The same of their CPU times, which other work on the machine does not lengthen.
        contention: Rounds in which the machine was shared (`contaminated`), those of them that were run again
            (`repeated`) and those that are among the samples (`kept`).
        disturbed: By `form/batch`, rounds among its samples in which the machine was shared.
        inputs: Shape of each input; the first axis, the batch, is None.
        forms: What is in a call, for the forms whose name does not say it.
    """

    device: dict[str, Any]
    rounds: int
    models: dict[str, ModelCost]
    ratios: dict[str, Interval] = field(default_factory=dict)
    cpu_ratios: dict[str, Interval] = field(default_factory=dict)
    contention: dict[str, int] = field(default_factory=dict)
    disturbed: dict[str, int] = field(default_factory=dict)
    inputs: dict[str, list[int | None]] = field(default_factory=dict)
    forms: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `cost.json`."""
        data = asdict(self)
        for model in data["models"].values():
            for latency in model["latencies"]:
                latency["samples_ms"] = packed(latency["samples_ms"])
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        models = {
            name: ModelCost(**{**model, "latencies": [_latency(latency) for latency in model["latencies"]]})
            for name, model in data["models"].items()
        }
        ratios = {
            name: {key: Interval(**ratio) for key, ratio in data.get(name, {}).items()}
            for name in ("ratios", "cpu_ratios")
        }
        return cls(**{**data, "models": models, **ratios})

    def stays_disturbed(self, form: str, batch: int) -> bool:
        """Whether the machine was shared in so many rounds that medians over them are not those of a quiet one."""
        rounds = max(
            (
                len(x.samples_ms)
                for m in self.models.values()
                for x in m.latencies
                if (x.form, x.batch) == (form, batch)
            ),
            default=0,
        )
        return 4 * self.disturbed.get(f"{form}/{batch}", 0) > rounds

    def ratio(self, form: str, batch: int) -> Interval | None:
        """The student's latency as a share of the teacher's; on a machine that stayed disturbed, the worse of both.

        Other work takes the core away from a call that is longer than a slice of the scheduler's, and seldom from a
        shorter one: the short one looks quicker than it is. There the value is the larger of the two ratios, by wall
        time and by CPU time, and the interval spans both. It has no ends where the CPU time is not known.
        """
        key = f"{form}/{batch}"
        wall, cpu = self.ratios.get(key), self.cpu_ratios.get(key)
        if wall is None or not self.stays_disturbed(form, batch):
            return wall
        if cpu is None:
            return Interval(value=wall.value, low=None, high=None)
        return Interval(
            value=max(wall.value, cpu.value),
            low=None if wall.low is None or cpu.low is None else min(wall.low, cpu.low),
            high=None if wall.high is None or cpu.high is None else max(wall.high, cpu.high),
        )


def _latency(data: dict[str, Any]) -> Latency:
    return Latency(**{**data, "samples_ms": unpacked(data["samples_ms"])})
