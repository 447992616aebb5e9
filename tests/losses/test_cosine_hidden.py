from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loss_case import Array, Case, Numbers, Plain, prepared

from tutelage.errors import SignalError
from tutelage.losses.cosine_hidden import CosineHidden
from tutelage.signals import Batch

PAIRS = {"s.1": "t.3"}


def golden(n: Numbers) -> Array:
    s, t = n.student["s.1"], n.teacher["t.3"]
    weight = n.trained.get("projectors.s/1.weight")
    s = s if weight is None else s @ weight.T
    return 1 - (s * t).sum(-1) / np.sqrt((s**2).sum(-1) * (t**2).sum(-1))


CASES = {
    "tokens": Case(lambda: CosineHidden(PAIRS), {"s.1": (3, 4)}, {"t.3": (3, 4)}, golden, tokens=3, floor=0.0),
    "narrow": Case(lambda: CosineHidden(PAIRS, projector=True), {"s.1": (3, 2)}, {"t.3": (3, 4)}, golden, tokens=3),
    "positions": Case(lambda: CosineHidden(PAIRS), {"s.1": (3, 4)}, {"t.3": (3, 4)}, lambda n: golden(n).mean(1)),
    "vectors": Case(lambda: CosineHidden(PAIRS), {"s.1": (4,)}, {"t.3": (4,)}, golden, floor=0.0),
}


def plain(s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    mask = torch.ones(s.shape[:2], dtype=torch.bool)
    return (1 - F.cosine_similarity(s[mask], t[mask], dim=-1)).mean()


PLAIN = {
    "tokens": Plain(
        lambda: CosineHidden(PAIRS),
        {"s.1": (128, 384)},
        {"t.3": (128, 384)},
        lambda s, t, labels, loss: plain(s["s.1"], t["t.3"]),
        tokens=128,
        samples=16,
    )
}


def test_the_length_of_hidden_states_does_not_matter() -> None:
    numbers = CASES["tokens"].draw()
    loss = prepared(CASES["tokens"], numbers)
    s, t = torch.tensor(numbers.student["s.1"]), torch.tensor(numbers.teacher["t.3"])
    batch = _unmasked(4)
    torch.testing.assert_close(loss.compare("s.1", 7 * s, t, batch), loss.compare("s.1", s, t, batch))


def test_long_sequences_do_not_count_for_more_where_there_is_no_mask() -> None:
    """A mean over tokens, not a sum."""
    loss = CosineHidden(PAIRS)
    s, t = torch.randn(2, 5, 4), torch.randn(2, 5, 4)
    twice = loss.compare("s.1", torch.cat([s, s], 1), torch.cat([t, t], 1), _unmasked(2))
    torch.testing.assert_close(twice, loss.compare("s.1", s, t, _unmasked(2)))


def _unmasked(size: int) -> Batch:
    return Batch(inputs=torch.empty(size, 0), rows=torch.arange(size), views=torch.zeros(size, dtype=torch.long))


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        ((3, 2), (3, 4), "projector"),
        ((3, 4), (5, 4), "same tokens"),
        ((4, 2, 2), (4, 2, 2), "Hint"),
        ((4,), (3, 4), r"layer `s\.1`"),
    ],
)
def test_layers_that_do_not_fit_are_refused_by_name(student, teacher, message: str) -> None:
    case = Case(lambda: CosineHidden(PAIRS), {"s.1": student}, {"t.3": teacher}, golden)
    with pytest.raises(SignalError, match=message):
        prepared(case, case.draw())


def test_a_mask_of_another_length_is_refused() -> None:
    case = Case(lambda: CosineHidden(PAIRS), {"s.1": (3, 4)}, {"t.3": (3, 4)}, golden, tokens=5)
    with pytest.raises(SignalError, match="token mask"):
        prepared(case, case.draw())
