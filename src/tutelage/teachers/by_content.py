"""Stored answers in a training loop of one's own: no transfer set numbers the rows, their content does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tutelage.cache import Contents, FeatureForm, Part, digests_of
from tutelage.errors import RecipeError
from tutelage.signals import Batch
from tutelage.teachers.base import Teacher

__all__ = ["answers_by_content", "marks_of", "require_storable"]


def answers_by_content(
    contents: Contents,
    names: Sequence[str],
    batch: Batch,
    ask: Callable[[Batch, Sequence[str]], Mapping[str, Part]],
) -> dict[str, Part]:
    """The stored answers to the rows of a batch, after `ask` was asked about the distinct rows that had none.

    Args:
        contents: The stored answers.
        names: Of the signals.
        batch: The rows.
        ask: Gives the teacher's answers to some rows.
    """
    digests = digests_of(batch)
    mask = None if batch.mask is None else batch.mask.bool().cpu()
    # Twice where files were removed under the loop, which shows when more is stored.
    while (lacking := contents.lacking(names, contents.numbers(digests))).any():
        at = np.array(list({digests[i]: i for i in np.flatnonzero(lacking).tolist()}.values()))
        said = ask(batch.some(at), names)
        shown = None if mask is None else mask[at]
        contents.keep([digests[i] for i in at], {name: said[name] for name in names}, shown)
    parts = contents.read(names, contents.numbers(digests), None if mask is None else mask.numpy())
    assert parts is not None
    return parts


def marks_of(teacher: Teacher) -> list[tuple[object, ...]]:
    """What shows at once that weights were changed: a full fingerprint in every step would cost more than the step.

    It is the place, the version and the first and last number of each tensor: an optimiser changes the version, and
    code that writes to `.data`, as averages of weights are often made, the numbers.
    """
    marks: list[tuple[object, ...]] = []
    for module in teacher.modules.values():
        for tensor in (*module.parameters(), *module.buffers()):
            if not tensor.numel():
                continue
            ends = tensor.detach()[(0,) * tensor.dim()], tensor.detach()[(-1,) * tensor.dim()]
            version = 0 if tensor.is_inference() else tensor._version
            marks.append((tensor.data_ptr(), version, *(repr(end.item()) for end in ends)))
    return marks


def require_storable(features: FeatureForm, names: Sequence[str]) -> None:
    """Raises a `RecipeError` for a form that is fitted on the answers which are stored first."""
    if features == "low_rank" and any("features/" in name for name in names):
        raise RecipeError(
            "features of a Cached that is asked outside a run",
            expected="float32, float16 or int8",
            found="low_rank, whose components are fitted on the answers that are stored first",
            harm="the first batch alone would decide what can be stored of all others",
            mend="give Cached(..., features='int8')",
        )
