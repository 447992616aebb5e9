from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loss_case import Array, Case, Numbers, Plain, prepared

from tutelage.errors import SignalError
from tutelage.losses.relational import (
    RelationalAngle,
    RelationalDistance,
    cosines,
    distances,
    relational_angle,
    relational_distance,
)

PAIRS = {"a": "b"}


def rows(x: Array, mask: Array | None) -> Array:
    return (x if mask is None else x * mask[..., None]).reshape(len(x), -1)


def huber(x: float) -> float:
    return 0.5 * x * x if abs(x) <= 1 else abs(x) - 0.5


def psi_distance(x: Array) -> Array:
    d = np.array([[np.sqrt(((a - b) ** 2).sum()) for b in x] for a in x])
    i, j = np.nonzero(~np.eye(len(x), dtype=bool))  # the pairs of two samples, coinciding ones too
    return d / d[i, j].mean()


def psi_angle(x: Array) -> Array:
    """[j, i, k]: the angle at j."""

    def direction(a: Array, b: Array) -> Array:
        length = np.sqrt(((a - b) ** 2).sum())
        return (a - b) / length if length > 0 else np.zeros_like(a)

    return np.array([[[direction(a, j) @ direction(b, j) for b in x] for a in x] for j in x])


def golden(psi, n: Numbers, pair: tuple[str, str] = ("a", "b")) -> Array:
    s, t = psi(rows(n.student[pair[0]], n.mask)), psi(rows(n.teacher[pair[1]], n.mask))
    return np.vectorize(huber)(s - t).reshape(len(s), -1).mean(1)


def distance(n: Numbers) -> Array:
    return golden(psi_distance, n)


def angle(n: Numbers) -> Array:
    return golden(psi_angle, n)


TWO = {"a": "b", "c": "d"}
CASES = {
    "distance, maps": Case(lambda: RelationalDistance(PAIRS), {"a": (2, 2, 2)}, {"b": (3, 3, 1)}, distance),
    "distance, tokens": Case(lambda: RelationalDistance(PAIRS), {"a": (3, 2)}, {"b": (3, 4)}, distance, tokens=3),
    "distance, vectors": Case(lambda: RelationalDistance(PAIRS), {"a": (4,)}, {"b": (4,)}, distance, floor=0.0),
    "distance, two pairs": Case(
        lambda: RelationalDistance(TWO),
        {"a": (4,), "c": (2,)},
        {"b": (3,), "d": (5,)},
        lambda n: (distance(n) + golden(psi_distance, n, ("c", "d"))) / 2,
    ),
    "angle, maps": Case(lambda: RelationalAngle(PAIRS), {"a": (2, 2, 2)}, {"b": (3, 3, 1)}, angle),
    "angle, tokens": Case(lambda: RelationalAngle(PAIRS), {"a": (3, 2)}, {"b": (3, 4)}, angle, tokens=3),
    "angle, vectors": Case(lambda: RelationalAngle(PAIRS), {"a": (4,)}, {"b": (4,)}, angle, floor=0.0),
}


def plain_distances(x: torch.Tensor) -> torch.Tensor:
    d = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    return d / (d.sum() / (len(d) * (len(d) - 1)))


def plain_cosines(x: torch.Tensor) -> torch.Tensor:
    directions = F.normalize(x.unsqueeze(0) - x.unsqueeze(1), dim=2)
    return torch.bmm(directions, directions.transpose(1, 2))


PLAIN = {
    "distance": Plain(
        lambda: RelationalDistance(PAIRS),
        {"a": (512,)},
        {"b": (2048,)},
        lambda s, t, labels, loss: F.smooth_l1_loss(plain_distances(s["a"]), plain_distances(t["b"])),
    ),
    "angle": Plain(
        lambda: RelationalAngle(PAIRS),
        {"a": (512,)},
        {"b": (2048,)},
        lambda s, t, labels, loss: F.smooth_l1_loss(plain_cosines(s["a"]), plain_cosines(t["b"])),
    ),
}


@pytest.mark.parametrize(("relation", "psi"), [(relational_distance, psi_distance), (relational_angle, psi_angle)])
def test_features_far_from_the_origin_are_not_cancelled(relation, psi) -> None:
    """Distances from dot products of these, in float32, are wrong by some percent."""
    rng = np.random.default_rng(0)
    s, t = (torch.tensor(100 + rng.normal(size=(5, 8)), dtype=torch.float32) for _ in range(2))
    difference = psi(s.double().numpy()) - psi(t.double().numpy())
    expected = np.vectorize(huber)(difference).reshape(5, -1).mean(1)
    np.testing.assert_allclose(relation(s, t).numpy(), expected, rtol=1e-4)


@pytest.mark.parametrize("relation", [relational_distance, relational_angle])
def test_a_batch_of_copies_gives_neither_nan_nor_a_huge_gradient(relation) -> None:
    """There is no positive distance to divide by, and the root has no derivative at 0."""
    s = torch.ones(4, 8, requires_grad=True)
    values = relation(s, torch.randn(4, 8))
    values.sum().backward()
    assert torch.isfinite(values).all()
    assert s.grad.abs().max() < 10


@pytest.mark.parametrize("relation", [relational_distance, relational_angle])
def test_two_copies_in_a_batch_give_a_finite_gradient(relation) -> None:
    s = torch.randn(4, 8)
    s[1] = s[0]
    s.requires_grad_()
    relation(s, torch.randn(4, 8)).sum().backward()
    assert s.grad.abs().max() < 10


def authors(x: torch.Tensor) -> torch.Tensor:
    """Distances relative to their mean by way of the authors' clamp: of a pair that coincides √1e-12, which is kept."""
    squares = (x * x).sum(1)
    d = (squares[:, None] + squares[None] - 2 * x @ x.T).clamp(min=1e-12).sqrt()
    d = d.masked_fill(torch.eye(len(x), dtype=torch.bool), 0)
    return d / d[d > 0].mean()


def test_two_copies_are_a_part_of_the_mean_distance() -> None:
    """Without the pair at distance 0 the mean would be larger, and the scale another one: 0.089 in place of 0.143."""
    x = torch.tensor([[0.0], [0.0], [1.0], [2.0]], dtype=torch.float64)
    y = torch.tensor([[0.0], [1.0], [3.0], [4.0]], dtype=torch.float64)
    value = relational_distance(x, y).mean().item()
    by_formula = np.vectorize(huber)(psi_distance(x.numpy()) - psi_distance(y.numpy())).mean()
    assert value == pytest.approx(by_formula, rel=1e-12)
    assert value == pytest.approx(F.smooth_l1_loss(authors(x), authors(y)).item(), abs=1e-5)
    # By hand: of 12 ordered pairs the distances sum to 14 and 28, the means are 7/6 and 7/3.
    pairs = [(0, 1), (1, 3), (2, 4), (1, 2), (2, 3), (1, 1)]
    assert value == pytest.approx(2 * sum(huber(a * 6 / 7 - b * 3 / 7) for a, b in pairs) / 16, rel=1e-12)


@pytest.mark.parametrize("relation", [relational_distance, relational_angle])
def test_neither_scale_nor_rotation_of_the_teacher_matters(relation) -> None:
    t = torch.randn(5, 4, dtype=torch.float64)
    rotation, _ = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))
    assert relation(3 + 7 * t @ rotation, t).max() < 1e-24


@pytest.mark.parametrize("gap", [1e-2, 1e-3])
def test_angles_at_near_copies_are_those_of_the_directions(gap: float) -> None:
    x = torch.randn(6, 16)
    x[1] = x[0] + gap * torch.randn(16)
    y = torch.randn(6, 16)
    difference = psi_angle(x.double().numpy()) - psi_angle(y.double().numpy())
    expected = np.vectorize(huber)(difference).reshape(6, -1).mean(1)
    np.testing.assert_allclose(relational_angle(x, y).numpy(), expected, rtol=1e-2)


def test_no_cosine_exceeds_1_where_copies_differ_by_rounding() -> None:
    x = torch.randn(6, 16, generator=torch.Generator().manual_seed(0))
    x[1] = x[0] * (1 + 1e-6)
    assert cosines(distances(x)).abs().max() <= 1


@pytest.mark.parametrize("kind", [RelationalDistance, RelationalAngle])
def test_a_batch_of_one_is_refused(kind) -> None:
    case = Case(lambda: kind(PAIRS), {"a": (3,)}, {"b": (3,)}, distance, samples=2)
    numbers = case.draw()
    one = Numbers({"a": numbers.student["a"][:1]}, {"b": numbers.teacher["b"][:1]}, np.ones(1))
    with pytest.raises(SignalError, match="batch size"):
        prepared(case, one)
