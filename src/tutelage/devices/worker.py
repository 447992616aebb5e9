"""The process in which ONNX files are measured: `python -m tutelage.devices.worker TASK.json`.

It loads NumPy and ONNX Runtime and nothing else, so that neither the training state, the threads nor the allocator of
the process that asks is measured too. The task and its answer are JSON files; the inputs are an `.npz`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tutelage.devices.latency import measure
from tutelage.devices.memory import peak_added_by
from tutelage.devices.runtime import load_onnxruntime, onnx_session
from tutelage.devices.target import Target
from tutelage.errors import ModelError, TutelageError

__all__ = ["Task", "main", "perform"]

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What the worker is to do.

    Attributes:
        want: `latency` of all models in turn, or `memory` of the only one.
        models: Paths of ONNX files by name.
        inputs: Path of an `.npz` with the inputs of the largest batch, by input name.
        answer: Where to write the answer.
        device: As `Target.parse` takes it.
        batch_sizes: Rows in a call.
        rounds: Alternating rounds for each batch size.
        seconds: About how long each batch size may take.
        judged: By batch size, the calls of each model that a judgement takes (`latency.measure`).
        feeds: For a model that is not called with `inputs`, the path of an `.npz` with what it is called with: by
            `ROWS/CALL/INPUT`, the calls that answer so many rows numbered from 0.
        outputs: For a model of which not all outputs are asked, which are.
    """

    want: Literal["latency", "memory"]
    models: dict[str, str]
    inputs: str
    answer: str
    device: str
    batch_sizes: list[int]
    rounds: int = 10
    seconds: float = 4.0
    judged: dict[str, dict[str, int]] = field(default_factory=dict)
    feeds: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, list[str]] = field(default_factory=dict)

    def to_json(self) -> str:
        """For the file that `main` reads."""
        return json.dumps(asdict(self))


class _Runner:
    """An ONNX model that is called again and again with the same inputs."""

    def __init__(self, task: Task, name: str, target: Target, arrays: Arrays) -> None:
        path = Path(task.models[name])
        self.session = onnx_session(path, target)
        self.outputs = task.outputs.get(name)
        self.arrays, self.own = arrays, name in task.feeds
        if self.own:
            self.arrays = _read(task.feeds[name])
            return
        names = [wanted.name for wanted in self.session.get_inputs()]
        missing = [name for name in names if name not in arrays]
        if missing:
            raise ModelError(
                f"inputs of {path.name}",
                expected=f"{names}",
                found=f"{sorted(arrays)}",
                mend=f"give {missing} too: the model was exported with them",
            )
        self.arrays = {name: arrays[name] for name in names}

    def calls(self, rows: int) -> list[Arrays]:
        """What it is called with to answer so many rows."""
        if not self.own:
            return [{name: np.ascontiguousarray(array[:rows]) for name, array in self.arrays.items()}]
        found: dict[int, Arrays] = {}
        for key, array in self.arrays.items():
            of, number, name = key.split("/", 2)
            if int(of) == rows:
                found.setdefault(int(number), {})[name] = array
        return [found[number] for number in sorted(found)]

    def answering(self, rows: int) -> Callable[[], object]:
        """A call that answers so many rows."""
        run, outputs, calls = self.session.run, self.outputs, self.calls(rows)
        if len(calls) == 1:
            (feed,) = calls
            return lambda: run(outputs, feed)
        return lambda: [run(outputs, feed) for feed in calls]


def _latency(task: Task, target: Target, arrays: Arrays) -> dict[str, Any]:
    runners = {name: _Runner(task, name, target, arrays) for name in task.models}
    answer = []
    for rows in task.batch_sizes:
        candidates = {name: runner.answering(rows) for name, runner in runners.items()}
        timed = measure(
            candidates,
            rounds=task.rounds,
            seconds=task.seconds,
            judged=task.judged.get(str(rows)),
            computing=target.computing(candidates),
        )
        answer.append({"batch": rows, **asdict(timed)})
    return {"latency": answer}


def _memory(task: Task, target: Target, arrays: Arrays) -> dict[str, Any]:
    (name,) = task.models

    def load_and_answer() -> _Runner:
        runner = _Runner(task, name, target, arrays)
        runner.answering(max(task.batch_sizes))()
        return runner

    return {"peak_memory_bytes": peak_added_by(load_and_answer)}


def _read(path: str) -> Arrays:
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def perform(task: Task) -> dict[str, Any]:
    """Does a task in this process.

    Returns:
        `{"latency": [{"batch":, "samples_ms": {name: [round][call]}, "cpu_ms": {name: [round]}, "contaminated":,
        "repeated":}, ...]}` or `{"peak_memory_bytes":}`.
    """
    target = Target.parse(task.device)
    load_onnxruntime()  # before anything is measured: its code is no part of a model's memory
    return (_latency if task.want == "latency" else _memory)(task, target, _read(task.inputs))


def main(arguments: list[str]) -> int:
    """Reads the task, does it, writes the answer; an error of ours becomes `{"error": message}`."""
    task = Task(**json.loads(Path(arguments[0]).read_text(encoding="utf-8")))
    try:
        answer = perform(task)
    except TutelageError as error:
        answer = {"error": str(error)}
    Path(task.answer).write_text(json.dumps(answer), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
