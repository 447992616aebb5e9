"""Confidence intervals from bootstrap resamples, with what the plain percentile interval gets wrong put right.

Means of graded values and smooth functions of means (losses, errors, F1, correlations) have **studentised** intervals,
which reach further where values are skewed (`studentised.py`), and as far as rows that the sample lacks may move them
(`unseen.py`). Where that doesn't hold either, the interval makes a reservation, and no gate passes by it.

For the others the percentile interval is the start: for shares of rows, which have exact limits; for calibration errors
and rank correlations, whose standard error on a resample isn't known. It is then

* **centred** for statistics that are not means: resampling adds its own bias, so the resamples are shifted to have
  their mean at the estimate. The estimate itself may be biased too, as a calibration error of noise is never 0. The
  bias that resampling shows understates that, by up to `1 / (√2 - 1)` where the statistic is all noise (the noise of a
  resample is √2 times that of the sample); the interval reaches that much further on the side where the truth lies.
  For a difference both sides' biases count in full: a calibration error is compared cautiously.
* **expanded** for small n (Hesterberg 2015, "What teachers should know about the bootstrap"): by
  `√(n / (n - 1)) · t / z`, which is 1.22 at n = 10, 1.05 at 40 and 1.0002 at 10,000.
* **never shorter than a score interval** for rows that are 0 or 1. With few events the bootstrap is too sure of itself:
  for shares it is widened to Wilson's interval; for paired differences to the interval that combines Wilson's
  intervals of both kinds of discordant rows (Newcombe 1998; Zou and Donner 2008, "MOVER").
* **as long as rows that the sample lacks** may make it, where the rows are not 0 or 1 (`unseen.py`).
* **never of no width** for shares: when every row says the same, n rows can't tell the share of others from 0, but it
  is below 3 / n ("rule of three"): the interval is widened by 3 / n to both sides.
* as wide as **those rows that decide** make it: where a statistic rests on few of the rows (those of a rare class), "n"
  in the points above is how many these are. Means of the shares of classes are never shorter than Wilson's interval at
  that many rows (their differences than 3 / n to both sides), areas under curves than one symmetric in the log-odds.
* cut at the least and the greatest value there can be.

Where rows come in groups, whole groups are resampled, and "n" above is the number of groups, but for the score
intervals: those take the effective number of rows, `n / design effect`, scaled by `(z / t)²` for few groups (Korn and
Graubard 1998, "Confidence intervals for proportions with small expected number of positive counts"). Shares of rows in
groups are studentised too, for what a group adds is graded and skewed, and never shorter than the score interval. Below
12 groups nothing that was tried holds: the groups that the sample lacks may be the bad ones, which makes a reservation.

Where pairs of texts are judged, texts are resampled, and a pair counts as often as both its texts together. That is
right for what pairs share with others through their texts, but counts what is a pair's own three times (Owen 2007,
"The pigeonhole bootstrap"), so the variance is that of resampled texts less twice that of resampled pairs, and never
below the latter: of each pair of pairs with a text in common its covariance once (as Aronow, Samii and Assenova 2015).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from tutelage.evaluation.evidence import Floats
from tutelage.evaluation.metrics.base import Difference, Mean, OfMeans, Statistic
from tutelage.evaluation.results import Estimate
from tutelage.evaluation.studentised import FEW, HELPED, effective_number, reach_of, rows_of_half
from tutelage.sampling import design_effect, t_quantile

__all__ = [
    "Drawn",
    "difference_interval",
    "effective_rows",
    "expansion",
    "value_interval",
    "wilson",
    "zero_or_one",
]

NOISE_BIAS = 1 / (math.sqrt(2) - 1)
Ends = tuple[float, float]
FEW_ROWS, FEW_GROUPS = 2, 12
"""Fewer rows than this have no interval, and the interval of fewer groups can't be relied on."""


@dataclass(frozen=True)
class Drawn:
    """A statistic and its value on each resample.

    Attributes:
        statistic: Over `n` rows.
        draws: `[R]`; NaN where it is undefined.
        groups: `[n]` numbers from 0 of the group of each row, when groups were drawn.
        by_pair: `[r]` of resamples of pairs, when `draws` are of the texts of pairs.
        errors: `[R]` the standard error on each resample, where the statistic is smooth and not a share of rows.
        error: The standard error.
        influence: `[n]` how far each row moves the value, where there are `errors`.
        independent: How many independent rows show as much of what single rows are like; None: `n`.
        unseen: How far below and above its value, `(<= 0, >= 0)`, rows that the sample lacks may move it.
    """

    statistic: Statistic
    draws: Floats
    groups: NDArray[np.int64] | None = None
    by_pair: Floats | None = None
    errors: Floats | None = None
    error: float = 0.0
    influence: Floats | None = None
    independent: float | None = None
    unseen: tuple[float, float] = (0.0, 0.0)

    @property
    def drawn(self) -> int:
        """How many rows, groups or texts a resample draws."""
        return self.statistic.n if self.groups is None else int(self.groups.max()) + 1

    @property
    def known_by(self) -> int:
        """How many rows, groups or texts it rests on: those drawn, or the fewer that decide it."""
        events = self.statistic.events
        return self.drawn if events is None else min(self.drawn, events)

    @cached_property
    def value(self) -> float:
        """The statistic with every row counted once."""
        return self.statistic.value()

    @cached_property
    def bias(self) -> float:
        """The mean of the draws less the value: what resampling adds. A mean has none."""
        known = self.draws[np.isfinite(self.draws)]
        return 0.0 if isinstance(self.statistic, Mean) or not len(known) else float(known.mean()) - self.value

    def reach(self, sign: int) -> float:
        """How far below the estimate (`sign` 1) or above it (-1) the truth may be for its bias."""
        return NOISE_BIAS * max(sign * self.bias, 0.0)


def value_interval(
    drawn: Drawn, *, bounds: tuple[float, float], share: bool, confidence: float, higher_is_better: bool = True
) -> Estimate | None:
    """The value of a statistic and its interval.

    Args:
        drawn: The statistic on its resamples.
        bounds: The least and the greatest value there can be.
        share: Whether it is a share, so that an interval of no width is widened to 3 / n (or groups).
        confidence: Coverage.
        higher_is_better: A reservation is made where the lower end can't be relied on, else where the upper can't.

    Returns:
        None when there is no value, or no interval: fewer than two rows or groups, or the statistic is undefined.
    """
    statistic, value = drawn.statistic, drawn.value
    if drawn.drawn < FEW_ROWS:
        return None
    exact: Ends | None = None
    if share and isinstance(statistic, Mean) and zero_or_one(statistic.values) and 0 < value < 1:
        exact = wilson(value, effective_rows(statistic.values, drawn.groups, confidence), confidence)
    if drawn.errors is not None:
        found = _studentised(drawn, bounds, share, confidence, higher_is_better)
        return _relied_on(_of_few(found, drawn, bounds, confidence), drawn, exact)
    ends = _bootstrap(value, drawn.draws - drawn.bias, drawn.by_pair, drawn.known_by, confidence)
    if ends is None:
        return None
    ends = ends[0] - drawn.reach(1), ends[1] + drawn.reach(-1)
    ends = _hull(ends, (value + drawn.unseen[0], value + drawn.unseen[1]))
    if isinstance(statistic, OfMeans):  # bins of few rows have a bias that resampling doesn't show, all of it upwards
        ends = ends[0] + drawn.unseen[0], ends[1]
    return _relied_on(_estimate(value, ends, bounds, drawn.known_by if share else None), drawn, exact)


def difference_interval(
    ours: Drawn,
    theirs: Drawn,
    *,
    bounds: tuple[float, float],
    share: bool,
    confidence: float,
    higher_is_better: bool = True,
    difference: Drawn | None = None,
) -> Estimate | None:
    """The paired difference `ours - theirs` on the same resamples; arguments and result as for `value_interval`.

    Args:
        ours: The minuend on its resamples.
        theirs: The subtrahend on the same.
        bounds: Of either side.
        share: Of either side.
        confidence: Coverage.
        higher_is_better: Of either side.
        difference: The difference as one statistic with its standard errors, where it is smooth.
    """
    value, n = ours.value - theirs.value, min(ours.known_by, theirs.known_by)
    widest = bounds[1] - bounds[0]
    # Either side may lack rows while the other has them.
    unseen = ours.unseen[0] - theirs.unseen[1], ours.unseen[1] - theirs.unseen[0]
    if ours.drawn < FEW_ROWS:
        return None
    exact: Ends | None = None
    if share and isinstance(ours.statistic, Mean) and isinstance(theirs.statistic, Mean):
        a, b = ours.statistic.values, theirs.statistic.values
        if zero_or_one(a) and zero_or_one(b) and (a != b).any():
            rows = effective_rows(a - b, ours.groups, confidence)
            exact = _paired_shares(a, b, rows, confidence=confidence)
    if difference is not None and difference.errors is not None:
        apart = replace(difference, unseen=unseen)
        found = _studentised(apart, (-widest, widest), share, confidence, higher_is_better)
        return _relied_on(_of_few(found, apart, (-widest, widest), confidence), ours, exact)
    by_pair = None if ours.by_pair is None or theirs.by_pair is None else ours.by_pair - theirs.by_pair
    ends = _bootstrap(value, (ours.draws - ours.bias) - (theirs.draws - theirs.bias), by_pair, n, confidence)
    if ends is None:
        return None
    # Each side's bias is between none and what it may be, whatever the other's is: they need not cancel.
    ends = (
        ends[0] - ours.reach(1) - theirs.reach(-1),
        ends[1] + ours.reach(-1) + theirs.reach(1),
    )
    ends = _hull(ends, (value + unseen[0], value + unseen[1]))
    return _relied_on(_estimate(value, ends, (-widest, widest), n if share else None), ours, exact)


def wilson(share: float, n: float, confidence: float) -> tuple[float, float]:
    """Wilson's score interval of a share of `n` rows."""
    z = _z(confidence)
    middle = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def effective_rows(values: Floats, groups: NDArray[np.int64] | None, confidence: float) -> float:
    """How many independent rows know as much about the mean of `values` as these rows in groups do."""
    if groups is None:
        return len(values)
    freedom = int(groups.max())
    few = (_z(confidence) / t_quantile(0.5 + confidence / 2, freedom)) ** 2
    return few * len(values) / design_effect(values, groups)


def expansion(n: int, confidence: float) -> float:
    """The factor `√(n / (n - 1)) · t / z` by which a percentile interval is too short for means of `n` rows."""
    return math.sqrt(n / (n - 1)) * t_quantile(0.5 + confidence / 2, n - 1) / _z(confidence)


def _studentised(
    drawn: Drawn, bounds: tuple[float, float], share: bool, confidence: float, higher_is_better: bool
) -> Estimate | None:
    """The studentised interval, with what the sample lacks, and its reservation."""
    assert drawn.errors is not None and drawn.influence is not None, "a smooth statistic has both"
    value, n = drawn.value, drawn.known_by
    plain = _bootstrap(value, drawn.draws, None, n, confidence)
    if plain is None:
        return None
    reached = reach_of(value, drawn.error, drawn.draws, drawn.errors, confidence)
    shown = 1.0 if drawn.independent is None else drawn.independent / drawn.statistic.n
    few = shown * effective_number(drawn.influence) < FEW
    bounded = _is_bounded_mean(drawn.statistic, bounds)
    ends, reservations = [], []
    for side in (0, 1):
        sign = 2 * side - 1
        seen, unseen, bound = reached[side], abs(drawn.unseen[side]), bounds[side]
        if drawn.error == 0 and share:
            unseen = max(unseen, 3 / n)
        found = math.isfinite(seen) or math.isfinite(bound)
        if not math.isfinite(seen):
            seen = abs((bound if found else plain[side]) - value)
            if bounded:
                seen = min(seen, _as_events(drawn, bounds, confidence)[side])
        ends.append(value + sign * (seen + unseen if few and not bounded else max(seen, unseen)))
        known = bounded or unseen >= HELPED * seen
        reservations.append(_reservation(drawn, found=found and not (few and not known), nothing=seen + unseen == 0))
    estimate = _estimate(value, (ends[0], ends[1]), bounds, None)
    return replace(estimate, reservation=reservations[0 if higher_is_better else 1])


def _relied_on(found: Estimate | None, drawn: Drawn, exact: Ends | None) -> Estimate | None:
    """An interval no shorter than the exact one, with a reservation where it comes of few groups."""
    if found is None:
        return None
    if exact is not None:
        low, high = _hull((found.low, found.high), exact)
        found = replace(found, low=low, high=high)
    if drawn.groups is None or drawn.drawn >= FEW_GROUPS or found.reservation:
        return found
    about = f"{drawn.drawn} groups are too few: those that the sample lacks may be unlike all of them"
    return replace(found, reservation=f"{about}, and how much so can't be told from fewer than {FEW_GROUPS}")


def _is_bounded_mean(statistic: Statistic, bounds: tuple[float, float]) -> bool:
    """Whether no row can be far further off than those of the sample: a mean, or a difference of two, within bounds."""
    sides = (statistic.ours, statistic.theirs) if isinstance(statistic, Difference) else (statistic,)
    return all(isinstance(side, Mean) for side in sides) and all(map(math.isfinite, bounds))


def _as_events(drawn: Drawn, bounds: tuple[float, float], confidence: float) -> tuple[float, float]:
    """How far Wilson's interval reaches below and above a mean of values within bounds.

    No values within bounds vary more than events do that are at either bound and have the same mean.
    """
    width = bounds[1] - bounds[0]
    share = (drawn.value - bounds[0]) / width
    low, high = wilson(share, drawn.independent or drawn.statistic.n, confidence)
    return (share - low) * width, (high - share) * width


def _reservation(drawn: Drawn, *, found: bool, nothing: bool) -> str:
    """Why an end can't be relied on; empty where it can."""
    assert drawn.influence is not None
    n = drawn.statistic.n
    if nothing:
        return f"all {n:,} rows give the same value, which says nothing of others"
    if found:
        return ""
    half = rows_of_half(drawn.influence)
    make = "makes" if half == 1 else "make"
    return (
        f"{half:,} of {n:,} rows {make} up half of the variance: as many of their kind may be missing by chance, and "
        "how large those would be can't be told"
    )


def _bootstrap(
    value: float, draws: Floats, by_pair: Floats | None, n: int, confidence: float
) -> tuple[float, float] | None:
    """The percentile interval, expanded for small n; `by_pair` are the draws of pairs where `draws` are of texts."""
    draws = draws[np.isfinite(draws)]
    if n < FEW_ROWS or not math.isfinite(value) or not len(draws):
        return None
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    wider = expansion(n, confidence)
    if by_pair is not None:
        wider *= _pairs_once(draws, by_pair)
    return value + (float(low) - value) * wider, value + (float(high) - value) * wider


def _pairs_once(by_text: Floats, by_pair: Floats) -> float:
    """The factor that takes the deviation of resampled texts to one in which what is a pair's own counts once."""
    texts, pairs = float(by_text.var()), float(np.nanvar(by_pair))
    return math.sqrt(max(texts - 2 * pairs, pairs) / texts) if texts > 0 else 1.0


def _paired_shares(ours: Floats, theirs: Floats, n: float, *, confidence: float) -> tuple[float, float]:
    """MOVER: `d ± √(squares of the two distances)` from Wilson's intervals of the gained and the lost of `n` rows."""
    gained, lost = float((ours > theirs).mean()), float((ours < theirs).mean())
    (gained_low, gained_high), (lost_low, lost_high) = wilson(gained, n, confidence), wilson(lost, n, confidence)
    difference = gained - lost
    return (
        difference - math.hypot(gained - gained_low, lost_high - lost),
        difference + math.hypot(gained_high - gained, lost - lost_low),
    )


def _estimate(value: float, ends: tuple[float, float], bounds: tuple[float, float], share_of: int | None) -> Estimate:
    low, high = ends
    if share_of is not None and high - low < 1e-12:
        low, high = value - 3 / share_of, value + 3 / share_of
    # Rounding must not put the value outside its own interval.
    return Estimate(value=value, low=min(max(low, bounds[0]), value), high=max(min(high, bounds[1]), value))


def _hull(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    return min(a[0], b[0]), max(a[1], b[1])


def _of_few(found: Estimate | None, drawn: Drawn, bounds: tuple[float, float], confidence: float) -> Estimate | None:
    """An interval made no shorter than few rows of the scarcest class allow, where a statistic rests on them.

    Of shares of classes it is Wilson's, at as many rows as decide: `Σ_c p_c (1 - p_c) / n_c / C²` is never above
    `p (1 - p) / (C · min n_c)`; of their differences 3 / n to both sides. Of areas under curves it is one that is
    symmetric in the log-odds, so that it is longer away from 1.
    """
    statistic, value, rows = drawn.statistic, drawn.value, drawn.known_by
    if found is None or statistic.events is None:
        return found
    if isinstance(statistic, Difference):
        ends = (value - 3 / rows, value + 3 / rows) if statistic.of_shares else (value, value)
    elif not (isinstance(statistic, Mean) and 0 < value < 1):
        return found
    elif statistic.of_shares:
        ends = wilson(value, rows, confidence)
    else:
        odds, half = math.log(value / (1 - value)), t_quantile(0.5 + confidence / 2, rows - 1) * drawn.error
        half /= value * (1 - value)
        ends = _share_of(odds - half), _share_of(odds + half)
    low, high = _hull((found.low, found.high), ends)
    return replace(found, low=max(low, bounds[0]), high=min(high, bounds[1]))


def _share_of(odds: float) -> float:
    """The share whose log-odds these are."""
    return 1 / (1 + math.exp(-min(max(odds, -700.0), 700.0)))


def zero_or_one(values: Floats) -> bool:
    """Whether each row says 0 or 1."""
    return bool(((values == 0) | (values == 1)).all())


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf(0.5 + confidence / 2)
