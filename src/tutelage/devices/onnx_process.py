"""Starts the process in which ONNX files are measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.devices.batch import named
from tutelage.devices.latency import Rounds
from tutelage.devices.target import Target
from tutelage.devices.worker import Task
from tutelage.errors import RunError
from tutelage.signals import Inputs

__all__ = ["OnnxProcess"]


Feed = dict[str, np.ndarray[Any, Any]]


class OnnxProcess:
    """Runs `tutelage.devices.worker` on tasks that share their inputs. Each task is a fresh process.

    Args:
        batch: The inputs of the largest batch.
        target: The device.
    """

    def __init__(self, batch: Inputs, target: Target) -> None:
        self.batch, self.target = batch, target
        self._feeds: dict[str, str] = {}
        self._outputs: dict[str, list[str]] = {}

    def __enter__(self) -> OnnxProcess:
        self._temporary = tempfile.TemporaryDirectory(prefix="tutelage-measure-")
        self._folder = Path(self._temporary.name)
        arrays: dict[str, Any] = {name: tensor.detach().cpu().numpy() for name, tensor in named(self.batch).items()}
        np.savez(self._folder / "inputs.npz", **arrays)
        return self

    def __exit__(self, *_: object) -> None:
        self._temporary.cleanup()

    def call_with(self, name: str, feeds: Mapping[int, Sequence[Feed]], outputs: Sequence[str]) -> None:
        """Has one of the models called with arrays of its own.

        Args:
            name: Of the model.
            feeds: For each number of rows, what it is called with, one call after the other.
            outputs: The outputs that are asked for.
        """
        path = self._folder / f"feeds-{len(self._feeds)}.npz"
        arrays: dict[str, Any] = {
            f"{rows}/{number}/{key}": array
            for rows, calls in feeds.items()
            for number, feed in enumerate(calls)
            for key, array in feed.items()
        }
        np.savez(path, **arrays)
        self._feeds[name], self._outputs[name] = str(path), list(outputs)

    def latency(
        self,
        files: Mapping[str, Path],
        sizes: Sequence[int],
        *,
        rounds: int,
        seconds: float,
        judged: Mapping[int, Mapping[str, int]] | None = None,
    ) -> Iterator[tuple[int, Rounds]]:
        """Times the files in turn: `(batch size, rounds)` for each size.

        Args:
            files: ONNX files by name.
            sizes: Rows in a call.
            rounds: Alternating rounds for each size.
            seconds: About how long each size may take.
            judged: By size, the calls of each model that a judgement takes.
        """
        wanted = {str(rows): dict(calls) for rows, calls in (judged or {}).items()}
        answer = self._perform(self._task("latency", files, sizes, rounds=rounds, seconds=seconds, judged=wanted))
        for timed in answer["latency"]:
            yield timed.pop("batch"), Rounds(**timed)

    def peak_memory(self, name: str, path: Path, rows: int) -> int:
        """The most that loading a file and answering `rows` rows adds to the resident memory of a fresh process."""
        return int(self._perform(self._task("memory", {name: path}, [rows]))["peak_memory_bytes"])

    def _task(self, want: Any, files: Mapping[str, Path], sizes: Sequence[int], **more: Any) -> Task:
        return Task(
            want=want,
            models={name: str(path.resolve()) for name, path in files.items()},
            inputs=str(self._folder / "inputs.npz"),
            answer=str(self._folder / "answer.json"),
            device=self.target.name,
            batch_sizes=list(sizes),
            feeds={name: path for name, path in self._feeds.items() if name in files},
            outputs={name: outputs for name, outputs in self._outputs.items() if name in files},
            **more,
        )

    def _perform(self, task: Task) -> dict[str, Any]:
        (self._folder / "task.json").write_text(task.to_json(), encoding="utf-8")
        Path(task.answer).unlink(missing_ok=True)
        source = str(Path(__file__).parents[2])  # for a package that is imported from a folder and not installed
        path = os.pathsep.join(part for part in (os.environ.get("PYTHONPATH"), source) if part)
        done = subprocess.run(
            [sys.executable, "-m", "tutelage.devices.worker", "task.json"],
            cwd=self._folder,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(self.target.threads)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0 or not Path(task.answer).exists():
            words = "\n".join(done.stderr.strip().splitlines()[-5:])
            raise RunError(f"the process that measures ONNX files ended with status {done.returncode}:\n{words}")
        answer: dict[str, Any] = json.loads(Path(task.answer).read_text(encoding="utf-8"))
        if "error" in answer:
            raise RunError(f"the process that measures ONNX files gave up:\n{answer['error']}")
        return answer
