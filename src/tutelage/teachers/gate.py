"""Gates: how much each member of an ensemble counts for each sample."""

from __future__ import annotations

import abc
import hashlib
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.errors import ModelError, UserError, blame, did_you_mean
from tutelage.signals import Batch, call, output_of
from tutelage.teachers.fingerprint import fingerprint_of
from tutelage.teachers.module import made_by
from tutelage.teachers.settings import require_sharpness
from tutelage.teachers.weights import load_weights, require_numbers

__all__ = ["ConfidenceGate", "EntropyGate", "FunctionGate", "ModuleGate", "SampleGate"]

Outputs = Literal["softmax", "sigmoid"]


class SampleGate(abc.ABC):
    """Base of all gates. Constructors only store; `load` does the work.

    A gate gives `g_k(x) >= 0` for each member `k` and sample `x`. The ensemble's share of a member is
    `w_k g_k(x) / Σ_j w_j g_j(x)`, with the fixed weights `w_k` (1 without them).
    """

    def load(self, device: torch.device) -> None:  # noqa: B027 (most gates have nothing to load)
        """Makes the gate ready on `device`."""

    @abc.abstractmethod
    def log_weights(self, batch: Batch, answers: list[Tensor], *, axis: int, outputs: Outputs) -> Tensor:
        """`log g_k(x)`, `[B, K]` in float32 or wider; -inf for a member that does not count.

        Args:
            batch: What the members were asked about.
            answers: Their outputs, in float32 or wider.
            axis: The class axis of the outputs.
            outputs: What turns them into probabilities.
        """

    @abc.abstractmethod
    def fingerprint(self) -> str:
        """A digest (hex SHA-256) of everything that decides the weights, its code included."""

    @property
    def module(self) -> nn.Module | None:
        """The gate's network, where it has one."""
        return None

    @property
    def reads_rows(self) -> bool:
        """Whether it reads more of a batch than the inputs, so that it can't be timed with the members."""
        return False


class SharpGate(SampleGate):
    """What the gates with a formula and a sharpness share.

    Args:
        sharpness: 0 is a plain mean; the larger, the more the surest member counts.
    """

    formula: str
    """The name of the formula in the fingerprint."""

    def __init__(self, sharpness: float = 1.0) -> None:
        self.sharpness = sharpness

    def load(self, device: torch.device) -> None:
        """Raises a `ModelError` if the sharpness is negative or no number."""
        require_sharpness(self.sharpness)

    def fingerprint(self) -> str:
        """Of the formula and its sharpness."""
        return _digest(self.formula, self.sharpness.hex())


class ConfidenceGate(SharpGate):
    """`g_k = max_c p_k(c)^sharpness`: the surer of its class a member is, the more it counts.

    Of outputs with further axes (pixels, tokens) it is the mean confidence over them; of sigmoid outputs the mean of
    `max(p, 1 - p)` over the outputs, to that power.

    Args:
        sharpness: 0 is a plain mean; the larger, the more the surest member counts.
    """

    formula = "confidence"

    def log_weights(self, batch: Batch, answers: list[Tensor], *, axis: int, outputs: Outputs) -> Tensor:
        """See `SampleGate`."""

        def confidence(logits: Tensor) -> Tensor:
            softmax = outputs == "softmax"
            best = torch.softmax(logits, dim=axis).amax(axis) if softmax else torch.sigmoid(logits.abs())
            return best.flatten(1).mean(1) if best.dim() > 1 else best

        return self.sharpness * torch.stack([confidence(logits) for logits in answers], dim=1).log()


class EntropyGate(SharpGate):
    """`g_k = exp(-sharpness · H_k)` with the entropy `H_k = -Σ_c p_k(c) log p_k(c)` in nats.

    Of outputs with further axes it is the mean entropy over them; of sigmoid outputs the mean over the outputs of
    `-p log p - (1 - p) log(1 - p)`.

    Args:
        sharpness: 0 is a plain mean; the larger, the more the surest member counts.
    """

    formula = "entropy"

    def log_weights(self, batch: Batch, answers: list[Tensor], *, axis: int, outputs: Outputs) -> Tensor:
        """See `SampleGate`."""

        def entropy(logits: Tensor) -> Tensor:
            if outputs == "softmax":
                log_p = F.log_softmax(logits, dim=axis)
                found: Tensor = torch.special.entr(log_p.exp()).sum(axis)
            else:
                found = torch.special.entr(torch.sigmoid(logits)) + torch.special.entr(torch.sigmoid(-logits))
            return found.flatten(1).mean(1) if found.dim() > 1 else found

        return -self.sharpness * torch.stack([entropy(logits) for logits in answers], dim=1)


class FunctionGate(SampleGate):
    """A function of the user's: called with the batch, it gives `g` as `[B, K]`, numbers that are not negative.

    The fingerprint covers the source of the module that holds it, so a change there is another teacher.

    Args:
        name: `module:function`; the module is imported as Python would import it.
    """

    functions: ClassVar = ("name",)
    """Arguments that name a function, `module:function`, which is called."""

    def __init__(self, name: str) -> None:
        self.name = name

    def load(self, device: torch.device) -> None:
        """Imports the function.

        Raises:
            ModelError: There is no such function.
        """
        self._function()

    def log_weights(self, batch: Batch, answers: list[Tensor], *, axis: int, outputs: Outputs) -> Tensor:
        """See `SampleGate`.

        Raises:
            ModelError: The function fails, or gives something else than one weight for each member and sample.
        """
        try:
            given = self._function()(batch)
        except UserError:
            raise
        except (Exception, SystemExit) as error:  # the user's code may raise anything
            raise ModelError(
                f"teacher.gate: `{self.name}`",
                expected="a function of the batch",
                found=f"one that raises {blame(error)}",
            ) from error
        shape = (len(batch), len(answers))
        if not isinstance(given, Tensor) or tuple(given.shape) != shape:
            found = f"shape {tuple(given.shape)}" if isinstance(given, Tensor) else type(given).__name__
            raise ModelError(
                f"teacher.gate: what `{self.name}` gives",
                expected=f"a tensor of weights of shape {shape}: samples, members",
                found=found,
            )
        weights = given.detach().to(answers[0].device, torch.promote_types(given.dtype, torch.float32))
        if not bool((torch.isfinite(weights) & (weights >= 0)).all()) or not bool((weights.sum(1) > 0).all()):
            raise ModelError(
                f"teacher.gate: what `{self.name}` gives",
                expected="finite weights of at least 0, one of each sample's above 0",
                found="negative, infinite or no weights for a sample",
                harm="there would be no mean of the members' answers",
            )
        return weights.log()

    def fingerprint(self) -> str:
        """Of the name and of the source of its module.

        Raises:
            ModelError: The source is not there.
        """
        return _digest("function", self.name, _source(self._function(), self.name))

    @property
    def reads_rows(self) -> bool:
        """It may read whatever a batch has."""
        return True

    def _function(self) -> Callable[[Batch], Any]:
        module_name, _, function_name = self.name.partition(":")
        if not (module_name and function_name):
            raise ModelError("teacher.gate.name", expected="module:function", found=f"`{self.name}`")
        try:
            module = importlib.import_module(module_name)
        except (Exception, SystemExit) as error:  # importing runs the user's code, which may raise anything
            raise ModelError(
                "teacher.gate.name", expected=f"a module `{module_name}` that can be imported", found=blame(error)
            ) from error
        function = getattr(module, function_name, None)
        if not callable(function):
            names = [name for name, value in vars(module).items() if callable(value)]
            raise ModelError(
                "teacher.gate.name",
                expected=f"a function of `{module_name}`",
                found=f"`{function_name}`",
                mend=did_you_mean(function_name, names),
            )
        return function  # type: ignore[no-any-return]


class ModuleGate(SampleGate):
    """A network on the inputs that gives a score `a_k(x)` for each member, `[B, K]`: `g_k = exp(a_k)`.

    So without fixed weights the shares are the softmax of the scores, as in a mixture of experts.

    Args:
        gate: A class or function that makes the network, or (in Python) the network itself.
        weights: A safetensors file with exactly its weights; None keeps those it is made with.
    """

    def __init__(self, gate: Callable[[], nn.Module] | nn.Module, weights: str | None = None) -> None:
        self.gate = gate
        self.weights = weights
        self._module: nn.Module | None = None

    def load(self, device: torch.device) -> None:
        """Makes the network on the first call and moves it to `device`.

        Raises:
            ModelError: It can't be made, or its weights don't fit or are not finite.
        """
        if self._module is None:
            module = self.gate if isinstance(self.gate, nn.Module) else made_by(self.gate, "teacher.gate")
            if self.weights is not None:
                load_weights(module, self.weights, "teacher.gate.weights")
            require_numbers(module, "teacher.gate")
            self._module = module.eval()
        self._module.to(device)

    @property
    def module(self) -> nn.Module | None:
        """The network, once loaded."""
        return self._module

    def log_weights(self, batch: Batch, answers: list[Tensor], *, axis: int, outputs: Outputs) -> Tensor:
        """See `SampleGate`.

        Raises:
            ModelError: It gives something else than one score for each member and sample.
        """
        assert self._module is not None  # the ensemble has loaded it
        if any(inner.training for inner in self._module.modules()):
            self._module.eval()
        scores = output_of(call(self._module, batch.inputs), "teacher.gate")
        shape = (len(batch), len(answers))
        if tuple(scores.shape) != shape:
            raise ModelError(
                "teacher.gate",
                expected=f"scores of shape {shape}: samples, members",
                found=f"shape {tuple(scores.shape)}",
                mend="give the network one output for each member",
            )
        return scores.to(torch.promote_types(scores.dtype, torch.float32))

    def fingerprint(self) -> str:
        """Of its weights and structure, and of the source of its class."""
        assert self._module is not None  # the ensemble has loaded it
        own = type(self._module)
        source = "" if own.__module__.partition(".")[0] == "torch" else _source(own, own.__qualname__)
        return _digest("module", fingerprint_of(self._module), source)


def _source(code: Any, name: str) -> str:
    """The source of the module that holds some code."""
    try:
        return Path(inspect.getsourcefile(code) or "").read_text(encoding="utf-8")
    except (OSError, TypeError) as error:
        raise ModelError(
            f"teacher.gate: `{name}`",
            expected="code in a file",
            found=str(error),
            harm="a change of it could not be told: answers from before would pass for those of now",
            mend="put it into a file of Python",
        ) from error


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
