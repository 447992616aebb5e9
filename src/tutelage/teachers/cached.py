"""A teacher whose answers are remembered."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tutelage.cache import (
    BY_CONTENT,
    Built,
    Contents,
    FeatureForm,
    Form,
    Identity,
    Job,
    Keys,
    Manifest,
    OutputForm,
    Part,
    Store,
    as_stored,
    joined,
    moved,
    names_of,
    parts_of,
    request_of,
    signals_of,
    stored_bytes,
)
from tutelage.errors import CacheError, ModelError, RecipeError, within
from tutelage.signals import Batch, Inputs, Request, Signals
from tutelage.teachers.base import Teacher, TransferFacts
from tutelage.teachers.by_content import answers_by_content, marks_of, require_storable
from tutelage.teachers.chunks import Chunks
from tutelage.teachers.served import Served
from tutelage.teachers.source import source_digest

__all__ = ["Cached"]

Array = np.ndarray[Any, Any]
CPU = torch.device("cpu")


class Cached(Teacher):
    """Any teacher, asked once: what it says about a row in a view is stored, and read when that is asked again.

    A run fills the folder before it trains, with what its trainings and evaluations will ask, and nothing else;
    `tutelage label RECIPE` does that alone. What is asked besides (a row that is stored nowhere, a text that is no row)
    goes to the teacher and is not kept. In a training loop of one's own there is no transfer set: there each row is
    known by its content, and stored when it is first asked about. `Cached` may stand wherever a teacher may: each
    member of an `Ensemble` can have its own.

    ```yaml
    teacher:
      class_path: Cached
      init_args:
        folder: caches/minilm
        form: top_k
        k: 16
        temperatures: [1.0, 4.0]
        teacher: {class_path: HuggingFaceTeacher, init_args: {path: models/large}}
    ```

    Everyone gets the answers in the form in which they are stored, evaluation too, whether they are stored yet or not.
    The manifest states the error that the form causes, and `tutelage doctor` shows it. An output in float32 comes back
    bit for bit.

    Args:
        teacher: Who is asked.
        folder: Where its answers are stored.
        form: Of outputs: `dense` (float32), `float16`, or `top_k`: the likeliest classes and the mass of the others. A
            teacher that itself names its likeliest classes alone is stored as it answers.
        k: How many classes `top_k` keeps.
        temperatures: At which `top_k` knows the mass of the others: those of the losses. 1 is always among them.
        features: Form of the outputs of inner layers: `float32`, `float16`, `int8` (with a scale for each row or
            token) or `low_rank` (principal components of the channels, fitted on the first shard).
        rank: How many components `low_rank` keeps.
        shard_rows: Answers in a file: what a kill while filling loses at most.
        lazy: Don't load the teacher while all that is asked is stored: for one that is paid, or too large for this
            machine. It is then known by its settings and files, and by the fingerprint that its answers were stored
            under; it is never trained, timed or counted, and nothing is cut from it. One that can't be known so (a
            module made in Python, a factory without a name) is loaded all the same.

    Raises:
        RecipeError: A setting says nothing.
    """

    def __init__(
        self,
        teacher: Teacher,
        folder: str,
        *,
        form: OutputForm = "dense",
        k: int = 8,
        temperatures: Sequence[float] = (1.0,),
        features: FeatureForm = "float16",
        rank: int = 64,
        shard_rows: int = 4096,
        lazy: bool = False,
    ) -> None:
        self.teacher = teacher
        self.folder = folder
        self.form = form
        self.k = k
        self.temperatures = temperatures
        self.features = features
        self.rank = rank
        self.shard_rows = shard_rows
        self.lazy = lazy
        if shard_rows < 1:
            raise RecipeError("teacher.shard_rows", expected="at least 1", found=str(shard_rows))
        with within("teacher"):
            self._stored_form.check()
        self._device: torch.device | None = None
        self._facts: TransferFacts | None = None
        self._remembered: Manifest | None = None
        self._store: Store | None = None
        self._contents: Contents | None = None
        self._weights: object = None
        self._noted: list[Request] | None = None
        self._chunks = Chunks()

    @property
    def _stored_form(self) -> Form:
        return Form(
            output=self.form, k=self.k, temperatures=tuple(self.temperatures), features=self.features, rank=self.rank
        )

    @property
    def incidental(self) -> tuple[str, ...]:
        """Where answers are kept, and in how large files; but components are fitted on the first of these."""
        return ("folder", "lazy") if self.features == "low_rank" else ("folder", "lazy", "shard_rows")

    @property
    def inner(self) -> dict[str, Teacher]:
        """The teacher whose answers are remembered: what holds for it holds for them."""
        return {"": self.teacher}

    def load(self, device: torch.device) -> None:
        """Loads the teacher, but for a lazy one whose answers are there.

        Raises:
            ModelError: It can't be loaded.
            CacheError: It is lazy, and the manifest is damaged.
        """
        loaded = self._device is not None and self._remembered is None
        self._device = device
        if self.lazy and not loaded:
            found, source = Manifest.load(Path(self.folder)), source_digest(self.teacher)
            # An empty digest is that of any teacher which can't be told by its source: such a one is loaded.
            self._remembered = found if source and found is not None and found.source == source else None
        if self._remembered is None:
            self.teacher.load(device)

    def meet(self, facts: TransferFacts) -> None:
        """Opens the folder, if its answers are those of this teacher as it is now.

        Raises:
            CacheError: The folder holds answers about other rows, or in another form, or is damaged.
        """
        self._facts = facts
        if self._remembered is None:
            self.teacher.meet(facts)
        self._store = None
        found = Manifest.load(Path(self.folder))
        if found is not None:
            # A teacher that is trained in the run is another one before: `opened` is strict.
            found.require(replace(self._identity(), teacher=found.identity.teacher), Path(self.folder))
            if found.identity.teacher == self._inner_fingerprint():
                self.opened()

    def opened(self) -> Store:
        """The folder, opened anew for the teacher as it is now.

        Raises:
            CacheError: It holds another teacher's answers, or others that can't be used.
        """
        if self._facts is None:
            raise ModelError(
                "teacher",
                expected="a cached teacher that has met its transfer set",
                found="one that has not",
                mend="call `meet(facts)` first",
            )
        self._store = self._open(self._facts.rows)
        return self._store

    def check(self, request: Request) -> None:
        """Raises a `ModelError` if the teacher can't supply what is requested; of a lazy one, if that is not stored."""
        if self._remembered is None or any(name not in self._remembered.signals for name in names_of(request)):
            self._awake().check(request)

    def ask(self, batch: Batch | Inputs, request: Request) -> Signals:
        """The stored answers; the teacher's own to rows that are not stored, in the same form.

        Outside a run, where the teacher has met no transfer set, rows are known by their content and each is stored
        when it is first asked about; the inputs alone will do (`Batch.of`).

        Raises:
            CacheError: The folder can't be used.
            ModelError: The teacher can't supply what is requested.
        """
        if self._noted is not None:
            self._noted.append(request)
        if not request:
            return Signals()
        batch = batch if isinstance(batch, Batch) else Batch.of(batch)
        names = names_of(request)
        if self._facts is None and len(batch):
            return self._by_content(names, batch)
        if self._store is None:
            return signals_of(self._answered(names, batch))
        rows, views, mask = batch.rows.cpu().numpy(), batch.views.cpu().numpy(), batch.mask
        shown = None if mask is None else mask.cpu().numpy()
        parts = self._store.reader.read(names, rows, views, shown)
        if parts is None:
            parts = self._partly_stored(names, batch, rows, views, shown)
        return _on(batch.rows.device, parts)

    def has(self, batch: Batch, request: Request) -> bool:
        """Whether all that is requested about the rows of a batch is stored, so that nobody would be asked."""
        if self._store is None:
            return False
        rows, views = batch.rows.cpu().numpy(), batch.views.cpu().numpy()
        return all(self._store.reader.stored(name, rows, views).all() for name in names_of(request))

    def note(self) -> list[Request]:
        """A list to which every request is added from now on, until `note_no_more`."""
        self._noted = []
        return self._noted

    def note_no_more(self) -> None:
        """Ends what `note` began."""
        self._noted = None

    def answer(self, job: Job, batches: Iterable[tuple[Array, Batch]]) -> Built:
        """Asks the teacher about the rows of a job, and writes the shard.

        Args:
            job: What is to be answered.
            batches: Positions in the job, and the batch of those rows.

        Raises:
            SignalError: It says what can't be stored.
            RunError: The shard can't be written.
        """
        builder = self._opened_store().builder(job)
        for positions, batch in batches:
            builder.add(positions, self._said(batch, job.names), batch.mask)
        return builder.write()

    def missing(self, wanted: Sequence[Keys]) -> list[Job]:
        """What is not stored of it.

        Raises:
            CacheError: A shard that would be used is damaged.
        """
        return self._opened_store().missing(wanted, self.shard_rows)

    def row_bytes(self, batch: Batch, request: Request) -> float:
        """Bytes that the answer to a row of this batch takes when it is stored."""
        teacher = self._awake()
        said = parts_of(self._chunks.ask(lambda some: teacher.ask(some, request), batch))
        parts = [stored_bytes(name, part, batch.mask, self._stored_form) for name, part in said.items()]
        return 16 + sum(parts)  # row and view

    def fingerprint(self) -> str:
        """The teacher's own where answers come back bit for bit, else SHA-256 of it and of the form."""
        inner = self._inner_fingerprint()
        if self._stored_form.lossless:
            return inner
        form = json.dumps(self._stored_form.to_dict(), sort_keys=True)
        return hashlib.sha256(f"cached\n{form}\n{inner}".encode()).hexdigest()

    @property
    def module(self) -> nn.Module | None:
        """The teacher's; none of a lazy one."""
        return None if self.lazy else self.teacher.module

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The teacher's; none of a lazy one."""
        return {} if self.lazy else self.teacher.modules

    @property
    def classes(self) -> tuple[str, ...]:
        """The teacher's."""
        return self.teacher.classes if self._remembered is None else tuple(self._remembered.classes)

    @property
    def tokenizer_folder(self) -> Path | None:
        """The teacher's."""
        return self.teacher.tokenizer_folder

    def as_module(self) -> nn.Module | None:
        """The teacher's; none of a lazy one."""
        return None if self.lazy else self.teacher.as_module()

    def served(self) -> Served | None:
        """The teacher's, which is asked and not looked up; none of a lazy one."""
        return None if self.lazy else self.teacher.served()

    def describe(self) -> str:
        """Whose answers, in which form; and of a lazy teacher that was not loaded, by what it is known."""
        form = ", ".join(f"{name} {value}" for name, value in self._stored_form.to_dict().items())
        known = "; not loaded: known by the fingerprint its answers were stored under" if self._remembered else ""
        return f"stored answers ({form}) of {self.teacher.describe()}{known}"

    def _identity(self) -> Identity:
        inputs = BY_CONTENT if self._facts is None else self._facts.inputs
        return Identity(teacher=self._inner_fingerprint(), inputs=inputs, form=self._stored_form.to_dict())

    def _open(self, rows: int) -> Store:
        store = Store(Path(self.folder), self._identity(), self._stored_form, rows)
        store.manifest.source = source_digest(self.teacher)
        store.manifest.classes = list(self.classes)
        return store

    def _by_content(self, names: Sequence[str], batch: Batch) -> Signals:
        """The stored answers to rows that have no numbers, once those that nothing is stored about are asked."""
        require_storable(self.features, names)
        if self._device is None:
            self.load(batch.rows.device)
        weights = marks_of(self.teacher)
        if self._contents is None or weights != self._weights:
            self._contents = Contents(self._open(0), self.shard_rows)
            self._weights = weights
        return _on(batch.rows.device, answers_by_content(self._contents, names, batch, self._said))

    def _said(self, batch: Batch, names: Sequence[str]) -> dict[str, Part]:
        """The teacher's own answers, on its device and in as many pieces as memory asks for."""
        teacher, on_device = self._awake(), batch if self._device is None else batch.to(self._device)
        return parts_of(self._chunks.ask(lambda piece: teacher.ask(piece, request_of(names)), on_device))

    def _inner_fingerprint(self) -> str:
        return self.teacher.fingerprint() if self._remembered is None else self._remembered.identity.teacher

    def _opened_store(self) -> Store:
        return self.opened() if self._store is None else self._store

    def _awake(self) -> Teacher:
        """The teacher, loaded now if it was not.

        Raises:
            CacheError: It is not the one whose answers are stored.
        """
        if self._remembered is not None:
            assert self._device is not None
            before, self._remembered = self._remembered, None
            self.teacher.load(self._device)
            if self._facts is not None:
                self.teacher.meet(self._facts)
            if self.teacher.fingerprint() != before.identity.teacher:
                raise CacheError(
                    self.folder,
                    expected=f"answers of this teacher ({self.teacher.fingerprint()[:12]})",
                    found=f"answers of another ({before.identity.teacher[:12]}): it was changed; they are stale",
                    harm="the student would learn from two teachers",
                    mend="give another folder, or remove this one to have all of it asked again",
                )
        return self.teacher

    def _answered(self, names: Sequence[str], batch: Batch) -> dict[str, Part]:
        """The teacher's own answers in the form in which they would be stored."""
        said = parts_of(self._awake().ask(batch, request_of(names)))
        specs = {} if self._store is None else self._store.reader.specs
        form = self._stored_form
        return {name: as_stored(name, part, batch.mask, form, specs.get(name)) for name, part in said.items()}

    def _partly_stored(
        self, names: Sequence[str], batch: Batch, rows: Array, views: Array, mask: Array | None
    ) -> dict[str, Part]:
        """Stored answers to the rows that have them, and the teacher's own to the others."""
        assert self._store is not None
        reader = self._store.reader
        known = np.all([reader.stored(name, rows, views) for name in names], axis=0)
        if not known.any():
            return self._answered(names, batch)
        there, lacking = np.flatnonzero(known), np.flatnonzero(~known)
        stored = reader.read(names, rows[there], views[there], None if mask is None else mask[there])
        assert stored is not None
        said = self._answered(names, batch.some(lacking))
        order = torch.from_numpy(np.argsort(np.concatenate([there, lacking]), kind="stable"))
        return {name: joined([stored[name], moved(said[name], CPU)], order) for name in names}


def _on(device: torch.device, parts: dict[str, Part]) -> Signals:
    """The signals of parts that were read, on another device."""
    said = signals_of(parts)
    return said if device.type == "cpu" else said.map(lambda tensor: tensor.to(device))
