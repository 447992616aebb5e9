"""The process in which ONNX files are measured: `python -m tutelage.devices.worker TASK.json`.

It loads NumPy and ONNX Runtime and nothing else, so that neither the training state, the threads nor the allocator of
the process that asks is measured too. The task and its answer are JSON files; the inputs are an `.npz`.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
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
    """

    want: Literal["latency", "memory"]
    models: dict[str, str]
    inputs: str
    answer: str
    device: str
    batch_sizes: list[int]
    rounds: int = 10
    seconds: float = 4.0

    def to_json(self) -> str:
        """For the file that `main` reads."""
        return json.dumps(asdict(self))


class _Runner:
    """An ONNX model that is called again and again with the same inputs."""

    def __init__(self, path: str, target: Target, arrays: Arrays) -> None:
        self.session = onnx_session(Path(path), target)
        names = [wanted.name for wanted in self.session.get_inputs()]
        missing = [name for name in names if name not in arrays]
        if missing:
            raise ModelError(
                f"inputs of {Path(path).name}",
                expected=f"{names}",
                found=f"{sorted(arrays)}",
                mend=f"give {missing} too: the model was exported with them",
            )
        self.arrays = {name: arrays[name] for name in names}

    def feed(self, rows: int) -> Arrays:
        """The first rows of the inputs."""
        return {name: np.ascontiguousarray(array[:rows]) for name, array in self.arrays.items()}


def _latency(task: Task, target: Target, arrays: Arrays) -> dict[str, Any]:
    runners = {name: _Runner(path, target, arrays) for name, path in task.models.items()}
    answer = []
    for rows in task.batch_sizes:
        feeds = {name: runner.feed(rows) for name, runner in runners.items()}
        candidates = {
            name: lambda session=runner.session, feed=feeds[name]: session.run(None, feed)
            for name, runner in runners.items()
        }
        answer.append({"batch": rows, **asdict(measure(candidates, rounds=task.rounds, seconds=task.seconds))})
    return {"latency": answer}


def _memory(task: Task, target: Target, arrays: Arrays) -> dict[str, Any]:
    (path,) = task.models.values()

    def load_and_answer() -> _Runner:
        runner = _Runner(path, target, arrays)
        runner.session.run(None, runner.feed(max(task.batch_sizes)))
        return runner

    return {"peak_memory_bytes": peak_added_by(load_and_answer)}


def perform(task: Task) -> dict[str, Any]:
    """Does a task in this process.

    Returns:
        `{"latency": [{"batch":, "samples_ms": {name: [round][call]}, "contaminated":, "repeated":}, ...]}` or
        `{"peak_memory_bytes":}`.
    """
    target = Target.parse(task.device)
    load_onnxruntime()  # before anything is measured: its code is no part of a model's memory
    with np.load(task.inputs, allow_pickle=False) as stored:
        arrays: Arrays = {name: stored[name] for name in stored.files}
    return (_latency if task.want == "latency" else _memory)(task, target, arrays)


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
