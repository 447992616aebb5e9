"""A function of the user's own as a teacher: whatever can be called can teach."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch

from tutelage.errors import ModelError, UserError, blame
from tutelage.imports import load_function
from tutelage.own_code import code_digest, without_comments
from tutelage.signals import Batch, Request, Signals
from tutelage.teachers.answer_form import AnswerForm, Answers, require_answers
from tutelage.teachers.base import Teacher, TransferFacts, refuse_features, refuse_members
from tutelage.teachers.served import Reads, Served
from tutelage.teachers.settings import require_choice

__all__ = ["FunctionTeacher"]


class FunctionTeacher(Teacher):
    """What a function answers about a batch.

    The function is called with one argument: the inputs as the student sees them (a tensor, or a dict of them), or
    with `reads: raw` a dict of numpy arrays, the columns as the source has them. It answers with a tensor, an array or
    a list, one entry a row:

    * `logits` `[B, C]`; `values`, also embeddings, `[B]` or `[B, K]`: passed on as they are.
    * `probabilities` `[B, C]`, or `[B]` of the second of two classes, or `log_probabilities` `[B, C]` (natural
      logarithms): passed on as log-probabilities. With `decimals`
      or `truncated` they are known as far as they are told: a probability of 0 is a class among the others, which share
      what is missing to 1 (`TopK`).
    * `sigmoid`, independent probabilities of labels, of any shape: passed on as log-odds.
    * `labels` `[B]`, names of classes or their numbers: a class and nothing else (`TopK`).

    With `samples` above 1 it is called so many times for each batch, for a function that answers at random: labels
    become the shares of the classes, probabilities and values their mean, logits the logits of the mean distribution.

    It is called again and again to be timed (`Recipe.measure`). Where a call costs something, put the teacher in
    `Cached` with `lazy: true`: then it is not.

    Args:
        function: `module:function`; the module is imported as Python would import it.
        gives: What it answers.
        classes: Names of the classes in the order of its answers. None: those of the data, in its order.
        reads: What it is called with.
        samples: How often it is called for a batch.
        decimals: Its probabilities are rounded to so many decimals. None: they are not.
        truncated: It tells the probabilities of the likeliest classes alone, and 0 for the others.
        arguments: Further arguments of the function, by name.
    """

    functions: ClassVar = ("function",)
    """Arguments that name a function, `module:function`, which is called."""

    def __init__(
        self,
        function: str,
        gives: Answers,
        *,
        classes: list[str] | None = None,
        reads: Reads = "inputs",
        samples: int = 1,
        decimals: int | None = None,
        truncated: bool = False,
        arguments: dict[str, Any] | None = None,
    ) -> None:
        vars(self)["classes"] = classes  # the property of that name is what all teachers have
        self.function = function
        self.gives = gives
        self.reads = reads
        self.samples = samples
        self.decimals = decimals
        self.truncated = truncated
        self.arguments = arguments
        self._call: Callable[..., Any] | None = None
        self._code = b""
        self._known: tuple[str, ...] = ()

    def load(self, device: torch.device) -> None:
        """Imports the function.

        Raises:
            ModelError: It can't be imported, or the settings contradict each other.
        """
        require_answers(self.gives, self.decimals, self.truncated)
        require_choice("teacher.reads", self.reads, ("inputs", "raw"))
        if self.samples < 1:
            raise ModelError("teacher.samples", expected="at least 1", found=str(self.samples))
        if self._call is None:
            self._call = load_function(self.function, key="teacher.function", error=ModelError)
            helpers = code_digest([str(getattr(self._call, "__module__", "")), self.function.partition(":")[0]])
            self._code = _source(self._call) + helpers.encode()  # now: a file may be edited while it is in use

    def meet(self, facts: TransferFacts) -> None:
        """Learns the classes of the data."""
        self._known = facts.classes

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, where the recipe gives them."""
        return tuple(vars(self)["classes"] or ())

    def check(self, request: Request) -> None:
        """Raises a `ModelError` if features or members are requested: a function supplies its output alone."""
        refuse_members(self, request)
        refuse_features(self, request)

    def ask(self, batch: Batch, request: Request) -> Signals:
        """The function's answers, checked.

        Raises:
            ModelError: It raises an error, or its answers are not what `gives` says.
        """
        self.check(request)
        if not request.output:
            return Signals()
        form = AnswerForm(
            gives=self.gives,
            names=self._named(),
            decimals=self.decimals,
            truncated=self.truncated,
            who=f"what `{self.function}` answers",
            mend="look at the function, and at teacher.gives",
        )
        answers = [form.read(self._said(batch), len(batch)) for _ in range(self.samples)]
        return form.signals(answers, batch.rows.device)

    def served(self) -> Served:
        """The function, as it is called in the run; it has no size."""
        return Served(
            open=lambda threads: lambda batch: self.ask(batch, Request(output=True)),
            reads=frozenset({self.reads}),
            files=None,
        )

    def _said(self, batch: Batch) -> Any:
        """What one call gives."""
        if self._call is None:
            raise ModelError("teacher", expected="a FunctionTeacher that is loaded", found="one that is not")
        if self.reads == "raw" and batch.raw is None:
            raise ModelError("teacher.reads", expected="rows with raw columns", found="a batch of tensors alone")
        given = batch.raw() if self.reads == "raw" and batch.raw is not None else batch.inputs
        try:
            with torch.no_grad():
                return self._call(given, **(self.arguments or {}))
        except UserError:
            raise
        except (Exception, SystemExit) as error:  # the user's code may raise anything
            raise ModelError(
                f"teacher `{self.function}`",
                expected=f"a function that answers about {len(batch)} rows",
                found=f"one that raises {blame(error)}",
                mend="look at its code, and at teacher.reads and teacher.arguments; columns that it alone reads are "
                "kept where data.source names them in teacher_columns",
            ) from error

    def _named(self) -> tuple[str, ...]:
        return self.classes or self._known

    def fingerprint(self) -> str:
        """SHA-256 of the file that the function's code is in, of your own modules that it imports, and of the settings.

        What it reads when it is called (a file, the environment, a service) can't be known.
        """
        settings = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        sha = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
        sha.update(self._code + "\0".join(self._named()).encode())
        return sha.hexdigest()

    def describe(self) -> str:
        """The function's name."""
        return f"FunctionTeacher {self.function}"


def _source(function: Callable[..., Any] | None) -> bytes:
    """The file that a function's code is in, without its comments; nothing for code that has none."""
    for code in (function, type(function)):  # an object that can be called has the code of its class
        try:
            file = inspect.getsourcefile(inspect.unwrap(code)) if code is not None else None
        except TypeError:  # it is built into Python or into a library
            continue
        if file and Path(file).is_file():
            return without_comments(Path(file).read_bytes())
    return b""
