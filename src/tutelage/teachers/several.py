"""Several teachers, each with losses of its own."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from tutelage.errors import ModelError, RecipeError, did_you_mean
from tutelage.signals import Batch, Request, Signals
from tutelage.teachers.base import Teacher, TransferFacts, named_modules
from tutelage.teachers.served import Served
from tutelage.teachers.vocabulary import require_same_ids

__all__ = ["SeveralTeachers"]


class SeveralTeachers(Teacher):
    """Teachers by name, of which one is the main one: the student is evaluated against it.

    Losses hear the main teacher as they would hear it alone. `Routed(loss, member=NAME)` hears another one, with a
    weight of its own. The teachers may differ in everything, their outputs too: each can teach a head of its own (see
    `Recipe.heads`). Where they answer the same question and one mean of them is to teach, use `Ensemble`.

    ```yaml
    teacher:
      class_path: SeveralTeachers
      init_args:
        main: wide
        teachers:
          wide: {class_path: ModuleTeacher, init_args: {...}}
          deep: {class_path: ModuleTeacher, init_args: {...}}
    losses:
      - {class_path: KLDivergence}                                                             # of `wide`
      - {class_path: Routed, init_args: {loss: {class_path: KLDivergence}, member: deep, weight: 0.5}}
    ```

    Args:
        teachers: The teachers by name.
        main: The name of the one that the student is evaluated against, and cut from where it is cut.

    Raises:
        RecipeError: There is no teacher called `main`, or a name can't be a part of a file's.
    """

    def __init__(self, teachers: dict[str, Teacher], main: str) -> None:
        if main not in teachers:
            raise RecipeError(
                "teacher.main",
                expected="the name of one of the teachers",
                found=repr(main),
                mend=did_you_mean(main, teachers) or "name at least one teacher",
            )
        for name in teachers:
            if not name or any(letter in name for letter in "/\\. \0"):
                raise RecipeError(
                    "teacher.teachers",
                    expected="names without dots, slashes and spaces: files of the run are called by them",
                    found=repr(name),
                    mend="name that teacher otherwise",
                )
        self.teachers = teachers
        self.main = main

    def load(self, device: torch.device) -> None:
        """Loads each teacher."""
        for teacher in self.teachers.values():
            teacher.load(device)

    def meet(self, facts: TransferFacts) -> None:
        """Passes it on to each."""
        for teacher in self.teachers.values():
            teacher.meet(facts)

    @property
    def notes(self) -> list[str]:
        """Those of each."""
        return [note for teacher in self.teachers.values() for note in teacher.notes]

    def check(self, request: Request) -> None:
        """Raises a `ModelError` if there is no such member, or a member can't supply what is requested of it."""
        for name, wanted in self._requests(request).items():
            if name not in self.teachers:
                raise ModelError(
                    f"member `{name}` of the teacher",
                    expected="the name of one of the teachers",
                    found="no such name",
                    mend=did_you_mean(name, self.teachers),
                )
            self.teachers[name].check(wanted)

    def ask(self, batch: Batch, request: Request) -> Signals:
        """Asks each teacher once for all that is requested of it."""
        self.check(request)
        said = {name: self.teachers[name].ask(batch, wanted) for name, wanted in self._requests(request).items()}
        main = said.get(self.main, Signals()).only(Request(output=request.output, features=request.features))
        members = {name: said[name].only(wanted) for name, wanted in request.members.items()}
        return replace(main, members=members)

    def fingerprint(self) -> str:
        """SHA-256 of the names and fingerprints of all, and of who is the main one."""
        parts = [self.main, *(f"{name} {teacher.fingerprint()}" for name, teacher in self.teachers.items())]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @property
    def module(self) -> nn.Module | None:
        """The main teacher's."""
        return self.teachers[self.main].module

    @property
    def inner(self) -> dict[str, Teacher]:
        """All teachers, by their names."""
        return self.teachers

    @property
    def modules(self) -> dict[str, nn.Module]:
        """Those of all teachers, by their names."""
        return named_modules(self.teachers)

    @property
    def classes(self) -> tuple[str, ...]:
        """The main teacher's."""
        return self.teachers[self.main].classes

    @property
    def tokenizer_folder(self) -> Path | None:
        """The tokenizer of the teachers that read text.

        Raises:
            ModelError: Teachers read different token ids, so no one batch is right for all.
        """
        folders = {name: folder for name, t in self.teachers.items() if (folder := t.tokenizer_folder) is not None}
        if not folders:
            return None
        encoder = folders.get(self.main, next(iter(folders.values())))
        for name, folder in folders.items():
            require_same_ids(f"teacher.teachers.{name}", reader=folder, encoder=encoder)
        return encoder

    def as_module(self) -> nn.Module | None:
        """The main teacher's: the one whose answers the student's are compared with."""
        return self.teachers[self.main].as_module()

    def served(self) -> Served | None:
        """The main teacher's."""
        return self.teachers[self.main].served()

    def describe(self) -> str:
        """Who they are, the main one first."""
        others = [f"{name}: {t.describe()}" for name, t in self.teachers.items() if name != self.main]
        return "; ".join([f"{self.main}: {self.teachers[self.main].describe()}", *others])

    def _requests(self, request: Request) -> dict[str, Request]:
        """What is requested of each teacher, by name."""
        own = Request(output=request.output, features=request.features)
        names = [*([self.main] if own else []), *(name for name in request.members if name != self.main or not own)]
        nothing = Request()
        return {name: (own if name == self.main else nothing) | request.members.get(name, nothing) for name in names}
