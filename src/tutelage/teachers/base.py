"""What a teacher is: something that can be asked about a batch."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tutelage.errors import ModelError
from tutelage.signals import Batch, Request, Signals
from tutelage.teachers.served import Served

__all__ = ["Teacher", "TransferFacts", "named_modules", "refuse_features", "refuse_members"]


@dataclass(frozen=True, kw_only=True)
class TransferFacts:
    """What a teacher is told of the rows it will be asked about.

    Attributes:
        inputs: Fingerprint (hex SHA-256) of the rows and of how they become tensors: `Batch.rows` are numbers of these.
        rows: How many rows there are.
        asked: About how many of them it will be asked at most; None where that is not known.
        classes: Names of the classes, where the data knows them.
        labelled: Gives the labelled training rows that a teacher may be trained on in the run, raw columns and all.
        columns: The columns that the source keeps for the teacher, of all rows.
    """

    inputs: str
    rows: int
    classes: tuple[str, ...]
    labelled: Callable[[], Batch]
    asked: int | None = None
    columns: Mapping[str, np.ndarray[Any, Any]] = field(default_factory=dict)


class Teacher(abc.ABC):
    """Base of all teachers. Constructors only store; `load` does the work, once.

    Whatever is odd about a teacher (it is an ensemble, remote, remembered) stays behind this protocol: the loop asks
    and never looks what it is.
    """

    @abc.abstractmethod
    def load(self, device: torch.device) -> None:
        """Makes the teacher ready on `device`. A second call only moves it.

        Raises:
            ModelError: It can't be loaded; the message says what to do.
        """

    def meet(self, facts: TransferFacts) -> None:  # noqa: B027 (most teachers need to know nothing)
        """Told, after `load` and before anything is asked, which rows it will be asked about.

        A teacher that is made of others passes it on.

        Raises:
            UserError: It can't teach on these rows.
        """

    @abc.abstractmethod
    def check(self, request: Request) -> None:
        """Raises a `ModelError` that names both sides if the teacher can't supply what is requested."""

    @abc.abstractmethod
    def ask(self, batch: Batch, request: Request) -> Signals:
        """What the teacher says: without gradients, in eval mode, exactly what was requested."""

    @abc.abstractmethod
    def fingerprint(self) -> str:
        """A digest (hex SHA-256) of everything that decides the answers: it changes when a weight does."""

    @property
    def incidental(self) -> tuple[str, ...]:
        """Arguments that can't change what is learnt: a run goes on when they are changed, such as a cap."""
        return ()

    @property
    def module(self) -> nn.Module | None:
        """The loaded torch module, where the teacher is one: what students are cut from and latency is measured on."""
        return None

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The loaded torch modules that a run may train before they teach, by name; one teacher alone has no name."""
        return {} if self.module is None else {"": self.module}

    @property
    def comes_from_elsewhere(self) -> bool:
        """Whether somebody else may have made it (files of a model, an API): then `Recipe.licences` needs a record.

        Teachers that are made of the user's own code, or trained in the run, need none.
        """
        return False

    @property
    def calls_sent(self) -> int | None:
        """How many calls it sent since it was loaded, where each costs money or goes over a network; else None.

        What is no training, no evaluation and no labelling asks such a teacher about the first rows alone.
        """
        return None

    def price_of(self, rows: int, pairs: int) -> str:
        """What asking takes at most, in words, where questions cost something: calls, tokens, money and caps.

        Args:
            rows: About how many rows.
            pairs: In how many (row, view) pairs.
        """
        return ""

    def over_caps(self, rows: int, pairs: int) -> list[str]:
        """A sentence for each cap that asking so much will reach, as far as the calls so far tell.

        Args:
            rows: About how many rows.
            pairs: In how many (row, view) pairs.
        """
        return []

    @property
    def inner(self) -> Mapping[str, Teacher]:
        """The teachers that this one asks, by name; a lone one has none (""). Empty where it answers itself."""
        return {}

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes in the order of its logits, where the teacher knows them."""
        return ()

    @property
    def tokenizer_folder(self) -> Path | None:
        """Where the teacher's tokenizer is, for teachers that read text."""
        return None

    @property
    def notes(self) -> list[str]:
        """What the user should know of it before the run, once it is loaded."""
        return []

    def describe(self) -> str:
        """A short name for reports."""
        return type(self).__name__

    def as_module(self) -> nn.Module | None:
        """A module that gives the teacher's output, to be timed; None for a teacher that is none."""
        return self.module

    def served(self) -> Served | None:
        """How it is timed, once it is ready, where it is no module; None where time is not this machine's (an API).

        What is given is asked again and again: a teacher whose questions cost something gives None.
        """
        return None


def named_modules(teachers: Mapping[str, Teacher]) -> dict[str, nn.Module]:
    """The modules of several teachers, under the teachers' names; `a.b` is member `b` of teacher `a`."""
    return {
        f"{name}.{inner}" if inner else name: module
        for name, teacher in teachers.items()
        for inner, module in teacher.modules.items()
    }


def refuse_members(teacher: Teacher, request: Request) -> None:
    """Raises a `ModelError` if members are requested of a teacher that has none."""
    if request.members:
        raise ModelError(
            f"member {', '.join(f'`{name}`' for name in request.members)} of the teacher",
            expected="a SeveralTeachers, whose members have names",
            found=teacher.describe(),
            mend="leave out `member`, or give the recipe a teacher of class SeveralTeachers",
        )


def refuse_features(teacher: Teacher, request: Request) -> None:
    """Raises a `ModelError` if inner layers are requested of a teacher that has none to show."""
    if request.features:
        raise ModelError(
            f"features of {', '.join(f'`{path}`' for path in sorted(request.features))}",
            expected="a teacher that supplies features",
            found=f"{type(teacher).__name__} ({teacher.describe()}), which supplies its output only",
            mend="use a loss on outputs",
        )
