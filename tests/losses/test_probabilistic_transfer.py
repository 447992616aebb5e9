from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loss_case import Array, Case, Numbers, Plain, prepared

from tutelage.errors import SignalError
from tutelage.losses.probabilistic_transfer import ProbabilisticTransfer, probabilistic_transfer

PAIRS = {"a": "b"}


def rows(x: Array, mask: Array | None) -> Array:
    return (x if mask is None else x * mask[..., None]).reshape(len(x), -1)


def kernel(x: Array, y: Array) -> float:
    return 0.5 * (x @ y / np.sqrt((x @ x) * (y @ y)) + 1)


def conditional(x: Array, *, itself: bool) -> Array:
    B = len(x)
    K = np.array([[kernel(x[i], x[j]) if itself or i != j else 0.0 for j in range(B)] for i in range(B)])
    return K / K.sum(1, keepdims=True)


def paper(n: Numbers) -> Array:
    p, q = (conditional(rows(x, n.mask), itself=False) for x in (n.teacher["b"], n.student["a"]))
    B = len(p)
    return np.array([sum(p[i, j] * np.log(p[i, j] / q[i, j]) for j in range(B) if j != i) for i in range(B)])


def official(n: Numbers) -> Array:
    p, q = (conditional(rows(x, n.mask), itself=True) for x in (n.teacher["b"], n.student["a"]))
    return (p * np.log((p + 1e-7) / (q + 1e-7))).mean(1)


CASES = {
    "maps": Case(lambda: ProbabilisticTransfer(PAIRS), {"a": (2, 2, 2)}, {"b": (3, 1, 3)}, paper),
    "vectors": Case(lambda: ProbabilisticTransfer(PAIRS), {"a": (4,)}, {"b": (4,)}, paper, floor=0.0),
    "tokens": Case(lambda: ProbabilisticTransfer(PAIRS), {"a": (3, 2)}, {"b": (3, 4)}, paper, tokens=3),
    "official": Case(lambda: ProbabilisticTransfer(PAIRS, variant="official"), {"a": (4,)}, {"b": (4,)}, official),
    "official, maps": Case(
        lambda: ProbabilisticTransfer(PAIRS, variant="official"), {"a": (2, 2, 2)}, {"b": (3, 1, 3)}, official
    ),
}


def plain_official(s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    s, t = F.normalize(s, dim=1), F.normalize(t, dim=1)
    s, t = (s @ s.T + 1) / 2, (t @ t.T + 1) / 2
    s, t = s / s.sum(1, keepdim=True), t / t.sum(1, keepdim=True)
    return (t * torch.log((t + 1e-7) / (s + 1e-7))).mean()


def plain_paper(s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    apart = ~torch.eye(len(s), dtype=torch.bool)
    s, t = F.normalize(s, dim=1), F.normalize(t, dim=1)
    s, t = ((((x @ x.T + 1) / 2)[apart]).view(len(s), -1) for x in (s, t))
    s, t = s / s.sum(1, keepdim=True), t / t.sum(1, keepdim=True)
    return (t * torch.log(t / s)).sum(1).mean()


PLAIN = {
    "paper": Plain(
        lambda: ProbabilisticTransfer(PAIRS),
        {"a": (512,)},
        {"b": (2048,)},
        lambda s, t, labels, loss: plain_paper(s["a"], t["b"]),
        samples=256,
    ),
    "official": Plain(
        lambda: ProbabilisticTransfer(PAIRS, variant="official"),
        {"a": (512,)},
        {"b": (2048,)},
        lambda s, t, labels, loss: plain_official(s["a"], t["b"]),
        samples=256,
    ),
}


def test_the_teacher_is_the_first_argument_of_the_divergence() -> None:
    """A known copy has student and teacher exchanged."""
    s, t = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    numbers = Numbers({"a": s.numpy()}, {"b": t.numpy()}, np.ones(4))
    found = probabilistic_transfer(s, t, "paper").numpy()
    np.testing.assert_allclose(found, paper(numbers))
    assert not np.allclose(found, probabilistic_transfer(t, s, "paper").numpy())


def test_opposite_samples_give_a_finite_loss_and_gradient() -> None:
    """Their affinity is 0: the student's logarithm would not exist."""
    s = torch.tensor([[1.0], [-1.0], [2.0], [-3.0]], requires_grad=True)
    values = probabilistic_transfer(s, torch.randn(4, 3), "paper")
    values.sum().backward()
    assert torch.isfinite(values).all()
    assert torch.isfinite(s.grad).all()


def test_a_sample_without_activation_gets_no_huge_gradient() -> None:
    s = torch.randn(4, 8)
    s[1] = 0
    s.requires_grad_()
    probabilistic_transfer(s, torch.randn(4, 8), "paper").sum().backward()
    assert s.grad.abs().max() < 10


def test_a_batch_of_one_is_refused() -> None:
    case = CASES["vectors"]
    numbers = case.draw()
    one = Numbers({"a": numbers.student["a"][:1]}, {"b": numbers.teacher["b"][:1]}, np.ones(1))
    with pytest.raises(SignalError, match="batch size"):
        prepared(case, one)


def test_an_unknown_variant_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match="must be one of"):
        ProbabilisticTransfer(PAIRS, variant="offical")
