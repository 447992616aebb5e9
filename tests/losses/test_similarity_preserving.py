from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from loss_case import Array, Case, Numbers, Plain

from tutelage.losses.similarity_preserving import SimilarityPreserving, similarity_preserving

PAIRS = {"a": "b"}


def normalised(q: Array, mask: Array | None) -> Array:
    q = q if mask is None else q * mask[..., None]
    B = len(q)
    g = np.array([[(q[i] * q[j]).sum() for j in range(B)] for i in range(B)])
    return np.array([row / np.sqrt((row**2).sum()) for row in g])


def golden(n: Numbers) -> Array:
    return ((normalised(n.teacher["b"], n.mask) - normalised(n.student["a"], n.mask)) ** 2).sum(1) / len(n.weights)


CASES = {
    "maps": Case(lambda: SimilarityPreserving(PAIRS), {"a": (2, 2, 2)}, {"b": (3, 4, 4)}, golden),
    "tokens": Case(lambda: SimilarityPreserving(PAIRS), {"a": (3, 2)}, {"b": (3, 4)}, golden, tokens=3),
    "vectors": Case(lambda: SimilarityPreserving(PAIRS), {"a": (4,)}, {"b": (4,)}, golden, floor=0.0),
}


def plain_similarity(features: torch.Tensor) -> torch.Tensor:
    flat = features.flatten(1)
    return F.normalize(flat @ flat.T)


def without_padding(tokens: torch.Tensor) -> torch.Tensor:
    """The mask that a script has for its tokens; here none is padding."""
    return tokens * tokens.new_ones(tokens.shape[:2])[..., None]


PLAIN = {
    "maps": Plain(
        lambda: SimilarityPreserving(PAIRS),
        {"a": (128, 8, 8)},
        {"b": (256, 8, 8)},
        lambda s, t, labels, loss: F.mse_loss(plain_similarity(s["a"]), plain_similarity(t["b"])),
        samples=128,
    ),
    "tokens": Plain(
        lambda: SimilarityPreserving(PAIRS),
        {"a": (128, 312)},
        {"b": (128, 768)},
        lambda s, t, labels, loss: F.mse_loss(
            plain_similarity(without_padding(s["a"])), plain_similarity(without_padding(t["b"]))
        ),
        tokens=128,
        samples=32,
    ),
}


def test_rows_are_normalised_by_l2_not_l1() -> None:
    s, t = torch.eye(2), torch.ones(2, 2)
    expected = torch.full((2,), ((1 - 0.5**0.5) ** 2 + 0.5) / 2)
    torch.testing.assert_close(similarity_preserving(s, t), expected)


def test_a_sample_without_activation_gets_no_huge_gradient() -> None:
    s = torch.randn(4, 8)
    s[1] = 0
    s.requires_grad_()
    similarity_preserving(s, torch.randn(4, 8)).sum().backward()
    assert s.grad.abs().max() < 10
