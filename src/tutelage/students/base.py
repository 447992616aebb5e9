"""What makes a student."""

from __future__ import annotations

import abc
from collections.abc import Callable

from torch import nn

from tutelage.teachers import Teacher

__all__ = ["Student"]


class Student(abc.ABC):
    """Base of the ways a student is made. Constructors only store; `build` makes a new module each time."""

    @abc.abstractmethod
    def build(self, teacher: Teacher) -> nn.Module:
        """A new, untrained (or cut) student. Random parts are drawn from torch's generator, which the run seeds.

        Args:
            teacher: The loaded teacher, for students that are cut from it.

        Raises:
            ModelError: The student can't be made from this teacher.
        """

    def deliver(self, module: nn.Module) -> nn.Module:
        """What leaves of a trained student: the module itself, or the part of it that is used after training."""
        return module

    @property
    def delivered(self) -> Student:
        """How what is delivered is made: this student, or the one inside it that `deliver` gives."""
        return self

    @property
    def factories(self) -> dict[str, Callable[..., nn.Module]]:
        """What makes the module and parts of it, by their dotted path ("" is the module itself), where that is known.

        A bundle records it, so that the student can be built again from there.
        """
        return {}

    @property
    def innermost(self) -> Student:
        """The student inside all that only changes the unit of its outputs: this one."""
        return self

    @property
    def outputs_in_unit(self) -> bool:
        """Whether its outputs come in the unit of the targets however it is trained: its head is a trained one."""
        return False

    def from_nothing(self) -> Student:
        """The same student without what it takes over from one that was trained before: the baseline's start."""
        return self
