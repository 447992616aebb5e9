"""Any torch module as a student."""

from __future__ import annotations

import copy
from collections.abc import Callable

from torch import nn

from tutelage.students.base import Student
from tutelage.teachers import Teacher
from tutelage.teachers.module import made_by

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
            ModelError: `module` makes something else than a torch module.
        """
        if isinstance(self.module, nn.Module):
            return copy.deepcopy(self.module).train()
        # A factory may give the same module twice; seeds that share it would train one another's weights.
        return copy.deepcopy(made_by(self.module, "student.module")).train()
