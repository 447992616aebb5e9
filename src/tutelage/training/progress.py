"""How far a training has come, and which of its evaluations was the best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Progress", "rank"]


def rank(values: Mapping[str, float], directions: Mapping[str, bool]) -> tuple[float, ...]:
    """The values in order of their weight, greater for better ones; one that is not defined is worse than any other.

    Args:
        values: By metric; those that are undefined (a correlation with constant answers) are absent.
        directions: The metrics in order, and whether each is better when higher.
    """
    return tuple(
        -math.inf if name not in values else values[name] if higher else -values[name]
        for name, higher in directions.items()
    )


@dataclass
class Progress:
    """Everything but weights that a run needs to go on: stored in each checkpoint.

    Attributes:
        step: Steps done.
        best: The value, at the best evaluation, of the metric that selects; None where it is not defined there.
        best_step: The step of the best evaluation; 0 before there is one.
        best_development: All that was measured there.
        without_gain: Evaluations since one that was better than all before.
        best_sha256: The digest of the weights of the best evaluation; known to the first process.
    """

    step: int = 0
    best: float | None = None
    best_step: int = 0
    best_development: dict[str, float] = field(default_factory=dict)
    without_gain: int = 0
    best_sha256: str = ""

    def evaluated(self, metrics: dict[str, float], directions: Mapping[str, bool]) -> bool:
        """Takes in an evaluation of the present step; whether its weights are to be kept.

        Equal in all is no gain, but the student that has learnt for longer is kept.

        Args:
            metrics: Measured on the development split.
            directions: The metrics that select, in order, and whether each is better when higher.
        """
        found = rank(metrics, directions)
        before = rank(self.best_development if self.best_step else {}, directions)
        self.without_gain = 0 if found > before else self.without_gain + 1
        if found < before or not any(map(math.isfinite, found)):
            return False
        self.best, self.best_step, self.best_development = metrics.get(next(iter(directions))), self.step, metrics
        return True
