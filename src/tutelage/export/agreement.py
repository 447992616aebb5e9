"""Does an exported model say what the student says?"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tutelage.devices.batch import named, repeat_rows
from tutelage.errors import ModelError
from tutelage.export.onnx import OnnxModel
from tutelage.signals import Inputs

__all__ = ["compare"]

UNSEEN = (1, 3)
"""Batch sizes that were never traced (that is 2); both are tried on the first rows."""


def compare(
    path: Path,
    batches: Iterable[Inputs],
    eager: Iterable[Tensor] | Tensor,
    *,
    class_axis: int | None = None,
    values: bool = False,
    tolerance: float = 1e-4,
    device: str = "cpu:1",
) -> dict[str, Any]:
    """Runs an ONNX file over an evaluation set and compares each output with the module's.

    Batches of 1 and 3 are tried too, on rows of the first batch. Where both outputs are the same infinity they agree;
    where one is NaN, or only one is infinite, the difference is infinite (written as the largest float: JSON has no
    infinity).

    Args:
        path: The file.
        batches: The evaluation set.
        eager: The module's outputs for it in the same order: one tensor a batch, or one for all rows.
        class_axis: The axis whose argmax is the class (-1 for logits `[B, C]`); None when outputs are no classes.
        values: Whether outputs are values, in whatever units: each is then compared in deviations of its eager outputs
            from their mean, but none below a thousandth of the largest, of which float32 has no more digits.
        tolerance: The largest difference that passes, as a share of the largest output, which counts for at least 1.
            float32 in another order of summation gives about 1e-6; TF32 on a GPU about 1e-3.
        device: As `Target.parse` takes it.

    Returns:
        For `export.json`: `rows`, `batch_sizes`, `max_abs_difference`, `mean_abs_difference`, `flips` (rows with
        another argmax anywhere; None without `class_axis`), `flips_beyond_ties` (those of them in which the eager
        outputs of the two classes are further apart than the tolerance), `tolerance` (absolute), `agrees`: no
        difference is above the tolerance and no row flips but in a tie, at any batch size; `unit` of differences and
        tolerance where outputs are values. When the graph can't be
        run on a batch or gives another shape, it does not agree, the differences are infinite, and `error` says why.

    Raises:
        ModelError: The file can't be loaded, or there are not as many outputs as rows.
    """
    model = OnnxModel(path, device)
    eager = eager if isinstance(eager, Tensor) else list(eager)
    mean, unit = _scale_of(eager) if values else (torch.zeros(()), torch.ones(()))
    total, tried = (_Differences(class_axis, mean, unit) for _ in range(2))
    sizes: set[int] = set()
    failure: ModelError | None = None
    for inputs, expected in _pairs(batches, eager):
        rows = len(expected)
        try:
            total.add(expected, model(inputs))
            for size in UNSEEN if not sizes else ():
                tried.add(expected[torch.arange(size) % rows], model(repeat_rows(inputs, size)))
                sizes.add(size)
        except ModelError as error:
            failure = failure or error
        sizes.add(rows)
    if not sizes:
        raise ModelError(f"comparing {path.name}", expected="rows to compare on", found="none")
    largest = torch.inf if failure else max(total.largest, tried.largest)
    average = torch.inf if failure else total.sum / max(1, total.count)
    allowed = tolerance * max(1.0, total.scale)
    flipped = total.flips_apart(allowed)
    return {
        "rows": total.rows,
        "batch_sizes": sorted(sizes),
        "max_abs_difference": min(largest, sys.float_info.max),
        "mean_abs_difference": min(average, sys.float_info.max),
        "flips": None if class_axis is None else len(total.flip_gaps),
        "flips_beyond_ties": None if class_axis is None else flipped,
        "tolerance": allowed,
        "agrees": largest <= allowed and not flipped and not tried.flips_apart(allowed),
        **({"unit": "deviations"} if values else {}),
        **({"error": str(failure)} if failure else {}),
    }


def _scale_of(eager: Sequence[Tensor] | Tensor) -> tuple[Tensor, Tensor]:
    """The mean of each value over all rows, and the unit in which it is compared."""
    every = (eager if isinstance(eager, Tensor) else torch.cat(list(eager))).detach().cpu().double()
    unit = every.std(0, correction=0).maximum(every.abs().amax(0) / 1000)
    return every.mean(0), torch.where(unit > 0, unit, 1.0)


@dataclass
class _Differences:
    """Differences so far; `flip_gaps` has for each row that flips how far apart the two classes were."""

    class_axis: int | None
    mean: Tensor
    unit: Tensor
    rows: int = 0
    count: int = 0
    sum: float = 0.0
    largest: float = 0.0
    scale: float = 0.0
    flip_gaps: list[float] = field(default_factory=list)

    def add(self, expected: Tensor, found: Tensor) -> None:
        """Counts a batch."""
        expected = expected.detach().cpu()
        if expected.shape != found.shape:
            raise ModelError(
                "output of the ONNX model", expected=f"shape {list(expected.shape)}", found=f"{list(found.shape)}"
            )
        if self.class_axis is not None:
            self.flip_gaps += _flip_gaps(expected.double(), found, self.class_axis)
        a, b = ((each.double() - self.mean) / self.unit for each in (expected, found))
        difference = torch.where(a == b, 0.0, (a - b).abs()).nan_to_num(nan=torch.inf, posinf=torch.inf)
        self.rows += len(expected)
        self.count += difference.numel()
        if difference.numel():
            self.sum += float(difference.sum())
            self.largest = max(self.largest, float(difference.max()))
            self.scale = max(self.scale, float(a[a.isfinite()].abs().max()) if bool(a.isfinite().any()) else 0.0)

    def flips_apart(self, allowed: float) -> int:
        """Rows that flip between classes further apart than `allowed`: rounding alone could not have done that."""
        return sum(gap > allowed for gap in self.flip_gaps)


def _flip_gaps(expected: Tensor, found: Tensor, axis: int) -> list[float]:
    """Of each row with another argmax anywhere: the widest gap between the expected outputs of the two classes."""
    theirs, ours = expected.argmax(axis, keepdim=True), found.argmax(axis, keepdim=True)
    best, chosen = expected.gather(axis, theirs), expected.gather(axis, ours)
    gap = torch.where(best == chosen, 0.0, best - chosen).nan_to_num(nan=torch.inf, posinf=torch.inf)
    other = (theirs != ours).reshape(len(expected), -1)
    flipped = other.any(1)
    widest = torch.where(other, gap.reshape(len(expected), -1), 0.0)[flipped].amax(1)
    return [float(value) for value in widest]


def _pairs(batches: Iterable[Inputs], eager: Iterable[Tensor] | Tensor) -> Iterator[tuple[Inputs, Tensor]]:
    """Each batch with its rows of the eager outputs."""
    start = 0
    outputs = itertools.repeat(eager) if isinstance(eager, Tensor) else iter(eager)
    for inputs in batches:
        rows = next(iter(named(inputs).values())).shape[0]
        expected = next(outputs, None)
        if isinstance(eager, Tensor):
            expected = eager[start : start + rows]
        start += rows
        if expected is None or len(expected) != rows:
            raise ModelError(
                "comparing an exported model",
                expected=f"as many eager outputs as rows: {rows} for the batch that ends with row {start}",
                found=str(0 if expected is None else len(expected)),
            )
        yield inputs, expected
    if isinstance(eager, Tensor) and start != len(eager):
        raise ModelError(
            "comparing an exported model", expected=f"inputs for {len(eager)} outputs", found=f"{start} rows of inputs"
        )
