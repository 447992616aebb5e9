"""Any torch module as a student."""

from __future__ import annotations

import copy
from collections.abc import Callable

from torch import Tensor, nn

from tutelage.errors import ModelError
from tutelage.students.base import Student
from tutelage.teachers import Teacher
from tutelage.teachers.module import made_by, require_shapes

__all__ = ["ModuleStudent"]


class ModuleStudent(Student):
    """A torch module of one's own, whose forward gives a tensor or an object with `.logits`.

    Args:
        module: A class or function that makes the module, anew for each seed; or (in Python) a module, of which each
            build is a copy with the weights that it has then.
    """

    def __init__(self, module: Callable[[], nn.Module] | nn.Module) -> None:
        self.module = module

    @property
    def factories(self) -> dict[str, Callable[..., nn.Module]]:
        """What makes the module; nothing where it was given ready-made."""
        return {} if isinstance(self.module, nn.Module) else {"": self.module}

    def build(self, teacher: Teacher) -> nn.Module:
        """A new module in training mode; the teacher is not used.

        Raises:
            ModelError: `module` makes something else than a torch module, or one that is lazy or can't be copied.
        """
        made = self.module if isinstance(self.module, nn.Module) else made_by(self.module, "student.module")
        require_shapes(made, "student.module")
        # A factory may give the same module twice; seeds that share it would train one another's weights.
        return copied(made, "student.module").train()


def copied(module: nn.Module, key: str) -> nn.Module:
    """A copy of a module, which trainings, forecasts and seeds are given in its place.

    Raises:
        ModelError: It holds tensors that can't be copied.
    """
    try:
        return copy.deepcopy(module)
    except RuntimeError as error:
        kept = {id(p) for p in module.parameters()}
        found = [
            f"{path}.{name}".lstrip(".")
            for path, inner in module.named_modules()
            for name, value in vars(inner).items()
            if isinstance(value, Tensor) and not value.is_leaf and id(value) not in kept
        ]
        raise ModelError(
            key,
            expected="a module that can be copied: each of its tensors a parameter, a buffer or without a gradient",
            found=f"`{found[0]}`, which is computed from others" if found else str(error).split(". ")[0],
            mend="use torch.nn.utils.parametrizations.weight_norm in the place of torch.nn.utils.weight_norm; keep no "
            "results of a forward pass as attributes",
        ) from error
