"""Which inputs the teacher is asked about, where it can't be asked about all: strategies, and their record."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from tutelage.errors import RecipeError
from tutelage.taps import find_layer
from tutelage.training import Training
from tutelage.transfer import TransferSet

if TYPE_CHECKING:
    from tutelage.recipe import Recipe

__all__ = ["Asking", "Round", "Strategy", "asked_about", "check_asking", "gain_per_1000", "k_centre", "uncertainty"]

Array = np.ndarray[Any, Any]
Strategy = Literal["random", "entropy", "margin", "k_centre"]


@dataclass(kw_only=True)
class Asking:
    """Training rows are asked about in rounds; a student that has learnt from those so far helps to choose the next.

    The first round is drawn at random. In each further one a share of the rows is drawn at random from those not yet
    asked about (the audit): how often the present student agrees with the teacher on them estimates, without bias,
    how often it would on all that were not asked about. The rest of the round is what the strategy prefers. The
    students that are delivered learn from all rows asked about; the baseline has all labels, for they cost no question.

    Args:
        strategy: `random`; `entropy`: rows whose predicted distribution has the most; `margin`: rows whose two
            likeliest classes are the closest; `k_centre`: greedily the row that is farthest from all that were asked
            about or chosen.
        rounds: Rounds at most.
        per_round: Rows in a round, the audit among them.
        audit: Share of a round that is drawn at random.
        stop_gain: Stop when the agreement that the audits estimate rose by less than this share for 1,000 questions,
            such as 0.01 for one point; null for all rounds. Of 50 audited rows the estimate is good to about
            10 points: with a small audit such a stop is a matter of chance.
        features: What `k_centre` measures distances of: the student's `output`, the `inputs`, or one of its layers.
        training: How the students of the rounds are trained; null for the recipe's training.
    """

    strategy: Strategy = "random"
    rounds: int = 4
    per_round: int = 500
    audit: float = 0.1
    stop_gain: float | None = None
    features: str = "output"
    training: Training | None = None

    @property
    def audited(self) -> int:
        """Rows of a round that are drawn at random."""
        return max(1, round(self.audit * self.per_round))

    def check(self, recipe: Recipe) -> None:
        """Refuses settings that can't be meant, or that the rest of the recipe contradicts.

        Raises:
            RecipeError: Naming the field.
        """
        self._check_settings()
        contradictions = {
            "task": (recipe.task != "classification", "task: classification, whose agreement is a share of rows"),
            "assistants": (bool(recipe.assistants), "no assistants: the students of the rounds learn from the teacher"),
            "data.labelled_share": (
                recipe.data.labelled_share is not None,
                "null: how many of the rows asked about have labels is not known before",
            ),
            "losses": (all(loss.needs.labels for loss in recipe.losses), "a loss that hears the teacher on every row"),
        }
        for key, (wrong, expected) in contradictions.items():
            if wrong:
                raise RecipeError(key, expected=f"with `asking`, {expected}", found="another", mend="or remove asking")

    def _check_settings(self) -> None:
        for name, least in (("rounds", 1), ("per_round", 2)):
            if getattr(self, name) < least:
                raise RecipeError(f"asking.{name}", expected=f"at least {least}", found=str(getattr(self, name)))
        if not 0 < self.audit <= 1:
            raise RecipeError(
                "asking.audit",
                expected="a share above 0, up to 1",
                found=str(self.audit),
                harm="rows that a strategy chose say nothing of the others: the agreement could not be estimated",
                mend="set it to 0.1",
            )
        if self.stop_gain is not None and not math.isfinite(self.stop_gain):
            raise RecipeError("asking.stop_gain", expected="a number, or null", found=str(self.stop_gain))
        if self.features != "output" and self.strategy != "k_centre":
            raise RecipeError(
                "asking.features",
                expected="strategy: k_centre, the only one that measures distances",
                found=f"strategy: {self.strategy}",
                mend="remove asking.features, or choose k_centre",
            )


def asked_about(asking: Asking | None, data: TransferSet) -> TransferSet:
    """The data with as many training rows as the teacher will be asked about, which decide the steps of an epoch."""
    return data if asking is None else data.limited_to(data.rows("train")[: asking.rounds * asking.per_round])


def check_asking(asking: Asking | None, data: TransferSet, student: nn.Module) -> None:
    """There are rows enough to choose from, and what distances are measured of is there.

    Raises:
        RecipeError: Naming the field.
        ModelError: The student has no such layer.
    """
    if asking is None:
        return
    rows = len(data.rows("train"))
    if asking.rounds * asking.per_round > rows:
        raise RecipeError(
            "asking",
            expected=f"rounds x per_round up to {rows:,}, the training rows",
            found=f"{asking.rounds} x {asking.per_round:,}",
            harm="there would be nothing left to choose from",
            mend="ask about fewer, or remove asking to ask about all",
        )
    inputs = data.example(1).inputs
    if asking.features == "inputs" and isinstance(inputs, dict):
        raise RecipeError(
            "asking.features",
            expected="inputs of one tensor, between which there are distances",
            found=", ".join(inputs),
            mend="use `output` or a layer of the student",
        )
    if asking.features not in ("output", "inputs"):
        find_layer(student, asking.features, model="student")


@dataclass(frozen=True, kw_only=True)
class Round:
    """What was asked in a round, and what its audit found of the student of the round before.

    Attributes:
        number: From 1.
        audit: Rows drawn at random.
        chosen: Rows that the strategy chose.
        asked: Rows asked about so far, this round's among them.
        agreement: Share of the audited rows on which the student of the rounds before gives the teacher's class; None
            in the first round.
        low: Lower end of its 95% interval (Wilson's).
        high: Its upper end.
        gain_per_1000: Rise of the agreement since the audit before, for 1,000 questions.
        stopped: Whether that was too little to go on: then nothing was chosen.
    """

    number: int
    audit: list[int]
    chosen: list[int]
    asked: int
    agreement: float | None = None
    low: float | None = None
    high: float | None = None
    gain_per_1000: float | None = None
    stopped: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As `asking.json` has it."""
        return asdict(self)


def uncertainty(logits: Tensor, by: Literal["entropy", "margin"]) -> Tensor:
    """How unsure each row is, `[n, C]` -> `[n]` in float64.

    `entropy`: `-Σ_c p_c log p_c`. `margin`: `1 - (p_1 - p_2)` of the two likeliest classes.
    """
    log_p = torch.log_softmax(logits.double(), dim=-1)
    if by == "entropy":
        return -(log_p.exp() * log_p).sum(-1)
    best = log_p.exp().topk(2, dim=-1).values
    return 1 - (best[:, 0] - best[:, 1])


def k_centre(points: Tensor, centres: Tensor, count: int) -> Array:
    """Greedy k-centre: `count` times the point that is farthest from all centres becomes one.

    The largest distance of a point from its nearest centre is at most twice the smallest that so many centres allow.

    Source: Gonzalez, "Clustering to minimize the maximum intercluster distance", 1985; Sener, Savarese, "Active
    Learning for Convolutional Neural Networks: A Core-Set Approach", 2018.

    Args:
        points: `[n, D]` to choose from; ties go to the first.
        centres: `[m, D]` that are centres already; at least one.
        count: How many to choose, up to `n`.

    Returns:
        `[count]` positions in `points`, in the order of choice.
    """
    points, centres = points.double(), centres.double()
    nearest = torch.full((len(points),), torch.inf, dtype=torch.float64, device=points.device)
    for start in range(0, len(centres), 256):
        nearest = torch.minimum(nearest, torch.cdist(points, centres[start : start + 256]).min(1).values)
    chosen = np.empty(count, dtype=np.int64)
    for place in range(count):
        chosen[place] = at = int(nearest.argmax())
        nearest = torch.minimum(nearest, (points - points[at]).square().sum(1).sqrt())
        nearest[at] = -1.0
    return chosen


def gain_per_1000(now: float, before: float | None, questions: int) -> float | None:
    """Rise of the agreement for 1,000 questions, from one audit to the next."""
    return None if before is None else (now - before) * 1000 / questions
