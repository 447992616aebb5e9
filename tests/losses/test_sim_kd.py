from __future__ import annotations

import pytest
import torch.nn.functional as F
from loss_case import Array, Case, Numbers, Plain, prepared
from resizing import interpolate, pool

from tutelage.errors import SignalError
from tutelage.losses.sim_kd import SimKD

PAIRS = {"projector": "layer4"}


def error(s: Array, t: Array) -> Array:
    return ((s - t) ** 2).reshape(len(s), -1).sum(1) / s[0].size


def golden(n: Numbers) -> Array:
    return error(n.student["projector"], n.teacher["layer4"])


def tokens(n: Numbers) -> Array:
    return ((n.student["projector"] - n.teacher["layer4"]) ** 2).sum(-1) / 4


CASES = {
    "maps": Case(lambda: SimKD(PAIRS), {"projector": (3, 2, 2)}, {"layer4": (3, 2, 2)}, golden, floor=0.0),
    "vectors": Case(lambda: SimKD(PAIRS), {"projector": (3,)}, {"layer4": (3,)}, golden, floor=0.0),
    "tokens": Case(lambda: SimKD(PAIRS), {"projector": (3, 4)}, {"layer4": (3, 4)}, tokens, tokens=3, floor=0.0),
    "positions": Case(
        lambda: SimKD(PAIRS), {"projector": (3, 4)}, {"layer4": (3, 4)}, lambda n: tokens(n).mean(1), floor=0.0
    ),
    "larger teacher": Case(
        lambda: SimKD(PAIRS),
        {"projector": (2, 2, 2)},
        {"layer4": (2, 5, 4)},
        lambda n: error(n.student["projector"], pool(n.teacher["layer4"], (2, 2))),
    ),
    "larger student": Case(
        lambda: SimKD(PAIRS),
        {"projector": (2, 4, 4)},
        {"layer4": (2, 2, 3)},
        lambda n: error(pool(n.student["projector"], (2, 3)), n.teacher["layer4"]),
    ),
    "interpolated": Case(
        lambda: SimKD(PAIRS, resize="interpolate"),
        {"projector": (2, 2, 2)},
        {"layer4": (2, 3, 4)},
        lambda n: error(interpolate(n.student["projector"], (3, 4)), n.teacher["layer4"]),
    ),
}

PLAIN = {
    "maps": Plain(
        lambda: SimKD(PAIRS),
        {"projector": (512, 8, 8)},
        {"layer4": (512, 8, 8)},
        lambda s, t, labels, loss: F.mse_loss(s["projector"], t["layer4"]),
    ),
}


def test_a_width_that_is_not_the_teachers_is_refused_and_the_student_with_a_projector_is_named() -> None:
    """A projector of the loss's own would leave the teacher's classifier without the features that it reads."""
    case = Case(lambda: SimKD(PAIRS), {"projector": (2, 2, 2)}, {"layer4": (3, 2, 2)}, golden)
    with pytest.raises(SignalError, match=r"`projector`[\s\S]*`layer4`[\s\S]*ReusedClassifier"):
        prepared(case, case.draw())
    assert not list(prepared(CASES["maps"], CASES["maps"].draw()).parameters())


def test_maps_of_different_size_are_refused_where_the_recipe_says_so() -> None:
    case = Case(lambda: SimKD(PAIRS, resize="refuse"), {"projector": (2, 2, 2)}, {"layer4": (2, 4, 4)}, golden)
    with pytest.raises(SignalError, match="set `resize`"):
        prepared(case, case.draw())


def test_an_unknown_way_to_resize_is_refused() -> None:
    with pytest.raises(ValueError, match="must be one of"):
        SimKD(PAIRS, resize="crop")  # type: ignore[arg-type]
