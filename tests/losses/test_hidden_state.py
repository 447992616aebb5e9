from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from loss_case import Array, Case, Numbers, Plain, prepared

from tutelage.errors import SignalError
from tutelage.losses.hidden_state import HiddenState

PAIRS = {"s.1": "t.3"}
TWO = {"s.0": "t.0", "s.1": "t.3"}


def one(n: Numbers, pair: tuple[str, str] = ("s.1", "t.3")) -> Array:
    s, t = n.student[pair[0]], n.teacher[pair[1]]
    name = f"projectors.{s.shape[-1]}_to_{t.shape[-1]}"
    if f"{name}.weight" in n.trained:
        s = s @ n.trained[f"{name}.weight"].T + n.trained.get(f"{name}.bias", 0)
    return ((s - t) ** 2).sum(-1) / t.shape[-1]


CASES = {
    "same width": Case(lambda: HiddenState(PAIRS), {"s.1": (3, 4)}, {"t.3": (3, 4)}, one, tokens=3, floor=0.0),
    "narrow": Case(lambda: HiddenState(PAIRS), {"s.1": (3, 2)}, {"t.3": (3, 4)}, one, tokens=3),
    "official": Case(lambda: HiddenState(PAIRS, variant="official"), {"s.1": (3, 4)}, {"t.3": (3, 4)}, one, tokens=3),
    "two pairs": Case(
        lambda: HiddenState(TWO),
        {"s.0": (3, 2), "s.1": (3, 2)},
        {"t.0": (3, 4), "t.3": (3, 4)},
        lambda n: (one(n, ("s.0", "t.0")) + one(n)) / 2,
        tokens=3,
    ),
    "positions": Case(lambda: HiddenState(PAIRS), {"s.1": (3, 2)}, {"t.3": (3, 4)}, lambda n: one(n).mean(1)),
}


def masked_mse(s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """The mask is what a script has for its tokens; here none is padding."""
    mask = s.new_ones(s.shape[:2])
    return (F.mse_loss(s, t, reduction="none").mean(-1) * mask).sum() / mask.sum()


PLAIN = {
    "narrow": Plain(
        lambda: HiddenState(PAIRS),
        {"s.1": (128, 312)},
        {"t.3": (128, 768)},
        lambda s, t, labels, loss: masked_mse(loss.projectors["312_to_768"](s["s.1"]), t["t.3"]),
        tokens=128,
        samples=8,
    ),
    "same width": Plain(
        lambda: HiddenState(PAIRS),
        {"s.1": (128, 384)},
        {"t.3": (128, 384)},
        lambda s, t, labels, loss: masked_mse(s["s.1"], t["t.3"]),
        tokens=128,
        samples=32,
    ),
}


def test_pairs_of_one_width_share_the_matrix_as_in_the_paper() -> None:
    loss = prepared(CASES["two pairs"], CASES["two pairs"].draw())
    assert list(loss.state_dict()) == ["projectors.2_to_4.weight"]


def test_lengths_that_differ_are_refused() -> None:
    case = Case(lambda: HiddenState(PAIRS), {"s.1": (3, 4)}, {"t.3": (5, 4)}, one, tokens=3)
    with pytest.raises(SignalError, match="same tokens"):
        prepared(case, case.draw())


def test_a_mask_of_another_length_is_refused() -> None:
    case = Case(lambda: HiddenState(PAIRS), {"s.1": (3, 4)}, {"t.3": (3, 4)}, one, tokens=5)
    with pytest.raises(SignalError, match="token mask"):
        prepared(case, case.draw())


def test_pooled_vectors_are_refused() -> None:
    case = Case(lambda: HiddenState(PAIRS), {"s.1": (4,)}, {"t.3": (4,)}, one)
    with pytest.raises(SignalError, match="Hint"):
        prepared(case, case.draw())
