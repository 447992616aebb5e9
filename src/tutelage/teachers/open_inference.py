"""A teacher behind the Open Inference Protocol v2: KServe, Triton, OpenVINO Model Server and others."""

from __future__ import annotations

import functools
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tutelage.errors import CapReached, ModelError, QueryFailed, RecipeError, TeacherChanged, did_you_mean
from tutelage.forms import TopK
from tutelage.ledger import Asking, Call, Caps, Desk, Failure, Ledger, Prices, Question, Reply, question
from tutelage.signals import Batch, Request, Signals, lone_tensor
from tutelage.teachers.base import Teacher, TransferFacts, refuse_features, refuse_members
from tutelage.teachers.black_box import top_of_probabilities
from tutelage.teachers.canary import Canary, KnownRow, stacked
from tutelage.teachers.gives import signal_of
from tutelage.teachers.tensor_checks import (
    class_numbers,
    require_alike,
    require_fixed_sizes,
    require_names,
    require_rows,
    row_kind,
    unusable_rows,
)
from tutelage.teachers.tensor_servers import TensorServer, server_at
from tutelage.teachers.tensor_values import digest_of_row, fitted, read_back, same_answer, written
from tutelage.teachers.unreadable import set_aside

__all__ = ["OpenInference"]

Array = np.ndarray[Any, Any]
Answers = Literal["logits", "probabilities", "sigmoid", "values", "label"]


class OpenInference(Teacher):
    """A model on a server that speaks the Open Inference Protocol v2, over HTTP or gRPC. It supplies its output only.

    Every call goes through a query ledger: what is answered there is never asked again. The metadata (names, shapes
    and datatypes) is read at `load` and stored there too.

    A model behind an API can change without a word. So the ledger keeps the first rows that it answered, and when
    something is asked in a run, they are asked again, before the first new question and at the run's end; other
    metadata or answers stop the run. A change that is undone between two looks, or shows on other rows alone, goes
    unnoticed; and where nothing is asked, nothing is looked at.

    Args:
        url: `http://host:port`, or for gRPC `grpc://host:port` (`grpcs://` encrypted).
        model: Its name on the server.
        ledger: The file of the query ledger; made when it isn't there.
        version: The model's version; empty for the server's choice.
        inputs: Which tensor or column of the data each input of the model is given: the name of a tensor where the
            data has several, else that of a column as the source has it, without views. None: tensors as the student
            sees them, by their names; a single one goes to the model's only input.
        output: The name of the output; null where the model has one.
        gives: What the output is: `logits` or `values` (also embeddings), which are taken as they are, `probabilities`
            (which may be rounded or cut off), `sigmoid` (independent probabilities of labels), or `label`, a class
            number or name.
        classes_in_order: Names of the classes in the order of the output; null for those of the data.
        max_batch: Rows in a call.
        binary: Send tensors as bytes over HTTP, which Triton understands; JSON otherwise.
        canary: Rows that are kept, inputs and all, and asked again; 0 for none.
        caps: Where asking stops.
        asking: How fast is asked, and how often again.
        price_call: What a call costs.
        key_variable: The environment variable with the API key, sent as a bearer token.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        ledger: str,
        version: str = "",
        inputs: dict[str, str] | None = None,
        output: str | None = None,
        gives: Answers = "logits",
        classes_in_order: list[str] | None = None,
        max_batch: int = 64,
        binary: bool = False,
        canary: int = 2,
        caps: Caps | None = None,
        asking: Asking | None = None,
        price_call: float | None = None,
        key_variable: str | None = None,
    ) -> None:
        self.url = url
        self.model = model
        self.ledger = ledger
        self.version = version
        self.inputs = inputs
        self.output = output
        self.gives = gives
        self.classes_in_order = classes_in_order
        self.max_batch = max_batch
        self.binary = binary
        self.canary = canary
        self.caps = caps
        self.asking = asking
        self.price_call = price_call
        self.key_variable = key_variable
        self._desk: Desk | None = None
        self._kept: Canary | None = None
        self._server: TensorServer | None = None
        self._metadata: dict[str, Any] = {}
        self._names: tuple[str, ...] = tuple(classes_in_order or ())
        self._shapes: dict[tuple[tuple[int, ...], ...], str] = {}
        self._looked_at: int | None = None

    @property
    def comes_from_elsewhere(self) -> bool:
        """Somebody's server."""
        return True

    @property
    def incidental(self) -> tuple[str, ...]:
        """How answers are bought and looked at again, and where they are kept."""
        return ("ledger", "max_batch", "canary", "caps", "asking", "price_call", "key_variable")

    @property
    def calls_sent(self) -> int:
        """Attempts, failed ones included."""
        return 0 if self._desk is None else self._desk.sent

    def price_of(self, rows: int, pairs: int) -> str:
        """A call for each `max_batch` pairs."""
        return "" if self._desk is None else self._desk.price_of(-(-pairs // self.max_batch))

    def over_caps(self, rows: int, pairs: int) -> list[str]:
        """See `Teacher.over_caps`."""
        return [] if self._desk is None else self._desk.over_caps(-(-pairs // self.max_batch), answers=self.max_batch)

    def load(self, device: torch.device) -> None:
        """Opens the ledger, and reads the model's metadata if it isn't stored there.

        Raises:
            ModelError: The server or the model can't be reached, or has no such input or output.
            RecipeError: A setting is impossible.
        """
        del device
        if self._desk is not None:
            return
        caps, asking, prices = self.caps or Caps(), self.asking or Asking(), Prices(price_call=self.price_call)
        asking.check("asking")
        caps.check("caps", prices)
        if self.max_batch < 1 or self.canary < 0:
            raise RecipeError("max_batch", expected="at least 1, and `canary` 0 or more", found=str(self.max_batch))
        most = int(asking.answer_mb * 1e6)
        self._server = server_at(
            self.url, self.model, self.version, key_variable=self.key_variable, binary=self.binary, most_bytes=most
        )
        self._desk = Desk(Ledger(self.ledger), f"{self.url} {self.model}", caps=caps, asking=asking, prices=prices)
        try:
            self._metadata = json.loads(self._read_metadata({"what": "metadata"}))
            require_names(self._metadata, list(self.inputs or ()), self.output, self.describe())
        except BaseException:
            self._desk = None
            raise

    def meet(self, facts: TransferFacts) -> None:
        """Takes the data's names of the classes where it has none of its own."""
        if not self.classes_in_order:
            self._names = facts.classes

    def check(self, request: Request) -> None:
        """Raises a `ModelError` if features or members are requested."""
        refuse_members(self, request)
        refuse_features(self, request)

    def ask(self, batch: Batch, request: Request) -> Signals:
        """The stored answers; what is not stored is asked.

        Raises:
            ModelError: The batch lacks an input, or it does not fit the model.
            CapReached: A cap stops it.
            QueryFailed: The server gave no usable answer.
            TeacherChanged: Its answers to known rows are others now.
        """
        self.check(request)
        if not request.output or not len(batch):
            return Signals()
        desk, arrays = self._loaded(), self._arrays(batch)
        questions = [self._question(arrays, row) for row in range(len(batch))]

        def pack(missing: list[int]) -> Iterator[Call]:
            if self._looked_at is None:
                self._keep_stored(arrays, questions)
                self._look_again(before_the_first=True)
            for at in range(0, len(missing), self.max_batch):
                yield self._call(arrays, questions, missing[at : at + self.max_batch])

        answers = desk.ask(questions, pack)
        self._canary().keep(arrays, answers, range(len(answers)))
        values = [read_back(answer) for answer in answers]
        require_alike(values, f"{self.describe()} in {self.ledger}")
        with set_aside(desk, questions, values, lambda some: self._signals(some, batch.rows.device), self.ledger):
            return self._signals(np.stack(values), batch.rows.device)

    def fingerprint(self) -> str:
        """SHA-256 of URL, model, version, metadata and what is read of them.

        Raises:
            TeacherChanged: Something was asked since the last look, and the answers to known rows are others now.
        """
        self._loaded()
        self._look_again()
        read: dict[str, Any] = {"metadata": self._metadata, "gives": self.gives, "inputs": self.inputs}
        read["classes"] = self.classes_in_order
        return hashlib.sha256(json.dumps(self._identity() | read).encode()).hexdigest()

    @property
    def classes(self) -> tuple[str, ...]:
        """Those that the recipe names."""
        return tuple(self.classes_in_order or ())

    def describe(self) -> str:
        """The model and where it is."""
        return f"OpenInference {self.model} at {self.url}"

    def _identity(self) -> dict[str, Any]:
        return {
            "endpoint": self.url,
            "model": self.model,
            "version": self.version,
            "output": self._output()["name"],
        }

    def _question(self, arrays: dict[str, Array], row: int, **more: Any) -> Question:
        inputs = {
            name: [str(array.dtype), list(array.shape[1:]), digest_of_row(array[row])] for name, array in arrays.items()
        }
        return question(self._identity() | {"inputs": inputs} | more)

    def _call(
        self, arrays: dict[str, Array], questions: Sequence[Question], rows: Sequence[int], *, again: bool = False
    ) -> Call:
        """Asks these rows; `again`: only to compare, so that the shape of the answers may be any."""

        def send(timeout: float) -> Reply:
            assert self._server is not None
            output = self._output()["name"]
            given = {name: array[rows] for name, array in arrays.items()}
            values = self._server.infer(given, [output], timeout)[output]
            if again:
                require_rows(values, len(rows), self.gives)
                return Reply(answers=[written(value) for value in values])
            bad = unusable_rows(values, len(rows), self.gives, functools.partial(self._require_readable, given))
            answers = {row: written(value) for row, value in enumerate(values) if row not in bad}
            self._canary().keep(given, list(answers.values()), list(answers))  # before any answer is stored
            return Reply(answers=[answers.get(row) for row in range(len(rows))], lacks=next(iter(bad.values()), None))

        return Call(
            questions=[questions[row] for row in rows],
            send=send,
            part=lambda some: self._call(arrays, questions, [rows[at] for at in some]),
        )

    def _require_readable(self, given: dict[str, Array], values: Array) -> None:
        """Refuses what can't be read before it is stored."""
        self._require_shape(values, given)
        self._signals(np.stack([read_back(written(value)) for value in values]), torch.device("cpu"))

    def _require_shape(self, values: Array, given: dict[str, Array]) -> None:
        """Rows of the output are as the metadata has them, and as earlier ones to inputs of the same shapes."""
        require_fixed_sizes(values, self._output()["shape"])
        found = row_kind(values[0])
        before = self._shapes.setdefault(tuple(array.shape[1:] for array in given.values()), found)
        if found != before:
            raise Failure("unusable", f"{found} for a row; earlier ones were {before}", retry=False)

    # What is read

    def _signals(self, values: Array, device: torch.device) -> Signals:
        if self.gives == "label":
            labels = torch.from_numpy(class_numbers(values.reshape(-1), self._names, self.describe())).to(device)
            return Signals(top=TopK.of_labels(labels, len(self._names)))
        output = torch.from_numpy(values).to(device)
        output = output if output.is_floating_point() else output.float()
        if self.gives == "probabilities":
            return Signals(top=top_of_probabilities(output))
        return Signals(output=signal_of(output, self.gives, who=f"the output of {self.describe()}"))

    def _arrays(self, batch: Batch) -> dict[str, Array]:
        """The inputs of the model, as it wants them."""
        wanted = {each["name"]: each for each in self._metadata["inputs"]}
        if self.inputs is not None:
            given = {name: self._column(column, batch) for name, column in self.inputs.items()}
        elif (lone := lone_tensor(batch.inputs)) is not None and len(wanted) == 1:
            given = {next(iter(wanted)): lone.cpu().numpy()}
        elif isinstance(batch.inputs, Tensor):
            given = {}
        else:
            given = {name: batch.inputs[name].cpu().numpy() for name in wanted if name in batch.inputs}
        if missing := [name for name in wanted if name not in given]:
            raise ModelError(
                f"input `{missing[0]}` of {self.describe()}",
                expected="a tensor or column of the data for each input of the model",
                found="none for it",
                mend="name its tensor or column in `inputs`",
            )
        numbers = batch.rows.tolist()
        return {name: fitted(array, wanted[name], numbers) for name, array in given.items()}

    def _column(self, column: str, batch: Batch) -> Array:
        if isinstance(batch.inputs, dict) and column in batch.inputs:
            return batch.inputs[column].cpu().numpy()
        columns = {} if batch.raw is None else batch.raw()
        if column not in columns:
            raise ModelError(
                "inputs",
                expected="the name of a tensor or column of the data",
                found=column,
                mend=did_you_mean(column, [*columns, *(batch.inputs if isinstance(batch.inputs, dict) else ())]),
            )
        return columns[column]

    # What is checked

    def _read_metadata(self, what: dict[str, Any]) -> bytes:
        """The metadata as it is stored, or as it is now if it isn't."""
        asked = question({"endpoint": self.url, "model": self.model, "version": self.version} | what)
        assert self._server is not None
        read = self._server.metadata

        def send(timeout: float) -> Reply:
            return Reply(answers=[json.dumps(read(timeout)).encode()])

        try:
            return self._loaded().ask([asked], lambda _: [Call(questions=[asked], send=send)], attempts=2)[0]
        except QueryFailed as error:
            raise ModelError(
                self.describe(),
                expected="a server that says what the model takes and gives",
                found=str(error).splitlines()[0],
                mend="start the server, or mend `url`, `model` and `version`",
            ) from error

    def _output(self) -> dict[str, Any]:
        outputs: list[dict[str, Any]] = self._metadata["outputs"]
        return next(each for each in outputs if self.output in (None, each["name"]))

    def _canary(self) -> Canary:
        name = question(self._identity() | {"what": "canary"}).key
        if self._kept is None:
            self._kept = Canary(self._loaded().ledger, name, self.canary)
        return self._kept

    def _keep_stored(self, arrays: dict[str, Array], questions: Sequence[Question]) -> None:
        """Rows of a batch that are answered already, for a ledger made before the canary was kept there."""
        stored = self._loaded().ledger.answers(each.key for each in questions)
        at = [row for row, each in enumerate(questions) if each.key in stored]
        self._canary().keep(arrays, [stored[questions[row].key] for row in at], at)

    def _look_again(self, *, before_the_first: bool = False) -> None:
        """Asks the rows of the canary again, if something is asked for the first time or was since the last look."""
        desk = self._loaded()
        if not before_the_first and desk.sent <= (self._looked_at or 0):
            return
        known = self._canary().rows()
        try:
            if known:
                self._require_same(known)
        except CapReached:
            if before_the_first:
                raise
            return  # nothing is asked any more, so no answer of another model can join those that are here
        if known or before_the_first:
            self._looked_at = desk.sent

    def _require_same(self, known: Sequence[KnownRow]) -> None:
        """Metadata and answers are what they were."""
        moment = time.time_ns()
        if json.loads(self._read_metadata({"what": "metadata", "look": moment})) != self._metadata:
            raise self._changed("its metadata")
        for arrays, before in stacked(known, self.max_batch):
            questions = [self._question(arrays, row, look=moment) for row in range(len(before))]
            call = functools.partial(self._call, arrays, questions, again=True)
            now = self._loaded().ask(questions, lambda rows, call=call: [call(rows)])  # type: ignore[misc]
            if not all(same_answer(read_back(a), read_back(b)) for a, b in zip(before, now, strict=True)):
                raise self._changed("its answers to known rows")

    def _changed(self, what: str) -> TeacherChanged:
        return TeacherChanged(
            f"{self.describe()} is another model than the one that gave the answers in {self.ledger}: {what} changed; "
            "begin a new ledger, or have the former model served again"
        )

    def _loaded(self) -> Desk:
        if self._desk is None:
            expected = "an OpenInference that is loaded"
            raise ModelError("teacher", expected=expected, found="one that is not", mend="call `load` first")
        return self._desk
