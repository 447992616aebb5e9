from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loss_case import Array, Case, Numbers, Plain, batch_of, prepared, signals_of
from resizing import interpolate, pool

from tutelage.errors import SignalError
from tutelage.losses.attention_transfer import AttentionTransfer

PAIRS = {"a": "b"}


def attention(x: Array) -> Array:
    return (x**2).sum(1, keepdims=True)


def distance(q_s: Array, q_t: Array, variant: Literal["paper", "official"]) -> Array:
    q_s, q_t = (q.reshape(len(q), -1) / np.sqrt((q**2).sum((1, 2, 3)))[:, None] for q in (q_s, q_t))
    norms = np.sqrt(((q_s - q_t) ** 2).sum(1))
    return norms / 2 if variant == "paper" else norms**2 / q_s.shape[1]


def golden(variant: Literal["paper", "official"]):
    def values(n: Numbers) -> Array:
        return distance(attention(n.student["a"]), attention(n.teacher["b"]), variant)

    return values


CASES = {
    "official": Case(lambda: AttentionTransfer(PAIRS), {"a": (2, 3, 3)}, {"b": (4, 3, 3)}, golden("official")),
    "paper": Case(
        lambda: AttentionTransfer(PAIRS, variant="paper"), {"a": (2, 3, 3)}, {"b": (4, 3, 3)}, golden("paper")
    ),
    "official, same": Case(
        lambda: AttentionTransfer(PAIRS), {"a": (2, 3, 3)}, {"b": (2, 3, 3)}, golden("official"), floor=0.0
    ),
    "paper, same": Case(
        lambda: AttentionTransfer(PAIRS, variant="paper"),
        {"a": (2, 3, 3)},
        {"b": (2, 3, 3)},
        golden("paper"),
        floor=0.0,
    ),
    "pooled": Case(
        lambda: AttentionTransfer(PAIRS, resize="pool"),
        {"a": (2, 5, 4)},
        {"b": (2, 2, 2)},
        lambda n: distance(pool(attention(n.student["a"]), (2, 2)), attention(n.teacher["b"]), "official"),
    ),
    "interpolated": Case(
        lambda: AttentionTransfer(PAIRS, resize="interpolate"),
        {"a": (2, 2, 2)},
        {"b": (2, 4, 3)},
        lambda n: distance(interpolate(attention(n.student["a"]), (4, 3)), attention(n.teacher["b"]), "official"),
    ),
}


def maps_of(features: torch.Tensor) -> torch.Tensor:
    return F.normalize(features.square().sum(1).flatten(1))


def plain_distance(s: torch.Tensor, t: torch.Tensor, variant: str) -> torch.Tensor:
    difference = maps_of(s) - maps_of(t)
    return difference.square().mean() if variant == "official" else difference.norm(dim=1).mean() / 2


PLAIN = {
    variant: Plain(
        lambda variant=variant: AttentionTransfer(PAIRS, variant=variant),
        {"a": (64, 32, 32)},
        {"b": (128, 32, 32)},
        lambda s, t, labels, loss, variant=variant: plain_distance(s["a"], t["b"], variant),
    )
    for variant in ("official", "paper")
}


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_gradient_is_finite_at_equality_and_for_a_dead_map(variant: Literal["paper", "official"]) -> None:
    """‖x‖ at 0 has no derivative: written as a square root it gives NaN."""
    numbers = CASES["official, same"].draw()
    numbers.teacher["b"][0] = numbers.student["a"][0]
    numbers.student["a"][1] = 0
    loss = AttentionTransfer(PAIRS, variant=variant)
    student = signals_of(numbers.student, torch.float32, grad=True)
    loss(student, signals_of(numbers.teacher, torch.float32), batch_of(numbers)).sum().backward()
    gradient = student.features["a"].grad
    assert torch.isfinite(gradient).all()
    assert gradient[:2].abs().max() < 1e-3


def test_maps_of_different_size_are_refused_unless_the_recipe_says_how() -> None:
    case = Case(lambda: AttentionTransfer(PAIRS), {"a": (2, 2, 2)}, {"b": (2, 4, 4)}, golden("official"))
    with pytest.raises(SignalError, match="set `resize`"):
        prepared(case, case.draw())


def test_tokens_are_refused_by_the_names_of_both_layers() -> None:
    case = Case(lambda: AttentionTransfer(PAIRS), {"a": (3, 2)}, {"b": (3, 2)}, golden("official"))
    with pytest.raises(SignalError, match=r"`a`[\s\S]*`b`[\s\S]*HiddenState"):
        prepared(case, case.draw())
