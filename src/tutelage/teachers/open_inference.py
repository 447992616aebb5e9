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
from tutelage.signals import Batch, Request, Signals
from tutelage.teachers.base import Teacher, TransferFacts, refuse_features, refuse_members
from tutelage.teachers.black_box import top_of_probabilities
from tutelage.teachers.http import Http, key_from, require_plain_url
from tutelage.teachers.tensor_servers import GrpcServer, HttpServer, TensorServer
from tutelage.teachers.tensor_values import DATATYPES, digest_of_row, fitted, read_back, same_answer, written

__all__ = ["OpenInference"]

Array = np.ndarray[Any, Any]


class OpenInference(Teacher):
    """A model on a server that speaks the Open Inference Protocol v2, over HTTP or gRPC. It supplies its output only.

    Every call goes through a query ledger: what is answered there is never asked again. The metadata (names, shapes
    and datatypes) is read at `load` and stored there too.

    A model behind an API can change without a word. When something is asked in a run, a few rows whose answers are
    known are asked again, before the first new question and when the run looks at the teacher's fingerprint at its
    end; other metadata or other answers stop the run. A change between two looks that is undone again, or one that
    shows on other rows alone, goes unnoticed; and where nothing is asked, nothing is looked at.

    Args:
        url: `http://host:port`, or for gRPC `grpc://host:port` (`grpcs://` encrypted).
        model: Its name on the server.
        ledger: The file of the query ledger; made when it isn't there.
        version: The model's version; empty for the server's choice.
        inputs: Which tensor or column of the data each input of the model is given: the name of a tensor where the
            data has several, else that of a column as the source has it, without views. None: tensors as the student
            sees them, by their names; a single one goes to the model's only input.
        output: The name of the output; null where the model has one.
        gives: What the output is: `logits` (or values, or embeddings: it is taken as it is), `probabilities` (which
            may be rounded or cut off), or `label`, a class number or name.
        classes_in_order: Names of the classes in the order of the output; null for those of the data.
        max_batch: Rows in a call.
        binary: Send tensors as bytes over HTTP, which Triton understands; JSON otherwise.
        canary: Rows that are asked again; 0 for none.
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
        gives: Literal["logits", "probabilities", "label"] = "logits",
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
        self._server: TensorServer | None = None
        self._metadata: dict[str, Any] = {}
        self._names: tuple[str, ...] = tuple(classes_in_order or ())
        self._known: tuple[dict[str, Array], list[bytes]] | None = None
        self._looked_at = 0

    @property
    def comes_from_elsewhere(self) -> bool:
        """Somebody's server."""
        return True

    @property
    def calls_sent(self) -> int:
        """Attempts, failed ones included."""
        return 0 if self._desk is None else self._desk.sent

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
        self._server = self._connect()
        self._desk = Desk(Ledger(self.ledger), f"{self.url} {self.model}", caps=caps, asking=asking, prices=prices)
        try:
            self._metadata = json.loads(self._read_metadata({"what": "metadata"}))
            self._require_names()
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
            self._look_again(only_before_the_first=True)
            for at in range(0, len(missing), self.max_batch):
                yield self._call(arrays, questions, missing[at : at + self.max_batch])

        answers = desk.ask(questions, pack)
        if self._known is None and self.canary:
            rows = slice(self.canary)
            self._known = {name: array[rows].copy() for name, array in arrays.items()}, answers[rows]
        values = np.stack([read_back(answer) for answer in answers])
        return self._signals(values, batch.rows.device)

    def fingerprint(self) -> str:
        """SHA-256 of URL, model, version, metadata and what is read of them.

        Raises:
            TeacherChanged: Something was asked since the last look, and the answers to known rows are others now.
        """
        self._loaded()
        self._look_again()
        read = {
            "metadata": self._metadata,
            "gives": self.gives,
            "inputs": self.inputs,
            "classes": self.classes_in_order,
        }
        return hashlib.sha256(json.dumps(self._identity() | read).encode()).hexdigest()

    @property
    def classes(self) -> tuple[str, ...]:
        """Those that the recipe names."""
        return tuple(self.classes_in_order or ())

    def describe(self) -> str:
        """The model and where it is."""
        return f"OpenInference {self.model} at {self.url}"

    # What is asked

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

    def _call(self, arrays: dict[str, Array], questions: Sequence[Question], rows: list[int]) -> Call:
        def send(timeout: float) -> Reply:
            assert self._server is not None
            output = self._output()["name"]
            given = {name: array[rows] for name, array in arrays.items()}
            values = self._server.infer(given, [output], timeout)[output]
            return Reply(answers=self._require_rows(values, len(rows)), http_status=None)

        return Call(questions=[questions[row] for row in rows], send=send)

    def _require_rows(self, values: Array, rows: int) -> list[bytes]:
        """The answer to each row, if the output is one."""
        if values.ndim < 1 or len(values) != rows:
            raise Failure("unusable", f"an output of shape {list(values.shape)} for {rows} rows", retry=True)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise Failure("unusable", "NaN or infinity in the output", retry=True)
        if self.gives == "label" and (values.dtype.kind not in "iuOS" or values.size != rows):
            raise Failure(
                "unusable", f"labels of {values.dtype} and shape {list(values.shape)} for {rows} rows", retry=False
            )
        if self.gives == "probabilities" and (values.ndim != 2 or values.min() < 0 or values.max() > 1 + 1e-6):
            raise Failure("unusable", "an output that is no probabilities of the classes", retry=False)
        return [written(values[row]) for row in range(rows)]

    # What is read

    def _signals(self, values: Array, device: torch.device) -> Signals:
        if self.gives == "label":
            labels = torch.from_numpy(self._labels(values.reshape(-1))).to(device)
            return Signals(top=TopK.of_labels(labels, len(self._require_classes())))
        output = torch.from_numpy(values).to(device)
        output = output if output.is_floating_point() else output.float()
        return Signals(top=top_of_probabilities(output)) if self.gives == "probabilities" else Signals(output=output)

    def _labels(self, values: Array) -> Array:
        """Class numbers of class numbers or names."""
        names = self._require_classes()
        if values.dtype.kind == "U":
            place = {name: number for number, name in enumerate(names)}
            strange = next((name for name in values.tolist() if name not in place), None)
            labels = np.array([place.get(name, -1) for name in values.tolist()], np.int64)
        else:
            labels = values.astype(np.int64)
            strange = next((int(label) for label in labels if not 0 <= label < len(names)), None)
        if strange is not None:
            raise ModelError(
                f"labels of {self.describe()}",
                expected=f"numbers from 0 to {len(names) - 1}, or names of {', '.join(names)}",
                found=repr(strange),
                harm="the student would learn another class",
                mend="give `classes_in_order` as the server has them",
            )
        return labels

    def _require_classes(self) -> tuple[str, ...]:
        if not self._names:
            raise ModelError(
                f"labels of {self.describe()}",
                expected="names of the classes, from which their number is known",
                found="none, neither of the recipe nor of the data",
                mend="give `classes_in_order`",
            )
        return self._names

    def _arrays(self, batch: Batch) -> dict[str, Array]:
        """The inputs of the model, as it wants them."""
        wanted = {each["name"]: each for each in self._metadata["inputs"]}
        if self.inputs is not None:
            given = {name: self._column(column, batch) for name, column in self.inputs.items()}
        elif isinstance(batch.inputs, Tensor):
            given = {next(iter(wanted)): batch.inputs.cpu().numpy()}
        else:
            given = {name: batch.inputs[name].cpu().numpy() for name in wanted if name in batch.inputs}
        if missing := [name for name in wanted if name not in given]:
            raise ModelError(
                f"input `{missing[0]}` of {self.describe()}",
                expected="a tensor or column of the data for each input of the model",
                found="none for it",
                mend="name its tensor or column in `inputs`",
            )
        return {name: fitted(array, wanted[name]) for name, array in given.items()}

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

    def _connect(self) -> TensorServer:
        if self.url.partition("://")[0] in ("grpc", "grpcs"):
            require_plain_url(self.url, "url", ("grpc", "grpcs"))
            scheme, _, address = self.url.rstrip("/").partition("://")
            key = key_from(self.key_variable, "key_variable")
            return GrpcServer(address, self.model, self.version, key=key, secure=scheme == "grpcs")
        url = require_plain_url(self.url, "url")
        http = Http(url, key_from(self.key_variable, "key_variable"))
        return HttpServer(http, self.model, self.version, binary=self.binary)

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

    def _require_names(self) -> None:
        """The inputs and the output that the recipe names are the model's."""
        for kind, names in (("inputs", list(self.inputs or ())), ("outputs", [self.output] if self.output else [])):
            known = [each["name"] for each in self._metadata[kind]]
            for name in names:
                if name not in known:
                    raise ModelError(
                        f"{kind.removesuffix('s')} `{name}`",
                        expected=f"one of the {kind} of {self.describe()}: {', '.join(known)}",
                        found="no such name",
                        mend=did_you_mean(name, known),
                    )
        if self.output is None and len(self._metadata["outputs"]) != 1:
            raise ModelError(
                "output",
                expected=f"the name of one of the outputs of {self.describe()}",
                found="none",
                mend=f"choose one of: {', '.join(each['name'] for each in self._metadata['outputs'])}",
            )
        for each in self._metadata["inputs"]:
            if each["datatype"] not in DATATYPES:
                raise ModelError(
                    f"input `{each['name']}`", expected=f"one of {', '.join(DATATYPES)}", found=each["datatype"]
                )

    def _output(self) -> dict[str, Any]:
        outputs: list[dict[str, Any]] = self._metadata["outputs"]
        return next(each for each in outputs if self.output in (None, each["name"]))

    def _look_again(self, *, only_before_the_first: bool = False) -> None:
        """Asks rows whose answers are known again, if something was asked since that was last done."""
        desk = self._loaded()
        new = desk.sent > self._looked_at
        if self._known is None or (desk.sent if only_before_the_first else not new):
            return
        arrays, before = self._known
        moment = time.time_ns()
        questions = [self._question(arrays, row, look=moment) for row in range(len(before))]
        try:
            metadata = json.loads(self._read_metadata({"what": "metadata", "look": moment}))
            now = desk.ask(questions, functools.partial(self._repeat, arrays, questions))
        except CapReached:
            if only_before_the_first:
                raise
            return  # nothing is asked any more, so no answer of another model can join those that are here
        self._looked_at = desk.sent
        if metadata != self._metadata or not all(
            same_answer(read_back(a), read_back(b)) for a, b in zip(before, now, strict=True)
        ):
            raise TeacherChanged(
                f"{self.describe()} is another model than the one that gave the answers in {self.ledger}: "
                f"{'its answers to known rows' if metadata == self._metadata else 'its metadata'} changed; begin a new "
                "ledger, or have the former model served again"
            )

    def _repeat(self, arrays: dict[str, Array], questions: Sequence[Question], rows: list[int]) -> Iterator[Call]:
        for at in range(0, len(rows), self.max_batch):
            yield self._call(arrays, questions, rows[at : at + self.max_batch])

    def _loaded(self) -> Desk:
        if self._desk is None:
            expected = "an OpenInference that is loaded"
            raise ModelError("teacher", expected=expected, found="one that is not", mend="call `load` first")
        return self._desk
