"""A function of the user's own as a teacher: whatever can be called can teach."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from tutelage.errors import ModelError, UserError, blame
from tutelage.forms import TopK
from tutelage.imports import load_function
from tutelage.signals import Batch, Request, Signals
from tutelage.teachers.base import Teacher, TransferFacts, refuse_features, refuse_members
from tutelage.teachers.gives import log_odds, probabilities_to_logits
from tutelage.teachers.served import Reads, Served
from tutelage.teachers.settings import require_choice

__all__ = ["FunctionTeacher"]

Answers = Literal["logits", "probabilities", "sigmoid", "values", "labels"]

_SHAPES = {
    "labels": ("[B]", 1, 1),
    "values": ("[B] or [B, K]", 1, 2),
    "logits": ("[B, C]", 2, 8),
    "probabilities": ("[B, C]", 2, 2),
    "sigmoid": ("[B] or [B, C]", 1, 8),
}
"""What an answer looks like, and the fewest and most axes that it may have."""
_TOLERANCE = 1e-3
"""How far probabilities that are told exactly may be from a sum of 1."""


class FunctionTeacher(Teacher):
    """What a function answers about a batch.

    The function is called with one argument: the inputs as the student sees them (a tensor, or a dict of them), or
    with `reads: raw` a dict of numpy arrays, the columns as the source has them. It answers with a tensor, an array or
    a list, one entry a row:

    * `logits` `[B, C]`; `values`, also embeddings, `[B]` or `[B, K]`: passed on as they are.
    * `probabilities` `[B, C]`, or `[B]` of the second of two classes: passed on as log-probabilities. With `decimals`
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
        self._known: tuple[str, ...] = ()

    def load(self, device: torch.device) -> None:
        """Imports the function.

        Raises:
            ModelError: It can't be imported, or the settings contradict each other.
        """
        require_choice("teacher.gives", self.gives, get_args(Answers))
        require_choice("teacher.reads", self.reads, ("inputs", "raw"))
        if self.decimals is not None and self.decimals < 0:
            raise ModelError("teacher.decimals", expected="at least 0", found=str(self.decimals))
        if self.samples < 1:
            raise ModelError("teacher.samples", expected="at least 1", found=str(self.samples))
        if (self.decimals is not None or self.truncated) and self.gives != "probabilities":
            raise ModelError(
                "teacher.decimals, teacher.truncated",
                expected="gives: probabilities",
                found=f"gives: {self.gives}",
                mend="remove them: they say how probabilities are told",
            )
        if self._call is None:
            self._call = load_function(self.function, key="teacher.function", error=ModelError)

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
        answers = [self._answer(batch) for _ in range(self.samples)]
        device = batch.rows.device
        if self.gives == "labels":
            shares = sum(torch.nn.functional.one_hot(a, self._count()).float() for a in answers) / len(answers)
            return Signals(top=_likeliest(torch.as_tensor(shares), min(len(answers), self._count())).map(_on(device)))
        if self.gives == "probabilities":
            mean = torch.stack(answers).mean(0)
            if self.decimals is not None or self.truncated:
                return Signals(top=_likeliest(_completed(mean), mean.shape[-1]).map(_on(device)))
            return Signals(output=probabilities_to_logits(mean).float().to(device))
        if self.gives == "sigmoid":
            return Signals(output=log_odds(torch.stack(answers).mean(0)).float().to(device))
        if self.gives == "logits" and len(answers) > 1:
            logs = torch.stack(answers).log_softmax(-1)
            return Signals(output=(logs.logsumexp(0) - float(np.log(len(answers)))).float().to(device))
        return Signals(output=torch.stack(answers).mean(0).float().to(device))

    def served(self) -> Served:
        """The function, as it is called in the run; it has no size."""
        return Served(
            open=lambda threads: lambda batch: self.ask(batch, Request(output=True)),
            reads=frozenset({self.reads}),
            files=None,
        )

    def _answer(self, batch: Batch) -> Tensor:
        """One call: float64 `[B, ...]`, or int64 `[B]` for labels."""
        if self._call is None:
            raise ModelError("teacher", expected="a FunctionTeacher that is loaded", found="one that is not")
        if self.reads == "raw" and batch.raw is None:
            raise ModelError("teacher.reads", expected="rows with raw columns", found="a batch of tensors alone")
        given = batch.raw() if self.reads == "raw" and batch.raw is not None else batch.inputs
        try:
            with torch.no_grad():
                said = self._call(given, **(self.arguments or {}))
        except UserError:
            raise
        except (Exception, SystemExit) as error:  # the user's code may raise anything
            raise ModelError(
                f"teacher `{self.function}`",
                expected=f"a function that answers about {len(batch)} rows",
                found=f"one that raises {blame(error)}",
                mend="look at its code, and at teacher.reads and teacher.arguments",
            ) from error
        answer = self._labels(said) if self.gives == "labels" else self._numbers(said)
        if self.gives == "probabilities" and answer.ndim in (1, 2) and answer.numel() == len(batch):
            answer = torch.stack([1 - answer.reshape(-1), answer.reshape(-1)], dim=1)  # of the second of two classes
        words, fewest, most = _SHAPES[self.gives]
        if not fewest <= answer.ndim <= most or len(answer) != len(batch):
            raise self._wrong(f"{words} with B = {len(batch)}", f"shape {list(answer.shape)}")
        if self.gives in ("logits", "probabilities") and self._named() and answer.shape[1] != len(self._named()):
            raise self._wrong(f"a column for each of the {len(self._named())} classes", f"{answer.shape[1]} columns")
        if self.gives == "probabilities":
            self._check_sums(answer)
        if self.gives == "sigmoid" and not 0 <= float(answer.min()) <= float(answer.max()) <= 1:
            found = f"numbers from {float(answer.min()):g} to {float(answer.max()):g}"
            raise self._wrong("probabilities, from 0 to 1", found, "gives: logits")
        return answer

    def _numbers(self, said: Any) -> Tensor:
        try:
            answer = torch.as_tensor(np.asarray(said.detach().cpu() if isinstance(said, Tensor) else said, np.float64))
        except (TypeError, ValueError) as error:
            raise self._wrong("numbers, one entry a row", f"{type(said).__name__}: {error}") from error
        if not bool(torch.isfinite(answer).all()):
            at = int((~torch.isfinite(answer)).reshape(len(answer), -1).any(1).nonzero()[0])
            raise self._wrong("finite numbers", f"NaN or infinity in row {at} of the {len(answer)} it was asked about")
        return answer

    def _labels(self, said: Any) -> Tensor:
        """Class numbers of names or numbers."""
        cells = said.tolist() if isinstance(said, Tensor | np.ndarray) else list(said)
        names = {name: number for number, name in enumerate(self._named())}
        count = self._count()
        numbers = [names.get(cell, cell) if isinstance(cell, str) else cell for cell in cells]
        wrong = [c for c, n in zip(cells, numbers, strict=True) if type(n) is not int or not 0 <= n < count]
        if wrong:
            raise self._wrong(f"names of classes or numbers from 0 to {count - 1}", f"{wrong[0]!r}"[:80])
        return torch.tensor(numbers, dtype=torch.int64)

    def _check_sums(self, p: Tensor) -> None:
        """Probabilities are at least 0 and come to 1, or to as much as they may when they are rounded or truncated."""
        if float(p.min()) < 0:
            raise self._wrong("probabilities", f"{float(p.min()):g}")
        sums = p.sum(-1)
        slack = _TOLERANCE if self.decimals is None else 0.5 * 10**-self.decimals * p.shape[-1] + 1e-9
        low = 0.0 if self.truncated else 1 - slack
        at = int((sums - 1).abs().argmax())
        if float(sums.max()) > 1 + slack or float(sums.min()) < low or float(sums.min()) <= 0:
            raise self._wrong(
                "probabilities that come to 1",
                f"{float(sums[at]):g} in row {at}",
                "gives: sigmoid, where each output is a probability by itself; else decimals, truncated"
                if float(p.max()) <= 1
                else "gives: logits",
            )

    def _wrong(self, expected: str, found: str, mend: str = "") -> ModelError:
        return ModelError(
            f"what `{self.function}` answers",
            expected=f"{self.gives}: {expected}",
            found=found,
            harm="the student would learn something else than the teacher says",
            mend=mend or "look at the function, and at teacher.gives",
        )

    def _named(self) -> tuple[str, ...]:
        return self.classes or self._known

    def _count(self) -> int:
        if not self._named():
            raise ModelError(
                "teacher.classes",
                expected="the names of the classes: labels alone don't say how many there are",
                found="none, and the data has no labels that would name them",
                mend="classes: [first, second, ...]",
            )
        return len(self._named())

    def fingerprint(self) -> str:
        """SHA-256 of the file that the function's code is in, and of the settings; not of other files that it uses."""
        settings = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        sha = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
        sha.update(_source(self._call) + "\0".join(self._named()).encode())
        return sha.hexdigest()

    def describe(self) -> str:
        """The function's name."""
        return f"FunctionTeacher {self.function}"


def _source(function: Callable[..., Any] | None) -> bytes:
    """The content of the file that a function's code is in; nothing for code that has none."""
    for code in (function, type(function)):  # an object that can be called has the code of its class
        try:
            file = inspect.getsourcefile(inspect.unwrap(code)) if code is not None else None
        except TypeError:  # it is built into Python or into a library
            continue
        if file and Path(file).is_file():
            return Path(file).read_bytes()
    return b""


def _likeliest(probabilities: Tensor, count: int) -> TopK:
    """The `count` likeliest of `[B, C]`; the others have what is missing to 1."""
    top, indices = probabilities.topk(count, dim=-1)
    return TopK.of_probabilities(top, indices, probabilities.shape[-1])


def _completed(p: Tensor) -> Tensor:
    """Probabilities scaled to sum to 1 in rows where no class is 0: no other could have what is missing."""
    all_told = (p > 0).all(-1, keepdim=True)
    return torch.where(all_told, p / p.sum(-1, keepdim=True), p)


def _on(device: torch.device) -> Callable[[Tensor], Tensor]:
    return lambda tensor: tensor.to(device, torch.float32 if tensor.is_floating_point() else tensor.dtype)
