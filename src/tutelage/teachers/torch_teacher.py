"""What all teachers that are one torch module share: they differ in how the module is made."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import torch
from torch import nn

from tutelage.errors import ModelError
from tutelage.own_code import code_digest
from tutelage.signals import Batch, Request, Signals
from tutelage.standardized import Standardized, unwrapped
from tutelage.taps import find_layer, observe
from tutelage.teachers.base import Teacher, refuse_members
from tutelage.teachers.fingerprint import fingerprint_of
from tutelage.teachers.gives import Gives, signal_of
from tutelage.teachers.served import Served
from tutelage.teachers.settings import require_choice
from tutelage.teachers.weights import require_numbers

__all__ = ["TorchTeacher"]


class TorchTeacher(Teacher):
    """A teacher that is a torch module: it supplies its output and the features of each of its layers.

    It is asked in eval mode and without gradients, whatever happened to its module in between; whether its parameters
    require gradients is left as it is.
    """

    gives: Gives = "logits"
    _module: nn.Module | None = None
    _code = ""

    @abc.abstractmethod
    def make(self) -> nn.Module:
        """Makes the module, with its weights. Called once."""

    def load(self, device: torch.device) -> None:
        """Makes the module on the first call and moves it to `device`.

        Raises:
            ModelError: It can't be made, or its weights are not finite.
        """
        require_choice("teacher.gives", self.gives, get_args(Gives))
        if self._module is None:
            module = self.make()
            require_numbers(module, "teacher")
            self._module = module.eval()
            # Now: a file may be edited while its code is in use.
            self._code = code_digest(type(inner).__module__ for inner in module.modules())
        self._module.to(device)

    def standardise(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Has the module learn targets of mean 0 and deviation 1, with outputs in their own unit (`Standardized`)."""
        module = self._loaded()
        device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
        self._module = Standardized(unwrapped(module), mean, std).to(device).eval()

    def check(self, request: Request) -> None:
        """Raises a `ModelError` with the nearest name if a requested layer does not exist."""
        module = self._loaded()
        refuse_members(self, request)
        for path in sorted(request.features):
            find_layer(module, path, model="teacher")

    def ask(self, batch: Batch, request: Request) -> Signals:
        """The module's output and features for the batch: exactly what was requested, detached.

        Raises:
            ModelError: A requested layer does not exist, or the module's output is no tensor.
        """
        module = self._loaded()
        # The `train()` of a module that holds this one reaches it too: its dropout would answer at random, its batch
        # statistics would change.
        if any(inner.training for inner in module.modules()):
            module.eval()
        if not request:
            return Signals()
        with torch.no_grad():
            said = observe(module, batch.inputs, request, model="teacher").map(torch.Tensor.detach)
            if said.output is None:
                return said
            return replace(said, output=signal_of(said.output, self.gives, who="the teacher's output"))

    def served(self) -> Served:
        """Its module, as a part of a teacher that is no module."""
        return Served(
            open=lambda threads: lambda batch: self.ask(batch, Request(output=True)),
            reads=frozenset({"inputs"}),
            files=(),
            modules=(self._loaded(),),
        )

    def fingerprint(self) -> str:
        """SHA-256 of the module's weights, structure and code, of a Hugging Face model's config, and of what it gives.

        The code is that of your own modules; that of installed packages and of a script that is run is not covered.
        """
        module = self._loaded()
        configs = (config_text(inner) for inner in module.modules())
        gives = [] if self.gives in ("logits", "values") else [f"gives {self.gives}"]
        code = [f"code {self._code}"] if self._code else []
        return fingerprint_of(module, [*sorted({text for text in configs if text}), *gives, *code])

    @property
    def module(self) -> nn.Module | None:
        """The module, once loaded."""
        return self._module

    def _loaded(self) -> nn.Module:
        if self._module is None:
            raise ModelError(
                "teacher",
                expected=f"a {type(self).__name__} that is loaded",
                found="one that is not",
                mend="call `load(device)` first",
            )
        return self._module


def config_text(module: nn.Module) -> str:
    """The settings of a Hugging Face module that its weights don't show (the number of heads), else an empty string."""
    to_dict = getattr(getattr(module, "config", None), "to_dict", None)
    if not callable(to_dict):
        return ""
    elsewhere = {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache"}
    return repr(sorted((name, repr(value)) for name, value in to_dict().items() if name not in elsewhere))
