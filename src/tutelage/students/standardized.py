"""A student whose targets are standardised: it learns in standard units and answers in theirs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.errors import RecipeError
from tutelage.signals import call, output_of
from tutelage.standardized import Standardized, unwrapped
from tutelage.students.base import Student
from tutelage.teachers import Teacher

__all__ = ["StandardizedStudent"]


class StandardizedStudent(Student):
    """Another student, which learns targets of mean 0 and deviation 1 and answers in the unit that they had.

    The output is `mean_k + std_k · z_k`, with `z` that of the student inside. The training compares `z` with teacher
    and labels in standard units; evaluation, exports and bundle have the unit. The plan of a regression puts the
    student in one of these where the targets ask for it; `mean: [0], std: [1]` says that it is to stay as it is.

    The layers are those of the student inside. A Hugging Face model whose outputs are those of its last linear layer
    leaves with mean and deviation in that layer, as a model of its own kind.

    Args:
        student: How the student inside is made.
        mean: Of each target, in its unit.
        std: The standard deviation of each target, in its unit.

    Raises:
        RecipeError: There are no numbers, or not as many of both, or a deviation is not positive.
    """

    def __init__(self, student: Student, mean: list[float], std: list[float]) -> None:
        if not mean or len(mean) != len(std) or not min(std) > 0:
            raise RecipeError(
                "student.std",
                expected="a mean and a positive deviation for each target",
                found=f"mean {mean}, std {std}",
                mend="leave both out: the plan finds them",
            )
        self.student = student
        self.mean = mean
        self.std = std

    def build(self, teacher: Teacher) -> nn.Module:
        """The student inside, and what brings its outputs to the unit, in training mode."""
        return Standardized(self.student.build(teacher), self.mean, self.std).train()

    def deliver(self, module: nn.Module) -> nn.Module:
        """What the student inside delivers, in the unit of the targets."""
        inner = unwrapped(module)
        delivered = self.student.deliver(inner)
        whole = module if delivered is inner else Standardized(delivered, self.mean, self.std).to(_device_of(delivered))
        return folded(whole)

    @property
    def delivered(self) -> Student:
        """What the student inside delivers is made so, and standardised."""
        return StandardizedStudent(self.student.delivered, self.mean, self.std)

    @property
    def factories(self) -> dict[str, Callable[..., nn.Module]]:
        """Those of the student inside, at its place."""
        return {f"module.{path}".rstrip("."): factory for path, factory in self.student.factories.items()}

    @property
    def innermost(self) -> Student:
        """The student inside."""
        return self.student.innermost

    @property
    def outputs_in_unit(self) -> bool:
        """Yes: they are brought to it."""
        return True

    def from_nothing(self) -> Student:
        """The student inside without what it takes over, in the same units."""
        return StandardizedStudent(self.student.from_nothing(), self.mean, self.std)


def _device_of(module: nn.Module) -> torch.device:
    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))


def folded(module: nn.Module) -> nn.Module:
    """A standardised Hugging Face model as a copy with `W' = std · W`, `b' = std · b + mean` in its last linear layer.

    So it can be stored and loaded as what it is. Any other module, and a model whose outputs are seen not to be those
    of a linear layer with a bias, comes back as it is.
    """
    dummy = getattr(unwrapped(module), "dummy_inputs", None)
    if not isinstance(module, Standardized) or not isinstance(dummy, dict):
        return module
    model = copy.deepcopy(module.module)
    try:
        head = _head(model, {name: value.to(_device_of(model)) for name, value in dummy.items()}, len(module.std))
    except Exception:  # a model may not take its own dummy inputs; then it stays in its wrapper
        return module
    if head is None:
        return module
    with torch.no_grad():
        head.weight.mul_(module.scale.to(head.weight)[:, None])
        head.bias.mul_(module.scale.to(head.bias)).add_(module.shift.to(head.bias))
    return model


@torch.no_grad()
def _head(model: nn.Module, inputs: dict[str, Any], outputs: int) -> nn.Linear | None:
    """The linear layer whose outputs are the model's, bit for bit, or None."""
    seen: dict[nn.Linear, Tensor] = {}

    def note(layer: nn.Module, _args: object, result: object) -> None:
        if isinstance(layer, nn.Linear) and isinstance(result, Tensor):
            seen[layer] = result

    layers = [m for m in model.modules() if type(m) is nn.Linear and m.out_features == outputs and m.bias is not None]
    handles = [layer.register_forward_hook(note) for layer in layers]
    training = model.training
    try:
        output = output_of(call(model.eval(), inputs))
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    same = [layer for layer, result in seen.items() if result.shape == output.shape and torch.equal(result, output)]
    return same[0] if len(same) == 1 else None
