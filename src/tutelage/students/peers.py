"""Students that learn together and from each other, of which one is delivered."""

from __future__ import annotations

from typing import Any

from torch import nn

from tutelage.errors import RecipeError
from tutelage.students.base import Student
from tutelage.teachers import Teacher

__all__ = ["PeerGroup", "Peers"]


class Peers(Student):
    """Mutual learning: several students of one kind, each started differently, that teach each other while they learn.

    They are the layers `peers.0`, `peers.1`, ... of one module, whose output is that of `peers.0`: the one that is
    evaluated and delivered. Losses say who learns what from whom:

    ```yaml
    losses:
      - {class_path: CrossEntropy}                                                              # peers.0
      - {class_path: Routed, init_args: {loss: {class_path: CrossEntropy}, student: peers.1}}
      - class_path: Routed
        init_args: {loss: {class_path: KLDivergence}, student: peers.0, teacher: peers.1, teacher_model: student}
      - class_path: Routed
        init_args: {loss: {class_path: KLDivergence}, student: peers.1, teacher: peers.0, teacher_model: student}
    ```

    Source: Zhang et al., "Deep Mutual Learning", 2018.

    Args:
        student: How each peer is made. Its random parts differ from peer to peer.
        count: How many peers there are.

    Raises:
        RecipeError: Fewer than two.
    """

    def __init__(self, student: Student, count: int = 2) -> None:
        if count < 2:
            raise RecipeError(
                "student.count",
                expected="at least 2 peers",
                found=str(count),
                mend="one alone has no one to learn from",
            )
        self.student = student
        self.count = count

    def build(self, teacher: Teacher) -> nn.Module:
        """All peers as one module."""
        return PeerGroup([self.student.build(teacher) for _ in range(self.count)])

    def deliver(self, module: nn.Module) -> nn.Module:
        """The first peer."""
        assert isinstance(module, PeerGroup)
        return self.student.deliver(module.peers[0])

    @property
    def outputs_in_unit(self) -> bool:
        """Whether those of the student inside do."""
        return self.student.outputs_in_unit

    @property
    def delivered(self) -> Student:
        """What the first peer is made by."""
        return self.student.delivered


class PeerGroup(nn.Module):
    """Modules that are all called with the same inputs; the output is the first one's."""

    def __init__(self, peers: list[nn.Module]) -> None:
        super().__init__()
        self.peers = nn.ModuleList(peers)

    def forward(self, *args: Any, **inputs: Any) -> Any:
        """The first peer's output. All are run, in evaluation as well, so that layers can be tapped."""
        outputs = [peer(*args, **inputs) for peer in self.peers]
        return outputs[0]
