from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loss_case import Array, Case, Numbers, Plain, prepared
from scipy.special import log_softmax

from tutelage.errors import SignalError
from tutelage.losses.similarity_distribution import SimilarityDistribution, others, similarity_distribution


def log_p(x: Array, temperature: float, *, cosine: bool) -> Array:
    if cosine:
        x = x / np.sqrt((x**2).sum(1, keepdims=True))
    B = len(x)
    return np.array([log_softmax([x[i] @ x[j] / temperature for j in range(B) if j != i]) for i in range(B)])


def golden(n: Numbers, student: float, teacher: float, *, cosine: bool = True) -> Array:
    q = log_p(n.student["output"], student, cosine=cosine)
    p = log_p(n.teacher["output"], teacher, cosine=cosine)
    return (np.exp(p) * (p - q)).sum(1)


CASES = {
    "cosine": Case(
        SimilarityDistribution, {"output": (4,)}, {"output": (4,)}, lambda n: golden(n, 0.1, 0.1), floor=0.0
    ),
    "narrow": Case(
        lambda: SimilarityDistribution(0.2, teacher_temperature=0.05),
        {"output": (3,)},
        {"output": (6,)},
        lambda n: golden(n, 0.2, 0.05),
    ),
    "dot": Case(
        lambda: SimilarityDistribution(2.0, similarity="dot"),
        {"output": (4,)},
        {"output": (5,)},
        lambda n: golden(n, 2.0, 2.0, cosine=False),
    ),
}


def plain_logits(x: torch.Tensor) -> torch.Tensor:
    unit = F.normalize(x, dim=1)
    itself = torch.eye(len(x), dtype=torch.bool)
    return (unit @ unit.T / 0.1)[~itself].view(len(x), -1)


PLAIN = {
    "cosine": Plain(
        SimilarityDistribution,
        {"output": (384,)},
        {"output": (1024,)},
        lambda s, t, labels, loss: F.kl_div(
            plain_logits(s["output"]).log_softmax(1),
            plain_logits(t["output"]).log_softmax(1),
            reduction="batchmean",
            log_target=True,
        ),
        samples=512,
    )
}


def test_a_sample_is_no_candidate_of_its_own() -> None:
    """With itself among the candidates, nearly all of the distribution would fall on it."""
    matrix = torch.arange(16).view(4, 4)
    assert others(matrix).tolist() == [[1, 2, 3], [4, 6, 7], [8, 9, 11], [12, 13, 14]]


def test_a_low_temperature_does_not_shrink_the_loss() -> None:
    """Multiplied by T², as for T above 1, the gradient at the temperatures of cosines would all but vanish."""
    s, t = (F.normalize(x, dim=1) for x in torch.randn(2, 8, 16, dtype=torch.float64))
    s.requires_grad_()
    sizes = [
        torch.autograd.grad(similarity_distribution(s, t, temperature, temperature).sum(), s)[0].norm()
        for temperature in (1.0, 0.1)
    ]
    assert sizes[1] > 5 * sizes[0]


def test_agrees_with_sentence_transformers_up_to_the_square_of_the_temperature() -> None:
    """Its loss on the same candidates, for one query, with labels that are the teacher's dot products."""
    from sentence_transformers.sentence_transformer import losses

    s, t = torch.randn(2, 4, 6, dtype=torch.float64)
    theirs = losses.DistillKLDivLoss(model=None, temperature=0.5)
    expected = theirs.compute_loss_from_embeddings([s[i : i + 1] for i in range(4)], t[:1] @ t[1:].T)
    torch.testing.assert_close(similarity_distribution(s, t, 0.5, 0.5)[0] * 0.5**2, expected)


def test_a_batch_of_one_is_refused() -> None:
    case = CASES["cosine"]
    numbers = case.draw()
    one = Numbers({"output": numbers.student["output"][:1]}, {"output": numbers.teacher["output"][:1]}, np.ones(1))
    with pytest.raises(SignalError, match="batch size"):
        prepared(case, one)


def test_an_embedding_without_direction_is_refused() -> None:
    numbers = CASES["cosine"].draw()
    numbers.student["output"][1] = 0
    with pytest.raises(SignalError, match="direction"):
        prepared(CASES["cosine"], numbers)


def test_maps_are_refused() -> None:
    case = Case(SimilarityDistribution, {"output": (4, 2)}, {"output": (4, 2)}, golden)
    with pytest.raises(SignalError, match="one embedding a sample"):
        prepared(case, case.draw())


@pytest.mark.parametrize(
    "arguments", [{"temperature": 0.0}, {"teacher_temperature": -1.0}, {"temperature": float("nan")}]
)
def test_impossible_temperatures_are_refused(arguments) -> None:
    with pytest.raises(ValueError, match="temperature must be positive"):
        SimilarityDistribution(**arguments)


def test_an_unknown_similarity_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match="must be one of"):
        SimilarityDistribution(similarity="cos")
