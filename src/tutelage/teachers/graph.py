"""What all teachers that are a graph in a file share: they differ in the runtime that runs it."""

from __future__ import annotations

import abc
import copy
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from tutelage.errors import ModelError, UserError, did_you_mean
from tutelage.files import digest_file
from tutelage.paths import resolve_path
from tutelage.signals import Batch, Request, Signals
from tutelage.teachers.base import Teacher, refuse_members
from tutelage.teachers.casts import converted
from tutelage.teachers.constants import Constant, Constants
from tutelage.teachers.gives import Gives, signal_of
from tutelage.teachers.port import Port
from tutelage.teachers.served import Reads, Served
from tutelage.teachers.settings import require_choice, require_threads

__all__ = ["GraphTeacher", "Port", "Reads"]

Array = np.ndarray[Any, Any]


class GraphTeacher(Teacher):
    """A graph in a file with named inputs and outputs. It supplies its output, and further outputs as features.

    A fixed batch axis is met by cutting batches in pieces and filling up the last one; tensors are converted to the
    types of the graph's inputs where that loses nothing but digits.

    A subclass stores `path`, `inputs`, `constants`, `output`, `gives`, `reads` and `threads`, and says how its runtime
    opens and runs a graph.
    """

    path: str
    inputs: dict[str, str] | None
    constants: dict[str, Constant] | None
    output: str | None
    gives: Gives
    reads: Reads
    threads: int | None
    _graph: Any = None
    _ports: tuple[list[Port], list[Port]] = ([], [])
    _fixed: Constants = Constants({}, [], {})
    _digest = ""

    @abc.abstractmethod
    def open(self, path: Path, device: torch.device) -> Any:
        """The graph, ready to run. Raises a `ModelError` if the file is none."""

    @abc.abstractmethod
    def ports(self, graph: Any) -> tuple[list[Port], list[Port]]:
        """Inputs and outputs."""

    @abc.abstractmethod
    def run(self, graph: Any, feed: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """The outputs of that name, in that order."""

    @abc.abstractmethod
    def files(self, path: Path) -> list[Path]:
        """All files that the graph is in: the file itself, and those of its weights."""

    @property
    def comes_from_elsewhere(self) -> bool:
        """Somebody's file."""
        return True

    def load(self, device: torch.device) -> None:
        """Opens the graph.

        Raises:
            ModelError: The file is missing or no graph, or it is open which of its outputs is meant.
        """
        if self._graph is not None:
            return
        require_choice("teacher.gives", self.gives, get_args(Gives))
        require_choice("teacher.reads", self.reads, get_args(Reads))
        require_threads(self.threads)
        path = resolve_path(self.path, key="teacher.path", error=ModelError)
        graph = self.open(path, device)
        self._ports = self.ports(graph)
        self._check_names()
        self._fixed = Constants(self.constants or {}, self._ports[0], self.inputs or {})
        sha = hashlib.sha256()
        for file in self.files(path):
            sha.update(f"{digest_file(file)}\0".encode())
        self._digest, self._graph = sha.hexdigest(), graph

    def _check_names(self) -> None:
        inputs, outputs = ([port.name for port in ports] for ports in self._ports)
        for given in (self.inputs or {}).values():
            if given not in inputs:
                raise ModelError(
                    "teacher.inputs",
                    expected=f"names of the graph's inputs: {', '.join(inputs)}",
                    found=f"`{given}`",
                    mend=did_you_mean(given, inputs),
                )
        if self.output is not None and self.output not in outputs:
            raise ModelError(
                "teacher.output",
                expected=f"one of the graph's outputs: {', '.join(outputs)}",
                found=f"`{self.output}`",
                mend=did_you_mean(self.output, outputs),
            )
        if self.output is None and len(outputs) != 1:
            raise ModelError(
                "teacher.output",
                expected="the name of the output that teaches",
                found=f"none, and the graph has {len(outputs)}: {', '.join(outputs)}",
                mend=f"output: {outputs[0] if outputs else 'NAME'}",
            )
        if self._main_port.keys and self.gives == "logits":
            raise ModelError(
                "teacher.gives",
                expected=f"what the maps in the output `{self._main()}` hold, which is hardly logits",
                found="logits, the default",
                harm="the softmax of probabilities would be distilled, and not they",
                mend="gives: probabilities, which scikit-learn's classifiers put there (values for other scores)",
            )

    def check(self, request: Request) -> None:
        """Raises a `ModelError` with the nearest name if a requested feature is no output of the graph."""
        self._loaded()
        refuse_members(self, request)
        known = [port.name for port in self._ports[1] if port.name != self._main()]
        for name in sorted(request.features):
            if name not in known:
                raise ModelError(
                    f"layer `{name}` of the teacher",
                    expected=f"a named output of {self.describe()}",
                    found="none of that name",
                    mend=did_you_mean(name, known) or "export the graph with the inner layer as a further output",
                )

    def ask(self, batch: Batch, request: Request) -> Signals:
        """What the graph puts out for the batch: exactly what was requested.

        Raises:
            ModelError: The batch lacks an input, has the wrong shape for it, or the graph fails.
        """
        self.check(request)
        names = [*([self._main()] if request.output else []), *sorted(request.features)]
        if not names:
            return Signals()
        found = self._outputs(batch, names)
        tensors = {name: self._tensor(name, array).to(batch.rows.device) for name, array in found.items()}
        return Signals(
            output=tensors[self._main()] if request.output else None,
            features={name: tensors[name] for name in sorted(request.features)},
        )

    def _main(self) -> str:
        return self._main_port.name

    @property
    def _main_port(self) -> Port:
        return next(port for port in self._ports[1] if self.output in (None, port.name))

    @property
    def classes(self) -> tuple[str, ...]:
        """The keys of an output of maps, unless they are the numbers of the classes from 0."""
        keys = self._main_port.keys if self._graph is not None else ()
        return () if keys == tuple(range(len(keys))) else tuple(map(str, keys))

    def _tensor(self, name: str, array: Array) -> torch.Tensor:
        if array.dtype.kind not in "fiub":
            raise ModelError(
                f"output `{name}` of {self.describe()}", expected="a tensor of numbers", found=f"{array.dtype}"
            )
        if name != self._main():
            return torch.from_numpy(np.ascontiguousarray(array))
        if array.dtype.kind != "f":
            raise ModelError(
                f"output `{name}` of {self.describe()}",
                expected=f"{self.gives}",
                found=f"{array.dtype}: these seem to be labels",
                mend=f"name another output: {', '.join(port.name for port in self._ports[1])}",
            )
        told = torch.from_numpy(np.ascontiguousarray(array))
        return signal_of(told, self.gives, who=f"output `{name}` of {self.describe()}").float()

    # What goes in.

    def _feed(self, batch: Batch) -> dict[str, Array]:
        given = self._given(batch)
        for column in self.inputs or {}:
            if column not in given:
                raise ModelError(
                    "teacher.inputs",
                    expected=f"names of the data's columns: {', '.join(given)}",
                    found=f"`{column}`",
                    mend=did_you_mean(column, given),
                )
        ports = [port for port in self._ports[0] if port.name not in self._fixed]
        if self.inputs is None and len(given) == len(ports) == 1:  # a lone tensor has no name of its own
            given = {ports[0].name: next(iter(given.values()))}
        renamed = {(self.inputs or {}).get(name, name): array for name, array in given.items()}
        feed, rows = {}, batch.rows.tolist()
        for port in ports:
            if port.name not in renamed:
                raise ModelError(
                    f"input {port} of {self.describe()}",
                    expected=f"one of the data's columns: {', '.join(given)}",
                    found="none of that name",
                    mend=f"say which one it is: inputs: {{COLUMN: {port.name}}}; or what it always is (0 for a state): "
                    f"constants: {{{port.name}: 0}}",
                )
            feed[port.name] = self._fitted(renamed[port.name], port, rows)
        return feed

    def _given(self, batch: Batch) -> dict[str, Array]:
        if self.reads == "raw":
            if batch.raw is None:
                raise ModelError("teacher.reads", expected="rows with raw columns", found="a batch of tensors alone")
            return batch.raw()
        tensors = batch.inputs if isinstance(batch.inputs, dict) else {self._name_of_lone(batch): batch.inputs}
        return {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}

    def _name_of_lone(self, batch: Batch) -> str:
        """The column that a tensor without a name is: the data's only one, or else the only one that is renamed."""
        columns = [] if batch.raw is None or not self.inputs else list(batch.raw())
        names = columns if len(columns) == 1 and "input" not in (self.inputs or ()) else list(self.inputs or ())
        return names[0] if len(names) == 1 else "input"

    def _fitted(self, array: Array, port: Port, rows: Sequence[int]) -> Array:
        """An input in the type that the graph takes, and with the axes that it has."""
        if port.dtype is not None and array.dtype != port.dtype:
            array = converted(array, port.dtype, where=f"input {port} of the teacher", rows=rows)
        if port.shape is None:
            return array
        if array.ndim == 1 and len(port.shape) == 2:  # a column of a table: graphs of scikit-learn take [B, 1]
            array = array[:, None]
        sizes = zip(array.shape[1:], port.shape[1:], strict=False)
        if array.ndim != len(port.shape) or any(wanted not in (None, size) for size, wanted in sizes):
            raise ModelError(
                f"input {port} of {self.describe()}",
                expected="a batch of that shape",
                found=f"{list(array.shape)}",
                mend="compare data.source with the graph; `?` stands for any size",
            )
        return array

    def _calls(self, batch: Batch) -> Iterator[tuple[dict[str, Array], int]]:
        """What the graph is called with, in pieces where it fixes the size of a batch; how many rows are meant."""
        size = self._fixed_batch()
        for piece, count in _pieces(self._feed(batch), len(batch), size):
            yield piece | self._fixed.arrays(count if size is None else size), count

    def _outputs(self, batch: Batch, names: Sequence[str]) -> dict[str, Array]:
        """Runs the graph."""
        size = self._fixed_batch()
        parts: list[list[Array]] = []
        for piece, count in self._calls(batch):
            found = self._ran(piece, names)
            given = count if size is None else size
            for name, array in zip(names, found, strict=True):
                if not array.ndim or len(array) != given:
                    raise ModelError(
                        f"output `{name}` of {self.describe()}",
                        expected=f"one entry for each of {given} rows",
                        found=f"shape {list(array.shape)}",
                        mend="use an output whose first axis is the batch",
                    )
            parts.append([array[:count] for array in found])
        return {name: np.concatenate([part[i] for part in parts]) for i, name in enumerate(names)}

    def _fixed_batch(self) -> int | None:
        """The size of a batch, where the graph fixes it."""
        fixed = {port.batch for port in self._ports[0] if port.name not in self._fixed} - {None}
        if len(fixed) > 1:
            raise ModelError(
                self.describe(),
                expected="one size of a batch",
                found=f"inputs that fix it at {sorted(map(str, fixed))}",
            )
        return next(iter(fixed), None)

    # How it is timed.

    def served(self) -> Served:
        """A graph of its own, with the threads asked for, on the CPU."""
        self._loaded()
        path = resolve_path(self.path, key="teacher.path", error=ModelError)
        return Served(open=self._opened, reads=frozenset({self.reads}), files=tuple(self.files(path)))

    def _opened(self, threads: int) -> Callable[[Batch], Signals]:
        twin = copy.copy(self)
        twin.threads, twin._graph = threads, None
        twin.on_cpu()
        twin.load(torch.device("cpu"))
        return lambda batch: twin.ask(batch, Request(output=True))

    def feeds(self, batch: Batch) -> list[dict[str, Array]]:
        """What the graph is called with for a batch, in as many calls as its batch axis makes necessary."""
        return [piece for piece, _ in self._calls(batch)]

    def on_cpu(self) -> None:
        """Changes the settings that would have the graph run elsewhere."""

    def _ran(self, feed: Mapping[str, Array], names: Sequence[str]) -> list[Array]:
        try:
            found = self.run(self._graph, feed, names)
        except UserError:
            raise
        except Exception as error:  # runtimes have no common base class for their errors
            shapes = ", ".join(f"{name} {list(array.shape)} {array.dtype}" for name, array in feed.items())
            raise ModelError(
                f"running {self.describe()}", expected="inputs that fit the graph", found=f"{shapes}\n{error}"
            ) from error
        return [np.asarray(array) for array in found]

    def fingerprint(self) -> str:
        """SHA-256 of the graph's files and of the settings that decide its answers."""
        self._loaded()
        settings: dict[str, Any] = {"inputs": self.inputs, "output": self.output}
        settings |= {"gives": self.gives, "reads": self.reads}
        settings |= {} if self.constants is None else {"constants": self.constants}  # stored answers stay known
        return hashlib.sha256(f"{self._digest}{json.dumps(settings, sort_keys=True)}".encode()).hexdigest()

    def describe(self) -> str:
        """The class and the file."""
        return f"{type(self).__name__} {Path(self.path).name}"

    def _loaded(self) -> None:
        if self._graph is None:
            raise ModelError(
                "teacher",
                expected=f"a {type(self).__name__} that is loaded",
                found="one that is not",
                mend="call `load(device)` first",
            )


def _pieces(feed: Mapping[str, Array], rows: int, size: int | None) -> Iterator[tuple[dict[str, Array], int]]:
    """The inputs in pieces of `size` rows, the last one filled up with its last row; how many rows are meant."""
    if size is None:
        yield dict(feed), rows
        return
    for at in range(0, rows, size):
        count = min(size, rows - at)
        chosen = np.minimum(np.arange(at, at + size), rows - 1)
        yield {name: array[chosen] for name, array in feed.items()}, count
