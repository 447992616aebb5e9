from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from loss_case import Array, Case, Numbers, Plain, prepared

from tutelage.errors import SignalError
from tutelage.losses.margin_mse import MarginMSE, margin_mse


def golden(n: Numbers) -> Array:
    s, t = n.student["output"], n.teacher["output"]
    K = s.shape[1]
    return sum(((s[:, 0] - s[:, k]) - (t[:, 0] - t[:, k])) ** 2 for k in range(1, K)) / (K - 1)


CASES = {
    "one negative": Case(MarginMSE, {"output": (2,)}, {"output": (2,)}, golden, floor=0.0),
    "several": Case(MarginMSE, {"output": (5,)}, {"output": (5,)}, golden, floor=0.0),
}

PLAIN = {
    "candidates": Plain(
        MarginMSE,
        {"output": (256,)},
        {"output": (256,)},
        lambda s, t, labels, loss: F.mse_loss(
            s["output"][:, :1] - s["output"][:, 1:], t["output"][:, :1] - t["output"][:, 1:]
        ),
        samples=8192,
    )
}


def test_scores_that_differ_by_a_constant_are_the_same() -> None:
    """The squared error of the scores themselves would ask a dot product to become a cross-encoder's logit."""
    t = torch.randn(3, 4, dtype=torch.float64)
    assert margin_mse(t + 11, t).max() < 1e-28


def test_the_mean_is_over_the_negatives_not_over_all_candidates() -> None:
    assert margin_mse(torch.tensor([[1.0, 0.0, 0.0]]), torch.zeros(1, 3)).item() == 1.0


def test_agrees_with_sentence_transformers() -> None:
    from sentence_transformers.sentence_transformer import losses

    query, positive, *negatives = torch.randn(5, 4, 6, dtype=torch.float64)
    s = torch.stack([(query * other).sum(1) for other in (positive, *negatives)], dim=1)
    t = torch.randn(4, 4, dtype=torch.float64)
    expected = losses.MarginMSELoss(model=None).compute_loss_from_embeddings([query, positive, *negatives], t)
    torch.testing.assert_close(margin_mse(s, t).mean(), expected)


@pytest.mark.parametrize("shape", [(1,), (), (3, 4)])
def test_outputs_without_a_margin_are_refused(shape: tuple[int, ...]) -> None:
    case = Case(MarginMSE, {"output": shape}, {"output": shape}, golden)
    with pytest.raises(SignalError, match="first the positive"):
        prepared(case, case.draw())


def test_another_number_of_candidates_is_refused_with_both_shapes() -> None:
    case = Case(MarginMSE, {"output": (3,)}, {"output": (4,)}, golden)
    with pytest.raises(SignalError, match=r"\(4, 4\)[\s\S]*\(4, 3\)"):
        prepared(case, case.draw())
