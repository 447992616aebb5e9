from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loss_case import Array, Case, Numbers, Plain, prepared

from tutelage.errors import SignalError
from tutelage.losses.pairwise_similarity import PairwiseSimilarity, pairwise_similarity


def cosine(x: Array, y: Array) -> float:
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))


def golden(n: Numbers) -> Array:
    s, t, B = n.student["output"], n.teacher["output"], len(n.weights)
    return np.array(
        [sum((cosine(s[i], s[j]) - cosine(t[i], t[j])) ** 2 for j in range(B) if j != i) / (B - 1) for i in range(B)]
    )


CASES = {
    "narrow": Case(PairwiseSimilarity, {"output": (3,)}, {"output": (6,)}, golden),
    "same width": Case(PairwiseSimilarity, {"output": (4,)}, {"output": (4,)}, golden, floor=0.0),
}


def cosines(x: torch.Tensor) -> torch.Tensor:
    unit = F.normalize(x)
    return unit @ unit.T


PLAIN = {
    "narrow": Plain(
        PairwiseSimilarity,
        {"output": (384,)},
        {"output": (768,)},
        # On the diagonal both cosines are 1.
        lambda s, t, labels, loss: F.mse_loss(cosines(s["output"]), cosines(t["output"])) * 512 / 511,
        samples=512,
    ),
}


def test_a_rotated_teacher_is_perfect() -> None:
    t = torch.randn(5, 4, dtype=torch.float64)
    rotation, _ = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))
    assert pairwise_similarity(t @ rotation, t).max() < 1e-28


def test_a_batch_of_one_is_refused() -> None:
    case = Case(PairwiseSimilarity, {"output": (3,)}, {"output": (6,)}, golden, samples=2)
    numbers = case.draw()
    one = Numbers({"output": numbers.student["output"][:1]}, {"output": numbers.teacher["output"][:1]}, np.ones(1))
    with pytest.raises(SignalError, match="batch size"):
        prepared(case, one)
