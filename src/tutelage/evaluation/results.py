"""What an evaluation found: the words that gates and reports are written in."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

__all__ = ["Estimate", "MetricResult"]

Model = Literal["teacher", "student", "baseline", "untrained", "constant"]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A measured value and its confidence interval.

    Attributes:
        value: The estimate.
        low: Lower end.
        high: Upper end.
        reservation: Why the end that a good student is judged by (`low` where higher is better) can't be relied on:
            whoever is better than a threshold by it is not shown to be. Empty where it can.
    """

    value: float
    low: float
    high: float
    reservation: str = ""


@dataclass(frozen=True, kw_only=True)
class MetricResult:
    """One metric on one evaluation set, for every model that has it.

    Attributes:
        name: As a policy names it: `accuracy`, `agreement`, `cosine`; on a further set `spearman_human:wordsim353`.
        title: For people.
        kind: `quality` is judged against labels or human scores, `fidelity` against the teacher.
        set: The evaluation set, `test` for the held-out split.
        higher_is_better: Direction.
        unit: `""` for plain numbers, `"%"` when values are shares to be shown in per cent.
        n: How many rows (or pairs) it was computed on.
        groups: How many groups those rows came in, when rows of a group are not independent: intervals resample
            groups. For pairs of texts, how many texts: intervals resample texts. None: each row by itself.
        confidence: Coverage of the intervals, 0.95.
        models: By model: teacher (quality only), student, baseline, untrained; and `constant`, the best answer that is
            the same for every row, where such an answer has a value.
        differences: Paired: `student - teacher` (quality only), `student - baseline`, `student - untrained`,
            `student - constant`, `teacher - constant` (quality only).
        sd_difference: Standard deviation, over rows, of the paired difference `student - teacher` (for a quality
            metric that is a mean over rows) or of the student's values (for a fidelity metric that is one); None for
            others. In groups it is `√design effect` times that, so that `sd / √n` is the standard error. It says how
            many more rows would decide an inconclusive gate.
    """

    name: str
    title: str
    kind: Literal["quality", "fidelity"]
    set: str
    higher_is_better: bool
    n: int
    models: dict[str, Estimate]
    differences: dict[str, Estimate] = field(default_factory=dict)
    unit: str = ""
    confidence: float = 0.95
    sd_difference: float | None = None
    groups: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `metrics.json`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        estimates = {key: {name: Estimate(**e) for name, e in data[key].items()} for key in ("models", "differences")}
        return cls(**{**data, **estimates})
